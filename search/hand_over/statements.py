"""What is known of the published data sets, for the model card: whose films, whose labels, how wrong."""

from pathlib import Path
from typing import NamedTuple


class Statement(NamedTuple):
    """films: whose they are, and how they were made. labels: who gave them, and how far they can be trusted."""

    films: str
    labels: str


_NIH = Statement(
    "Frontal chest radiographs of ChestX-ray14, of adults and children, taken at the NIH Clinical Center, USA (Wang et "
    "al. 2017, arXiv:1705.02315); published as PNG of 8 bits, 1024 px, so windows and depth of the originals are lost. "
    "The official test split is a shifted one: more AP films and more films of a patient than training.",
    "Labels were mined from radiology reports by a program; nobody looked at the films for them. The authors expect "
    "more than 90 % of them to be right; a radiologist who looked found far less agreement for several findings "
    "(Oakden-Rayner 2020, Acad. Radiol. 27:106). No Finding means that the program found none of the 14.",
)
_KERMANY = Statement(
    "Anterior-posterior chest radiographs of children of one to five years of the Guangzhou Women and Children's "
    "Medical Center, China (Kermany et al. 2018, Cell 172:1122). Adults are another population.",
    "Films were graded by two physicians, the evaluation set by a third one as well. Healthy and sick are told apart; "
    "a film of another disease has no right answer here.",
)
_STATEMENTS: dict[str, Statement] = {
    "nih": _NIH,
    "kermany": _KERMANY,
    "chexpert": Statement(
        "Chest radiographs of Stanford Hospital, USA, 2002 to 2017, frontal and lateral (Irvin et al. 2019, "
        "arXiv:1901.07031).",
        "Training labels were mined from radiology reports by the CheXpert labeler, which also says where a report is "
        "uncertain; what such a label counts as is a choice of the study. Labels of the small official validation set "
        "are those of three radiologists.",
    ),
    "phantom": Statement(
        "Synthetic films, drawn by a program for trying things out. No figure on this card means anything clinically.",
        "The program that drew a film says what is on it, but for about 3 % labels that are wrong on purpose.",
    ),
    "csv": Statement(
        "Films of a manifest of the user's own; nothing is known of them here.",
        "How these labels were made is not known here: say it before this network is passed on.",
    ),
}
_MEDMNIST = {
    "pneumoniamnist": Statement(
        "PneumoniaMNIST (Yang et al. 2023, Sci. Data 10:41): centre crops of the films of Kermany et al., made small. "
        + _KERMANY.films,
        _KERMANY.labels,
    ),
    "chestmnist": Statement(
        "ChestMNIST (Yang et al. 2023, Sci. Data 10:41): ChestX-ray14, made small, with a split of its own that is not "
        "the official one. " + _NIH.films,
        _NIH.labels,
    ),
}


def statement(data: str, labels: tuple[str, ...]) -> Statement:
    """Of a data set by its name, `KIND:PATH`; labels: those of the task."""
    kind, _, path = data.partition(":")
    if kind == "medmnist":
        # A file that was renamed is known by its only label.
        name = Path(path).name.lower()
        known = next((key for key in _MEDMNIST if name.startswith(key)), None)
        return _MEDMNIST[known or ("pneumoniamnist" if labels == ("Pneumonia",) else "chestmnist")]
    return _STATEMENTS[kind]

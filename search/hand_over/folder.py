"""The folder `model` of a study: what is handed over after its finals, made once and kept while nothing changes."""

import hashlib
import json
import logging
import os
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.study import Study

log = logging.getLogger(__name__)

FOLDER = "model"
CHECKPOINT, CARD, MLFLOW, KNOWN = "model.pt", "model_card.md", "mlflow", "hand_over.json"
ONNX, TORCH = "model.onnx", "model.pt2"
COMPILED = shutil.ignore_patterns("__pycache__")
_FORMAT = 1
"""Of what lies in the folder; another one is made anew."""
_FILMS = 64
"""Validation films on which an exported network is compared; a few seconds on a slow processor."""


@dataclass(frozen=True)
class HandedOver:
    """What a study hands over. known: `hand_over.json`."""

    folder: Path
    known: dict[str, Any]

    @property
    def lines(self) -> list[str]:
        """Where it is and how it is used, for the terminal."""
        folder = shlex.quote(str(self.folder))
        lines = [f"model    {self.folder}: trial {self.known['trial']}, {', '.join(self.known['files'])}"]
        if agreement := self.known["agreement"]:
            lines.append(
                f"         {agreement['file']} differs by {agreement['largest']:.1e} at most from the network, on "
                f"{agreement['films']} validation films"
            )
        lines += [f"         no {name}: {why}" for name, why in self.known["not_written"].items()]
        lines.append(f"serve    mlflow models serve -m {folder}/{MLFLOW} --env-manager local --port 5001")
        return lines


def handed_over(study: Path) -> HandedOver | None:
    """What a study's folder has to hand over; None if that was not made yet."""
    path = study / FOLDER / KNOWN
    return HandedOver(path.parent, json.loads(path.read_text("utf-8"))) if path.exists() else None


def hand_over(study: Study, record: Mapping[str, Any]) -> HandedOver:
    """Make what there is to hand over of the finals' record, unless it is there. Raises CheckpointError, OSError.

    The folder is put in its place as a whole. A network that cannot be written for other runtimes is handed over
    without that, and the reason is kept.
    """
    before = handed_over(study.folder)
    wanted = _fingerprint(study.folder, record)
    if before and before.known["fingerprint"] == wanted and not _lacks(before):
        return before
    partial = study.folder / f".{FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if before and before.known["trial"] == record["delivered"] and not _lacks(before):
        # The same network: only what is told of it has changed.
        shutil.copytree(before.folder, partial, copy_function=os.link, ignore=COMPILED)
        network = {key: before.known[key] for key in ("sha256", "agreement", "not_written", "retry")}
    else:
        log.info("making %s, what is handed over of trial %d", study.folder / FOLDER, record["delivered"])
        partial.mkdir()
        network = _write_network(study, record["delivered"], partial)
    known = {
        "format": _FORMAT,
        "fingerprint": wanted,
        "made": time.time(),
        "trial": record["delivered"],
        "finalist": record["winner"],
        **network,
    }
    _write_card(study, record, partial, known)
    files = sorted(path.name for path in partial.iterdir() if path.name != KNOWN)
    _replace(partial / KNOWN, json.dumps({**known, "files": files}, indent=1) + "\n")
    _put_in_place(partial, study.folder / FOLDER)
    made = handed_over(study.folder)
    assert made
    return made


def _fingerprint(folder: Path, record: Mapping[str, Any]) -> str:
    """Changes with everything that the folder is made of."""
    evidence = folder / "evidence.json"
    told = {key: value for key, value in record.items() if key != "study"}
    content = [_FORMAT, told, evidence.read_text("utf-8") if evidence.exists() else None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _lacks(made: HandedOver) -> bool:
    """Whether something is missing that could be made."""
    known = made.known
    needed = (*known["files"], f"{MLFLOW}/MLmodel")
    return known["format"] != _FORMAT or known["retry"] or not all((made.folder / name).exists() for name in needed)


def _write_network(study: Study, trial: int, folder: Path) -> dict[str, Any]:
    """The checkpoint, what other runtimes take, and MLflow's model; returns what is known of them."""
    from cxr_core.checkpoint import load_checkpoint
    from search.hand_over.mlflow_model import save_mlflow_model

    shutil.copyfile(study.folder / study.trial(trial).epochs[-1].checkpoint, folder / CHECKPOINT)
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    known = _export(study, folder)
    save_mlflow_model(checkpoint, folder / MLFLOW)
    return {"sha256": hashlib.sha256((folder / CHECKPOINT).read_bytes()).hexdigest(), **known}


def _export(study: Study, folder: Path) -> dict[str, Any]:
    """ONNX, or where that fails a program of torch.export; which agrees how well, and which failed why.

    retry: whether it may be made another time, as it is for want of films.
    """
    from dataclasses import asdict

    from cxr_core.checkpoint import load_checkpoint
    from cxr_core.data import DataError
    from cxr_core.runtimes import ExportError, export
    from search.preflight import PreflightError

    known: dict[str, Any] = {"agreement": None, "not_written": {}, "retry": False}
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    try:
        films = _validation_films(study)
    except (PreflightError, DataError) as fault:
        log.warning("no %s, as there are no films to compare it on: %s", ONNX, fault)
        why = f"the films on which it would be compared with the network cannot be read: {fault}"
        return {**known, "not_written": {ONNX: why}, "retry": True}
    for name in (ONNX, TORCH):
        try:
            agreement = export(checkpoint, folder / name, films)
        except ExportError as fault:
            log.warning("no %s: %s", name, fault)
            known["not_written"][name] = str(fault).replace(f"{folder}/", "")
            continue
        known["agreement"] = {"file": name, **asdict(agreement)}
        break
    return known


def _validation_films(study: Study) -> Any:
    """Some of the study's validation films, (N, S, S) uint8. Raises PreflightError or DataError."""
    import numpy as np

    from cxr_core.data import Films
    from search.films import read_again
    from search.space import load_space

    prepared = read_again(study, load_space(study.folder / "space.yaml"))
    table = prepared.films[prepared.films["split"] == "val"]
    films = Films.open(prepared.cache, table, prepared.task.labels)
    return films.pixels(np.unique(np.linspace(0, len(films) - 1, min(_FILMS, len(films))).astype(int)))


def _write_card(study: Study, record: Mapping[str, Any], folder: Path, known: Mapping[str, Any]) -> None:
    from search.hand_over.card import model_card

    text = model_card(study, record, folder / CHECKPOINT, known)
    for place in (folder, folder / MLFLOW):
        _replace(place / CARD, text)


def _replace(path: Path, text: str) -> None:
    """Write a file anew: it may be linked to one that is in use."""
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")


def _put_in_place(new: Path, place: Path) -> None:
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)

"""Pictures of single films with what a network called on them: heat maps over the film as it was given."""

import hashlib
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from cxr_core.data.film_files import read_film
from cxr_core.explanation.drawing import INK, SOFT, cut, draw_film, draw_heat, save, small
from cxr_core.explanation.grad_cam import GradCam
from cxr_core.predict import Finding, Prediction, Predictor

_COLUMNS = 3
_SIDE = 3.6
"""Inches of a film's longer side."""
_LEGEND = (
    "Grad-CAM: red speaks most for the finding, by the scale of each picture; what has no colour does not speak for "
    "it. Research only, not for clinical use."
)


class OverlayError(Exception):
    """Pictures cannot go where they should; the message says why and what to do."""


class Overlays:
    """Writes a picture a film: the film, then each called finding's heat map over it."""

    def __init__(self, folder: Path, predictor: Predictor):
        """Raises NoFeatureMap if the network keeps no places, OverlayError if the folder cannot be made."""
        self.folder, self.predictor = folder, predictor
        blank = np.random.default_rng(0).integers(0, 256, (2, predictor.image_size, predictor.image_size), np.uint8)
        config = predictor.checkpoint.config
        self._cam = GradCam(predictor.model, self._given(blank), mirror=config.mirrors, crop=config.centre_crop)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise OverlayError(f"--overlay {folder}: cannot be made ({fault.strerror}); name another folder") from None

    def path(self, image: str) -> Path:
        """Where the picture of a film goes: its name and a hash of its path, as folders share names."""
        place = hashlib.sha256(os.path.abspath(image).encode("utf-8", "surrogateescape")).hexdigest()[:10]
        stem = Path(image).name.encode("utf-8", "replace").decode()[:100]
        return self.folder / f"{stem}.{place}.png"

    def refuse_existing(self, images: Sequence[str]) -> None:
        """Raise OverlayError if a picture would replace one that is there."""
        there = [path for path in map(self.path, images) if path.exists()]
        if there:
            more = f" and {len(there) - 1:,} more" if len(there) > 1 else ""
            raise OverlayError(
                f"{there[0]}{more}: there already; nothing is overwritten. Name another folder with --overlay, or "
                "delete what is there"
            )

    def write(self, prediction: Prediction) -> Path:
        """Draw a film. Raises OverlayError if the film has gone, or the picture cannot be written."""
        path = self.path(prediction.image)
        try:
            self._draw(prediction, read_film(prediction.image, strict=True), path)
        except (OSError, ValueError) as fault:
            why = getattr(fault, "strerror", None) or fault
            raise OverlayError(f"{path}: the picture of {prediction.image} cannot be written ({why})") from None
        return path

    def _given(self, squares: np.ndarray) -> torch.Tensor:
        films = torch.from_numpy(squares)[:, None].to(self.predictor.device).float().div_(255)
        return self.predictor.normalise(films)

    def _draw(self, prediction: Prediction, film: np.ndarray, path: Path) -> None:
        predictor, findings = self.predictor, prediction.findings
        called = sorted(
            (label for label in findings if findings[label].above), key=lambda of: -findings[of].probability
        )
        given = self._given(predictor.square(film)[None]).expand(len(called), -1, -1, -1)
        heats = self._cam(given, [predictor.labels.index(label) for label in called])
        drawn = [(label, heat) for label, heat in zip(called, heats, strict=True) if heat.max() > 0]
        unplaced = [_said(label, findings[label]) for label, heat in zip(called, heats, strict=True) if heat.max() <= 0]
        height, width = film.shape
        across, down = _SIDE * width / max(width, height), _SIDE * height / max(width, height)
        columns = min(_COLUMNS, 1 + len(drawn))
        rows = -(-(1 + len(drawn)) // columns)
        size = max(across, 2.2) * columns + 0.2, (down + 0.4) * rows + 0.7
        figure = Figure(figsize=size, layout="constrained")
        text = int(13 * size[0])
        figure.suptitle(cut(Path(prediction.image).name, text), fontsize=10, color=INK, x=0.01, ha="left")
        legend = f"Called, though no place speaks for it: {', '.join(unplaced)}. {_LEGEND}" if unplaced else _LEGEND
        figure.supxlabel(textwrap.fill(legend, text), fontsize=7, color=SOFT, x=0.01, ha="left")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        picture = small(film)
        for place in places:
            place.set_axis_off()
        for place in places[: 1 + len(drawn)]:
            draw_film(place, picture, (width, height))
        first = "the film" if called else "the film: no finding reaches its threshold"
        places[0].set_title(first, fontsize=8, color=SOFT, loc="left", pad=3)
        for place, (label, heat) in zip(places[1:], drawn, strict=False):
            draw_heat(place, heat, (width, height), predictor.checkpoint.aspect)
            place.set_title(_said(label, findings[label]), fontsize=8, color=INK, loc="left", pad=3)
        save(figure, path)


def _said(label: str, finding: Finding) -> str:
    return f"{label} {finding.probability:.3f} (from {finding.threshold:.3f} on)"

"""What a network looks at: heat maps, held against boxes and random weights, and pictures of films called or missed."""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr_core.batches import Batches
from cxr_core.data import DataError
from cxr_core.evaluate import predict
from cxr_core.explanation.drawing import small
from cxr_core.explanation.folder import replaced_whole
from cxr_core.explanation.grad_cam import GradCam
from cxr_core.explanation.insides import draw_filters, draw_stages, first_filters
from cxr_core.explanation.localisation import Located, in_words, localisation, locate
from cxr_core.explanation.panels import Shown, draw_panel
from cxr_core.explanation.placement import Placement, Rectangle
from cxr_core.explanation.randomisation import sanity_check
from cxr_core.explanation.selection import KINDS, Kind, surest
from cxr_core.explanation.split_films import SplitFilms
from cxr_core.predict import DEFAULT_RULE, Predictor
from cxr_core.scorecard import finite

log = logging.getLogger(__name__)

RECORD = "explanation.json"
MOST_BOXED = 200
"""Films with boxes whose heat maps are made, unless more are asked for: a few minutes of two cores."""
_RANDOMISED, _NETWORKS = 8, 4
"""Films whose maps are compared with those of random networks, and how many of these."""
_TRACED = 2
"""Films that are run to find the layer."""
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is explained. rule: of the thresholds. labels: of the panels, None for all; films: of each kind in a panel.

    boxed: most films with boxes. probabilities: (N, C) of the films, where they are known.
    """

    rule: str = DEFAULT_RULE
    labels: tuple[str, ...] | None = None
    films: int = 3
    boxed: int = MOST_BOXED
    probabilities: np.ndarray | None = None


def explain(predictor: Predictor, split: SplitFilms, out: Path, wanted: Wanted, **facts: object) -> dict[str, Any]:
    """Write pictures and `explanation.json`, with `facts`, into a folder that is replaced whole; give what is in it.

    Raises NoFeatureMap if the network keeps no places, DataError if a film cannot be read any more, OSError; the
    folder is then as it was.
    """
    explanation = _Explanation(predictor, split, wanted)
    with replaced_whole(out) as folder:
        record = {**facts, **explanation.write(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return record


class _Explanation:
    """One network, the films of one split, and what there is to show of them."""

    def __init__(self, predictor: Predictor, split: SplitFilms, wanted: Wanted):
        self.predictor, self.split, self.wanted = predictor, split, wanted
        self.labels, self.films = predictor.labels, split.films
        self.batches = Batches(split.films, predictor.device)
        config = predictor.checkpoint.config
        traced = self._given(range(min(_TRACED, len(self.films))))
        self.cam = GradCam(predictor.model, traced, mirror=config.mirrors, crop=config.centre_crop)
        self.thresholds = np.array(predictor.thresholds[wanted.rule])
        self.images = self.films.table["image"].tolist()
        self.patients = self.films.table["patient"].astype(str).to_numpy()

    def write(self, folder: Path) -> dict[str, Any]:
        """Draw everything; what the pictures show, in numbers."""
        checkpoint = self.predictor.checkpoint
        found = self._localisation()
        panels = self._panels(folder)
        log.info("maps of networks with random weights, for comparison")
        return {
            "model": str(checkpoint.path),
            "architecture": checkpoint.config.model.name,
            "image_size": checkpoint.config.image_size,
            "data": self.split.name,
            "split": self.split.split,
            "films": len(self.films),
            "rule": self.wanted.rule,
            "method": "Grad-CAM (captum)",
            "layers": [{"layer": each.name, "grid": each.grid} for each in self.cam.maps],
            "about_layers": self._about_layers(),
            "localisation": found,
            "randomised": self._randomised(),
            "labels": panels,
            "insides": self._insides(folder, panels),
        }

    def _about_layers(self) -> str:
        grids = [f"layer {each.name} ({each.grid} x {each.grid} cells)" for each in self.cam.maps]
        if len(grids) > 1:
            return (
                f"The head reads {len(grids)} maps side by side, so the heat maps are the sum of Grad-CAM of all: "
                f"{', '.join(grids)}. One of them alone would leave out what the network has from the others."
            )
        coarse = "; so coarse a map tells regions of the film, not places" if self.cam.maps[0].grid < 7 else ""
        return f"The heat maps are Grad-CAM of the last layer that keeps places, {grids[0]}{coarse}."

    # Films and their heat maps

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of all films of the split, (N, C)."""
        if self.wanted.probabilities is not None:
            return self.wanted.probabilities
        predictor = self.predictor
        log.info("predicting %s films", f"{len(self.films):,}")
        views = predictor.checkpoint.config.views
        return predict(predictor.model, self.batches, predictor.normalise, views=views)

    def _given(self, rows: Sequence[int]) -> Tensor:
        """Films as the network is given them."""
        return self.predictor.normalise(self.batches.films(np.array(rows, dtype=np.int64)))

    def _heat(self, rows: Sequence[int], findings: Sequence[int]) -> np.ndarray:
        parts = range(0, len(rows), _AT_ONCE)
        maps = [self.cam(self._given(rows[p : p + _AT_ONCE]), findings[p : p + _AT_ONCE]) for p in parts]
        size = self.predictor.image_size
        return np.concatenate(maps) if maps else np.zeros((0, size, size), np.float32)

    # Boxes

    @cached_property
    def boxes(self) -> dict[tuple[str, str], list[Rectangle]]:
        """Boxes of the split's films by image and finding, in pixels of the film as its data set has it."""
        found: dict[tuple[str, str], list[Rectangle]] = {}
        table = self.split.source.boxes
        if table is None:
            return found
        table = table[table["image"].isin(self.images) & table["label"].isin(self.labels)]
        for box in table.to_dict("records"):
            x, y, width, height = (float(box[side]) for side in ("x", "y", "width", "height"))
            found.setdefault((box["image"], box["label"]), []).append((x, y, x + width, y + height))
        return found

    def _localisation(self) -> dict[str, Any] | None:
        """How heat maps and boxes agree; None without boxes."""
        boxed = list(dict.fromkeys(image for image, _ in self.boxes))
        if not boxed:
            return None
        order = np.random.default_rng(0).permutation(len(boxed))[: self.wanted.boxed]
        taken = {boxed[place] for place in order}
        pairs = [pair for pair in self.boxes if pair[0] in taken]
        log.info("heat maps of %s films with boxes, of %s that there are", f"{len(taken):,}", f"{len(boxed):,}")
        row_of = {image: row for row, image in enumerate(self.images)}
        rows, findings = [row_of[image] for image, _ in pairs], [self.labels.index(label) for _, label in pairs]
        heats = self._heat(rows, findings)
        located = [self._locate(heat, *where) for heat, *where in zip(heats, rows, findings, strict=True)]
        result = localisation(located, self.labels)
        return {
            "films_with_boxes": len(boxed),
            "films_taken": len(taken),
            "sentence": in_words(result["overall"]),
            **result,
        }

    def _locate(self, heat: np.ndarray, row: int, finding: int) -> Located:
        image, label = self.images[row], self.labels[finding]
        with _still_readable(image):
            size = self.split.source.size(image)
        place = Placement.of(size, len(heat), self.predictor.checkpoint.aspect)
        boxes = [place.on_square(box) for box in self.boxes[image, label]]
        probability, threshold = float(self.probabilities[row, finding]), float(self.thresholds[finding])
        return locate(heat, boxes, image, str(self.patients[row]), label, probability, threshold)

    # Panels

    def _panels(self, folder: Path) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for label in self.wanted.labels or self.labels:
            finding = self.labels.index(label)
            threshold = float(self.thresholds[finding])
            targets, scores = self.films.targets[:, finding], self.probabilities[:, finding]
            rows = surest(targets, scores, threshold, self.patients, self.wanted.films)
            panel = self._panel(folder, finding, rows) if any(chosen for _, chosen in rows.values()) else None
            counts: dict[str, int] = {kind: count for kind, (count, _) in rows.items()}
            shown: dict[str, Any] = {
                kind: [{"image": self.images[row], "probability": float(scores[row])} for row in chosen]
                for kind, (_, chosen) in rows.items()
            }
            positives, labelled = int((targets == 1).sum()), int((~np.isnan(targets)).sum())
            known = {"threshold": finite(threshold), "positives": positives, "films": labelled}
            told[label] = {**known, **counts, "shown": shown, "picture": panel}
        return told

    def _panel(self, folder: Path, finding: int, rows: Mapping[Kind, tuple[int, list[int]]]) -> str:
        label = self.labels[finding]
        log.info("panel of %s", label)
        name = f"panel-{finding:02d}-{re.sub('[^A-Za-z0-9]+', '-', label)}.png"
        chosen = [row for kind in KINDS for row in rows[kind][1]]
        heat = dict(zip(chosen, self._heat(chosen, [finding] * len(chosen)), strict=True))
        shown = {
            kind: (count, [self._shown(row, finding, heat[row]) for row in of]) for kind, (count, of) in rows.items()
        }
        aspect = self.predictor.checkpoint.aspect
        draw_panel(folder / name, label, float(self.thresholds[finding]), shown, aspect)
        return name

    def _shown(self, row: int, finding: int, heat: np.ndarray) -> Shown:
        image = self.images[row]
        film = self._film(image)
        size, boxes = (film.shape[1], film.shape[0]), self.boxes.get((image, self.labels[finding]), [])
        return Shown(image, float(self.probabilities[row, finding]), small(film), size, heat, boxes)

    def _film(self, image: str) -> np.ndarray:
        with _still_readable(image):
            return self.split.source.read(image)

    # The network itself

    def _randomised(self) -> dict[str, Any]:
        """Maps of some films, each of its most probable finding, against those of random networks."""
        rows = np.linspace(0, len(self.films) - 1, min(_RANDOMISED, len(self.films))).round().astype(int)
        findings = self.probabilities[rows].argmax(axis=1).tolist()
        fresh = [self._fresh(number) for number in range(1, 1 + _NETWORKS)]
        return sanity_check(self.cam, fresh, self._given(rows.tolist()), findings)

    def _fresh(self, number: int) -> torch.nn.Module:
        """The network before any training, with other random weights than its training began with."""
        config = self.predictor.checkpoint.config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + number)
            return config.network(pretrained=False).to(self.predictor.device)

    def _insides(self, folder: Path, panels: Mapping[str, Any]) -> dict[str, Any]:
        """Filters and feature maps; of the surest true positive, or of the first film."""
        sure = [one for of in panels.values() for one in of["shown"]["true positives"]]
        image = max(sure, key=lambda one: one["probability"])["image"] if sure else self.images[0]
        film = self._given([self.images.index(image)])
        picture = small(self._film(image))
        layers = draw_stages(folder / "feature_maps.png", self.predictor.model, film, picture, image)
        told: dict[str, Any] = {"feature_maps": {"picture": "feature_maps.png", "image": image, "layers": layers}}
        if filters := first_filters(self.predictor.model):
            draw_filters(folder / "first_filters.png", *filters)
            told["first_filters"] = {"picture": "first_filters.png", "layer": filters[0], "filters": len(filters[1])}
        return told


@contextmanager
def _still_readable(image: str) -> Iterator[None]:
    """The cache has the film, so it could be read before."""
    try:
        yield
    except (OSError, ValueError) as fault:
        raise DataError(f"{image}: can no longer be read ({fault}); restore the file") from None


if __name__ == "__main__":
    from cxr_core.explain_command import main

    sys.exit(main())

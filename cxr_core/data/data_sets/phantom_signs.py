"""The radiographic signs of the 14 ChestX-ray14 findings, drawn on a phantom film.

Each sign follows the Fleischner Society's glossary (Hansell et al., Radiology 2008, 246:697-722) unless its docstring
names another source. Severity runs down to signs that can hardly be told from a normal film.
"""

import math
from collections.abc import Callable

import numpy as np

from cxr_core.data.data_sets.phantom_chest import SIDE, Box, Film, edge, texture

Sign = Callable[[Film, np.random.Generator], list[Box]]

SIGNS: dict[str, Sign] = {}
"""The sign of each finding, in drawing order: those that reshape the chest come first."""

_PIXEL = 2 / SIDE
_SIDES = (-1, 1)


def _sign_of(finding: str) -> Callable[[Sign], Sign]:
    def add(sign: Sign) -> Sign:
        SIGNS[finding] = sign
        return sign

    return add


def _some_side(rng: np.random.Generator) -> int:
    return _SIDES[rng.integers(2)]


def _dome(film: Film, side: int) -> float:
    return film.chest.dome_right if side < 0 else film.chest.dome_left


def _some_place(film: Film, rng: np.random.Generator, margin: float) -> tuple[float, float]:
    """A random point (x, y) of lung, `margin` away from the chest wall and the diaphragm."""
    side = _some_side(rng)
    y = rng.uniform(-0.65 + margin, _dome(film, side) - margin)
    return side * rng.uniform(0.2, film.chest.wall(y) - margin), y


@_sign_of("Emphysema")
def emphysema(film: Film, rng: np.random.Generator) -> list[Box]:
    """Both lungs too dark and too long: low flat diaphragm, narrow heart, few vessels."""
    severity, chest = rng.uniform(0.2, 1), film.chest
    film.reshape(
        dome_right=chest.dome_right + 0.12 * severity,
        dome_left=chest.dome_left + 0.12 * severity,
        arch=chest.arch * (1 - 0.75 * severity),
        ctr=chest.ctr * (1 - 0.15 * severity),
    )
    film.markings *= 1 - 0.5 * severity
    return [film.add(-0.08 * severity * film.air * film.half(side)) for side in _SIDES]


@_sign_of("Cardiomegaly")
def cardiomegaly(film: Film, rng: np.random.Generator) -> list[Box]:
    """Heart wider than half of the rib cage: cardiothoracic ratio above 0.5 (Danzer, Am J Med Sci 1919, 157:513)."""
    film.reshape(ctr=rng.uniform(0.5, 0.64))
    return [film.box(film.heart)]


@_sign_of("Atelectasis")
def atelectasis(film: Film, rng: np.random.Generator) -> list[Box]:
    """Linear atelectasis: plate-like bands above a hemidiaphragm that the loss of volume has raised."""
    side, loss = _some_side(rng), rng.uniform(0.02, 0.13)
    height = _dome(film, side) - loss
    film.reshape(midline=film.chest.midline + 0.3 * side * loss, **{"dome_right" if side < 0 else "dome_left": height})
    bands = np.zeros_like(film.density)
    for _ in range(rng.integers(1, 4)):
        along = film.x - side * rng.uniform(0.28, 0.45)
        across = film.y - (height - rng.uniform(0.03, 0.2)) - side * rng.uniform(-0.35, 0.1) * along
        band = edge(rng.uniform(0.008, 0.018) - np.abs(across), 0.02)
        bands = np.maximum(bands, band * edge(rng.uniform(0.1, 0.2) - np.abs(along), 0.08))
    return [film.add(rng.uniform(0.12, 0.35) * bands * film.air)]


@_sign_of("Effusion")
def effusion(film: Film, rng: np.random.Generator) -> list[Box]:
    """Fluid that blunts the costophrenic angle and climbs the chest wall in a meniscus, on one side or on both."""
    first, boxes = _some_side(rng), []
    for side in (first, -first)[: rng.integers(1, 3)]:
        amount = rng.uniform(0, 1) ** 2
        level = _dome(film, side) + 0.2 - 0.4 * amount
        meniscus = (0.1 + 0.15 * amount) * (film.lateral * (1 / film.chest.width)) ** 4
        fluid = edge(film.y - level + meniscus, 0.1) * film.half(side)
        film.markings *= 1 - fluid
        boxes.append(film.add(rng.uniform(0.3, 0.8) * fluid * film.air))
    return boxes


@_sign_of("Hernia")
def hernia(film: Film, rng: np.random.Generator) -> list[Box]:
    """Hiatus hernia: a round shadow with a wall behind the heart, air in it above a horizontal fluid level."""
    radius = rng.uniform(0.1, 0.19)
    x, y = rng.uniform(-0.03, 0.14), film.chest.dome_left - 0.9 * radius
    disc = film.disc(x, y, radius, 0.85 * radius)
    sac, wall = edge(disc, 0.15), edge(disc, 0.15) - edge(disc - 0.3, 0.15)
    fluid = edge(film.y - y - rng.uniform(-0.3, 0.3) * radius, 0.015)
    return [film.add(rng.uniform(0.6, 1.1) * (sac * (0.55 * fluid - 0.35) + 0.25 * wall))]


@_sign_of("Edema")
def edema(film: Film, rng: np.random.Generator) -> list[Box]:
    """Perihilar haze on both sides and Kerley B lines: short horizontal lines at the lateral bases."""
    severity = rng.uniform(0.25, 1)
    _, _, distance = film.from_hilum()
    haze = 0.3 * np.maximum(1 - distance * (1 / 0.6), 0) * (1 + 0.25 * texture(rng, 12))
    lines = np.maximum(np.cos(film.y * (2 * math.pi / (6 * _PIXEL))), 0) ** 2
    fringe = edge(0.3 - film.thorax, 0.1) * edge(film.y - 0.1, 0.3)
    density = severity * film.air * (haze + 0.12 * lines * fringe)
    return [film.add(density * film.half(side)) for side in _SIDES]


@_sign_of("Fibrosis")
def fibrosis(film: Film, rng: np.random.Generator) -> list[Box]:
    """Reticular pattern of fine crossing lines, densest at the periphery of both bases."""
    net = np.maximum(1 - 2 * np.abs(texture(rng, 40)), 0) + np.maximum(1 - 2 * np.abs(texture(rng, 28)), 0)
    where = edge(film.y - rng.uniform(0, 0.25), 0.4) * edge(rng.uniform(0.4, 0.8) - film.thorax, 0.5)
    density = rng.uniform(0.1, 0.28) * net * where * film.air
    return [film.add(density * film.half(side)) for side in _SIDES]


@_sign_of("Infiltration")
def infiltration(film: Film, rng: np.random.Generator) -> list[Box]:
    """Faint patchy opacity with ill-defined borders in one or two places; vessels stay visible through it."""
    boxes = []
    for _ in range(rng.integers(1, 3)):
        place, width, height = _some_place(film, rng, 0.08), rng.uniform(0.18, 0.32), rng.uniform(0.18, 0.32)
        area = edge(film.disc(*place, width, height) - 0.3, 1.4)
        patches = np.maximum(0.6 + 0.5 * texture(rng, 18), 0)
        boxes.append(film.add(rng.uniform(0.07, 0.22) * area * patches * film.air))
    return boxes


@_sign_of("Pneumonia")
def pneumonia(film: Film, rng: np.random.Generator) -> list[Box]:
    """Segmental opacity: a wedge that opens from the hilum, with a faint upper border and a sharp lower one."""
    side, direction, spread = _some_side(rng), rng.uniform(-0.7, 1.1), rng.uniform(0.3, 0.5)
    across, down, distance = film.from_hilum()
    along = across * math.cos(direction) + down * math.sin(direction)
    below = down * math.cos(direction) - across * math.sin(direction)
    room = spread * along + 0.05
    wedge = edge(room - below, 0.03) * edge(room + below, 0.15) * edge(along - 0.05, 0.15)
    extent = edge(rng.uniform(0.35, 0.6) - distance, 0.15) * film.air * film.half(side)
    return [film.add(rng.uniform(0.15, 0.35) * wedge * extent * (1 + 0.2 * texture(rng, 14)))]


@_sign_of("Consolidation")
def consolidation(film: Film, rng: np.random.Generator) -> list[Box]:
    """Dense homogeneous patch that hides the vessels but shows the bronchi as dark branches: air bronchograms."""
    size = rng.uniform(0.13, 0.26)
    outline = film.disc(*_some_place(film, rng, 0.06), size, size * rng.uniform(0.7, 1.3)) + 0.5 * texture(rng, 14)
    patch = edge(outline - 0.2, 0.8)
    bronchi = film.branches(rng, 16)
    film.markings *= 1 - patch
    return [film.add(rng.uniform(0.25, 0.5) * patch * (1 - 0.6 * bronchi) * film.air)]


@_sign_of("Nodule")
def nodule(film: Film, rng: np.random.Generator) -> list[Box]:
    """A single rounded opacity of 6-14 pixels, about 1-2 cm; a nodule is at most 3 cm."""
    radius = rng.uniform(3, 7) * _PIXEL
    disc = film.disc(*_some_place(film, rng, 0.05), radius, radius * rng.uniform(0.9, 1.1))
    return [film.add(rng.uniform(0.18, 0.4) * edge(disc - 0.1, 0.6))]


@_sign_of("Mass")
def mass(film: Film, rng: np.random.Generator) -> list[Box]:
    """A lobulated opacity of more than 3 cm: 20-44 pixels."""
    radius = rng.uniform(10, 22) * _PIXEL
    disc = film.disc(*_some_place(film, rng, 0.06), radius, radius * rng.uniform(0.8, 1.1))
    return [film.add(rng.uniform(0.2, 0.45) * edge(disc + 0.12 * texture(rng, 20), 0.5))]


@_sign_of("Pleural_Thickening")
def pleural_thickening(film: Film, rng: np.random.Generator) -> list[Box]:
    """A band of soft tissue along the inner chest wall, as a cap over the apex or at the side."""
    side, thickness = _some_side(rng), rng.uniform(0.06, 0.25) * (1 + 0.25 * texture(rng, 10))
    top = rng.choice([-0.8, -0.45, -0.2])
    extent = edge(film.y - top, 0.1) * edge(top + rng.uniform(0.25, 0.6) - film.y, 0.1)
    band = edge(thickness - film.thorax, 0.06) * extent * film.half(side)
    return [film.add(rng.uniform(0.15, 0.4) * band * film.air)]


@_sign_of("Pneumothorax")
def pneumothorax(film: Film, rng: np.random.Generator) -> list[Box]:
    """The white line of the visceral pleura; between it and the chest wall, widest at the apex, no vessel is seen."""
    side, depth = _some_side(rng), rng.uniform(0.1, 0.5)
    retracted = depth * edge(rng.uniform(-0.1, 0.6) - film.y, 0.8) - film.thorax
    space = edge(retracted, 0.03) * film.half(side) * film.air
    pleura = np.maximum(1 - np.abs(retracted) * (1 / 0.04), 0) * film.half(side) * film.air
    film.markings *= 1 - space
    return [film.add(rng.uniform(0.2, 1) * (0.15 * pleura - 0.12 * space))]

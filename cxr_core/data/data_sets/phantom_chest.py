"""A normal frontal chest film, drawn as a sum of attenuations.

Coordinates are chest coordinates: x to the right of the film (the patient's left), y downwards, both -1..1 across an
untilted film of about 40 cm. Densities are attenuations: they add up along the ray, and a pixel's value is
1 - exp(-gain * density).
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]  # float32 throughout: a Python float does not widen it

SIDE = 256  # pixels; one is about 1.6 mm
_APEX = -0.78  # height of the lungs' apex
_WIDEST = 0.35  # height at which the rib cage is widest
_HILUM = 0.2  # distance of a hilum from the midline
_CENTRES = ((np.arange(SIDE) + 0.5) * (2 / SIDE) - 1).astype(np.float32)


class Box(NamedTuple):
    """A rectangle on the film, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Chest:
    """The shape of a patient's chest in chest coordinates, the same on all films of the patient."""

    width: float  # half the inner width of the rib cage
    dome_right: float  # height of the right hemidiaphragm
    dome_left: float
    arch: float  # curvature of the diaphragm
    ctr: float  # cardiothoracic ratio: width of the heart over the inner width of the rib cage
    midline: float  # shift of heart and mediastinum to the patient's left
    rib_spacing: float
    rib_phase: float  # in rib spacings
    bone: float  # density of bone, 1 in a young adult
    fat: float  # thickness of the soft tissue around the rib cage
    breast: float  # density of the breasts
    aorta: float  # radius of the aortic knob
    stomach: float  # radius of the gas bubble under the left hemidiaphragm

    def wall(self, y: float) -> float:
        """Distance of the inner chest wall from the midline at one height."""
        return self.width * math.sqrt(1 - abs((y - _WIDEST) / (_WIDEST - _APEX)) ** 3)


@dataclass(frozen=True)
class Exposure:
    """How one film was taken: the exposure's gain and noise, and how the patient stood before the detector."""

    gain: float
    noise: float  # standard deviation, in grey levels
    zoom: float
    tilt: float  # radians
    dx: float
    dy: float


def edge(distance: Array, softness: float) -> Array:
    """A smooth step from 0 to 1 where `distance` passes 0, `softness` wide."""
    t: Array = np.clip(distance * (1 / softness) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


@cache
def _spline(cells: int) -> Array:
    """Cubic B-spline basis (SIDE, cells + 3), scaled so that white noise keeps about unit variance."""
    distance = np.abs((np.arange(SIDE) + 0.5)[:, None] * cells / SIDE - np.arange(-1, cells + 2))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    basis = np.where(distance < 1, near, far)
    scaled: Array = (basis / np.sqrt((basis**2).sum(axis=1).mean())).astype(np.float32)
    return scaled


def texture(rng: np.random.Generator, cells: int) -> Array:
    """Smooth noise of zero mean and about unit variance with `cells` bumps across the film, (SIDE, SIDE) float32."""
    basis = _spline(cells)
    return basis @ rng.standard_normal((cells + 3, cells + 3), dtype=np.float32) @ basis.T


class Film:
    """A film in the making: signs change its masks and densities, then `develop` gives the pixels.

    All arrays are (SIDE, SIDE) float32. x, y: chest coordinates of the pixels. lateral: distance from the midline.
    thorax: 1 in the middle of the chest, 0 on the inner chest wall, negative outside. base: height of the diaphragm in
    each pixel's column. heart: its thickness, 0..1. vessels: the great vessels' shadow, 0..1. air: aerated lung, 0..1.
    density: what signs have added. markings: share of the lung's own vessels that can be seen, 0..1.
    """

    def __init__(self, chest: Chest, exposure: Exposure):
        cos, sin = math.cos(exposure.tilt) / exposure.zoom, math.sin(exposure.tilt) / exposure.zoom
        across, down = (_CENTRES - exposure.dx)[None, :], (_CENTRES - exposure.dy)[:, None]
        self.x = across * cos + down * sin
        self.y = down * cos - across * sin
        self.lateral = np.abs(self.x)
        self.density = np.zeros((SIDE, SIDE), np.float32)
        self.markings = np.ones((SIDE, SIDE), np.float32)
        self.exposure = exposure
        self.chest = chest
        self.reshape()

    def reshape(self, **changes: float) -> None:
        """Change the chest's shape and draw the masks anew: signs that do so come before those that add to the film."""
        self.chest = chest = replace(self.chest, **changes)
        height = (self.y - _WIDEST) * (1 / (_WIDEST - _APEX))
        self.thorax = 1 - (self.x * (1 / chest.width)) ** 2 - height * height * np.abs(height)
        dome = np.where(self.x < 0, np.float32(chest.dome_right), np.float32(chest.dome_left))
        self.base = dome + chest.arch * (self.lateral - 0.3) ** 2
        self.heart = np.sqrt(np.clip(self._heart_level(), 0, 1))
        self.vessels = edge(0.1 + 0.12 * (self.y + 0.35) ** 2 - np.abs(self.x - chest.midline), 0.08)
        self.air = edge(self.thorax, 0.08) * edge(self.base - self.y, 0.04) * (1 - self.vessels)

    def _heart_level(self) -> Array:
        """1 in the middle of the heart, 0 on its border: an ellipse tilted to the left, as wide as the ratio says."""
        cos, sin, flat = 0.87, 0.49, 0.7
        half = self.chest.ctr * self.chest.width
        length = half / math.hypot(cos, flat * sin)
        dx = self.x - (self.chest.midline + 0.25 * half)
        dy = self.y - (self.chest.dome_left - 0.5 * length)
        along = (dx * cos + dy * sin) * (1 / length)
        across = (dy * cos - dx * sin) * (1 / (flat * length))
        return 1 - along * along - across * across

    def disc(self, x: float, y: float, rx: float, ry: float | None = None) -> Array:
        """1 in the middle of an ellipse, 0 on its border, negative outside."""
        return 1 - ((self.x - x) * (1 / rx)) ** 2 - ((self.y - y) * (1 / (ry or rx))) ** 2

    def half(self, side: int) -> npt.NDArray[np.bool_]:
        """The part of the film on one side of the midline: -1 is the patient's right lung, 1 the left one."""
        return self.x * side > 0

    def from_hilum(self) -> tuple[Array, Array, Array]:
        """Distance of each pixel from the hilum on its side: lateral, downwards, and straight."""
        across, down = self.lateral - _HILUM, self.y - np.where(self.x < 0, np.float32(0.0), np.float32(-0.05))
        return across, down, np.sqrt(across * across + down * down)

    def branches(self, rng: np.random.Generator, count: int) -> Array:
        """Curved lines that fan out from the hila, as vessels and bronchi do: 1 on a line, 0 between two of them."""
        across, down, distance = self.from_hilum()
        direction = down / (np.abs(across) + np.abs(down) + 1e-3) + 0.3 * texture(rng, 6)
        ridge = np.maximum(np.cos(count * direction + rng.uniform(0, 2 * math.pi)), 0)
        return np.square(np.square(ridge)) * np.minimum(distance * 10, 1)

    def add(self, density: Array) -> Box:
        """Add a sign's density (negative for air) and say where it is."""
        self.density += density
        return self.box(np.abs(density))

    def box(self, amount: Array) -> Box:
        """The smallest rectangle around all pixels with at least a quarter of the largest amount."""
        here = amount >= 0.25 * amount.max()
        columns, rows = np.flatnonzero(here.any(axis=0)), np.flatnonzero(here.any(axis=1))
        return Box(int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)

    def develop(self, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Draw the normal chest under what the signs have added, and expose the film; (SIDE, SIDE) uint8."""
        density = self._soft_tissue() + self.chest.bone * self._bones() + self._lung_markings(rng) + self.density
        density *= 1 + 0.03 * texture(rng, 6)
        grey = 255 * (1 - np.exp(-self.exposure.gain * np.maximum(density, 0)))
        grain = self.exposure.noise * texture(rng, SIDE // 2)
        pixels: npt.NDArray[np.uint8] = np.clip(np.rint(grey + grain), 0, 255).astype(np.uint8)
        return pixels

    def _soft_tissue(self) -> Array:
        """Trunk and abdomen less the air of lungs, trachea and stomach; heart, great vessels and breasts."""
        chest, u = self.chest, self.lateral
        wall = chest.width + chest.fat + 0.5 * edge(-0.25 - self.y, 0.7) - u
        shoulder = self.y + 0.97 - 0.3 * np.maximum(u - 0.2, 0)
        abdomen = edge(self.y - self.base, 0.05) * edge(chest.width + 0.03 - u, 0.1)
        body: Array = edge(np.minimum(wall, 2 * shoulder), 0.12) * (0.75 + 0.3 * abdomen)
        knob = edge(self.disc(chest.midline + 0.08, -0.34, chest.aorta), 0.5)
        vessels: Array = np.maximum(0.36 * self.vessels * edge(self.y + 0.75, 0.4), 0.34 * knob)
        centre = np.maximum(vessels, 0.6 * self.heart) * (1 - 0.8 * abdomen)
        breasts = edge(np.maximum(self.disc(-0.38, 0.2, 0.28, 0.26), self.disc(0.38, 0.2, 0.28, 0.26)), 0.3)
        trachea = edge(0.04 - np.abs(self.x - chest.midline / 2), 0.03) * edge(-0.25 - self.y, 0.2)
        bubble = self.disc(0.36, chest.dome_left + 0.08 + chest.stomach, 1.6 * chest.stomach, chest.stomach)
        air: Array = 0.58 * self.air + 0.18 * trachea + 0.3 * edge(bubble, 0.5)
        return body + centre + chest.breast * breasts - air

    def _bones(self) -> Array:
        """Posterior and anterior ribs, clavicles, and the spine with its discs."""
        u, cycles = self.lateral, 2 * math.pi / self.chest.rib_spacing
        height = self.y - self.chest.rib_phase * self.chest.rib_spacing
        posterior = np.cos(cycles * (height - 0.75 * (u - 0.15) ** 2))
        anterior = np.cos(cycles * (height - 0.3 + 0.55 * u - 0.4 * u * u))
        ribs = 0.11 * edge(posterior - 0.45, 0.5) * edge(u - 0.05, 0.06)
        ribs += 0.05 * edge(anterior - 0.45, 0.5) * edge(u - 0.25, 0.2)
        cage = edge(self.thorax + 0.06, 0.1) * edge(self.base + 0.2 - self.y, 0.4)
        course = self.y + 0.6 + 0.2 * (u - 0.08) - 0.05 * np.sin(9 * u)
        clavicles = edge(0.028 - np.abs(course), 0.025) * edge(u - 0.07, 0.04) * edge(0.68 - u, 0.05)
        spine = edge(0.075 - u, 0.06) * (0.75 + 0.25 * edge(np.cos(cycles * self.y) + 0.75, 0.4))
        return cage * ribs + 0.14 * clavicles + 0.1 * spine * edge(self.y + 0.95, 0.1)

    def _lung_markings(self, rng: np.random.Generator) -> Array:
        """Hila and the vessels that fan out from them, branching and fading towards the chest wall."""
        _, _, distance = self.from_hilum()
        vessels = np.zeros_like(distance)
        for count, reach in ((9, 0.35), (16, 0.55), (27, 0.85)):
            vessels += (0.35 / reach) * np.maximum(1 - distance * (1 / reach), 0) * self.branches(rng, count)
        hila = edge(0.09 - distance + 0.02 * texture(rng, 24), 0.14)
        return self.air * (0.16 * hila + self.markings * (0.16 * vessels + 0.02 * texture(rng, 48)))

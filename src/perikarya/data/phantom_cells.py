"""Paint single cells of a phantom field in optical density: neurons of any severity, and glia as distractors.

A severity of 0 is a typical normal neuron, 1 an intermediate, 2 a pyknotic one; in between, every feature is
interpolated. A cell is a star-shaped outline, and all its parts are smooth functions of the distance to it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from perikarya.data.phantom_plan import Region

Floats = NDArray[np.float32]

_N_ANGLES = 180
_ANGLES = np.linspace(-np.pi, np.pi, _N_ANGLES + 1, dtype=np.float32)
_KNOTS = (0.0, 1.0, 2.0)


@dataclass(frozen=True)
class Look:
    """What one neuron looks like; lengths relative to the region's soma radius, stains in optical density."""

    radius: float
    elongation: float  # ratio of the axes
    angular: float  # 0 round to 1 as angular as the region's neurons are
    blue: float  # thionine / haematoxylin of the cytoplasm
    red: float  # acid fuchsin / eosin of the cytoplasm
    clearing: float  # 1: the nucleus is as pale as can be, 0: as dark as the cytoplasm, below 0: darker
    nucleus: float  # radius of the nucleus, relative to the soma's
    nucleus_edge: float  # softness of its border, relative to the region's soma radius
    nucleolus: float  # optical density of the nucleolus above its surroundings
    granules: float  # relative contrast of the Nissl substance
    halo: float  # 1: all stain is gone around the cell
    halo_width: float


# looks of a typical normal, intermediate and pyknotic neuron
_LOOKS = {
    "radius": (1.0, 0.85, 0.56),
    "elongation": (1.22, 1.28, 1.08),
    "angular": (1.0, 0.95, 0.12),
    "blue": (0.46, 0.62, 0.92),
    "red": (0.17, 0.26, 0.50),
    "clearing": (0.74, 0.20, -0.12),
    "nucleus": (0.56, 0.55, 0.6),
    "nucleus_edge": (0.055, 0.20, 0.16),
    "nucleolus": (0.60, 0.30, 0.04),
    "granules": (0.26, 0.17, 0.07),
    "halo": (0.02, 0.14, 0.86),
    "halo_width": (0.12, 0.16, 0.31),
}
# relative spread that has nothing to do with severity
_VARIETY = {"radius": 0.11, "elongation": 0.08, "blue": 0.15, "red": 0.15, "nucleus": 0.06, "halo_width": 0.2}


def draw_look(severity: float, *, spread: float, rng: np.random.Generator) -> Look:
    """Draw the look of a neuron of some severity; each feature strays by itself, ``spread`` in units of severity."""
    strayed = severity + rng.normal(0, spread, len(_LOOKS))
    noise = rng.standard_normal(len(_LOOKS))
    values = {}
    for i, field in enumerate(fields(Look)):
        value = float(np.interp(strayed[i], _KNOTS, _LOOKS[field.name]))
        values[field.name] = value * float(np.exp(_VARIETY.get(field.name, 0.0) * noise[i]))
    values["elongation"] = max(values["elongation"], 1.0)
    return Look(**values)


@dataclass(frozen=True)
class Outline:
    """A star-shaped outline around an origin: its radius at ``_ANGLES``, in pixels; ``soma_px`` is its plain radius."""

    radius_a: Floats
    soma_px: float

    def distance(self, r: Floats, theta: Floats) -> Floats:
        """Return the signed distance to the outline in pixels (below 0 inside) of points in polar coordinates."""
        position = (theta + np.float32(np.pi)) * np.float32(_N_ANGLES / (2 * np.pi))
        index = np.minimum(position.astype(np.int32), _N_ANGLES - 1)
        part = position - index
        slope = np.gradient(self.radius_a) * (_N_ANGLES / (2 * np.pi))
        cosine = (1 / np.sqrt(1 + (slope / self.radius_a) ** 2)).astype(np.float32)  # first order: level set / gradient
        radius = self.radius_a[index] * (1 - part) + self.radius_a[index + 1] * part
        return np.asarray((r - radius) * cosine[index], np.float32)


def draw_outline(look: Look, region: Region, *, apical: float, um_per_px: float, rng: np.random.Generator) -> Outline:
    """Draw the outline of a neuron whose apical dendrite points to the angle ``apical``, in radians."""
    soma_px = look.radius * region.soma_radius_um / um_per_px
    angular = look.angular * region.angularity
    axis = apical + rng.normal(0, 0.25)
    ratio = np.sqrt(look.elongation)
    turned = _ANGLES - axis
    radius = soma_px / np.sqrt((np.cos(turned) / ratio) ** 2 + (np.sin(turned) * ratio) ** 2)
    for order in (2, 3, 4, 5):
        size = rng.normal(0, 0.012 + 0.045 * angular / np.sqrt(order))
        radius *= 1 + size * np.cos(order * _ANGLES + rng.uniform(0, 2 * np.pi))
    stumps = [(apical, 1.25 * region.dendrite + 0.15, 0.17)]
    stumps += [(apical + np.pi + side * rng.uniform(0.6, 1.1), rng.uniform(0.2, 0.7), 0.16) for side in (-1, 1)]
    for angle, length, width in stumps[: 1 + int(rng.integers(1, 3))]:
        away = np.angle(np.exp(1j * (_ANGLES - angle - rng.normal(0, 0.1))))
        bump = np.exp(-(np.abs(away / (width * 1.15)) ** 1.25))
        radius += soma_px * angular * length * rng.uniform(0.5, 1.1) * bump
    radius[-1] = radius[0]
    return Outline(radius.astype(np.float32), float(soma_px))


@dataclass(frozen=True)
class PaintedCell:
    """One neuron as a patch of stain concentrations, shape (side, side) each.

    ``alpha`` is how much it covers what lies below, ``fade`` how much stain of the surroundings its halo leaves,
    ``mask`` what a careful grader outlines.
    """

    blue: Floats
    red: Floats
    alpha: Floats
    fade: Floats
    mask: NDArray[np.bool_]


def patch_side(outline: Outline, look: Look) -> int:
    """Return the odd side of the patch that holds a cell and its halo, in pixels."""
    reach = max(float(outline.radius_a.max()), outline.soma_px * (1.0 + 2.1 * look.halo_width / look.radius))
    return 2 * int(np.ceil(reach + 3)) + 1


def paint_neuron(
    look: Look, outline: Outline, grain: Floats, *, shift_xy: tuple[float, float], rng: np.random.Generator
) -> PaintedCell:
    """Paint one neuron.

    Parameters
    ----------
    look, outline
        What to paint.
    grain
        Shape (side, side), smooth noise of mean 0 and standard deviation 1; gives the Nissl substance.
    shift_xy
        Where the origin lies relative to the middle of the patch, below one pixel.
    rng
        Of this cell.
    """
    side = grain.shape[0]
    axis = np.arange(side, dtype=np.float32) - side // 2
    x, y = np.meshgrid(axis - np.float32(shift_xy[0]), axis - np.float32(shift_xy[1]))
    r, theta = np.hypot(x, y), np.arctan2(y, x)
    d = outline.distance(r, theta)
    unit = outline.soma_px / look.radius  # the region's soma radius in pixels
    alpha = _smooth_step(-d / np.float32(0.05 * unit + 0.6))
    far = np.clip((r / np.float32(outline.soma_px) - 1.2) / 1.0, 0, 1)
    alpha *= (1 - far) ** 1.3  # dendrites thin out into the neuropil
    rim = np.exp(np.minimum(d, 0) / np.float32(0.16 * unit))  # stain is denser beneath the membrane
    body = 1 + np.float32(look.granules) * grain + np.float32(0.10) * (rim - 0.4)
    nuclear, dot, membrane = _nucleus(look, outline, x, y, rng)
    body *= 1 - np.float32(look.clearing) * nuclear
    body *= 1 + np.float32(0.22 * max(look.clearing, 0)) * membrane
    blue = np.float32(look.blue) * body + np.float32(look.nucleolus) * dot
    red = np.float32(look.red) * body + np.float32(0.25 * look.nucleolus) * dot
    fade: Floats = 1 - np.float32(look.halo) * _halo(d, theta, look, unit, rng) * (1 - np.float32(0.16) * np.abs(grain))
    wobble = np.float32(0.03 * unit) * np.cos(2 * theta + np.float32(rng.uniform(0, 6.3)))
    mask = (d < wobble - np.float32(rng.uniform(-0.02, 0.05) * unit)) & (r < np.float32(1.4 * outline.soma_px))
    return PaintedCell(np.maximum(blue, 0.02), np.maximum(red, 0.02), alpha, fade, mask)


def _smooth_step(t: Floats) -> Floats:
    """Rise from 0 at t = -1/2 to 1 at t = 1/2."""
    t = np.clip(t + np.float32(0.5), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _nucleus(
    look: Look, outline: Outline, x: Floats, y: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return where the nucleus, its nucleolus and its membrane are, each between 0 and 1."""
    soma = outline.soma_px
    cx, cy = rng.normal(0, 0.07 * soma, 2)
    radius = np.float32(min(look.nucleus, 0.75) * soma)
    squeeze = np.float32(np.exp(rng.normal(0, 0.05)))
    dist = np.hypot((x - np.float32(cx)) * squeeze, (y - np.float32(cy)) / squeeze)
    edge = np.float32(look.nucleus_edge * soma / look.radius + 0.5)
    inside = _smooth_step((radius - dist) / (2 * edge))
    membrane = np.exp(-(((dist - radius) / edge) ** 2))
    angle, off = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4) * radius
    nx, ny = cx + off * np.cos(angle), cy + off * np.sin(angle)
    size = np.float32(0.125 * soma / look.radius * rng.uniform(0.85, 1.15))
    dot = _smooth_step((size - np.hypot(x - np.float32(nx), y - np.float32(ny))) / np.float32(1.5) + np.float32(0.1))
    return inside, dot, np.asarray(membrane, np.float32)


def _halo(d: Floats, theta: Floats, look: Look, unit: float, rng: np.random.Generator) -> Floats:
    """Return how empty the tissue is, 0 to 1: a ring of uneven width where the shrunken cell has left its place."""
    uneven = np.ones_like(theta)
    for order, size in ((1, 0.4), (2, 0.2), (3, 0.2), (5, 0.16)):
        part = rng.normal(0, size)
        uneven += np.float32(part) * np.cos(order * theta - np.float32(rng.uniform(0, 2 * np.pi)))
    width = np.float32(look.halo_width * unit) * np.clip(uneven, 0.2, 1.9)
    return _smooth_step((width - d) / np.float32(0.17 * unit + 0.8))


@dataclass(frozen=True)
class Glia:
    """One glial nucleus: semi-axes in pixels, angle in radians, stain and clearing of its middle."""

    semi_xy: tuple[float, float]
    angle: float
    blue: float
    red: float
    clearing: float


def draw_glia(*, um_per_px: float, rng: np.random.Generator) -> Glia:
    """Draw an oligodendrocyte (small, round, dark), an astrocyte (larger, pale) or a microglial cell (a rod)."""
    kind = rng.choice(3, p=[0.55, 0.3, 0.15])
    radius, ratio, blue, clearing = ((2.6, 1.1, 0.92, 0.0), (3.6, 1.25, 0.5, 0.45), (2.3, 2.4, 0.85, 0.0))[kind]
    radius *= float(np.exp(rng.normal(0, 0.1))) / um_per_px
    ratio = float(np.sqrt(max(1.0, ratio * np.exp(rng.normal(0, 0.1)))))
    blue *= float(np.exp(rng.normal(0, 0.12)))
    return Glia((radius * ratio, radius / ratio), float(rng.uniform(0, np.pi)), blue, 0.22, clearing)


def paint_glia(glia: Glia, grain: Floats) -> tuple[Floats, Floats, Floats]:
    """Paint one glial nucleus into a patch of the size of ``grain``; return blue, red and alpha."""
    side = grain.shape[0]
    axis = np.arange(side, dtype=np.float32) - side // 2
    x, y = np.meshgrid(axis, axis)
    c, s = np.float32(np.cos(glia.angle)), np.float32(np.sin(glia.angle))
    a, b = (np.float32(v) for v in glia.semi_xy)
    rho = np.hypot((c * x + s * y) / a, (c * y - s * x) / b)
    alpha = _smooth_step((1 - rho) * np.sqrt(a * b) / np.float32(1.6))
    body = (1 + np.float32(0.18) * grain) * (1 - np.float32(glia.clearing) * np.clip(1.2 - rho, 0, 1))
    return np.float32(glia.blue) * body, np.float32(glia.red) * body, alpha

"""Paint whole fields of a phantom study: neuropil, vessels, neurons, glia, then stain, light, focus and noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.phantom_cells import (
    Floats,
    Glia,
    Look,
    Outline,
    draw_glia,
    draw_look,
    draw_outline,
    paint_glia,
    paint_neuron,
    patch_side,
)
from perikarya.data.phantom_plan import FieldPlan

FIELD_UM = (216.0, 162.0)  # width and height

_LAMP_RGB = (247.0, 243.0, 233.0)  # empty slide
_GHOST_SHARE = 0.25  # neurons out of focus that nobody outlines, per outlined neuron


@dataclass(frozen=True)
class PaintedField:
    """A field: RGB image, label map with 1..n_cells, and the centroid of each cell, shape (n_cells, 2), x then y."""

    rgb_hwc: NDArray[np.uint8]
    labels_hw: NDArray[np.uint16]
    centre_xy: NDArray[np.float64]
    area_px: NDArray[np.int64]


@dataclass
class _Canvas:
    """Concentrations of both stains while a field is being painted."""

    blue: Floats
    red: Floats
    labels: NDArray[np.uint16]
    grain: Floats  # noise of mean 0 and standard deviation 1, about 1 um fine

    def window(self, x: int, y: int, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the part of the canvas a patch covers and the part of the patch that lies on the canvas."""
        height, width = self.labels.shape
        x0, y0 = x - side // 2, y - side // 2
        rows, columns = (max(y0, 0), min(y0 + side, height)), (max(x0, 0), min(x0 + side, width))
        return (slice(*rows), slice(*columns)), (
            slice(rows[0] - y0, rows[1] - y0),
            slice(columns[0] - x0, columns[1] - x0),
        )

    def lay(
        self, where: tuple[slice, slice], blue: Floats | np.float32, red: Floats | np.float32, alpha: Floats
    ) -> None:
        """Cover a part with stain."""
        self.blue[where] += alpha * (blue - self.blue[where])
        self.red[where] += alpha * (red - self.red[where])


def field_size_px(um_per_px: float) -> tuple[int, int]:
    """Return width and height of a field in pixels."""
    return round(FIELD_UM[0] / um_per_px), round(FIELD_UM[1] / um_per_px)


def paint_field(plan: FieldPlan) -> PaintedField:
    """Paint one field; the same plan gives the same pixels."""
    rng = np.random.default_rng(list(plan.entropy))
    direction = float(rng.uniform(0, 2 * np.pi))  # to which apical dendrites point, across the layer
    canvas = _new_canvas(plan, rng)
    _paint_fibres(canvas, plan, direction, rng)
    if rng.random() < 0.3:
        _paint_vessel(canvas, plan, rng)
    looks = [draw_look(float(s), spread=plan.spread, rng=rng) for s in plan.severity_n]
    outlines = [_outline(plan, look, direction, rng) for look in looks]
    reach = np.array([0.5 * (o.soma_px + float(o.radius_a.max())) for o in outlines])
    places = _place(plan, reach, direction, rng)
    _paint_ghosts(canvas, plan, direction, rng)
    for number, (look, outline, place) in enumerate(zip(looks, outlines, places, strict=True), start=1):
        _paint_cell(canvas, number, look, outline, place, rng)
    _paint_glia(canvas, plan, rng)
    centre_xy, area_px = _measure(canvas.labels, len(looks))
    return PaintedField(_photograph(canvas, plan, rng), canvas.labels, centre_xy, area_px)


def _noise(shape_hw: tuple[int, int], *, sigma_px: float, rng: np.random.Generator) -> Floats:
    """Return smooth noise of mean 0 and standard deviation 1; broad noise is made small and enlarged."""
    factor = max(1, int(sigma_px / 1.5))
    small = (-(-shape_hw[0] // factor) + 2, -(-shape_hw[1] // factor) + 2)
    noise = rng.standard_normal(small, dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigma_px / factor, borderType=cv2.BORDER_REFLECT)
    if factor > 1:
        size = (small[1] * factor, small[0] * factor)
        noise = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    noise = noise[: shape_hw[0], : shape_hw[1]]
    mean, deviation = cv2.meanStdDev(noise)
    return np.asarray((noise - np.float32(mean)) / np.float32(deviation), np.float32)


def _new_canvas(plan: FieldPlan, rng: np.random.Generator) -> _Canvas:
    """Lay the neuropil: a felt of processes at several scales, with small pale holes."""
    width, height = field_size_px(plan.um_per_px)
    shape = (height, width)
    um = 1 / plan.um_per_px
    fine = _noise(shape, sigma_px=0.45 * um, rng=rng)
    middle = _noise(shape, sigma_px=1.6 * um, rng=rng)
    broad = _noise(shape, sigma_px=9 * um, rng=rng)
    felt = 1 + 0.20 * fine + 0.14 * middle + 0.10 * broad
    holes = np.clip(0.8 * fine[::-1, ::-1] + 0.9 * middle[:, ::-1] - 2.1, 0, 1.2)
    felt = np.maximum(felt - 0.65 * holes, 0.12)
    tint = 1 + 0.18 * _noise(shape, sigma_px=4 * um, rng=rng)
    return _Canvas(
        blue=np.asarray(plan.region.blue * felt * tint, np.float32),
        red=np.asarray(plan.region.red * felt, np.float32),
        labels=np.zeros(shape, np.uint16),
        grain=np.ascontiguousarray((0.8 * fine + 0.6 * middle)[::-1]),
    )


def _paint_fibres(canvas: _Canvas, plan: FieldPlan, direction: float, rng: np.random.Generator) -> None:
    """Draw axons and dendrites crossing the neuropil, most of them along one direction, some pale, some dark."""
    height, width = canvas.labels.shape
    um = 1 / plan.um_per_px
    for sign, share in ((1.0, 0.6), (-1.0, 0.4)):
        drawn = np.zeros((height, width), np.uint8)
        n = int(1.5 * plan.region.fibres * share)
        start = rng.uniform(0, 1, (n, 2)) * (width, height)
        angle = direction + rng.normal(0, 0.45, n) + np.pi * (rng.random(n) < 0.5)
        bend = rng.normal(0, 0.012, n) * plan.um_per_px
        length, grey = rng.uniform(12, 70, n) * um, rng.integers(40, 220, n)
        thick = 1 + (rng.random(n) < 0.3) * max(1, round(0.6 * um))
        steps = np.linspace(0, 1, 9)
        for i in range(n):
            along = angle[i] + bend[i] * steps * length[i]
            points = start[i] + np.cumsum(np.stack([np.cos(along), np.sin(along)], axis=1), axis=0) * length[i] / 9
            path = [np.round(points * 8).astype(np.int32)]
            cv2.polylines(drawn, path, False, int(grey[i]), int(thick[i]), cv2.LINE_AA, 3)
        soft = cv2.GaussianBlur(drawn, (0, 0), 0.35 * um + 0.3).astype(np.float32) / 255
        canvas.red *= 1 + np.float32(0.75 * sign) * soft
        canvas.blue *= 1 + np.float32(0.5 * sign) * soft


def _paint_vessel(canvas: _Canvas, plan: FieldPlan, rng: np.random.Generator) -> None:
    """Draw a capillary: a pale lumen of uneven calibre between thin walls, with flat endothelial nuclei on them."""
    height, width = canvas.labels.shape
    um = 1 / plan.um_per_px
    n = 48
    turn = np.cumsum(rng.normal(0, 0.09, n)) + rng.uniform(0, 2 * np.pi)
    step = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(2.0, 4.5) * um
    path = rng.uniform(0.15, 0.85, 2) * (width, height) + np.cumsum(step, axis=0) - step.sum(axis=0) / 2
    normal = np.stack([-np.sin(turn), np.cos(turn)], axis=1)
    ends = np.sin(np.linspace(0, np.pi, n)) ** 0.4  # dives out of the section at both ends
    half = ends * (rng.uniform(1.8, 3.0) + 0.45 * np.cumsum(rng.normal(0, 0.35, n))).clip(1.0, 4.0) * um
    alphas = []
    for extra in (0.9 * um, 0.0):
        sides = [path + normal * (half + extra)[:, None], (path - normal * (half + extra)[:, None])[::-1]]
        drawn = np.zeros((height, width), np.uint8)
        cv2.fillPoly(drawn, [np.round(np.concatenate(sides) * 8).astype(np.int32)], 255, cv2.LINE_AA, 3)
        alphas.append(cv2.GaussianBlur(drawn, (0, 0), 0.45 * um).astype(np.float32) / 255)
    wall, lumen = alphas
    canvas.lay((slice(None), slice(None)), np.float32(0.10), np.float32(0.24), wall * np.float32(0.75))
    for stain in (canvas.red, canvas.blue):
        stain *= 1 - lumen * (np.float32(0.72) + 0.06 * canvas.grain)
    for i in rng.integers(6, n - 6, int(rng.integers(1, 4))):
        side = rng.choice((-1.0, 1.0))
        x, y = path[i] + side * normal[i] * half[i]
        rod = Glia((float(rng.uniform(3.2, 4.6) * um), 0.95 * um), float(turn[i]), 0.7, 0.22, 0.0)
        _lay_glia(canvas, rod, (round(float(x)), round(float(y))), rng)


def _outline(plan: FieldPlan, look: Look, direction: float, rng: np.random.Generator) -> Outline:
    wander = 0.2 if plan.region.dendrite > 0.5 else 1.5
    apical = direction + rng.normal(0, wander)
    return draw_outline(look, plan.region, apical=apical, um_per_px=plan.um_per_px, rng=rng)


def _place(
    plan: FieldPlan, reach_px: NDArray[np.float64], direction: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Find a place for each cell, shape (n_cells, 2): the roomiest of some draws where no draw keeps the distance.

    Cells may touch and overlap a little, as in a section; none is cut by the border.
    """
    size = np.array(field_size_px(plan.um_per_px), np.float64)
    places = np.zeros((len(reach_px), 2))
    bend = rng.normal(0, 0.0012) * plan.um_per_px
    for i in np.argsort(-reach_px, kind="stable"):
        placed = reach_px != 0
        placed &= places.any(axis=1)
        margin = reach_px[i] * 1.35 + 3
        tries = _candidates(plan, size, direction, bend, rng)
        tries = np.clip(tries, margin, size - margin)
        if not placed.any():
            places[i] = tries[0]
            continue
        gaps = np.linalg.norm(tries[:, None] - places[placed], axis=2)
        room = (gaps / (reach_px[placed] + reach_px[i])).min(axis=1)
        enough = np.flatnonzero(room >= rng.uniform(0.93, 1.25))
        places[i] = tries[enough[0]] if len(enough) else tries[np.argmax(room)]
    return places


def _candidates(
    plan: FieldPlan, size: NDArray[np.float64], direction: float, bend: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    n = 60
    free = rng.uniform(0, 1, (n, 2)) * size
    if plan.region.layer_sd_um is None:
        return np.asarray(free, np.float64)
    along = rng.uniform(-0.5, 0.5, n) * np.hypot(*size)
    across = rng.normal(0, plan.region.layer_sd_um / plan.um_per_px, n) + bend * along**2
    c, s = np.cos(direction), np.sin(direction)  # the layer runs at right angles to the dendrites
    points = size / 2 + np.stack([across * c - along * s, across * s + along * c], axis=1)
    inside = ((points > 0) & (points < size)).all(axis=1)
    return np.asarray(np.concatenate([points[inside], free[:5]]), np.float64)


def _paint_cell(
    canvas: _Canvas, number: int, look: Look, outline: Outline, place: NDArray[np.float64], rng: np.random.Generator
) -> None:
    side = patch_side(outline, look)
    x, y = round(float(place[0])), round(float(place[1]))
    grain = _grain(canvas, side, rng)
    shift = (float(place[0]) - x, float(place[1]) - y)
    cell = paint_neuron(look, outline, grain, shift_xy=shift, rng=rng)
    where, part = canvas.window(x, y, side)
    free = canvas.labels[where] == 0
    fade = np.where(free, cell.fade[part], 1)  # a halo does not bleach the neighbours
    canvas.blue[where] *= fade
    canvas.red[where] *= fade
    alpha = cell.alpha[part] * np.where(free, 1, 0.25)  # lies below those painted before
    canvas.lay(where, cell.blue[part], cell.red[part], alpha.astype(np.float32))
    canvas.labels[where][cell.mask[part] & free] = number


def _grain(canvas: _Canvas, side: int, rng: np.random.Generator) -> Floats:
    height, width = canvas.grain.shape
    y, x = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
    return canvas.grain[y : y + side, x : x + side]


def _paint_ghosts(canvas: _Canvas, plan: FieldPlan, direction: float, rng: np.random.Generator) -> None:
    """Paint neurons deep in the section, pale and out of focus, which nobody outlines."""
    n = int(rng.binomial(2 + len(plan.severity_n), _GHOST_SHARE))
    width, height = field_size_px(plan.um_per_px)
    for _ in range(n):
        look = draw_look(float(rng.uniform(0, 1.2)), spread=0.1, rng=rng)
        outline = _outline(plan, look, direction, rng)
        side = patch_side(outline, look)
        cell = paint_neuron(look, outline, _grain(canvas, side, rng), shift_xy=(0, 0), rng=rng)
        sigma = rng.uniform(1.2, 2.2) / plan.um_per_px
        depth = np.float32(rng.uniform(0.25, 0.5))
        alpha = cv2.GaussianBlur(cell.alpha, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) * depth
        blue, red = (cv2.GaussianBlur(c, (0, 0), sigma) for c in (cell.blue, cell.red))
        where, part = canvas.window(int(rng.integers(0, width)), int(rng.integers(0, height)), side)
        red = np.maximum(red[part], canvas.red[where])  # what lies above it keeps its own stain
        canvas.lay(where, blue[part] + 0.5 * canvas.blue[where], red, alpha[part])


def _paint_glia(canvas: _Canvas, plan: FieldPlan, rng: np.random.Generator) -> None:
    """Scatter glial nuclei where no neuron is; some lie against one, as satellites do."""
    width, height = field_size_px(plan.um_per_px)
    for _ in range(int(rng.poisson(plan.region.glia))):
        glia = draw_glia(um_per_px=plan.um_per_px, rng=rng)
        _lay_glia(canvas, glia, (int(rng.integers(0, width)), int(rng.integers(0, height))), rng)


def _lay_glia(canvas: _Canvas, glia: Glia, place: tuple[int, int], rng: np.random.Generator) -> None:
    side = 2 * int(np.ceil(max(glia.semi_xy) + 2)) + 1
    grain = _grain(canvas, side, rng)
    height, width = canvas.labels.shape
    if not (0 <= place[0] < width and 0 <= place[1] < height):
        return
    where, part = canvas.window(place[0], place[1], side)
    blue, red, alpha = paint_glia(glia, grain)
    if not (canvas.labels[where] > 0)[alpha[part] > 0].any():
        canvas.lay(where, blue[part], red[part], alpha[part])


def _measure(labels: NDArray[np.uint16], n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    area = np.bincount(numbers, minlength=n + 1)[1:]
    x = np.bincount(numbers, weights=columns, minlength=n + 1)[1:]
    y = np.bincount(numbers, weights=rows, minlength=n + 1)[1:]
    return np.stack([x, y], axis=1) / np.maximum(area, 1)[:, None], area.astype(np.int64)


def _photograph(canvas: _Canvas, plan: FieldPlan, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn stain into light (Beer-Lambert), then uneven illumination, blur of the optics and noise of the sensor."""
    vectors = np.array(plan.animal.stain_rgb, np.float32) * np.array(plan.animal.strength, np.float32)[:, None]
    vectors *= np.float32(rng.normal(1, 0.07))  # thickness of the section
    height, width = canvas.labels.shape
    x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    tilt = rng.normal(0, 0.02, 2).astype(np.float32)
    light = 1 + tilt[0] * x + tilt[1] * y - np.float32(rng.uniform(0.0, 0.05)) * (x * x + y * y)
    lamp = np.array(_LAMP_RGB, np.float32) * np.float32(rng.normal(0.985, 0.015))
    focus = float(rng.gamma(6, 0.055)) / plan.um_per_px * 0.5 + 0.35
    noise = rng.standard_normal((height + 16, width + 16), dtype=np.float32)  # each channel sees it shifted
    noise *= np.float32(rng.uniform(0.8, 2.6) / np.sqrt(160))
    rgb = np.empty((height, width, 3), np.uint8)
    for i in range(3):
        density = canvas.blue * vectors[0, i] + canvas.red * vectors[1, i]
        density *= np.float32(-np.log(10))
        image = cv2.exp(density)
        image *= light
        image = cv2.GaussianBlur(image, (0, 0), focus)
        image *= lamp[i]
        image += noise[8 * i : 8 * i + height, 8 * i : 8 * i + width] * np.sqrt(image)
        rgb[..., i] = np.clip(image + 0.5, 0, 255)
    return rgb

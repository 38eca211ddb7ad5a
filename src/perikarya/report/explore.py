"""Every cell as a point between the classes, to be looked at one by one.

Classes are corners of a regular polygon, and a cell lies at the mean of the corners, weighted by its probabilities:
near a corner the model is sure, on an edge it wavers between two classes. With three classes no two mixtures share a
place. The probabilities are sharpened or flattened alike for all cells (a temperature), so that the middle cell is
``_MIDDLE`` sure: else all cells of a sure model would lie on top of each other in the corners, and all of an unsure
one in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.evaluate.metrics import SMALLEST_PROB, Floats, Ints
from perikarya.evaluate.outputs import ModelScores, Scored, average
from perikarya.figures.galleries import outlined
from perikarya.figures.style import class_colours, shorten
from perikarya.report.images import Embedded, embed_photos
from perikarya.schema import SET_WORDS

MAX_CELLS = 2000
MAX_CLASSES = 16
THUMB_PX = 40
_COLUMNS = 50
_SPRITE_BYTES = 1_600_000
_MIDDLE = 0.7  # of the median cell, between 1 / classes (0) and certainty (1)
_WIDTH, _RADIUS, _MARGIN = 720, 290, 52


@dataclass(frozen=True)
class Corner:
    """A class: where its name stands, its colour, and how the name is anchored."""

    name: str
    short: str
    colour: str
    x: float
    y: float
    text_x: float
    text_y: float
    anchor: str


@dataclass(frozen=True)
class Point:
    """One cell: its place, the code of its label, whether the model is right, and what there is to say of it."""

    x: float
    y: float
    label: int
    right: bool
    words: str


@dataclass(frozen=True)
class Explorer:
    """The scatter with its pictures: thumbnail i lies in column ``i % columns`` of row ``i // columns`` of the sprite."""

    model: str
    caption: str
    alt: str
    corners: list[Corner]
    points: list[Point]
    sprite: Embedded
    width: int
    height: int
    thumb_px: int = THUMB_PX
    columns: int = _COLUMNS


def explore(opened: OpenStudy, scores: ModelScores) -> Explorer | None:
    """Place the cells of the leading model; None with a single class, with very many, or without predictions.

    Parameters
    ----------
    opened
        The study, for crops, animals and regions.
    scores
        The predictions of one model: on the external set where it has any, else of the first seed's test folds.
    """
    names = opened.study.class_names
    if not 2 <= len(names) <= MAX_CLASSES or not (scores.external or scores.pooled):
        return None
    set_name = "external" if scores.external else "cv"
    scored = average(scores.external) if scores.external else scores.pooled[0]
    n_all = len(scored.row_n)
    scored = _sample(scored, MAX_CELLS)
    corners, height = _corners(names)
    x_n, y_n = _places(scored, corners)
    points = [
        Point(round(float(x), 1), round(float(y), 1), int(label), bool(p.argmax() == label), words)
        for x, y, label, p, words in zip(
            x_n, y_n, scored.label_n, scored.prob_nk, _words(opened, scored, names), strict=True
        )
    ]
    n_wrong = sum(not p.right for p in points)
    drawn = f"{len(points)} of {n_all} cells, drawn by chance" if len(points) < n_all else f"All {n_all} cells"
    return Explorer(
        model=scores.name,
        caption=(
            f"{drawn}, of the {SET_WORDS[set_name]}. Near a corner {scores.name} is sure, between two corners it wavers; sureness is stretched alike for all, so that cells lie apart. "
            "The colour is the label; rings are mistakes."
        ),
        alt=(
            f"Scatter of {len(points)} cells between corners that stand for {', '.join(names)}; {n_wrong} of them are "
            "classified wrongly."
        ),
        corners=corners,
        points=points,
        sprite=_sprite(opened, scored.row_n),
        width=_WIDTH,
        height=height,
    )


def _sample(scored: Scored, n: int) -> Scored:
    if len(scored.row_n) <= n:
        return scored
    kept = np.sort(np.random.default_rng(0).choice(len(scored.row_n), n, replace=False))
    return Scored(scored.row_n[kept], scored.label_n[kept], scored.prob_nk[kept])


def _corners(names: Sequence[str]) -> tuple[list[Corner], int]:
    """Set the classes around a circle, clockwise from below at the left: three in order read from left to right.

    Returns
    -------
    The corners and the height of the drawing.
    """
    n = len(names)
    angle_k = np.pi * (0.5 + (n - 1) / n - 2 * np.arange(n) / n)
    place_kx = np.stack([np.cos(angle_k), -np.sin(angle_k)], axis=1)
    low, high = place_kx.min(axis=0), place_kx.max(axis=0)
    height = round(max(_RADIUS * (high - low)[1], 380 if n == 2 else 0) + 2 * _MARGIN)
    middle, centre = (low + high) / 2, np.array([_WIDTH, height]) / 2
    corners = []
    for name, colour, unit, place in zip(
        names, class_colours(n), place_kx, centre + _RADIUS * (place_kx - middle), strict=True
    ):
        x, y = (round(float(v), 1) for v in place)
        anchor = "middle" if abs(unit[0]) < 0.4 else "start" if unit[0] < 0 else "end"
        text_x = {"middle": x, "start": max(8.0, x - 60), "end": min(_WIDTH - 8.0, x + 60)}[anchor]
        text_y = y + (-16 if unit[1] < 0.1 and n > 2 else 30)
        corners.append(Corner(name, shorten(name, 24), colour, x, y, text_x, text_y, anchor))
    return corners, height


def _places(scored: Scored, corners: Sequence[Corner]) -> tuple[Floats, Floats]:
    flat_nk = _spread(scored.prob_nk)
    x_n = flat_nk @ np.array([c.x for c in corners])
    y_n = flat_nk @ np.array([c.y for c in corners])
    if len(corners) == 2:  # a line: spread over the height, by chance
        y_n = y_n + np.random.default_rng(0).uniform(-180, 180, len(y_n))
    return x_n, y_n


def _spread(prob_nk: Floats) -> Floats:
    """Bring the median largest probability to the middle, by one power for all; the order of classes stays."""
    n_classes = prob_nk.shape[1]
    wanted = 1 / n_classes + _MIDDLE * (1 - 1 / n_classes)
    low, high = -5.0, 5.0  # of the power's logarithm to base 2; sureness rises with the power
    for _ in range(24):
        middle = (low + high) / 2
        powered_nk = np.maximum(prob_nk, SMALLEST_PROB) ** (2.0**middle)
        powered_nk /= powered_nk.sum(axis=1, keepdims=True)
        low, high = (middle, high) if np.median(powered_nk.max(axis=1)) < wanted else (low, middle)
    return np.asarray(powered_nk)


def _words(opened: OpenStudy, scored: Scored, names: Sequence[str]) -> list[str]:
    """Describe each cell in four lines at most: what it is, what was said of it, all probabilities, where it is from."""
    cells = opened.cells.iloc[scored.row_n]
    columns = [cells[c].fillna("").to_numpy(dtype=str) for c in ("subject", "group", "region", "image_id")]
    ids = cells["cell_id"].to_numpy(dtype=str)
    said = []
    for i, (label, prob) in enumerate(zip(scored.label_n, scored.prob_nk, strict=True)):
        guess = int(prob.argmax())
        verdict = "right" if guess == label else "wrong"
        all_of_them = ", ".join(f"{name} {100 * p:.0f} %" for name, p in zip(names, prob, strict=True))
        where = " · ".join(column[i] for column in columns if column[i])
        said.append(
            f"labelled {names[label]}\npredicted {names[guess]} ({verdict})\n{all_of_them}\n{where} · cell {ids[i][:12]}"
        )
    return said


def _sprite(opened: OpenStudy, row_n: Ints) -> Embedded:
    crops: NDArray[np.uint8] = opened.read_crops(row_n)
    n_rows = -(-len(crops) // _COLUMNS)
    sheet = np.full((n_rows * THUMB_PX, min(_COLUMNS, len(crops)) * THUMB_PX, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        y, x = THUMB_PX * (i // _COLUMNS), THUMB_PX * (i % _COLUMNS)
        sheet[y : y + THUMB_PX, x : x + THUMB_PX] = _thumb(crop)
    return embed_photos(sheet, max_bytes=_SPRITE_BYTES)


def _thumb(crop_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    fine = outlined(crop_hwc, size_px=3 * THUMB_PX)  # drawn larger, so that the line does not cover a small cell
    return np.asarray(cv2.resize(fine, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA), np.uint8)

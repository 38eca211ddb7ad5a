"""Cells to look at: contact sheets of each class, and the mistakes a model was surest of."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.outputs import Scored
from perikarya.figures.style import FAINT, PAGE_IN, class_colours, panels, shorten, styled

_TILE_PX = 160  # half an inch at 300 dpi
_GAP_PX = 6
_OUTLINE, _RIM = (255, 255, 255), 0.45  # white, between rims this much darker, seen on pale and on dark tissue


@dataclass(frozen=True)
class Mistake:
    """A cell that was given the wrong class: its row in the cells table and what was said of it."""

    row: int
    true: int
    predicted: int
    probability: float


def outlined(crop_hwc: NDArray[np.uint8], *, size_px: int = _TILE_PX) -> NDArray[np.uint8]:
    """Enlarge a crop and draw a thin line around its cell, shape (size_px, size_px, 3), uint8."""
    fine = (2 * size_px, 2 * size_px)  # drawn twice as large, so that the line comes out smooth
    image = cv2.resize(np.ascontiguousarray(crop_hwc[..., :3]), fine, interpolation=cv2.INTER_CUBIC)
    mask = cv2.resize(np.ascontiguousarray(crop_hwc[..., 3]), fine, interpolation=cv2.INTER_CUBIC)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.4 * fine[0] / crop_hwc.shape[0])  # rounds the corners of pixels
    contours, _ = cv2.findContours((mask > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rim = np.zeros(fine, np.uint8)
    cv2.drawContours(rim, contours, -1, 255, 6, cv2.LINE_AA)
    image = np.round(image * (1 - _RIM * rim[..., None] / 255.0)).astype(np.uint8)
    cv2.drawContours(image, contours, -1, _OUTLINE, 2, cv2.LINE_AA)
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)


def mosaic(tiles: list[NDArray[np.uint8]], *, n_cols: int) -> NDArray[np.uint8]:
    """Lay square tiles out in rows, white between them."""
    side = tiles[0].shape[0]
    n_rows = -(-len(tiles) // n_cols)
    sheet = np.full((n_rows * (side + _GAP_PX) - _GAP_PX, n_cols * (side + _GAP_PX) - _GAP_PX, 3), 255, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (i // n_cols) * (side + _GAP_PX), (i % n_cols) * (side + _GAP_PX)
        sheet[y : y + side, x : x + side] = tile
    return sheet


def pick_examples(opened: OpenStudy, class_index: int, *, n: int, seed: int = 0) -> Ints:
    """Choose cells of a class by chance, taking turns over the subjects, shape (at most n,): rows of the table."""
    rows = np.flatnonzero(opened.labels == class_index)
    rows = np.random.default_rng(seed).permutation(rows)
    subject = opened.cells["subject"].fillna("").to_numpy(dtype=str)[rows]
    seen: dict[str, int] = {}
    turn = np.empty(len(rows), np.int64)
    for i, name in enumerate(subject):
        turn[i] = seen[name] = seen.get(name, -1) + 1
    return rows[np.argsort(turn, kind="stable")][:n].astype(np.int64)


@styled
def plot_contact_sheet(opened: OpenStudy, class_index: int, *, n: int = 36, n_cols: int = 12) -> Figure | None:
    """Draw cells of one class with their outlines; None when the study has none."""
    rows = pick_examples(opened, class_index, n=n)
    if len(rows) == 0:
        return None
    tiles = [outlined(crop) for crop in opened.read_crops(rows)]
    sheet = mosaic(tiles, n_cols=n_cols)
    height = PAGE_IN * sheet.shape[0] / sheet.shape[1]
    figure, axes = panels(1, 1, height_in=height + 0.3)
    names = opened.study.class_names
    axes[0, 0].imshow(sheet, interpolation="antialiased")
    axes[0, 0].set_axis_off()
    n_class = int((opened.labels == class_index).sum())
    title = f"{shorten(names[class_index], 40)}: {len(rows)} of {n_class} cells{_scale_text(opened)}"
    axes[0, 0].set_title(title, color=_ink(class_colours(len(names))[class_index]))
    return figure


def _scale_text(opened: OpenStudy) -> str:
    side = opened.study.window_um
    return f", windows of {side:.3g} µm" if side is not None else f", windows of {opened.study.window_px} px"


def worst_mistakes(scored: Scored, *, n: int) -> list[Mistake]:
    """Return the mistakes with the highest probability for the wrong class, surest first."""
    predicted = scored.prob_nk.argmax(axis=1)
    wrong = np.flatnonzero(predicted != scored.label_n)
    sure = scored.prob_nk[wrong, predicted[wrong]]
    order = wrong[np.argsort(-sure, kind="stable")][:n]
    return [
        Mistake(int(scored.row_n[i]), int(scored.label_n[i]), int(predicted[i]), float(scored.prob_nk[i, predicted[i]]))
        for i in order
    ]


@styled
def plot_mistakes(opened: OpenStudy, mistakes: list[Mistake], *, n_cols: int = 6) -> Figure:
    """Draw each mistake with true and predicted class, its probability, subject and image."""
    n_rows = -(-len(mistakes) // n_cols)
    figure, axes = panels(n_rows, n_cols, height_in=1.62 * n_rows)
    names = opened.study.class_names
    colours = [_ink(c) for c in class_colours(len(names))]
    crops = opened.read_crops(np.array([m.row for m in mistakes], np.int64))
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, mistake, crop in zip(axes.flat, mistakes, crops, strict=False):
        ax.imshow(outlined(crop, size_px=240), interpolation="antialiased")
        ax.set_title(
            f"{shorten(names[mistake.true], 20)}\n"
            f"→ {shorten(names[mistake.predicted], 13)} {100 * mistake.probability:.0f} %",
            fontsize=6.5, color=colours[mistake.predicted], fontweight="normal", pad=2,
        )  # fmt: skip
        cell = opened.cells.iloc[mistake.row]
        where = [str(cell[c]) for c in ("subject", "image_id") if isinstance(cell[c], str)]
        ax.text(0.0, -0.03, "\n".join(shorten(w, 22) for w in where), transform=ax.transAxes, va="top", fontsize=5.5,
                color=FAINT)  # fmt: skip
    return figure


def _ink(colour: str) -> str:
    """Darken a pale class colour so that text in it can be read on white."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    while rgb @ [0.299, 0.587, 0.114] > 125:
        rgb = (rgb * 0.9).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*rgb)

"""Where networks look: cells beside their maps, and how much of the maps lies inside the cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from perikarya.data.splits import rows_of
from perikarya.data.store import OpenStudy
from perikarya.evaluate.saliency import DrawnMaps, load_explained, maps_path
from perikarya.evaluate.stats import UNIT_WORDS
from perikarya.figures.galleries import mosaic, outlined
from perikarya.figures.style import FAINT, PAGE_IN, light_grid, panels, shorten, styled
from perikarya.runs import RunFolder

_COLOURS = "viridis"  # even steps look even, in every kind of colour vision, and in print without colour
_OPACITY = 0.6
_TILE_PX = 170  # 0.56 inch at 300 dpi
_N_RIGHT, _N_WRONG = 3, 2  # cells of a class: pairs of tiles, and triples


@dataclass(frozen=True)
class ExplainedCell:
    """A cell with its maps.

    ``crop_hwc`` has shape (S, S, 4), uint8; ``maps`` the map of the predicted class and, where that is wrong, the map
    of the true one, each of shape (any, any), uint8; ``probs`` the probabilities of these classes.
    """

    crop_hwc: NDArray[np.uint8]
    label: int
    predicted: int
    maps: tuple[NDArray[np.uint8], ...]
    probs: tuple[float, ...]


def overlaid(crop_hwc: NDArray[np.uint8], map_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay a map in colours over the grey picture of its cell, and draw the outline, shape (170, 170, 3), uint8."""
    side = crop_hwc.shape[0]
    share_hw = cv2.resize(map_hw, (side, side), interpolation=cv2.INTER_LINEAR) / 255.0
    colour_hwc = mpl.colormaps[_COLOURS](share_hw)[..., :3] * 255
    grey_hw = cv2.cvtColor(np.ascontiguousarray(crop_hwc[..., :3]), cv2.COLOR_RGB2GRAY)
    blended = _OPACITY * colour_hwc + (1 - _OPACITY) * grey_hw[..., None]
    return outlined(np.dstack([np.round(blended).astype(np.uint8), crop_hwc[..., 3]]), size_px=_TILE_PX)


@styled
def plot_saliency(cells: Sequence[ExplainedCell], class_names: tuple[str, ...]) -> Figure:
    """Draw cells beside their maps, a row for each true class: rightly classified on the left, wrongly on the right.

    Cells that do not fit the row of their class are left out.
    """
    n = len(class_names)
    figure = Figure(figsize=(PAGE_IN, 0.8 + 0.8 * n), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = _parts(figure, 2, 1, height_ratios=[0.3 + 0.8 * n, 0.5])
    left, right = _parts(upper, 1, 2, width_ratios=[2.15 * _N_RIGHT, 3 * _N_WRONG], wspace=0.02)
    left.suptitle("Classified rightly", x=0.13, ha="left", fontsize=8.5, fontweight="bold")
    right.suptitle("Classified wrongly; third tile: the true class", x=0.01, ha="left",
                   fontsize=8.5, fontweight="bold")  # fmt: skip
    left_axes = left.subplots(n, _N_RIGHT, squeeze=False)
    right_axes = right.subplots(n, _N_WRONG, squeeze=False)
    for k, name in enumerate(class_names):
        own = [c for c in cells if c.label == k]
        _row(left_axes[k], [c for c in own if c.predicted == k], class_names, n_tiles=2)
        _row(right_axes[k], [c for c in own if c.predicted != k], class_names, n_tiles=3)
        left_axes[k, 0].set_ylabel(shorten(name, 16), fontsize=7.5, fontweight="bold")
    bar = lower.colorbar(ScalarMappable(Normalize(0, 1), _COLOURS), cax=lower.subplots(), orientation="horizontal")
    bar.set_label("Share of the largest value in the map of that cell", fontsize=7.5)
    bar.ax.tick_params(labelsize=7, length=2)
    return figure


def _parts(figure: Figure | SubFigure, n_rows: int, n_cols: int, **options: Any) -> list[SubFigure]:
    return list(np.ravel(np.asarray(figure.subfigures(n_rows, n_cols, **options))))


def _row(axes: Sequence[Axes], cells: list[ExplainedCell], class_names: tuple[str, ...], *, n_tiles: int) -> None:
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, cell in zip(axes, cells, strict=False):
        tiles = [outlined(cell.crop_hwc, size_px=_TILE_PX), *(overlaid(cell.crop_hwc, m) for m in cell.maps)]
        ax.imshow(mosaic(tiles, n_cols=n_tiles), interpolation="antialiased")
        ax.set_title(_words(cell, class_names), fontsize=6, fontweight="normal", pad=2)
    for ax in axes[len(cells) :]:
        ax.set_box_aspect(1 / n_tiles)
        ax.text(0.5, 0.5, "no such cell", ha="center", va="center", fontsize=6.5, color=FAINT, transform=ax.transAxes)


def _words(cell: ExplainedCell, class_names: tuple[str, ...]) -> str:
    said = [f"{100 * p:.0f} %" for p in cell.probs]
    if cell.label == cell.predicted:
        return f"→ {shorten(class_names[cell.predicted], 14)} {said[0]}"
    return f"→ {shorten(class_names[cell.predicted], 14)} {said[0]}; {shorten(class_names[cell.label], 14)} {said[1]}"


@styled
def plot_inside_share(models: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw for each model how much of its maps lies inside the cells, with intervals, beside an even map's share.

    ``models`` holds entries of ``explain.json``, in the order in which the lines are to stand.
    """
    figure, axes = panels(1, 1, height_in=1.0 + 0.3 * len(models), width_in=0.75 * PAGE_IN)
    ax = axes[0, 0]
    for y, entry in enumerate(models.values()):
        value = entry["share_inside"]
        if value["ci95"] is not None:
            ax.plot(value["ci95"], [y, y], color="#0072B2", lw=1.2, solid_capstyle="butt")
        ax.plot(value["mean"], y, "o", ms=4.6, color="#0072B2")
        ax.plot(entry["even_share"], y, "|", ms=11, mew=1.6, color="#D55E00")
    ax.plot([], [], "o-", ms=4.6, lw=1.2, color="#0072B2", label="inside the outline")
    ax.plot([], [], "|", ms=11, mew=1.6, color="#D55E00", label="an even map: share of the window that cells cover")
    ax.set_yticks(range(len(models)), [f"{shorten(name)}\n{e['method']}" for name, e in models.items()])
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xlabel("Share of the map")
    light_grid(ax, axis="x")
    ax.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@dataclass(frozen=True)
class SaliencyFigure:
    """A figure with its words: headline, caption, and what it shows for those who cannot see it."""

    kind: str
    model: str
    figure: Figure
    title: str
    caption: str
    alt: str


def saliency_figures(run: RunFolder, opened: OpenStudy) -> Iterator[SaliencyFigure]:
    """Draw all that ``perikarya explain`` left in a run, one after another; nothing where it was not called."""
    entries = load_explained(run)
    together = inside_figure(entries)
    if together is not None:
        yield together
    for name, entry in entries.items():
        if "reason" not in entry:
            yield model_figure(name, entry, DrawnMaps.load(maps_path(run, name)), opened)


def model_figure(name: str, entry: Mapping[str, Any], maps: DrawnMaps, opened: OpenStudy) -> SaliencyFigure:
    """Draw the maps of one model, with its words."""
    names = opened.study.class_names
    cells = _cells_of(maps, opened)
    grid = " and ".join(f"{g['grid'][0]} x {g['grid'][1]}" for g in entry["layers"])
    inside = entry["share_inside"]["mean"]
    measured = (
        ""
        if inside is None
        else f" On average {100 * inside:.0f} % of a map lies inside the outline; an even map would have "
        f"{100 * entry['even_share']:.0f} %."
    )
    caption = (
        f"Held-out cells drawn by chance; one network (seed {entry['seed']}, fold {entry['fold']}), {entry['method']}, "
        f"a grid of {grid} places. Yellow: what spoke most for the class named above the cell, with its probability. "
        f"A map shows what the answer hung on, not whether it is right.{measured}"
    )
    n_wrong = sum(c.label != c.predicted for c in cells)
    alt = (
        f"Photographs of {len(cells)} cells of the classes {', '.join(names)}, {n_wrong} of them classified wrongly by "
        f"{name}, each beside a colour map of the places that spoke for its class."
    )
    return SaliencyFigure("saliency", name, plot_saliency(cells, names), f"{name}: where it looks", caption, alt)


def inside_figure(entries: Mapping[str, Mapping[str, Any]]) -> SaliencyFigure | None:
    """Draw the shares of all models that were measured, with its words; None where there are none."""
    models = {n: e for n, e in entries.items() if "reason" not in e and e["share_inside"]["mean"] is not None}
    if not models:
        return None
    shares = "; ".join(
        f"{name} {100 * e['share_inside']['mean']:.0f} % (even map {100 * e['even_share']:.0f} %)"
        for name, e in models.items()
    )
    units = " and ".join(sorted({UNIT_WORDS[e["unit"]] for e in models.values()}))
    return SaliencyFigure(
        kind="saliency_inside",
        model="",
        figure=plot_inside_share(models),
        title="How much of what the networks look at is the cell",
        caption=f"Mean over classes of the share of each map inside the outline; bars: intervals over {units}. "
        "Maps of another method or of a coarser grid spill over the outline differently: compare with care.",
        alt=f"Dot plot of the share of saliency inside the outline. {shares}.",
    )


def _cells_of(maps: DrawnMaps, opened: OpenStudy) -> list[ExplainedCell]:
    ids = list(dict.fromkeys(maps.cell_id_m.tolist()))
    rows = rows_of(opened.cells["cell_id"], np.array(ids))
    cells = []
    for cell_id, crop in zip(ids, opened.read_crops(rows), strict=True):
        own = np.flatnonzero(maps.cell_id_m == cell_id)
        predicted = int(maps.predicted_m[own[0]])
        own = own[np.argsort(maps.about_m[own] != predicted, kind="stable")]  # that of the predicted class first
        cells.append(
            ExplainedCell(
                crop_hwc=crop,
                label=int(maps.label_m[own[0]]),
                predicted=predicted,
                maps=tuple(maps.map_mhw[i] for i in own),
                probs=tuple(float(maps.prob_m[i]) for i in own),
            )
        )
    return cells

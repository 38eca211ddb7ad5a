"""What augmentation makes of cells: one row of photographs per preset, and one for what a run uses besides."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perikarya.config import AugmentConfig
from perikarya.data.augment import Augmenter, cell_keys
from perikarya.data.mixing import mix_batch
from perikarya.data.store import OpenStudy
from perikarya.evaluate.metrics import Ints
from perikarya.figures.galleries import mosaic, outlined, pick_examples
from perikarya.figures.style import FAINT, PAGE_IN, panels, shorten, styled
from perikarya.settings import AUGMENT_PRESETS

_TILE_PX = 240  # 0.85 inch at 300 dpi, for eight in a row
_SMALL = 6.0  # size of the small print in points
_LINE_IN = 0.1  # one line of it
_PRINT_WIDTH = 155  # letters of it in a row of the page
_WORDS = {  # percent where a setting is a share
    "flip": "flips",
    "rotate_deg": "turn {:g}°",
    "scale": "size {:g} %",
    "shear_deg": "shear {:g}°",
    "translate": "shift {:g} %",
    "elastic": "elastic {:g} %",
    "stain": "stain {:g} %",
    "brightness": "brightness {:g} %",
    "contrast": "contrast {:g} %",
    "saturation": "saturation {:g} %",
    "gamma": "gamma {:g} %",
    "blur_sigma_px": "blur {:g} px",
    "noise": "noise {:g} %",
    "cutout": "cutout in {:g} % of the cells",
}


@dataclass(frozen=True)
class _Kind:
    """Settings with their name, and who uses them."""

    name: str
    config: AugmentConfig
    users: list[str] = field(default_factory=list)

    def is_as(self, config: AugmentConfig) -> bool:
        return self.config.model_copy(update={"preset": config.preset}) == config

    @property
    def title(self) -> str:
        return f"{self.name} (used by {shorten(', '.join(self.users), 90)})" if self.users else self.name


@dataclass(frozen=True)
class _Strip:
    """A row of the figure: what it shows, in which settings, and what is written below each cell."""

    title: str
    details: str
    crops_nhwc: NDArray[np.uint8]
    captions: tuple[str, ...] = ()

    @property
    def height_in(self) -> float:
        n_lines = self.details.count("\n") + 1 + max((c.count("\n") + 1 for c in self.captions), default=0)
        return PAGE_IN / len(self.crops_nhwc) + 0.24 + _LINE_IN * n_lines


@styled
def plot_augmentation(
    opened: OpenStudy, used: Mapping[str, AugmentConfig], *, out_px: int = 112, n_cols: int = 8, seed: int = 0
) -> Figure | None:
    """Draw cells as a network sees them in training, outlined: one row per preset, the same cells in every row.

    Where settings mix cells, a further row shows the mixed ones with their labels.

    Parameters
    ----------
    opened
        The study; one cell of each class, chosen by chance, is shown in turn.
    used
        Who uses which settings, such as the models of a run. Settings that are no preset get rows of their own.
    out_px
        Input size of the network, for blur and noise are in its pixels.
    n_cols
        Cells in a row.
    seed
        Of the choice of cells and of the changes.

    Returns
    -------
    The figure, or None when no cell of the study has a label.
    """
    rows = _example_rows(opened, n=n_cols, seed=seed)
    if len(rows) == 0:
        return None
    strips = [strip for kind in _kinds(used) for strip in _strips(opened, rows, kind, out_px=out_px, seed=seed)]
    heights = [strip.height_in for strip in strips]
    figure, axes = panels(len(strips), 1, height_in=sum(heights), gridspec_kw={"height_ratios": heights})
    for ax, strip in zip(axes[:, 0], strips, strict=True):
        _draw(ax, strip)
    return figure


def _example_rows(opened: OpenStudy, *, n: int, seed: int) -> Ints:
    """Return the rows of ``n`` cells: one cell of each class there is, over and over."""
    found = [pick_examples(opened, k, n=1, seed=seed) for k in range(len(opened.study.class_names))]
    cells = np.concatenate(found)
    return np.resize(cells, n) if len(cells) else cells


def _kinds(used: Mapping[str, AugmentConfig]) -> list[_Kind]:
    """Return the presets, then the settings of ``used`` that are none of them."""
    kinds = [_Kind(name, AugmentConfig.model_validate({"preset": name})) for name in AUGMENT_PRESETS]
    for user, config in used.items():
        kind = next((k for k in kinds if k.is_as(config)), None)
        if kind is None:
            kind = _Kind("own settings", config)
            kinds.append(kind)
        kind.users.append(user)
    return kinds


def _strips(opened: OpenStudy, rows: Ints, kind: _Kind, *, out_px: int, seed: int) -> Iterator[_Strip]:
    names, label_n = opened.study.class_names, opened.labels[rows]
    augmenter = Augmenter(kind.config, out_px=out_px)
    crops_nhwc = augmenter.batch(opened.read_crops(rows), cell_keys(rows, seed=seed, epoch=0))
    yield _Strip(kind.title, _details(kind.config), crops_nhwc, tuple(shorten(names[k], 22) for k in label_n))
    y_nk = np.eye(len(names), dtype=np.float32)[label_n]
    for way, share in _ways_of_mixing(kind.config).items():
        off = {"mixup": 0.0, "cutmix": 0.0, "mix_share": 1.0}
        alpha: float = getattr(kind.config, way)
        only = kind.config.model_copy(update={**off, way: alpha})
        x_nhwc, target_nk = mix_batch(crops_nhwc, y_nk, config=only, seed=seed, epoch=0, step=0)
        captions = tuple(_shares(target_k, names) for target_k in target_nk)
        yield _Strip(f"{kind.name}, {way}", f"in {100 * share:g} % of the batches, alpha {alpha:g}", x_nhwc, captions)


def _ways_of_mixing(config: AugmentConfig) -> dict[str, float]:
    """Return in which share of the batches cells are mixed in which way."""
    ways = [way for way in ("mixup", "cutmix") if getattr(config, way) > 0 and config.mix_share > 0]
    return {way: config.mix_share / len(ways) for way in ways}


def _details(config: AugmentConfig) -> str:
    words = [
        text.format(100 * value if "%" in text else value).replace(" ", "\N{NO-BREAK SPACE}")
        for name, text in _WORDS.items()
        if (value := getattr(config, name))
    ]
    return textwrap.fill(", ".join(words) or "nothing is changed", _PRINT_WIDTH)


def _shares(target_k: NDArray[np.float32], names: tuple[str, ...]) -> str:
    """Say which classes a mixed cell belongs to, the larger share first."""
    order = np.argsort(-target_k, kind="stable")[:2]
    return "\n".join(f"{100 * target_k[k]:.0f} % {shorten(names[k], 18)}" for k in order if target_k[k] >= 0.005)


def _draw(ax: Axes, strip: _Strip) -> None:
    outlines = (strip.crops_nhwc[..., 3:] > 0).astype(np.uint8) * 255  # a blended mask is grey
    crops_nhwc = np.concatenate([strip.crops_nhwc[..., :3], outlines], axis=-1)
    sheet = mosaic([outlined(crop, size_px=_TILE_PX) for crop in crops_nhwc], n_cols=len(crops_nhwc))
    ax.imshow(sheet, interpolation="antialiased")
    ax.set_axis_off()
    n_lines = strip.details.count("\n") + 1
    ax.set_title(strip.title, pad=3 + 72 * _LINE_IN * n_lines)
    ax.annotate(strip.details, (0, 1), xytext=(0, 2), xycoords="axes fraction", textcoords="offset points", va="bottom",
                fontsize=_SMALL, color=FAINT)  # fmt: skip
    for i, caption in enumerate(strip.captions):
        place = (i * sheet.shape[1] / len(strip.captions), sheet.shape[0])
        ax.annotate(caption, place, xytext=(0, -1.5), textcoords="offset points", va="top", annotation_clip=False,
                    fontsize=_SMALL, color=FAINT)  # fmt: skip

"""Mixing of cells within a finished batch: picture, mask and label together.

mixup (Zhang, Cissé, Dauphin & Lopez-Paz 2018, ICLR, arXiv:1710.09412) blends two cells; cutmix (Yun et al. 2019,
ICCV, arXiv:1905.04899) pastes a rectangle of one into the other. In cutmix the labels weigh here by the share of
either outline that shows, not by area: a rectangle of nothing but background brings no other class.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.colour import MASK
from perikarya.settings import AugmentConfig

# sets these numbers apart from those of the order of an epoch: NumPy takes [seed, epoch] for [seed, epoch, 0]
_STREAM = 0x6D6978

Cells = NDArray[np.uint8]
Targets = NDArray[np.float32]


def mix_batch(
    x_nhwc: Cells, y_nk: Targets, *, config: AugmentConfig, seed: int, epoch: int, step: int
) -> tuple[Cells, Targets]:
    """Mix each cell of a batch with another of the same batch, by chance, as ``config`` asks.

    Each cell is the partner of one other (or, rarely, its own). Where both ``mixup`` and ``cutmix`` are asked for, each
    batch gets one of them, by a throw of a coin. The result follows from (seed, epoch, step) alone.

    Parameters
    ----------
    x_nhwc
        Shape (n_cells, S, S, 4), uint8: red, green, blue, mask. Not written to.
    y_nk
        Shape (n_cells, n_classes), float32: one-hot labels, or targets that sum to 1. Not written to.
    config
        ``mixup``, ``cutmix`` and ``mix_share`` count.
    seed, epoch, step
        What the random numbers follow from; ``step`` counts the batches of an epoch.

    Returns
    -------
    Cells and targets of the same shapes: new arrays, or the given ones where nothing is mixed. With mixup the mask
    holds shades of grey, each cell's weight where it lies; with cutmix it is 0 or 255, from the same cell as the
    picture at every pixel.

    Raises
    ------
    ValueError
        If cells and targets do not fit together.
    """
    if x_nhwc.dtype != np.uint8 or x_nhwc.ndim != 4 or y_nk.ndim != 2 or len(x_nhwc) != len(y_nk):
        raise ValueError(
            f"expected uint8 cells (n, S, S, 4) and targets (n, k), got {x_nhwc.dtype} {x_nhwc.shape}, {y_nk.shape}"
        )
    alphas = (config.mixup, config.cutmix)
    if max(alphas) == 0:
        return x_nhwc, y_nk
    rng = np.random.default_rng([_STREAM, seed % 2**64, epoch, step])
    changed, coin = rng.random(2)
    if changed >= config.mix_share:
        return x_nhwc, y_nk
    mix, alpha = (_mixup, alphas[0]) if coin < _chance_of_mixup(alphas) else (_cutmix, alphas[1])
    partner = rng.permutation(len(x_nhwc))
    mixed, kept = mix(x_nhwc, partner, rng.beta(alpha, alpha, len(x_nhwc)), rng)
    weight = kept.astype(np.float32)[:, None]
    return mixed, (weight * y_nk + (1 - weight) * y_nk[partner]).astype(np.float32)


def _chance_of_mixup(alphas: tuple[float, float]) -> float:
    mixup, cutmix = alphas
    return 0.5 if mixup > 0 and cutmix > 0 else float(mixup > 0)


def _mixup(
    x_nhwc: Cells, partner: NDArray[np.int64], share: NDArray[np.float64], _: np.random.Generator
) -> tuple[Cells, NDArray[np.float64]]:
    """Blend cells with their partners; return them and the weight of their own labels."""
    mixed = np.empty_like(x_nhwc)
    for i, (j, own) in enumerate(zip(partner, share.tolist(), strict=True)):
        cv2.addWeighted(x_nhwc[i], own, x_nhwc[j], 1 - own, 0.0, dst=mixed[i])
    return mixed, share


def _cutmix(
    x_nhwc: Cells, partner: NDArray[np.int64], share: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Cells, NDArray[np.float64]]:
    """Paste rectangles of the partners; return the cells and the weight of their own labels."""
    n, height, width = x_nhwc.shape[:3]
    mixed = x_nhwc.copy()
    boxes = _boxes(np.sqrt(1 - share), rng.random((2, n)), height, width)
    outline_n = np.array([cv2.sumElems(cell)[MASK] for cell in x_nhwc])
    pasted_n, lost_n = np.empty(n), np.empty(n)
    for i, (j, (top, bottom, left, right)) in enumerate(zip(partner, boxes, strict=True)):
        patch = x_nhwc[j, top:bottom, left:right]
        lost_n[i] = mixed[i, top:bottom, left:right, MASK].sum(dtype=np.int64)
        pasted_n[i] = patch[..., MASK].sum(dtype=np.int64)
        mixed[i, top:bottom, left:right] = patch
    top, bottom, left, right = boxes.T
    area_left = 1 - (bottom - top) * (right - left) / (height * width)
    # of either cell the share of its own outline, so that a small pyknotic cell counts as much as a large normal one
    shown = (outline_n - lost_n) / np.maximum(outline_n, 1)
    pasted = pasted_n / np.maximum(outline_n[partner], 1)
    total = shown + pasted
    return mixed, np.where(total > 0, shown / np.where(total > 0, total, 1), area_left)


def _boxes(side: NDArray[np.float64], centre: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Return top, bottom, left, right of rectangles, shape (n, 4), as Yun et al. draw them.

    The sides are a share of the picture's; the centre is anywhere, and what lies beyond the picture is cut off.
    """
    edges = [
        np.rint(np.clip(middle + half * side / 2, 0, 1) * length)
        for middle, length in zip(centre, (height, width), strict=True)
        for half in (-1, 1)
    ]
    return np.stack(edges, axis=1).astype(np.int64)

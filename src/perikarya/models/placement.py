"""Where in the picture the places of a feature map lie, which is not where enlarging the map puts them.

A convolution of stride 2 and kernel 3 with one pixel of padding on each side, as in ResNet, looks around pixel 2i for
its place i, not around 2i + 1/2, the middle of the pixels 2i and 2i + 1 that enlarging gives it. Over five of them the
maps of a ResNet lie 15.5 pixels too far to the right and down; those of networks ported from TensorFlow, which pad on
the right and below only, as far to the left and up. Patches, and windows that do not overlap, lie where they should.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

_STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


class Displacement:
    """How far the places of a layer lie from where enlarging puts them, noted while a network answers.

    Where two paths lead to the same size, as beside the shortcut of a residual block, their mean counts.
    """

    def __init__(self) -> None:
        self.reached = False
        self._input_hw: tuple[int, int] | None = None
        self._levels: dict[tuple[int, ...], list[tuple[float, float]]] = {}

    @property
    def yx_px(self) -> tuple[float, float]:
        """Down and to the right, in pixels of the input."""
        means = [np.mean(found, axis=0) for found in self._levels.values()]
        down, right = np.sum(means, axis=0) if means else (0.0, 0.0)
        return float(down), float(right)

    def note(self, module: Any, input_hw: tuple[int, int], output_hw: tuple[int, int]) -> None:
        """Note a layer with strides."""
        if self.reached:
            return
        self._input_hw = self._input_hw or input_hw
        off = [
            whole / n_in * _off_centre(module, axis, n_in, n_out)
            for axis, (whole, n_in, n_out) in enumerate(zip(self._input_hw, input_hw, output_hw, strict=True))
        ]
        self._levels.setdefault((*input_hw, *output_hw), []).append((off[0], off[1]))


def _off_centre(module: Any, axis: int, n_in: int, n_out: int) -> float:
    """Return how far from the middle of its ``stride`` pixels a place of a layer looks, in pixels of its input."""
    kernel, stride, padding = (_of_axis(getattr(module, name), axis) for name in ("kernel_size", "stride", "padding"))
    if type(module).__name__.endswith("Same"):  # timm's, which pad as they run, less at the start than at the end
        padding = max((n_out - 1) * stride + kernel - n_in, 0) // 2
    return (kernel - 1) / 2 - padding - (stride - 1) / 2


def _of_axis(value: Any, axis: int) -> int:
    return int(value[axis] if isinstance(value, tuple) else value)


@contextmanager
def displacement_of(branch: nn.Module, layer: nn.Module | None = None) -> Iterator[Displacement]:
    """Watch a network while it answers, up to a layer, or all of it.

    Parameters
    ----------
    branch
        The network, or the part of it, that is given the picture.
    layer
        Whose places are asked for.
    """
    found = Displacement()

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.note(module, tuple(inputs[0].shape[-2:]), tuple(output.shape[-2:]))  # type: ignore[arg-type]

    def stop(*_: Any) -> None:
        found.reached = True

    strided = [m for m in branch.modules() if isinstance(m, _STRIDED) and np.max(m.stride) > 1]
    hooks = [module.register_forward_hook(watch) for module in strided]
    hooks += [layer.register_forward_hook(stop)] if layer is not None else []
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def moved(maps_nhw: NDArray[np.float32], yx_px: tuple[float, float]) -> NDArray[np.float32]:
    """Move maps down and to the right; what comes in at a border continues the border."""
    if not any(yx_px):
        return maps_nhw
    down, right = yx_px
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    height, width = maps_nhw.shape[1:]
    shifted = [
        cv2.warpAffine(m, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for m in maps_nhw
    ]
    return np.stack(shifted).astype(np.float32)

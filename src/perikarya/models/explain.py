"""Where a network looks when it names a class: class activation maps, and attention maps of vision transformers.

A map says which places the answer hung on, not whether the answer is right; it is as coarse as the layer it is taken
from (7 x 7 for most networks at 224 px).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.models.attention_maps import attention_gradient, rollout
from perikarya.models.build import CellNetwork
from perikarya.models.cam_targets import TRANSFORMERS, CamTarget, cam_targets, n_views
from perikarya.models.frozen_head import FrozenHead
from perikarya.models.placement import displacement_of, moved

ActivationMethod = Literal["gradcam", "gradcam++", "scorecam", "eigencam"]
AttentionMethod = Literal["attention-gradient", "attention-rollout"]
Method = ActivationMethod | AttentionMethod
ACTIVATION_METHODS: tuple[str, ...] = get_args(ActivationMethod)
METHODS: tuple[str, ...] = (*ACTIVATION_METHODS, *get_args(AttentionMethod))

_AT_ONCE = 2  # cells in one pass; to trace attention, a large transformer at 384 px keeps 1.3 GiB for each


@dataclass(frozen=True)
class MapSource:
    """What a map is read from: a layer by its name in the network, and the rows and columns it tells apart."""

    layer: str
    grid_hw: tuple[int, int]


def map_sources(network: CellNetwork, arch: str, *, input_hw: tuple[int, int], method: Method) -> tuple[MapSource, ...]:
    """Return the layers that ``class_maps`` reads and how fine their grids are; one for each branch.

    Raises
    ------
    ConfigError
        As ``class_maps`` does.
    """
    if method not in ACTIVATION_METHODS:
        backbone = _transformer(network, arch, method)
        return (MapSource("attention of all blocks", tuple(backbone.patch_embed.dynamic_feat_size(input_hw))),)
    targets = cam_targets(network, arch, input_hw=input_hw)
    grids: dict[int, tuple[int, int]] = {}
    hooks = [t.layer.register_forward_hook(partial(_note_grid, grids, i, t)) for i, t in enumerate(targets)]
    try:
        with _undisturbed(network), torch.inference_mode():
            network(torch.zeros(1, 4, *input_hw, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in network.named_modules()}
    return tuple(MapSource(names[t.layer], grids[i]) for i, t in enumerate(targets))


def advised_method(network: CellNetwork) -> Method:
    """Return the method to trust for a family: attention for vision transformers, Grad-CAM for all others.

    Grad-CAM gives each feature one weight for the whole picture, so it cannot see which patches the answer attended
    to: its maps of a transformer's last block are often inverted. On 15 small transformers trained to find a coloured
    square, it peaked at the square in 8 and ``attention-gradient`` in 13 (tests/models/test_explain.py).
    """
    return "attention-gradient" if isinstance(network.backbone, TRANSFORMERS) else "gradcam"


def class_maps(
    network: CellNetwork,
    arch: str,
    x_nchw: Tensor | NDArray[Any],
    classes: Sequence[int] | NDArray[np.integer[Any]],
    *,
    method: Method = "gradcam",
) -> NDArray[np.float32]:
    """Map how much each place of each cell spoke for a class. The network is left as it was.

    Parameters
    ----------
    network
        Of any family of the zoo, trained or not.
    arch
        Its name, for messages.
    x_nchw
        Cells, (n, 4, height, width), pixel values 0..255 of any dtype, at the network's input size.
    classes
        The class each cell's map is about, (n,): that predicted, or any other.
    method
        ``gradcam`` (Selvaraju et al. 2017), ``gradcam++`` (Chattopadhay et al. 2018), ``scorecam`` (Wang et al. 2020;
        one pass per feature, so minutes per cell for wide networks), ``eigencam`` (Muhammad & Yeasin 2020; the same
        for all classes); for vision transformers also ``attention-gradient`` (Chefer, Gur & Wolf 2021) and
        ``attention-rollout`` (Abnar & Zuidema 2020; the same for all classes). See ``advised_method``.

    Returns
    -------
    Shape (n, height, width), float32; 0 to 1 within each cell. All 0 where nothing spoke for the class.

    Raises
    ------
    ConfigError
        If the method is unknown, does not suit the network, or needs a package that is not installed.
    DataError
        If cells and classes do not fit the network or each other.
    """
    if method not in METHODS:
        raise UnknownNameError("method of explanation", method, METHODS)
    x_nchw, chosen = torch.as_tensor(x_nchw), np.asarray(classes)
    _check_cells(x_nchw, chosen, n_classes=_n_classes(network))
    explain = _activation_maps(method) if method in ACTIVATION_METHODS else _attention_maps(method)
    device = next(network.parameters()).device
    maps = []
    with _undisturbed(network), torch.inference_mode(False):
        for rows in np.array_split(np.arange(len(chosen)), -(-len(chosen) // _AT_ONCE)):
            some_nchw = x_nchw[rows].to(device, torch.float32, copy=True)
            maps.append(_stretched(explain(network, arch, some_nchw, [_ClassScore(int(k)) for k in chosen[rows]])))
    return np.concatenate(maps)


def share_inside(map_nhw: NDArray[np.float32], mask_nhw: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Measure how much of each map lies inside its cell's outline.

    Parameters
    ----------
    map_nhw
        Shape (n_cells, height, width), 0 or more, as from ``class_maps``.
    mask_nhw
        The same shape; pixels above 0 belong to the cell.

    Returns
    -------
    Shape (n_cells,), 0 to 1; NaN where a map is 0 everywhere. Compare with the share of the window that the cell
    covers: an even map has that.

    Raises
    ------
    DataError
        If maps and masks differ in shape.
    """
    if map_nhw.shape != mask_nhw.shape:
        raise DataError(f"Maps are {map_nhw.shape} but masks are {mask_nhw.shape}; they must cover the same pixels.")
    total = map_nhw.sum(axis=(1, 2), dtype=np.float64)
    inside = np.where(mask_nhw > 0, map_nhw, 0).sum(axis=(1, 2), dtype=np.float64)
    share_n: NDArray[np.float64] = np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)
    return share_n


@dataclass(frozen=True)
class _ClassScore:
    """The number a map explains: the output for a class."""

    number: int

    def __call__(self, output_k: Tensor) -> Tensor:
        return output_k[self.number]


_Explain = Callable[[CellNetwork, str, Tensor, list[_ClassScore]], NDArray[np.float32]]


def _note_grid(
    grids: dict[int, tuple[int, int]], number: int, target: CamTarget, _layer: nn.Module, _inputs: Any, output: Tensor
) -> None:
    rows, columns = target.to_nchw(output).shape[-2:]
    grids[number] = (rows, columns)


def _n_classes(network: CellNetwork) -> int:
    if isinstance(network, FrozenHead):
        return len(network.head_intercept)
    backbone: Any = network.backbone
    return int(backbone.num_classes) + network.ordinal  # an ordinal one has a ratio less than classes


def _check_cells(x_nchw: Tensor, classes: NDArray[Any], *, n_classes: int) -> None:
    if x_nchw.ndim != 4 or classes.shape != x_nchw.shape[:1] or not len(classes):
        raise DataError(
            f"Cells are {tuple(x_nchw.shape)} and classes {classes.shape}; maps need (n, 4, height, width) and (n,), "
            "n at least 1: each map is about one class of one cell."
        )
    if not np.issubdtype(classes.dtype, np.integer):
        raise DataError(f"classes holds {classes.dtype}, but a class is its number in the study's order.")
    unknown = classes[(classes < 0) | (classes >= n_classes)]
    if len(unknown):
        raise DataError(f"There is no class {unknown[0]}: the network knows 0 to {n_classes - 1}.")


def _activation_maps(method: str) -> _Explain:
    try:
        from perikarya.models.cam_methods import CAM_METHODS
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Class activation maps need the package {error.name}, which is not installed.\n"
            "Fix: pip install 'perikarya[explain]'"
        ) from None
    make_cam = CAM_METHODS[method]

    def explain(network: CellNetwork, arch: str, x_nchw: Tensor, scores: list[_ClassScore]) -> NDArray[np.float32]:
        # one pass per branch: the package pairs activations with gradients by order, which branches may not keep
        targets = cam_targets(network, arch, input_hw=(x_nchw.shape[2], x_nchw.shape[3]))
        maps: NDArray[np.float32] = np.mean(
            [_layer_maps(make_cam, network, t, x_nchw, scores) for t in targets], axis=0
        )
        return maps

    return explain


def _layer_maps(
    make_cam: Any, network: CellNetwork, target: CamTarget, x_nchw: Tensor, scores: list[_ClassScore]
) -> NDArray[np.float32]:
    start = target.layer.register_forward_hook(_start_gradients)
    cam = make_cam(network, [target.layer], reshape_transform=target.to_nchw)
    try:
        with torch.set_grad_enabled(cam.uses_gradients), displacement_of(target.branch, target.layer) as away:
            maps_nhw: NDArray[np.float32] = cam(x_nchw, scores)
    finally:
        cam.activations_and_grads.release()
        start.remove()
    return moved(maps_nhw, away.yx_px)


def _start_gradients(_layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    """Have autograd watch from this layer on only: in a frozen network it would watch nothing, or with the picture all.

    A copy goes on, for what autograd starts from must not be changed in place.
    """
    return output.requires_grad_(torch.is_grad_enabled()).clone()


def _attention_maps(method: str) -> _Explain:
    def explain(network: CellNetwork, arch: str, x_nchw: Tensor, scores: list[_ClassScore]) -> NDArray[np.float32]:
        backbone = _transformer(network, arch, method)
        with displacement_of(backbone) as away:
            if method == "attention-rollout":
                seen_nhw = rollout(network, backbone, x_nchw)
            else:
                seen_nhw = attention_gradient(network, backbone, x_nchw, scores)
        summed_nhw = torch.stack(seen_nhw.chunk(n_views(network))).sum(dim=0)
        return moved(summed_nhw.cpu().numpy(), away.yx_px)

    return explain


def _transformer(network: CellNetwork, arch: str, method: str) -> Any:
    backbone = network.backbone
    if not isinstance(backbone, TRANSFORMERS):
        raise ConfigError(
            f"{method} needs attention of every patch to every other, which {arch} ({type(backbone).__name__}) "
            f"does not have.\nFix: choose one of {', '.join(ACTIVATION_METHODS)}."
        )
    return backbone


def _stretched(maps_nhw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring each map to 0..1; one that is the same everywhere becomes 0."""
    maps_nhw = maps_nhw - maps_nhw.min(axis=(1, 2), keepdims=True)
    highest = maps_nhw.max(axis=(1, 2), keepdims=True)
    stretched_nhw: NDArray[np.float32] = np.divide(maps_nhw, highest, out=np.zeros_like(maps_nhw), where=highest > 0)
    return stretched_nhw


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """Judge and freeze a network for a while; put modes, flags and gradients back as they were."""
    modes = [(module, module.training) for module in network.modules()]
    parameters = [(p, p.requires_grad, p.grad) for p in network.parameters()]
    network.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, wanted, grad in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = grad

"""Build a network of the zoo: four channels in, any number of classes out, weights from a resolved source."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perikarya.errors import WeightsError
from perikarya.models.stem import MaskInit, widen_stem
from perikarya.models.weights import RANDOM, WeightsFile, fit_to_network, read_state_dict
from perikarya.models.zoo import NETWORKS, NetworkSpec

log = logging.getLogger(__name__)


class CellNetwork(nn.Module):
    """A network with its normalisation inside: pixel values in, logits out.

    Parameters
    ----------
    backbone
        Takes (n, channels, side, side), normalised, and returns logits or pooled features.
    mean, std
        Of the RGB channels, in 0..1. The mask goes in as 0 and 1.
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, backbone: nn.Module, *, mean: Sequence[float], std: Sequence[float], in_chans: int) -> None:
        super().__init__()
        self.backbone = backbone
        scale = [1 / (255 * s) for s in std] + [1 / 255]
        shift = [-m / s for m, s in zip(mean, std, strict=True)] + [0.0]
        self.register_buffer("pixel_scale", torch.tensor(scale[:in_chans]), persistent=False)
        self.register_buffer("pixel_shift", torch.tensor(shift[:in_chans]), persistent=False)

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map pixel values 0..255, (n, channels, side, side), any dtype, to (n, n_classes) logits."""
        return torch.as_tensor(self.backbone(self.normalised(x_nchw)))

    def normalised(self, x_nchw: Tensor) -> Tensor:
        """Map pixel values 0..255, any dtype, to what the backbone was trained on; a channels-last view stays one."""
        # one long row of pixel values, constants repeated to its length, no second array: ten times faster on a CPU
        # than broadcasting over a last dimension of four channels
        n, chans, height, width = x_nchw.shape
        rows = x_nchw.permute(0, 2, 3, 1).reshape(n * height, width * chans).to(self.pixel_scale.dtype, copy=True)
        rows = rows.mul_(self.pixel_scale.repeat(width)).add_(self.pixel_shift.repeat(width))
        return rows.view(n, height, width, chans).permute(0, 3, 1, 2)


def build_network(
    arch: str,
    *,
    n_classes: int,
    weights: WeightsFile = RANDOM,
    mask_init: MaskInit = "zero",
) -> CellNetwork:
    """Build a four-channel network for fine-tuning.

    With pretrained weights, the output before training is that of the three-channel network on the same picture
    (``mask_init="zero"``); with random weights, the filters of all four channels are drawn alike.

    Raises
    ------
    WeightsError
        If the weights do not fit the network.
    """
    spec = NETWORKS.get(arch)
    if not weights.pretrained:
        return CellNetwork(_bare(spec, in_chans=4, n_classes=n_classes), mean=spec.mean, std=spec.std, in_chans=4)
    backbone = _load_pretrained(spec, weights, n_classes=n_classes)
    widen_stem(backbone, first_conv=_first_conv(backbone), mask_init=mask_init)
    return CellNetwork(backbone, mean=spec.mean, std=spec.std, in_chans=4)


def build_feature_extractor(arch: str, *, weights: WeightsFile) -> CellNetwork:
    """Build the frozen three-channel network that yields pooled features, (n, n_features), ready for inference."""
    spec = NETWORKS.get(arch)
    if weights.pretrained:
        backbone = _load_pretrained(spec, weights, n_classes=0)
    else:
        backbone = _bare(spec, in_chans=3, n_classes=0)
    network = CellNetwork(backbone, mean=spec.mean, std=spec.std, in_chans=3)
    return network.eval().requires_grad_(False)


def n_parameters(network: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def _bare(spec: NetworkSpec, *, in_chans: int, n_classes: int) -> nn.Module:
    if spec.build_own is not None:
        return spec.build_own(in_chans, n_classes)
    import timm

    network: nn.Module = timm.create_model(spec.timm_name, pretrained=False, in_chans=in_chans, num_classes=n_classes)
    return network


def _first_conv(backbone: nn.Module) -> str:
    cfg = getattr(backbone, "pretrained_cfg", None)
    return str(cfg["first_conv"]) if cfg else "conv_stem"


def _classifier_prefixes(backbone: nn.Module) -> tuple[str, ...]:
    cfg = getattr(backbone, "pretrained_cfg", None)
    found = cfg["classifier"] if cfg else "head"
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(f"{name}." for name in names)


def _load_pretrained(spec: NetworkSpec, weights: WeightsFile, *, n_classes: int) -> nn.Module:
    """Build on RGB and load everything but the classifier, strictly."""
    reference = _bare(spec, in_chans=3, n_classes=1000 if spec.timm_name else n_classes)
    prefixes = _classifier_prefixes(reference)
    state = fit_to_network(read_state_dict(weights), reference.state_dict(), spec=spec)
    backbone = _bare(spec, in_chans=3, n_classes=n_classes)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    target = {name: t for name, t in backbone.state_dict().items() if not name.startswith(prefixes)}
    wrong = [n for n in target if n not in state or state[n].shape != target[n].shape]
    unknown = [n for n in state if n not in target]
    if wrong or unknown:
        raise WeightsError(
            f"{weights.source} does not fit the network: {len(wrong)} of {len(target)} tensors are missing or of "
            f"another shape (first: {(wrong or unknown)[0]}), {len(unknown)} are unknown.\n"
            "A partly loaded network trains, but is not the network it claims to be.\n"
            "Fix: choose weights of the same architecture."
        )
    backbone.load_state_dict(state, strict=False)
    return backbone

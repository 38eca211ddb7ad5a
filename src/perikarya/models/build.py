"""Build a network of the zoo: four channels in, any number of classes out, weights from a resolved source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from perikarya.errors import WeightsError
from perikarya.models.loading import load_pretrained, spec_of_width
from perikarya.models.nets import JoinedNetwork, pool_class_and_mean
from perikarya.models.ordinal import continuation_log_probs
from perikarya.models.stem import MaskInit, widen_stem
from perikarya.models.weights import RANDOM, WeightsFile
from perikarya.models.zoo import NETWORKS, check_input_px
from perikarya.models.zoo_spec import NetworkSpec
from perikarya.settings import Channels

_WITH_MASK: Channels = "rgb+mask"


class CellNetwork(nn.Module):
    """A network that chooses its channels and normalises them itself: pixel values of whole crops in, logits out.

    Parameters
    ----------
    backbone
        Takes (n, 4, side, side) where ``channels`` are ``rgb+mask``, else (n, 3, side, side), normalised, and returns
        logits, continuation ratios or pooled features.
    mean, std
        Of the RGB channels, in 0..1. The mask goes in as 0 and 1, or as a white-on-black picture where it goes alone.
    channels
        What of a crop the backbone is shown.
    ordinal
        Whether the backbone returns continuation ratios, (n, n_classes - 1).
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        channels: Channels = _WITH_MASK,
        ordinal: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels: Channels = channels
        self.ordinal = ordinal
        # saved with the weights, for they belong to them
        self.register_buffer("pixel_scale", torch.tensor([1 / (255 * s) for s in std] + [1 / 255]))
        self.register_buffer("pixel_shift", torch.tensor([-m / s for m, s in zip(mean, std, strict=True)] + [0.0]))

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map crops of pixel values 0..255, (n, 4, side, side), any dtype, to (n, n_classes) logits.

        With ``ordinal`` they are log-probabilities, which are logits too: their softmax are the probabilities.
        """
        out = torch.as_tensor(self.backbone(self.normalised(x_nchw)))
        return continuation_log_probs(out) if self.ordinal else out

    @property
    def n_features(self) -> int:
        """Number of pooled features before the classifier."""
        return int(self.backbone.head_hidden_size)  # type: ignore[arg-type]  # timm's networks and ours have it

    def with_features(self, x_nchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits as ``forward`` does, (n, n_classes), and the features they come from, (n, n_features)."""
        backbone: Any = self.backbone
        features = backbone.forward_head(backbone.forward_features(self.normalised(x_nchw)), pre_logits=True)
        out = backbone.get_classifier()(features)
        return continuation_log_probs(out) if self.ordinal else out, features

    def normalised(self, x_nchw: Tensor, channels: Channels | None = None) -> Tensor:
        """Map crops of pixel values 0..255, any dtype, to what the backbone was trained on.

        Returns
        -------
        Shape (n, 4, side, side) where ``channels`` (the network's own by default) are ``rgb+mask``, else
        (n, 3, side, side); a channels-last view stays one.
        """
        x_nchw = select_channels(x_nchw, channels or self.channels)
        # one long row of pixel values, constants repeated to its length, no second array: ten times faster on a CPU
        # than broadcasting over a last dimension of four channels
        n, chans, height, width = x_nchw.shape
        rows = x_nchw.permute(0, 2, 3, 1).reshape(n * height, width * chans).to(self.pixel_scale.dtype, copy=True)
        rows = rows.mul_(self.pixel_scale[:chans].repeat(width)).add_(self.pixel_shift[:chans].repeat(width))
        return rows.view(n, height, width, chans).permute(0, 3, 1, 2)


def select_channels(x_nchw: Tensor, channels: Channels) -> Tensor:
    """Return what of whole crops, (n, 4, side, side), a network is shown, as pixel values 0..255.

    ``rgb+mask`` is all of it, ``rgb`` the picture, ``masked-rgb`` the picture with black outside the mask, ``mask``
    the mask as a white-on-black picture of three channels.
    """
    if channels == "rgb+mask":
        return x_nchw
    if channels == "mask":
        return x_nchw[:, 3:].expand(-1, 3, -1, -1)
    picture = x_nchw[:, :3]
    return picture * (x_nchw[:, 3:] > 0) if channels == "masked-rgb" else picture


def build_network(
    arch: str,
    *,
    n_classes: int,
    weights: WeightsFile = RANDOM,
    mask_init: MaskInit = "zero",
    channels: Channels = _WITH_MASK,
    input_px: int | None = None,
    ordinal: bool = False,
) -> CellNetwork:
    """Build a network for fine-tuning.

    With pretrained weights, the output before training is that of the three-channel network on the same picture
    (``mask_init="zero"``); with random weights, the filters of all four channels are drawn alike.

    Parameters
    ----------
    arch
        Name in the zoo.
    n_classes
        How many classes it tells apart.
    weights
        Where it starts from.
    mask_init
        How the filters of the mask start beside pretrained ones.
    channels
        What of a crop it is shown; only ``rgb+mask`` needs a fourth channel.
    input_px
        Side of its input; None: the zoo's.
    ordinal
        Whether it has continuation ratios inside, for ordered classes.

    Raises
    ------
    ConfigError
        If the network does not take pictures of that size.
    WeightsError
        If the weights do not fit the network.
    """
    backbone, spec = _backbone(
        NETWORKS.get(arch),
        weights,
        n_outputs=_n_outputs(n_classes, ordinal=ordinal),
        input_px=_side(arch, input_px),
        mask_init=mask_init if channels == _WITH_MASK else None,
    )
    return CellNetwork(backbone, mean=spec.mean, std=spec.std, channels=channels, ordinal=ordinal)


def build_feature_extractor(arch: str, *, weights: WeightsFile, input_px: int | None = None) -> CellNetwork:
    """Build the frozen three-channel network that yields pooled features, (n, n_features), ready for inference.

    It is shown the picture unless ``normalised`` is asked for other channels.
    """
    spec = NETWORKS.get(arch)
    side = _side(arch, input_px or spec.head_px)
    backbone, spec = _backbone(spec, weights, n_outputs=0, input_px=side, mask_init=None)
    network = CellNetwork(backbone, mean=spec.mean, std=spec.std, channels="rgb")
    return network.eval().requires_grad_(False)


def restore_network(
    arch: str,
    tensors: Mapping[str, Tensor],
    *,
    n_classes: int,
    channels: Channels = _WITH_MASK,
    input_px: int | None = None,
    ordinal: bool = False,
) -> CellNetwork:
    """Build a network again from all the tensors it was saved with, ready for inference.

    Parameters
    ----------
    tensors
        The ``state_dict`` of what ``build_network`` returned; weights, and the normalisation that belongs to them.
    arch, n_classes, channels, input_px, ordinal
        As they were given to ``build_network``.

    Raises
    ------
    WeightsError
        If the tensors are not those of such a network.
    """
    spec = _spec_as_saved(arch, tensors)
    with_mask = channels == _WITH_MASK
    own_path = with_mask and any(name.endswith(".picture.weight") for name in tensors)  # of a mask: see TwoPathStem
    backbone = _bare(
        spec,
        in_chans=4 if with_mask and not own_path else 3,
        n_outputs=_n_outputs(n_classes, ordinal=ordinal),
        input_px=_side(arch, input_px),
    )
    if own_path:
        widen_stem(backbone, first_conv=_first_conv(backbone), mask_init="zero")
    network = CellNetwork(backbone, mean=spec.mean, std=spec.std, channels=channels, ordinal=ordinal)
    kept = {name: tensor for name, tensor in network.state_dict().items() if name.startswith("pixel_")}
    try:
        network.load_state_dict({**kept, **tensors})  # networks saved by version 0.1 go without their normalisation
    except RuntimeError as error:
        raise WeightsError(
            f"These tensors are not those of {arch} with {n_classes} classes and channels {channels}: "
            f"{str(error).splitlines()[-1].strip()[:200]}\n"
            "Fix: name the network, classes, channels and input size it was trained with."
        ) from None
    return network.eval()


def bare_extractor(arch: str, tensors: Mapping[str, Tensor], *, input_px: int) -> CellNetwork:
    """Build what ``build_feature_extractor`` does with random weights, for tensors of such a network to be put in."""
    spec = _spec_as_saved(arch, tensors)
    backbone = _bare(spec, in_chans=3, n_outputs=0, input_px=_side(arch, input_px))
    return CellNetwork(backbone, mean=spec.mean, std=spec.std, channels="rgb")


def n_parameters(network: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def _spec_as_saved(arch: str, tensors: Mapping[str, Tensor]) -> NetworkSpec:
    """Return the specification of the network that tensors are of: of a ViT in several sizes, their width tells."""
    spec = NETWORKS.get(arch)
    token = tensors.get("backbone.cls_token")
    return spec if token is None else spec_of_width(spec, token.shape[-1]) or spec


def _side(arch: str, input_px: int | None) -> int:
    side = input_px or NETWORKS.get(arch).input_px
    check_input_px(arch, side)
    return side


def _n_outputs(n_classes: int, *, ordinal: bool) -> int:
    return n_classes - 1 if ordinal else n_classes


def _backbone(
    spec: NetworkSpec, weights: WeightsFile, *, n_outputs: int, input_px: int, mask_init: MaskInit | None
) -> tuple[nn.Module, NetworkSpec]:
    """Build what a CellNetwork holds, with a fourth channel where ``mask_init`` says how it starts."""
    if spec.branches:
        parts = weights.parts or (RANDOM,) * len(spec.branches)
        branches = [
            _backbone(NETWORKS.get(name), part, n_outputs=0, input_px=input_px, mask_init=mask_init)[0]
            for name, part in zip(spec.branches, parts, strict=True)
        ]
        return JoinedNetwork(*branches, n_classes=n_outputs), spec
    if not weights.pretrained:
        return _bare(spec, in_chans=3 if mask_init is None else 4, n_outputs=n_outputs, input_px=input_px), spec
    backbone, spec = load_pretrained(
        spec, weights, lambda found: _bare(found, in_chans=3, n_outputs=n_outputs, input_px=input_px)
    )
    if mask_init is not None:
        widen_stem(backbone, first_conv=_first_conv(backbone), mask_init=mask_init)
    return backbone, spec


def _bare(spec: NetworkSpec, *, in_chans: int, n_outputs: int, input_px: int) -> nn.Module:
    """Build the network of a specification with random weights."""
    if spec.branches:
        branches = [
            _bare(NETWORKS.get(name), in_chans=in_chans, n_outputs=0, input_px=input_px) for name in spec.branches
        ]
        return JoinedNetwork(*branches, n_classes=n_outputs)
    if spec.build_own is not None:
        return spec.build_own(in_chans, n_outputs)
    import timm  # takes longer than torch to import, and our own networks do without

    settings = dict(spec.timm_kwargs)
    if spec.sized:
        settings["img_size"] = input_px
    if spec.swiglu:
        settings |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    network: nn.Module = timm.create_model(
        spec.timm_name, pretrained=False, in_chans=in_chans, num_classes=n_outputs, **settings
    )
    if spec.pooling == "class token and mean":
        pool_class_and_mean(network, n_classes=n_outputs)
    return network


def _first_conv(backbone: nn.Module) -> str:
    cfg: dict[str, Any] | None = getattr(backbone, "pretrained_cfg", None)
    return str(cfg["first_conv"]) if cfg else "conv_stem"

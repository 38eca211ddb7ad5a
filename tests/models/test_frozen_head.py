"""A head and its frozen network, put together, answer as the files do, and their maps add up both views."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.models.planted import GREEN, RED, both_squares, learned, peak_corners
from tests.models.reduced import crops
from torch import Tensor

from perikarya.errors import WeightsError
from perikarya.models.build import CellNetwork, build_feature_extractor
from perikarya.models.embed import embed
from perikarya.models.explain import advised_method, class_maps
from perikarya.models.frozen_head import FrozenHead
from perikarya.models.nets import CustomCnn
from perikarya.models.weights import RANDOM
from perikarya.models.zoo import NETWORKS
from perikarya.settings import Channels
from perikarya.train.head import predict_head


def head_on(n_features: int, *, n_classes: int = 3) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    coef = torch.randn(n_classes, n_features, generator=rng) / n_features**0.5
    coef[1] = -coef[0]  # what speaks against one speaks for the other
    return {
        "head.mean": torch.randn(n_features, generator=rng) / 10,
        "head.scale": torch.rand(n_features, generator=rng) + 0.5,
        "head.coef": coef,
        "head.intercept": torch.randn(n_classes, generator=rng),
    }


def check_answers(arch: str, channels: Channels, x: Tensor) -> FrozenHead:
    torch.manual_seed(0)
    extractor = build_feature_extractor(arch, weights=RANDOM)
    features = embed(extractor, x.permute(0, 2, 3, 1).contiguous().numpy(), channels=channels)
    tensors = head_on(features.shape[1])
    network = FrozenHead(extractor, tensors, channels=channels).eval()
    expected = predict_head({name: t.numpy() for name, t in tensors.items()}, features, np.arange(len(x)))
    np.testing.assert_allclose(torch.softmax(network(x), dim=1).detach().numpy(), expected, atol=5e-3)
    return network


@pytest.mark.usefixtures("small_zoo")
@pytest.mark.parametrize("arch", NETWORKS.names())
def test_every_network_answers_as_its_features_and_its_head_do_and_is_explained(arch: str) -> None:
    x = crops(1, NETWORKS.get(arch).head_px).repeat(2, 1, 1, 1)
    network = check_answers(arch, "rgb+mask", x)
    for method in {"gradcam", advised_method(network)}:
        maps = class_maps(network, arch, x, [0, 1], method=method)
        assert maps.shape == (2, *x.shape[2:])
        assert np.isfinite(maps).all()
        assert maps.max() > 0


@pytest.mark.usefixtures("small_zoo")
@pytest.mark.parametrize("channels", get_args(Channels))
def test_a_head_sees_what_its_features_were_taken_from(channels: Channels) -> None:
    check_answers("efficientnet_lite0", channels, crops(3, 64))


def extractor_of_cnn() -> CellNetwork:
    torch.manual_seed(3)
    backbone = CustomCnn(in_chans=3, n_classes=0)
    return CellNetwork(backbone, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), channels="rgb").eval()


def test_the_map_of_a_head_is_what_each_place_of_both_views_brought() -> None:
    """Features here are means over places, so that places add up to the logit: by hand, from the feature maps."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    from perikarya.models.placement import moved

    extractor = extractor_of_cnn()
    tensors = head_on(320)
    x = crops(4, 64)
    x[:, 3, :, :32] = 0
    brought = torch.zeros(4, 4, 4)
    for view, part in (("rgb", slice(0, 160)), ("masked-rgb", slice(160, 320))):
        with torch.no_grad():
            maps = extractor.backbone.forward_features(extractor.normalised(x, view))  # type: ignore[arg-type]
        weight = (tensors["head.coef"] / tensors["head.scale"])[1, part]
        brought += (weight.view(1, -1, 1, 1) * maps).sum(dim=1)
    expected = moved(scale_cam_image(brought.clamp(min=0).numpy(), (64, 64)), (-7.5, -7.5))
    found = class_maps(FrozenHead(extractor, tensors, channels="rgb+mask"), "custom_cnn", x, [1, 1, 1, 1])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, (other - other.min()) / (other.max() - other.min()), atol=1e-4)


def planted_head() -> FrozenHead:
    torch.manual_seed(0)
    network = learned(
        CellNetwork(CustomCnn(in_chans=3, n_classes=3), mean=(0.5,) * 3, std=(0.5,) * 3, channels="rgb"), "custom_cnn"
    )
    backbone: Any = network.backbone
    weight, bias = backbone.head.weight.detach().clone(), backbone.head.bias.detach().clone()
    backbone.reset_classifier(0)
    tensors = {
        "head.mean": torch.zeros(320),
        "head.scale": torch.ones(320),
        "head.coef": torch.cat([weight, weight], dim=1) / 2,
        "head.intercept": bias,
    }
    return FrozenHead(network, tensors, channels="rgb+mask")


def test_the_map_of_a_head_peaks_at_the_square_of_each_class() -> None:
    network = planted_head()
    x, corners = both_squares(24)
    x[:, 3] = 255
    for column, number in enumerate((RED, GREEN)):
        peaks = peak_corners(class_maps(network, "custom_cnn", x, np.full(len(x), number)))
        assert np.mean(peaks == corners[:, column]) >= 0.9


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (head_on(160), "are of a head on 160 features; the frozen network has 320"),
        ({"head.coef": torch.zeros(3, 320)}, "lack head.mean, head.scale, head.intercept"),
    ],
)
def test_tensors_of_another_head_are_refused(tensors: dict[str, Tensor], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        FrozenHead(extractor_of_cnn(), tensors, channels="rgb+mask")

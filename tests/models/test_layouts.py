"""Checkpoints in other people's layouts give the same features as the modules they were written by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.reduced import crops, stand_in_weights
from torch import Tensor, nn

from perikarya.errors import WeightsError
from perikarya.models.build import build_feature_extractor, build_network, restore_network
from perikarya.models.weights import WeightsFile
from perikarya.models.zoo import NETWORKS
from perikarya.models.zoo_spec import HALF, IMAGENET_MEAN, IMAGENET_STD

WIDTH, SIDE = 768, 64


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (x[:, :3].float() / 255 - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)


def shaken(module: nn.Module) -> nn.Module:
    """Draw every parameter anew, so that none is 0 or 1 and a forgotten one shows."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (0.5 if parameter.ndim == 1 else 0.0))
    return module.eval()


def written(model: nn.Module, folder: Path) -> WeightsFile:
    """Write a model of transformers as its authors publish them."""
    model.save_pretrained(folder)  # type: ignore[operator]
    return WeightsFile(folder / "model.safetensors", "file", "", "0")


def dinov2(swiglu: bool, *, grid: int, patch_px: int, **settings: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=96,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=grid * patch_px,
        patch_size=patch_px,
        use_swiglu_ffn=swiglu,
        **settings,
    )
    return shaken(transformers.Dinov2Model(config))


def vit(kind: str, width: int = WIDTH) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        image_size=SIDE,
        patch_size=16,
    )
    return shaken(getattr(transformers, kind)(config))


@pytest.mark.parametrize("grid", [4, 7])  # as large as the network's, and larger: position embeddings are fitted
def test_phikon_v2_is_read_as_published(grid: int, small_zoo: None, tmp_path: Path) -> None:
    model = dinov2(False, grid=grid, patch_px=16)
    network = build_feature_extractor("phikon_v2", weights=written(model, tmp_path))
    x = crops(3, 4 * 16)
    with torch.inference_mode():
        tokens = model(normalised(x, IMAGENET_MEAN, IMAGENET_STD)).last_hidden_state
    assert (network(x) - tokens[:, 0]).abs().max() < 1e-4


@pytest.mark.parametrize("grid", [4, 7])
def test_midnight_is_read_as_published(grid: int, small_zoo: None, tmp_path: Path) -> None:
    model = dinov2(True, grid=grid, patch_px=14)
    network = build_feature_extractor("midnight", weights=written(model, tmp_path))
    x = crops(3, 4 * 14)
    with torch.inference_mode():
        tokens = model(normalised(x, HALF, HALF)).last_hidden_state
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
    assert (network(x) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["ViTModel", "ViTForImageClassification"])
@pytest.mark.parametrize(("width", "timm_name"), [(768, "vit_base_patch16_224"), (384, "vit_small_patch16_224")])
def test_panda_vit_reads_hugging_face_checkpoints(
    kind: str, width: int, timm_name: str, small_zoo: None, tmp_path: Path
) -> None:
    model = vit(kind, width)
    network = build_feature_extractor("panda_vit", weights=written(model, tmp_path))
    x = crops(3, SIDE)
    base = model.vit if kind == "ViTForImageClassification" else model
    with torch.inference_mode():
        expected = base(normalised(x, HALF, HALF)).last_hidden_state[:, 0]
    assert (network(x) - expected).abs().max() < 1e-4
    assert network.backbone.pretrained_cfg["architecture"] == timm_name


@pytest.mark.parametrize("key", ["teacher", "student"])
def test_panda_vit_reads_the_teacher_of_dino(key: str, small_zoo: None, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    teacher, student = (
        timm.create_model("vit_small_patch16_224", img_size=SIDE, depth=2, num_classes=0).eval() for _ in range(2)
    )
    head = {"head.mlp.0.weight": torch.zeros(8, 384), "head.last_layer.weight_v": torch.zeros(9, 8)}
    path = tmp_path / "checkpoint.pth"
    checkpoint = {
        "student": {f"module.backbone.{n}": t for n, t in student.state_dict().items()},
        "teacher": {f"backbone.{n}": t for n, t in teacher.state_dict().items()} | head,
        "epoch": 3,
    }
    if key == "student":  # a file cut down to one network, with the prefix of parallel training
        checkpoint = {f"module.{n}": t for n, t in checkpoint["teacher"].items()}
    torch.save(checkpoint, path)
    network = build_feature_extractor("panda_vit", weights=WeightsFile(path, "file", "", "0"))
    x = crops(3, SIDE)
    with torch.inference_mode():
        expected = teacher(normalised(x, IMAGENET_MEAN, IMAGENET_STD))
    assert (network(x) - expected).abs().max() < 1e-4


def test_a_panda_vit_of_the_other_size_is_restored_with_its_normalisation(small_zoo: None, tmp_path: Path) -> None:
    weights = written(vit("ViTModel", 384), tmp_path)
    network = build_network("panda_vit", n_classes=3, weights=weights).eval()
    restored = restore_network("panda_vit", network.state_dict(), n_classes=3)
    x = crops(2, SIDE)
    assert torch.equal(restored(x), network(x))


def test_a_panda_vit_of_an_unknown_size_is_a_sentence(small_zoo: None, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="tokens of width"):
        build_network("panda_vit", n_classes=3, weights=written(vit("ViTModel", 128), tmp_path))


def test_a_checkpoint_that_lacks_a_query_is_refused(small_zoo: None, tmp_path: Path) -> None:
    weights = written(vit("ViTModel"), tmp_path)
    assert weights.path is not None
    state = load_file(weights.path)
    del state["encoder.layer.1.attention.attention.query.weight"]
    save_file(state, weights.path)
    with pytest.raises(WeightsError, match=r"blocks.1.attn.qkv.weight"):
        build_network("panda_vit", n_classes=3, weights=weights)


def test_position_embeddings_of_timm_are_smoothed_as_timm_does(small_zoo: None, tmp_path: Path) -> None:
    import timm
    from timm.layers import resample_abs_pos_embed

    spec = NETWORKS.get("vit_base_224")
    torch.manual_seed(0)
    large = timm.create_model(spec.timm_name, img_size=112, num_classes=0, **spec.timm_kwargs)
    save_file(large.state_dict(), tmp_path / "w.safetensors")
    weights = WeightsFile(tmp_path / "w.safetensors", "file", "", "0")
    network = build_feature_extractor("vit_base_224", weights=weights)
    expected = resample_abs_pos_embed(large.pos_embed, new_size=[4, 4])
    torch.testing.assert_close(network.backbone.pos_embed, expected, atol=1e-6, rtol=1e-6)


def test_a_smaller_window_keeps_the_bias_of_a_token_to_itself(small_zoo: None, tmp_path: Path) -> None:
    weights = stand_in_weights("swin_large", tmp_path)
    assert weights.path is not None
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    table = load_file(weights.path)[name]
    small = build_feature_extractor("swin_large", weights=weights, input_px=20).backbone.state_dict()[name]
    assert (len(table), len(small)) == (13**2, 9**2)
    torch.testing.assert_close(small[len(small) // 2], table[len(table) // 2], atol=1e-6, rtol=1e-6)
    assert small.abs().max() <= 2 * table.abs().max()

"""The table tells the truth: facts on record agree with timm, with the networks and with each other."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from tests.models.reduced import kept_activations

from perikarya.errors import ConfigError
from perikarya.models.build import build_network, n_parameters
from perikarya.models.zoo import NETWORKS, check_input_px
from perikarya.models.zoo_spec import NetworkSpec

ALL = NETWORKS.names()
OF_TIMM = [n for n, s in NETWORKS.items() if s.weights is not None and s.weights.name.startswith("timm/")]
# 1.1 billion parameters are 17 GiB with gradients and Adam's moments, before a single cell: heads and LoRA only
TOO_LARGE_TO_TRAIN_WHOLE = {"h_optimus_0", "h_optimus_1", "gigapath", "midnight"}


def test_the_zoo_holds_every_network_that_was_promised() -> None:
    assert set(ALL) == {
        *("custom_cnn", "resnet50", "efficientnet_b7", "vit_base_224", "vit_base_384", "vit_large_224"),
        *("vit_large_384", "vit_large_patch32_384", "swin_large", "swinv2_large", "hybrid_vit_384", "panda_vit"),
        *("hybrid2", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "convnext_tiny"),
        *("uni", "uni2_h", "virchow2", "h_optimus_0", "h_optimus_1", "gigapath", "phikon_v2", "midnight"),
        *("dinov2_small", "dinov2_base", "dinov3_small", "dinov3_base"),
    }


@pytest.mark.parametrize("arch", ALL)
def test_every_entry_is_complete(arch: str) -> None:
    spec = NETWORKS.get(arch)
    assert sum([bool(spec.timm_name), spec.build_own is not None, bool(spec.branches)]) == 1
    assert spec.summary
    assert spec.weights is None or spec.weights.licence
    assert spec.weights is None or spec.weights.page or spec.branches
    assert not any(ord(character) > 127 for character in spec.summary)
    for px in (spec.input_px, spec.head_px, spec.min_px):
        check_input_px(arch, px)


@pytest.mark.parametrize("arch", OF_TIMM)
def test_facts_of_timms_weights_are_timms(arch: str) -> None:
    from timm.models import get_pretrained_cfg

    spec = NETWORKS.get(arch)
    assert spec.weights is not None
    cfg = get_pretrained_cfg(spec.weights.name.removeprefix("timm/"))
    assert cfg is not None, "timm does not know these weights"
    assert (cfg.hf_hub_id, cfg.mean, cfg.std) == (spec.weights.name, spec.mean, spec.std)
    assert spec.weights.licence.lower().split()[0] in cfg.license
    assert spec.weights.imagenet == (cfg.num_classes == 1000)
    if spec.kind == "study" and spec.sized:
        assert cfg.input_size[-1] == spec.input_px


@pytest.mark.parametrize("arch", ALL)
def test_parameters_and_pooling_are_those_of_the_network(arch: str) -> None:
    spec = NETWORKS.get(arch)
    with torch.device("meta"):  # no memory, so that a billion parameters cost nothing
        network = build_network(arch, n_classes=3)
    assert round(n_parameters(network) / 1e6, 1) == spec.params_m
    pooled = getattr(network.backbone, "global_pool", None)
    if isinstance(pooled, str):
        assert pooled == ("avg" if spec.pooling == "average" else "token")
    else:
        assert spec.pooling == "average"


@pytest.mark.parametrize(
    ("arch", "width", "depth", "heads", "n_prefix", "n_positions", "mlp_width"),
    [  # as on the models' pages; positions count the class token and the registers where these have some
        ("uni", 1024, 24, 16, 1, 197, 4096),
        ("uni2_h", 1536, 24, 24, 9, 256, 8192),
        ("virchow2", 1280, 32, 16, 5, 261, 6832),
        ("h_optimus_0", 1536, 40, 24, 5, 256, 8192),
        ("h_optimus_1", 1536, 40, 24, 5, 256, 8192),
        ("gigapath", 1536, 40, 24, 1, 197, 8192),
        ("phikon_v2", 1024, 24, 16, 1, 197, 4096),
        ("midnight", 1536, 40, 24, 1, 257, 8192),
    ],
)
def test_pathology_encoders_are_built_as_published(
    arch: str, width: int, depth: int, heads: int, n_prefix: int, n_positions: int, mlp_width: int
) -> None:
    with torch.device("meta"):
        encoder = build_network(arch, n_classes=3).backbone
    block = encoder.blocks[0]
    assert (len(encoder.blocks), block.attn.num_heads, encoder.num_prefix_tokens) == (depth, heads, n_prefix)
    assert tuple(encoder.pos_embed.shape) == (1, n_positions, width)
    assert block.mlp.fc1.out_features == mlp_width
    assert hasattr(block.ls1, "gamma"), "they all scale their layers"


def test_encoders_have_their_terms_on_record() -> None:
    gated = {name for name, spec in NETWORKS.items() if spec.weights is not None and spec.weights.gated}
    assert gated == {"uni", "uni2_h", "virchow2", "h_optimus_1", "gigapath"}
    for name, spec in NETWORKS.items():
        assert spec.weights is None or not (spec.kind == "encoder" and spec.weights.imagenet), name


def test_learning_rates_follow_the_family() -> None:
    rates = {name: spec.lr for name, spec in NETWORKS.items()}
    quick = {"custom_cnn", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}
    convnets = {"resnet50", "efficientnet_b7", "convnext_tiny"}
    expected = {n: 1e-3 if n in quick else 3e-4 if n in convnets else 5e-5 for n in ALL}
    assert rates == expected


@pytest.mark.parametrize(
    ("arch", "px", "near"),
    [
        ("vit_base_224", 100, "96 or 112"),
        ("vit_large_patch32_384", 16, "32"),
        ("virchow2", 224 + 16, "238 or 252"),
        ("swin_large", 98, "96 or 100"),
        ("convnext_tiny", 112, "96 or 128"),
        ("custom_cnn", 15, "16"),
        ("resnet50", 31, "32"),
    ],
)
def test_a_size_that_is_refused_comes_with_the_nearest_that_are_not(arch: str, px: int, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"not {px} px[^$]*Fix: set input_px to {near}\.$"):
        check_input_px(arch, px)


@pytest.mark.parametrize(("arch", "px"), [("resnet50", 33), ("efficientnet_b7", 301), ("swinv2_large", 20)])
def test_odd_sizes_are_taken_where_the_network_takes_them(arch: str, px: int) -> None:
    check_input_px(arch, px)


def test_the_table_needs_no_torch() -> None:
    code = "import sys, perikarya.models.zoo; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def bytes_of_a_step(arch: str, spec: NetworkSpec) -> int:
    """Estimate what a training step holds: weights, gradients and Adam's moments (16 bytes each), kept activations.

    Activations are those that autograd keeps, counted without computing anything; half precision would halve them.
    """
    n_cells = spec.micro_batch or 32
    with torch.device("meta"):
        network = build_network(arch, n_classes=3).train()
        network.backbone.set_grad_checkpointing(spec.checkpointing)
        activations = kept_activations(network, torch.zeros(2, 4, spec.input_px, spec.input_px)) // 2
    return 16 * n_parameters(network) + n_cells * activations


def test_swin_large_trains_on_sixteen_cells_in_16_gb() -> None:
    spec = NETWORKS.get("swin_large")
    assert spec.micro_batch == 16
    assert bytes_of_a_step("swin_large", spec) < 12e9


@pytest.mark.slow
@pytest.mark.parametrize("arch", [n for n in ALL if n not in TOO_LARGE_TO_TRAIN_WHOLE])
def test_every_network_that_can_be_trained_whole_fits_16_gb(arch: str) -> None:
    assert bytes_of_a_step(arch, NETWORKS.get(arch)) < 13e9

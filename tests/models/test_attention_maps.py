"""Attention maps against the formulas of their papers, written out with whole matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.models.planted import FAMILIES
from tests.models.reduced import crops
from torch import Tensor

from perikarya.models.attention_maps import attention_gradient, patches_nchw, rollout
from perikarya.models.build import CellNetwork
from perikarya.models.nets import pool_class_and_mean

PREFIX = {"vit": 1, "vit with registers": 5, "vit without class token": 0, "dinov3": 5}


def attention_of(network: CellNetwork, x: Tensor) -> list[Tensor]:
    """The attention of each block, from its own queries and keys, with gradients kept."""
    found: list[Tensor] = []

    def keep(_layer: Any, _inputs: Any, attention: Tensor) -> None:
        attention.retain_grad()
        found.append(attention)

    for block in network.backbone.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(keep)
    network(x.float().requires_grad_())[:, 1].sum().backward()
    return found


def on_grid(tokens_nt: Tensor, family: str) -> Tensor:
    wide = torch.nn.functional.interpolate(
        tokens_nt[:, PREFIX[family] :].reshape(-1, 1, 8, 8), size=(64, 64), mode="bilinear", align_corners=False
    )
    return wide[:, 0].detach()


def answer_row(matrix_ntt: Tensor, family: str) -> Tensor:
    return matrix_ntt.mean(dim=1) if family == "vit without class token" else matrix_ntt[:, 0]


def two_of(family: str) -> tuple[CellNetwork, CellNetwork]:
    torch.manual_seed(0)
    networks = [CellNetwork(FAMILIES[family](), mean=(0.5,) * 3, std=(0.5,) * 3).eval() for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    return networks[0], networks[1]


@pytest.mark.parametrize("family", PREFIX)
def test_rollout_is_the_product_of_all_blocks(family: str) -> None:
    network, twin = two_of(family)
    x = crops(2, 64)
    eye = torch.eye(64 + PREFIX[family])
    first, second = ((a.mean(dim=1) + eye) / 2 for a in attention_of(twin, x))
    expected = on_grid(answer_row(second @ first, family), family)
    torch.testing.assert_close(rollout(network, network.backbone, x.float()), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", PREFIX)
def test_attention_gradient_is_the_relevance_of_chefer_gur_and_wolf(family: str) -> None:
    network, twin = two_of(family)
    x = crops(2, 64)
    relevance = torch.eye(64 + PREFIX[family]).expand(2, -1, -1)
    for attention in attention_of(twin, x):
        assert attention.grad is not None
        relevance = relevance + (attention * attention.grad).clamp(min=0).mean(dim=1) @ relevance
    expected = on_grid(answer_row(relevance, family), family)
    found = attention_gradient(network, network.backbone, x.float(), [lambda output: output[1]] * 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_an_answer_pooled_from_class_token_and_patches_counts_both() -> None:
    network, twin = two_of("vit with registers")
    for each in (network, twin):
        torch.manual_seed(1)
        pool_class_and_mean(each.backbone, n_classes=3)
    x = crops(2, 64)
    first, second = ((a.mean(dim=1) + torch.eye(69)) / 2 for a in attention_of(twin, x))
    flow = second @ first
    expected = on_grid((flow[:, 0] + flow[:, 5:].mean(dim=1)) / 2, "vit with registers")
    torch.testing.assert_close(rollout(network, network.backbone, x.float()), expected, rtol=1e-4, atol=1e-7)


def test_patches_lie_as_in_the_picture_and_other_tokens_are_dropped() -> None:
    from timm.models import VisionTransformer

    vit = VisionTransformer(img_size=(24, 40), patch_size=8, embed_dim=6, depth=1, num_heads=1, reg_tokens=2)
    tokens = torch.zeros(1, 3 + 15, 6)
    tokens[0, :3] = 99
    tokens[0, 3:, 4] = torch.arange(15)
    grid = patches_nchw(tokens, backbone=vit, input_hw=(24, 40))
    assert grid.shape == (1, 6, 3, 5)
    np.testing.assert_array_equal(grid[0, 4], np.arange(15).reshape(3, 5))
    assert grid.max() < 99
    grid.zero_()
    assert tokens.max() == 99, "a change of the maps changed the tokens"

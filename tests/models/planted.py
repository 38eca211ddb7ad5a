"""Small networks of every family, trained in seconds to tell a red square from a green one and from none."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.layers import BatchNormAct2d, StdConv2dSame
from timm.models import ResNetV2, VisionTransformer
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from perikarya.models.build import CellNetwork
from perikarya.models.nets import CustomCnn, JoinedNetwork, pool_class_and_mean

SIDE_PX, SQUARE_PX = 64, 24
NONE, RED, GREEN = 0, 1, 2
_IO = {"in_chans": 4, "num_classes": 3}
_VIT = {**_IO, "img_size": SIDE_PX, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
_REGISTERS = "vit_small_patch14_reg4_dinov2"


def _swin(name: str, n_classes: int = 3) -> nn.Module:
    return timm.create_model(
        name,
        in_chans=4,
        num_classes=n_classes,
        img_size=SIDE_PX,
        window_size=4,
        embed_dim=24,
        depths=(1, 1),
        num_heads=(2, 2),
        drop_path_rate=0.0,
    )


def _efficientnet(n_classes: int = 3) -> nn.Module:
    return timm.create_model("test_efficientnet", in_chans=4, num_classes=n_classes, output_stride=8)


def _joined() -> nn.Module:
    return JoinedNetwork(_efficientnet(0), _swin("swinv2_tiny_window8_256", 0), n_classes=3)


def _convnext() -> nn.Module:
    layers: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 48), "ls_init_value": None}
    return timm.create_model("convnext_atto", output_stride=8, drop_path_rate=0.0, **layers, **_IO)


def _hybrid_vit() -> nn.Module:
    """A transformer on a BiT ResNet, as timm builds vit_base_r50_s16_384: its places are those of the ResNet.

    Its normalisation is of batches, not of groups of channels: groups are normalised over the whole picture, so that a
    square here would show at every place, and a network may read it off any of them.
    """
    resnet = ResNetV2(
        layers=(1, 1), channels=(32, 64), stem_chs=16, in_chans=4, num_classes=0, global_pool="", preact=False,
        stem_type="same", conv_layer=partial(StdConv2dSame, eps=1e-8), norm_layer=BatchNormAct2d,
    )  # fmt: skip
    return VisionTransformer(embed_layer=partial(HybridEmbed, backbone=resnet), **{**_VIT, "patch_size": 1})


def _class_and_mean() -> nn.Module:
    vit = timm.create_model("vit_tiny_patch16_224", **_VIT)
    pool_class_and_mean(vit, n_classes=3)
    return vit


# with a fine last grid (8 x 8), so that a place in it is a place in the picture
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "custom_cnn": lambda: CustomCnn(in_chans=4, n_classes=3),
    "resnet": lambda: ResNet(BasicBlock, (1, 1, 1, 1), channels=(8, 16, 24, 32), output_stride=8, **_IO),
    "efficientnet": _efficientnet,
    "convnext": _convnext,
    "swin": lambda: _swin("swin_tiny_patch4_window7_224"),
    "swinv2": lambda: _swin("swinv2_tiny_window8_256"),
    "hybrid2": _joined,
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", **_VIT),
    "vit with registers": lambda: timm.create_model(_REGISTERS, init_values=None, **_VIT),
    "vit without class token": lambda: timm.create_model(
        "vit_tiny_patch16_224", class_token=False, global_pool="avg", fc_norm=False, **_VIT
    ),
    "vit of class token and mean": _class_and_mean,
    "hybrid vit": _hybrid_vit,
    "dinov3": lambda: timm.create_model("vit_small_patch16_dinov3", init_values=None, global_pool="token", **_VIT),
}


def plant(squares: NDArray[np.int64], *, seed: int) -> NDArray[np.uint8]:
    """Paint grey cells, (n, 4, side, side), with squares in their corners.

    ``squares`` is (n, 2): the corner of the red and of the green square, counted along the rows, or -1 for none.
    """
    x = np.random.default_rng(seed).integers(118, 138, (len(squares), 4, SIDE_PX, SIDE_PX)).astype(np.uint8)
    for cell, corners in zip(x, squares, strict=True):
        for channel, corner in enumerate(corners):
            if corner >= 0:
                row, column = (corner // 2) * (SIDE_PX - SQUARE_PX), (corner % 2) * (SIDE_PX - SQUARE_PX)
                cell[channel, row : row + SQUARE_PX, column : column + SQUARE_PX] = 255
    return x


def both_squares(n: int, *, seed: int = 7) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Paint cells with both squares, each in another corner; return them and the corners, (n, 2)."""
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.permutation(4)[:2] for _ in range(n)])
    return plant(corners, seed=seed), corners


def peak_corners(maps_nhw: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the corner in which each map is highest."""
    n, height, width = maps_nhw.shape
    row, column = np.divmod(maps_nhw.reshape(n, -1).argmax(axis=1), width)
    return (row >= height // 2) * 2 + (column >= width // 2)


@cache
def trained(family: str, *, seed: int = 0) -> CellNetwork:
    """Train a network of a family to tell the squares apart."""
    torch.manual_seed(seed)
    return learned(CellNetwork(FAMILIES[family](), mean=(0.5,) * 3, std=(0.5,) * 3), family, seed=seed)


def learned(network: CellNetwork, family: str, *, seed: int = 0) -> CellNetwork:
    """Train until three batches in a row are right; raise where that never comes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    right = 0
    for step in range(250):
        labels = rng.integers(0, 3, 16)
        corners = np.where(labels[:, None] == [[RED, GREEN]], rng.integers(0, 4, (16, 1)), -1)
        outputs = network.train()(torch.from_numpy(plant(corners, seed=1000 * seed + step)))
        loss = nn.functional.cross_entropy(outputs, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = right + 1 if loss.item() < 0.1 else 0
        if right >= 3 and step >= 40:  # batch statistics need their time, too
            network.zero_grad()
            return network.eval()
    raise AssertionError(f"{family} has not learned its task, so there is nothing to explain")


def small_square(n: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Paint cells with one red square of 16 px, off the border; return them and the squares' middles, (n, 2), y, x."""
    rng = np.random.default_rng(seed)
    x = rng.integers(118, 138, (n, 4, SIDE_PX, SIDE_PX)).astype(np.uint8)
    first = rng.integers(8, SIDE_PX - 24, (n, 2))
    for cell, (row, column) in zip(x, first, strict=True):
        cell[0, row : row + 16, column : column + 16] = 255
    return x, first + 8

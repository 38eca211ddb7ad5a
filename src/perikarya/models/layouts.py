"""Names of tensors in checkpoints that were not written by timm: vision transformers of ``transformers`` and of DINO.

Position embeddings keep their grid here; they are fitted to the network's when it is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from perikarya.models.zoo_spec import HALF, IMAGENET_MEAN, IMAGENET_STD

Layout = Literal["timm", "transformers", "dino"]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by timm's names, and how their file was laid out."""

    state: State
    layout: Layout

    @property
    def antialias(self) -> bool:
        """Whether position embeddings are smoothed when their grid shrinks: timm does, the others never did."""
        return self.layout == "timm"

    @property
    def normalisation(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation that layout's authors train with, for files that do not say."""
        return (HALF, HALF) if self.layout == "transformers" else (IMAGENET_MEAN, IMAGENET_STD)


def read_checkpoint(state: State) -> Checkpoint:
    """Recognise the layout of a checkpoint and give its tensors timm's names.

    Parameters
    ----------
    state
        Tensors by name: of a timm network, of ``ViTModel``, ``ViTForImageClassification``, ``Dinov2Model`` or
        ``Dinov2ForImageClassification`` of ``transformers``, or of a teacher trained by DINO (whose prefix
        ``backbone.`` tells it from timm's). Heads that those add are left out.
    """
    stripped = {re.sub(r"^(vit|dinov2)\.", "", name): tensor for name, tensor in state.items()}
    if "embeddings.cls_token" in stripped:
        return Checkpoint(_from_transformers(stripped), "transformers")
    backbone = {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}
    if "cls_token" in backbone:
        return Checkpoint(backbone, "dino")
    return Checkpoint(state, "timm")


_DROPPED = ("pooler.", "classifier.", "embeddings.mask_token")
_OUTSIDE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_IN_A_BLOCK = {
    "attention.output.dense": "attn.proj",
    # ViTModel
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    # Dinov2Model
    "norm1": "norm1",
    "norm2": "norm2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QKV = re.compile(r"attention\.attention\.(query|key|value)\.(weight|bias)")


def _from_transformers(state: State) -> State:
    """Rename tensors; query, key and value of a block become one matrix. Unknown names stay, to be refused later."""
    out: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith(_DROPPED):
            continue
        in_block = _BLOCK.fullmatch(name)
        if in_block is None:
            out[_renamed(name, _OUTSIDE)] = tensor
            continue
        prefix, rest = f"blocks.{in_block[1]}", in_block[2]
        qkv = _QKV.fullmatch(rest)
        if qkv is None:
            out[f"{prefix}.{_renamed(rest, _IN_A_BLOCK)}"] = tensor
        else:
            parts.setdefault(f"{prefix}.attn.qkv.{qkv[2]}", {})[qkv[1]] = tensor
    for name, found in parts.items():
        out[name] = torch.cat([found[part] for part in ("query", "key", "value") if part in found])
    return out


def _renamed(name: str, table: dict[str, str]) -> str:
    if name in table:
        return table[name]
    stem, _, leaf = name.rpartition(".")
    return f"{table[stem]}.{leaf}" if stem in table else name

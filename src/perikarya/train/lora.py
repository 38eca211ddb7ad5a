"""LoRA: attention matrices keep their pretrained weights and learn an addition of low rank (Hu et al. 2022)."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import util
from typing import Any

from torch import nn

from perikarya.errors import ConfigError

_ATTENTION = re.compile(r"(?:^|\.)attn\.(?:qkv|q|kv|k|v|q_proj|k_proj|v_proj|proj)$")


def add_lora(backbone: nn.Module, *, rank: int, alpha: float) -> Callable[[], None]:
    """Freeze a network and give its attention matrices trainable additions, in place.

    Parameters
    ----------
    backbone
        A network of timm, or one built of such.
    rank
        Of each addition.
    alpha
        Additions are scaled by ``alpha / rank``.

    Returns
    -------
    A function that merges the additions into the weights and leaves the network with its own layers.

    Raises
    ------
    ConfigError
        If the network has no attention, or peft is not installed.
    """
    targets = [n for n, m in backbone.named_modules() if isinstance(m, nn.Linear) and _ATTENTION.search(n)]
    if not targets:
        raise ConfigError(
            f"strategy 'lora' adds to attention matrices, and {type(backbone).__name__} has none.\n"
            "Fix: 'strategy: finetune' for this model, if need be with train.last_blocks."
        )
    if util.find_spec("peft") is None:
        raise ConfigError("strategy 'lora' needs the package peft. Fix: pip install 'perikarya[lora]'")
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)  # type: ignore[arg-type]  # it is divided
    through_layer = _multiply_through_layers(backbone)
    adapted = get_peft_model(backbone, settings)  # changes the backbone itself; the wrapper is only for merging

    def merge() -> None:
        adapted.merge_and_unload()
        for module in through_layer:
            module.qkv_bias_separate = False

    return merge


def _multiply_through_layers(backbone: nn.Module) -> list[Any]:
    """Make the attention of SwinV2, BEiT and EVA call its layer ``qkv``, and return the modules that were changed.

    By default timm hands the layer's weight to the multiplication itself, past any addition.
    """
    changed: list[Any] = [m for m in backbone.modules() if getattr(m, "qkv_bias_separate", None) is False]
    for module in changed:
        module.qkv_bias_separate = True
    return changed

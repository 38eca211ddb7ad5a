"""Where a vision transformer looks, from the attention of all its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from perikarya.models.nets import ClassAndMean

Follow = Callable[[Tensor], None]


def patches_nchw(x_ntc: Tensor, *, backbone: Any, input_hw: tuple[int, int]) -> Tensor:
    """Drop class and register tokens, (n, tokens, features), and lay the patches out as they lie in the picture."""
    rows, columns = backbone.patch_embed.dynamic_feat_size(input_hw)
    patches_ntc = x_ntc[:, backbone.num_prefix_tokens :]
    return patches_ntc.transpose(1, 2).reshape(len(x_ntc), -1, rows, columns).clone()


def rollout(network: nn.Module, backbone: Any, x_nchw: Tensor) -> Tensor:
    """Multiply the attention of all blocks from the picture up to the answer, (n, height, width).

    Heads are averaged and skip connections count as half (Abnar & Zuidema 2020). It knows nothing of classes.
    """
    flow_ntt = torch.eye(0)

    def follow(attention_nhtt: Tensor) -> None:
        nonlocal flow_ntt
        mixed_ntt = (attention_nhtt.mean(dim=1) + torch.eye(attention_nhtt.shape[-1], device=x_nchw.device)) / 2
        flow_ntt = mixed_ntt @ flow_ntt if len(flow_ntt) else mixed_ntt

    with _attention_shown_to(backbone, follow), torch.no_grad():
        network(x_nchw)
    return _spread(_answer_n1t(backbone, flow_ntt) @ flow_ntt, backbone, x_nchw)


def attention_gradient(
    network: nn.Module, backbone: Any, x_nchw: Tensor, scores: Sequence[Callable[[Tensor], Tensor]]
) -> Tensor:
    """Trace a score back through the attention it rises with, from the answer down to the picture, (n, height, width).

    Each block passes relevance on by the positive part of attention times its gradient, averaged over heads (Chefer,
    Gur & Wolf 2021, eq. 5 and 6; only the row of the answer is kept, for the rest of their matrix is never read).

    Parameters
    ----------
    network, backbone
        The network and the transformer in it.
    x_nchw
        Cells.
    scores
        For each cell, what is explained: maps its outputs, (n_classes,), to a number.
    """
    seen_n1t = torch.zeros(0)

    def pass_on(attention_nhtt: Tensor, gradient_nhtt: Tensor) -> None:
        nonlocal seen_n1t
        if not len(seen_n1t):
            seen_n1t = _answer_n1t(backbone, attention_nhtt)
        seen_n1t = seen_n1t + seen_n1t @ (attention_nhtt * gradient_nhtt).clamp(min=0).mean(dim=1)

    def follow(attention_nhtt: Tensor) -> None:
        attention_nhtt.register_hook(partial(pass_on, attention_nhtt.detach()))  # type: ignore[no-untyped-call]

    with _attention_shown_to(backbone, follow), torch.enable_grad():
        outputs_nk = network(x_nchw.requires_grad_())
        total = torch.stack([score(output_k) for score, output_k in zip(scores, outputs_nk, strict=True)]).sum()
        total.backward()  # type: ignore[no-untyped-call]
    return _spread(seen_n1t, backbone, x_nchw)


def _answer_n1t(backbone: Any, like_ntt: Tensor) -> Tensor:
    """Say which tokens the answer is read from: the class token, all patches alike, or half and half."""
    class_n1t = like_ntt.new_zeros(len(like_ntt), 1, like_ntt.shape[-1])
    patches_n1t = class_n1t.clone()
    class_n1t[..., 0] = 1
    patches_n1t[..., backbone.num_prefix_tokens :] = 1 / (like_ntt.shape[-1] - backbone.num_prefix_tokens)
    if isinstance(backbone.attn_pool, ClassAndMean):
        return (class_n1t + patches_n1t) / 2
    return class_n1t if backbone.global_pool == "token" else patches_n1t


def _spread(seen_n1t: Tensor, backbone: Any, x_nchw: Tensor) -> Tensor:
    """Bring what was found for each token to the size of the picture."""
    input_hw = (x_nchw.shape[2], x_nchw.shape[3])
    seen_n1hw = patches_nchw(seen_n1t.transpose(1, 2), backbone=backbone, input_hw=input_hw)
    return interpolate(seen_n1hw, size=input_hw, mode="bilinear", align_corners=False)[:, 0].detach()


@contextmanager
def _attention_shown_to(backbone: Any, follow: Follow) -> Iterator[None]:
    """Have ``follow`` called with the attention of every block, (n, heads, tokens, tokens), which fusing hides."""
    fused = [module for module in backbone.modules() if getattr(module, "fused_attn", False)]
    hooks = [
        block.attn.attn_drop.register_forward_hook(lambda _layer, _inputs, attention: follow(attention))
        for block in backbone.blocks
    ]
    try:
        for module in fused:
            module.fused_attn = False
        yield
    finally:
        for module in fused:
            module.fused_attn = True
        for hook in hooks:
            hook.remove()

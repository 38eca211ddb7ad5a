"""Our own networks, with the methods that timm's have: layers, classifier, checkpointing.

timm takes longer to import than torch, so that it is imported only where a network is of timm or a method needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip connection; halves the picture when ``stride`` is 2 (He et al. 2016)."""

    def __init__(self, in_chans: int, out_chans: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, out_chans, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_chans)
        self.conv2 = nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_chans)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or in_chans != out_chans:
            self.skip = nn.Sequential(
                nn.Conv2d(in_chans, out_chans, 1, stride=stride, bias=False), nn.BatchNorm2d(out_chans)
            )
        nn.init.zeros_(self.bn2.weight)  # each block starts as its skip connection, which trains more steadily

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to (n, out_chans, h / stride, w / stride)."""
        y_nchw = torch.relu(self.bn1(self.conv1(x_nchw)))
        y_nchw = self.bn2(self.conv2(y_nchw))
        return torch.relu(y_nchw + self.skip(x_nchw))


class CustomCnn(nn.Module):
    """A small network for small inputs: a stem, four residual blocks, a global average, dropout, a linear head.

    About 0.7 million parameters; 64 px input by default, any size that is at least 16 px works.
    """

    widths = (24, 48, 96, 160)

    def __init__(self, *, in_chans: int, n_classes: int) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(in_chans, self.widths[0], 3, padding=1, bias=False)
        self.bn_stem = nn.BatchNorm2d(self.widths[0])
        blocks, before = [], self.widths[0]
        for width in self.widths:
            blocks.append(ResidualBlock(before, width, stride=2))
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(0.2)
        self.num_features = self.head_hidden_size = before
        self.grad_checkpointing = False
        self.reset_classifier(n_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        """Return which parameters make up which layer, in timm's form; here every block is a stage of its own."""
        return {"stem": r"^(?:conv|bn)_stem", "blocks": r"^blocks\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the blocks twice instead of keeping them."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:  # noqa: ARG002
        """Put a new last layer in; none, where ``num_classes`` is 0. The pooling is always an average."""
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to the last feature map, (n, 160, h / 16, w / 16)."""
        x_nchw = torch.relu(self.bn_stem(self.conv_stem(x_nchw)))
        if self.grad_checkpointing and self.training:
            from timm.models import checkpoint_seq

            return torch.as_tensor(checkpoint_seq(self.blocks, x_nchw))
        return torch.as_tensor(self.blocks(x_nchw))

    def forward_head(self, x_nchw: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last feature map to logits, or to pooled features where ``pre_logits``."""
        pooled = self.dropout(x_nchw.mean(dim=(2, 3)))
        return pooled if pre_logits else torch.as_tensor(self.head(pooled))

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to logits, (n, n_classes), or to pooled features where there is no head."""
        return self.forward_head(self.forward_features(x_nchw))


class JoinedNetwork(nn.Module):
    """Two networks side by side on the same picture: their pooled features are joined and meet one classifier.

    Parameters
    ----------
    convolutional, transformer
        Networks of timm without a classifier, which yield pooled features.
    n_classes
        0: no classifier, the joined features come out.
    """

    convolutional: Any
    transformer: Any

    def __init__(self, convolutional: nn.Module, transformer: nn.Module, *, n_classes: int) -> None:
        super().__init__()
        self.convolutional, self.transformer = convolutional, transformer
        self.num_features = int(self.convolutional.num_features + self.transformer.num_features)
        self.head_hidden_size = self.num_features
        self.reset_classifier(n_classes)

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """Return which parameter belongs to which layer, in timm's form: the last layers of both branches are level.

        The deeper branch starts at layer 0 and the other one above it; the classifier comes last.
        """
        from timm.models import group_parameters

        layers: dict[str, dict[str, int]] = {
            name: group_parameters(branch, branch.group_matcher(coarse=coarse), reverse=True)
            for name, branch in (("convolutional", self.convolutional), ("transformer", self.transformer))
        }
        top = max(max(found.values()) for found in layers.values())
        layer_of = {
            f"{name}.{parameter}": float(layer + top - max(found.values()))
            for name, found in layers.items()
            for parameter, layer in found.items()
        }
        return lambda parameter: layer_of.get(parameter, float("inf"))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of both branches twice instead of keeping them."""
        self.convolutional.set_grad_checkpointing(enable)
        self.transformer.set_grad_checkpointing(enable)

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:  # noqa: ARG002
        """Put a new last layer in; none, where ``num_classes`` is 0. Each branch keeps its pooling."""
        self.num_classes = num_classes
        self.head: nn.Module = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to the pooled features of both branches, (n, num_features)."""
        return torch.cat([self.convolutional(x_nchw), self.transformer(x_nchw)], dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Map joined features to logits; return them as they are where ``pre_logits``."""
        return features if pre_logits else torch.as_tensor(self.head(features))

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to logits, (n, n_classes), or to the joined features where there is no head."""
        return self.forward_head(self.forward_features(x_nchw))


class ClassAndMean(nn.Module):
    """Pooling of a transformer's tokens: the class token joined with the mean of the patch tokens."""

    def __init__(self, n_prefix_tokens: int) -> None:
        super().__init__()
        self.n_prefix_tokens = n_prefix_tokens

    def forward(self, tokens_nlc: Tensor) -> Tensor:
        """Map (n, tokens, width) to (n, 2 * width); registers are left out."""
        return torch.cat([tokens_nlc[:, 0], tokens_nlc[:, self.n_prefix_tokens :].mean(dim=1)], dim=1)


def pool_class_and_mean(transformer: Any, *, n_classes: int) -> None:
    """Let a vision transformer of timm pool its class token and the mean of its patch tokens, in place."""
    transformer.attn_pool = ClassAndMean(transformer.num_prefix_tokens)
    transformer.pool_include_prefix = True
    # the width that timm's reset_classifier goes by, here and later
    transformer.embed_dim = transformer.num_features = transformer.head_hidden_size = 2 * transformer.embed_dim
    transformer.reset_classifier(n_classes)

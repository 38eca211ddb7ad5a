"""Our own networks."""

from __future__ import annotations

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
        self.num_features = before
        self.head = nn.Linear(before, n_classes) if n_classes else nn.Identity()

    def forward_features(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to the last feature map, (n, 160, h / 16, w / 16)."""
        return torch.as_tensor(self.blocks(torch.relu(self.bn_stem(self.conv_stem(x_nchw)))))

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Map (n, in_chans, h, w) to logits, (n, n_classes), or to pooled features where there is no head."""
        pooled = self.forward_features(x_nchw).mean(dim=(2, 3))
        return torch.as_tensor(self.head(self.dropout(pooled)))

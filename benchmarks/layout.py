"""Channels-last against channels-first on this machine: cells per second of a training step and of inference.

    python benchmarks/layout.py [--quick]

Random weights, batch 32, two passes of warm-up, interleaved turns. Prints a table and, as its last line, one JSON
object.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn

from _common import interleaved, parse_arguments, print_json, print_table, ratio
from perikarya.models.build import CellNetwork, build_network

BATCH = 32
NETWORKS = {"custom_cnn": 64, "efficientnet_lite0": 112, "resnet50": 224}


class ChannelsFirst(nn.Module):
    """The same network fed with channels-first tensors."""

    def __init__(self, network: CellNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_nchw: Tensor) -> Tensor:
        """Normalise, bring to channels-first, answer."""
        return self.network.backbone(self.network.normalised(x_nchw).contiguous())


def one_pass(network: nn.Module, x_nchw: Tensor, *, train: bool) -> Callable[[], object]:
    """Return a function that makes one pass, with gradients when ``train``."""
    y_n = torch.randint(0, 5, (len(x_nchw),))

    def run() -> object:
        network.train(train)
        if not train:
            with torch.inference_mode():
                return network(x_nchw)
        network.zero_grad(set_to_none=True)
        return nn.functional.cross_entropy(network(x_nchw), y_n).backward()

    return run


def main() -> None:
    """Compare the layouts on every network of the zoo that fits."""
    arguments = parse_arguments(__doc__)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    repeats, batch = (2, 4) if arguments.quick else (7, BATCH)
    rows, ratios = [], {}
    for arch, side in NETWORKS.items():
        x_nchw = torch.randint(0, 256, (batch, side, side, 4), dtype=torch.uint8).permute(0, 3, 1, 2)
        last = build_network(arch, n_classes=5).to(memory_format=torch.channels_last)
        first = ChannelsFirst(build_network(arch, n_classes=5))
        for phase, train in (("training", True), ("inference", False)):
            contestants = {
                "last": one_pass(last, x_nchw, train=train),
                "first": one_pass(first, x_nchw, train=train),
            }
            wall_s = interleaved(contestants, repeats=repeats, warm_up=2)
            gain = ratio(wall_s["first"], wall_s["last"])
            ratios[f"{arch} {phase}"] = round(gain, 2)
            speeds = [batch / sorted(wall_s[name])[repeats // 2] for name in ("last", "first")]
            rows.append([arch, side, phase, *speeds, gain])
    print_table(["network", "px", "phase", "channels-last, cells/s", "channels-first", "ratio"], rows)
    print_json("layout", quick=arguments.quick, channels_last_over_first=ratios)


if __name__ == "__main__":
    main()

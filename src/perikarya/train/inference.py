"""What a network says of cells of a study."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perikarya.data.augment import tta_views
from perikarya.data.loader import iterate_batches
from perikarya.data.store import OpenStudy
from perikarya.models.build import CellNetwork

EVAL_BATCH = 64


def predict_rows(
    network: CellNetwork, opened: OpenStudy, rows: NDArray[np.int64], *, input_px: int, tta_n: int, device: torch.device
) -> NDArray[np.float32]:
    """Return the mean probability over ``tta_n`` flips and quarter turns, shape (len(rows), n_classes)."""
    network.eval()
    parts = []
    for x_nhwc, _ in iterate_batches(opened, rows, batch_size=EVAL_BATCH, out_px=input_px):
        with torch.inference_mode():
            views = [torch.softmax(forward(network, view, device).float(), dim=1) for view in tta_views(x_nhwc, tta_n)]
            parts.append(torch.stack(views).mean(dim=0).cpu().numpy())
    if not parts:
        return np.empty((0, 0), np.float32)
    prob: NDArray[np.float32] = np.concatenate(parts)
    return prob


def forward(network: nn.Module, x_nhwc: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return what the network says of cells, shape (n, side, side, 4), on their way to the device it is on."""
    # an NHWC array seen as NCHW is what torch calls channels-last: nothing is copied
    x_nchw = torch.from_numpy(np.ascontiguousarray(x_nhwc)).permute(0, 3, 1, 2).to(device, non_blocking=True)
    return torch.as_tensor(network(x_nchw))

"""What this machine has to train on."""

from __future__ import annotations

import os
from pathlib import Path


def visible_gpus() -> list[str]:
    """Name the GPUs torch can use; torch is asked only where the driver has left a device file."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]

"""The state of an unfinished training: written whole after every epoch, read with ``weights_only=True``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from perikarya.models.weights import TORCH_LOAD_ERRORS
from perikarya.runs import replacing

log = logging.getLogger(__name__)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and lists; the file is the old one or the new one, never half of either."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, *, fingerprint: str) -> dict[str, Any] | None:
    """Return the saved state, or None where there is none that fits.

    A state of other settings or a damaged file (a disk that filled up) only costs the epochs it held.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except TORCH_LOAD_ERRORS as error:
        log.warning("The saved state %s is damaged (%s); this training starts anew.", path, error)
        return None
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        log.warning("The saved state %s belongs to other settings; this training starts anew.", path)
        return None
    return state

"""Perikarya: from outlined neurons to a defensible damage figure, with its uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perikarya.library import LoadedStudy, Run, load_run, load_study, train
    from perikarya.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["LoadedStudy", "Predictor", "Run", "__version__", "load_run", "load_study", "train"]


def __getattr__(name: str) -> Any:
    """Import what notebooks use when it is first used: ``import perikarya`` and the command line start at once."""
    if name in __all__:
        place = "perikarya.predictor" if name == "Predictor" else "perikarya.library"
        return getattr(import_module(place), name)
    raise AttributeError(f"module 'perikarya' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

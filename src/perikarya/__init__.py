"""Perikarya: from outlined neurons to a defensible damage figure, with its uncertainty."""

__version__ = "0.1.0"

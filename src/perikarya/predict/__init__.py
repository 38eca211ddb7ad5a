"""Trained networks on new cells: models as files, backends, whole fields, and results other programs read."""

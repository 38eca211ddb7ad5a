"""Cells in: importers, the store of crops, folds, checks, augmentation."""

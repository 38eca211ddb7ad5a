"""Outlines of cells in the formats people draw them in: read, rasterised by one rule, traced and written back."""

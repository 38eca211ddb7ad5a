"""The ``damage`` block as files: JSON for programs, tidy tables for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from perikarya.evaluate.quantify.cells import SEVERITY
from perikarya.runs import write_json, write_text

FILES = ("damage.json", "damage.csv", "damage_groups.csv")


def tidy_damage(block: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return one line per number: of animals, with what was counted and labelled beside it, and of groups."""
    method = block["settings"]["correction"]
    animals, groups = [], []
    for entry in block["animals"]:
        place = {k: entry[k] for k in ("subject", "group", "region")}
        animals += [place | line for line in _lines(entry, method, entry["n_cells"])]
        if method != "none":
            animals += [place | line for line in _lines(entry["counted"], "none", entry["n_cells"])]
        if entry["labelled"]:
            animals += [place | line for line in _lines(entry["labelled"], "labels", entry["labelled"]["n_cells"])]
    for entry in block["group_means"]:
        place = {"group": entry["group"] or "all", "region": entry["region"]}
        size = {"n_animals": entry["n_animals"]}
        groups += [place | line | size for line in _lines(entry, method, entry["n_cells"])]
    return pd.DataFrame(animals), pd.DataFrame(groups)


def _lines(entry: dict[str, Any], correction: str, n_cells: int) -> list[dict[str, Any]]:
    values = {f"fraction {name}": value for name, value in entry["fractions"].items()} | {SEVERITY: entry[SEVERITY]}
    lines = []
    for measure, value in values.items():
        known = value if isinstance(value, dict) else {"estimate": value, "ci95": None}
        low, high = known["ci95"] or (None, None)
        numbers = {"estimate": known["estimate"], "lo": low, "hi": high, "n_cells": n_cells}
        lines.append({"measure": measure, "correction": correction, **numbers})
    return lines


def write_damage(block: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``damage.json``, ``damage.csv`` (animals) and ``damage_groups.csv``; return their paths."""
    animals, groups = tidy_damage(block)
    paths = [folder / name for name in FILES]
    write_json(paths[0], block)
    write_text(paths[1], animals.to_csv(index=False))
    write_text(paths[2], groups.to_csv(index=False))
    return paths

"""Parts of the red blood cells as studies of their own, and perikarya's commands, for benchmarks that train on them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SEED = 0
SETS = ("development", "external")


def cells_of(data: Path) -> Path:
    """Return the folder of the outlined cells, or end the benchmark where it is not there."""
    if not (data / "cells").is_dir():
        sys.exit(f"There are no cells at {data / 'cells'}; name the folder above it with --data.")
    return data / "cells"


def copy_cells(source: Path, target: Path, *, at_most: Mapping[str, int]) -> None:
    """Copy class folders (images, masks, metadata.csv); of some classes only so many cells, chosen by the seed.

    Parameters
    ----------
    source, target
        Folders with ``images``, ``masks`` and ``metadata.csv``.
    at_most
        Class -> number of cells; classes it does not name are copied whole.
    """
    metadata = pd.read_csv(source / "metadata.csv", dtype=str)
    kept = metadata
    for name, n_cells in at_most.items():
        candidates = np.sort(metadata.loc[metadata["label"] == name, "file"].to_numpy(dtype=str))
        if len(candidates) < n_cells:
            sys.exit(f"{source} has {len(candidates)} cells of class '{name}', fewer than the {n_cells} asked for.")
        chosen = np.random.default_rng(SEED).choice(candidates, n_cells, replace=False)
        kept = kept[(kept["label"] != name) | kept["file"].isin(chosen)]
    for kind in ("images", "masks"):
        for name in kept["file"]:
            place = target / kind / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / kind / name, place)
    kept.to_csv(target / "metadata.csv", index=False)


def make_study(cells: Path, study: Path, *, at_most: Mapping[str, Mapping[str, int]]) -> None:
    """Import a part of the cells, unless the study is there; ``at_most`` is set -> class -> number of cells."""
    if study.is_dir():
        return
    with tempfile.TemporaryDirectory() as temporary:
        for name in SETS:
            copy_cells(cells / name, Path(temporary) / name, at_most=at_most.get(name, {}))
        development, external = (str(Path(temporary) / name) for name in SETS)
        if code := perikarya("study", "import", development, "--external", external, "--out", str(study)):
            sys.exit(code)


def perikarya(*arguments: str) -> int:
    """Run a command, its output to the error stream, and return its exit code."""
    return subprocess.run([sys.executable, "-m", "perikarya", *arguments], check=False, stdout=sys.stderr).returncode


def train(config: Path, study: Path, run: Path, *, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Train an experiment and return its results; tasks that failed are missing from them."""
    options = [part for item in settings for part in ("--set", item)]
    code = perikarya("train", str(config), "--study", str(study), "--out", str(run), *options)
    if not (run / "results.json").is_file():
        sys.exit(code or "The run left no results.json.")
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return results


def single_networks(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the models of a run without the ensembles."""
    return {name: model for name, model in results["models"].items() if model["kind"] == "network"}


def with_interval(value: Mapping[str, Any]) -> str:
    """Write a value of ``results.json`` with its interval."""
    low, high = value["ci95"]
    return f"{value['mean']:.3f} ({low:.3f}-{high:.3f})"

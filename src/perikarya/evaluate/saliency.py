"""What ``perikarya explain`` leaves behind: how much of its maps lies inside the cells, and the maps that are drawn.

``RUN/explain/explain.json`` holds the numbers, ``RUN/explain/<model>.npz`` the maps; both are read without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.config import EvaluateConfig
from perikarya.errors import RunError
from perikarya.evaluate.metrics import Floats, Ints
from perikarya.evaluate.stats import MIN_CLUSTERS, clusters_of, draw_counts, interval_unit, percentile_interval
from perikarya.runs import RunFolder, read_json, replacing
from perikarya.schema import SCHEMA_VERSION, check_version, safe_name


@dataclass(frozen=True)
class CellShares:
    """How much of the map of each cell lies inside its outline.

    ``row_n`` has shape (n_cells,) and holds rows of the cells table, ``label_n`` the codes of the true classes,
    ``inside_n`` the shares, NaN where a map is 0 everywhere, ``even_n`` those of an even map: how much of the window
    the cell covers.
    """

    row_n: Ints
    label_n: Ints
    inside_n: Floats
    even_n: Floats


def summarise_shares(
    shares: CellShares, cells: pd.DataFrame, class_names: tuple[str, ...], *, config: EvaluateConfig
) -> dict[str, Any]:
    """Average shares so that every class counts alike, with intervals over animals (or images, or cells).

    Returns
    -------
    ``{"n_cells", "n_empty", "unit", "n_clusters", "share_inside": V, "even_share", "beyond_even": V, "per_class":
    {"<class>": {"n", "share_inside", "even_share"}}}`` with ``V = {"mean", "ci95"}``; ``beyond_even`` is the share
    inside less that of an even map of the same cells. Cells whose map is 0 everywhere are counted in ``n_empty`` and
    enter no mean.
    """
    seen = ~np.isnan(shares.inside_n)
    clusters = clusters_of(cells.iloc[shares.row_n[seen]], interval_unit(cells.iloc[shares.row_n]))
    label_n = shares.label_n[seen]
    inside_n, even_n = shares.inside_n[seen], shares.even_n[seen]
    counts_bs = draw_counts(max(clusters.n_clusters, 1), n_draws=config.n_bootstrap, seed=config.seed)

    def value(share_n: Floats) -> dict[str, Any]:
        interval = None
        if clusters.n_clusters >= MIN_CLUSTERS:
            draws_b = _draws(share_n, label_n, clusters.code_n, counts_bs)
            interval = percentile_interval(draws_b, confidence=config.confidence, n_clusters=clusters.n_clusters)
        return {"mean": _balanced_mean(share_n, label_n), "ci95": None if interval is None else list(interval)}

    return {
        "n_cells": int(seen.sum()),
        "n_empty": int((~seen).sum()),
        "unit": clusters.unit,
        "n_clusters": clusters.n_clusters,
        "share_inside": value(inside_n),
        "even_share": _balanced_mean(even_n, label_n),
        "beyond_even": value(inside_n - even_n),
        "per_class": {
            name: {
                "n": int((label_n == k).sum()),
                "share_inside": _balanced_mean(inside_n[label_n == k], label_n[label_n == k]),
                "even_share": _balanced_mean(even_n[label_n == k], label_n[label_n == k]),
            }
            for k, name in enumerate(class_names)
        },
    }


def _balanced_mean(share_n: Floats, label_n: Ints) -> float | None:
    """Return the mean over classes of the mean over cells; None without cells."""
    means = [share_n[label_n == k].mean() for k in np.unique(label_n)]
    return float(np.mean(means)) if means else None


def _draws(share_n: Floats, label_n: Ints, cluster_n: Ints, counts_bs: Floats) -> Floats:
    """Return the balanced mean of each draw of clusters, shape (n_draws,); NaN where a draw lacks a class."""
    classes, code_n = np.unique(label_n, return_inverse=True)
    shape = (counts_bs.shape[1], len(classes))
    place_n = cluster_n * len(classes) + code_n
    total_sk = np.bincount(place_n, share_n, minlength=shape[0] * shape[1]).reshape(shape)
    n_sk = np.bincount(place_n, minlength=shape[0] * shape[1]).reshape(shape)
    n_bk = counts_bs @ n_sk
    mean_bk = np.divide(counts_bs @ total_sk, n_bk, out=np.full_like(n_bk, np.nan), where=n_bk > 0)
    return np.asarray(mean_bk.mean(axis=1))


@dataclass(frozen=True)
class DrawnMaps:
    """The maps of a model that are drawn; a cell that was classified wrongly has two, one for each class.

    Attributes
    ----------
    cell_id_m, label_m, predicted_m
        Shape (n_maps,): the cell, and the codes of its true and its predicted class.
    about_m, prob_m
        Shape (n_maps,): the class a map is about, and the probability the network gave it.
    map_mhw
        Shape (n_maps, height, width), uint8: 255 where a map is highest, 0 where nothing spoke for the class.
    """

    cell_id_m: NDArray[np.str_]
    label_m: Ints
    predicted_m: Ints
    about_m: Ints
    prob_m: Floats
    map_mhw: NDArray[np.uint8]

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` whole."""
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.savez_compressed(handle, schema_version=SCHEMA_VERSION, **self.__dict__)

    @classmethod
    def load(cls, path: Path) -> DrawnMaps:
        """Read what ``save`` wrote; raise ``RunError`` where it is missing or damaged."""
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as found:
                check_version(found["schema_version"], path)
                return cls(**{name: found[name] for name in cls.__dataclass_fields__})
        except (OSError, EOFError, BadZipFile, KeyError, ValueError, TypeError) as error:
            raise RunError(
                f"{path} should hold maps drawn by 'perikarya explain' but cannot be read ({error}).\n"
                "Fix: run 'perikarya explain' again."
            ) from None


def explained_path(run: RunFolder) -> Path:
    """Return where the numbers of all explained models lie."""
    return run.root / "explain" / "explain.json"


def maps_path(run: RunFolder, model: str) -> Path:
    """Return where the drawn maps of a model lie."""
    return run.root / "explain" / f"{safe_name(model)}.npz"


def load_explained(run: RunFolder) -> dict[str, Any]:
    """Return the models of ``explain.json`` by name; empty where nothing was explained yet.

    Raises
    ------
    DataError, RunError
        If the file is damaged or of another version.
    """
    path = explained_path(run)
    if not path.is_file():
        return {}
    content = read_json(path, what="the numbers of 'perikarya explain'")
    if not isinstance(content, dict) or not isinstance(content.get("models"), dict):
        raise RunError(f"{path} holds no models. Fix: delete it and run 'perikarya explain' again.")
    check_version(content.get("schema_version"), path)
    return dict(content["models"])

"""Predicted cells as AnnData (``cells.h5ad``), for Scanpy, squidpy and their relatives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from perikarya.errors import DataError
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.cells import PROB, read_parts
from perikarya.runs import replacing

_CATEGORIES = ("image_id", "subject", "region", "group", "set")


def check_anndata() -> None:
    """Raise ``DataError`` where the library that writes ``.h5ad`` is not installed."""
    if find_spec("anndata") is None:
        raise DataError(
            "--format h5ad needs the library anndata, which is not installed.\n"
            "Fix: pip install 'perikarya[anndata]', or leave h5ad out."
        )


def features_path(out: Path, image_id: str) -> Path:
    """Where the network's features of one image are kept until all images are joined."""
    return out / "done" / f"{image_id}.features.npy"


def write_features(out: Path, image_id: str, feature_nf: NDArray[np.float32]) -> None:
    """Keep the features of the cells of one image, whole or not at all."""
    with replacing(features_path(out, image_id)) as temporary, temporary.open("wb") as handle:
        np.save(handle, feature_nf, allow_pickle=False)


def write_h5ad(
    path: Path, out: Path, image_ids: Sequence[str], manifest: ModelManifest, *, model_sha256: str, features: bool
) -> None:
    """Write all cells as AnnData.

    ``X``: the network's features where asked, else the probabilities; ``obs``: the table of cells, by cell_id, classes
    and places as categories; ``obsm["prob"]``: probabilities, shape (n_cells, n_classes); ``obsm["spatial"]``: the
    centroids in pixels of their image; ``uns["perikarya"]``: classes, colours, model. ``uns["class_colors"]`` makes
    Scanpy draw classes in Perikarya's colours. All cells of all images are in memory meanwhile.

    Parameters
    ----------
    path
        The file to write.
    out, image_ids
        The folder of the prediction, and the images in it, in order of the rows.
    manifest, model_sha256
        Of the model.
    features
        Whether features were kept of every image.
    """
    check_anndata()
    import anndata

    cells = pa.concat_tables(read_parts(out, image_ids)).to_pandas()
    names = list(manifest.class_names)
    prob_nk = cells[[f"{PROB}{name}" for name in names]].to_numpy(np.float32)
    if features:
        matrix = np.concatenate([np.load(features_path(out, i), allow_pickle=False) for i in image_ids])
        var_names = [f"feature_{j}" for j in range(matrix.shape[1])]
    else:
        matrix, var_names = prob_nk, names
    obs = _obs(cells, names)
    uns: dict[str, Any] = {"class_names": names, "class_colours": list(manifest.class_colours), "model": manifest.name}
    uns |= {"model_sha256": model_sha256, "X": "features" if features else "probabilities"}
    with warnings.catch_warnings():  # the same cell in two copies of an image; reading warns again, and says which
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        data = anndata.AnnData(X=matrix.astype(np.float32), obs=obs)
    data.var_names = var_names
    data.obsm["prob"] = prob_nk
    data.obsm["spatial"] = cells[["x_px", "y_px"]].to_numpy(np.float64)
    data.uns = {"perikarya": uns, "class_colors": np.array(manifest.class_colours, dtype=object)}
    with replacing(path) as temporary:
        data.write_h5ad(temporary, compression="gzip")


def _obs(cells: Any, class_names: list[str]) -> Any:
    """Turn the cells table into the observations of AnnData: words as categories, cell_id as their names."""
    import pandas as pd

    obs = cells.set_index("cell_id")
    obs["class"] = pd.Categorical(obs["class"], categories=class_names)
    obs["label"] = pd.Categorical(obs["label"], categories=class_names)
    for name in _CATEGORIES:
        obs[name] = pd.Categorical(obs[name].astype(object))
    return obs

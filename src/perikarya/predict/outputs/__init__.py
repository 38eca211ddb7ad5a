"""What a prediction leaves behind: files for QuPath, ImageJ, people, tables and AnnData.

``write_field`` writes the files of one image as soon as it is predicted, ``finish`` joins the tables of all images.
Between the two only files are kept, so memory stays flat and a resumed run joins the same tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from perikarya.data.outlines.trace import traced
from perikarya.errors import ConfigError
from perikarya.predict.fields import PredictedField
from perikarya.predict.manifest import ModelManifest
from perikarya.predict.outputs.summary import Summary

# name -> ending of the file each image gets; None: one file over all images
FORMATS: dict[str, str | None] = {
    "geojson": ".geojson",
    "roi": ".rois.zip",
    "overlay": ".overlay.png",
    "csv": None,
    "h5ad": None,
}


@dataclass(frozen=True)
class Finished:
    """The tables over all images, and the counts in them."""

    paths: tuple[Path, ...]
    summary: Summary


def parse_formats(text: str) -> tuple[str, ...]:
    """Read ``geojson,roi,csv``; raise ``ConfigError`` for a name that is none, ``DataError`` for one that cannot be."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise ConfigError(f"--format {text!r} names {unknown or 'nothing'}; known are {', '.join(FORMATS)}.")
    if "h5ad" in names:
        from perikarya.predict.outputs.anndata import check_anndata

        check_anndata()
    return names


def field_files(out: Path, image_id: str, formats: Iterable[str]) -> dict[str, Path]:
    """Return the files an image gets of its own, by format."""
    return {name: out / f"{image_id}{FORMATS[name]}" for name in formats if FORMATS[name] is not None}


def write_field(out: Path, field: PredictedField, manifest: ModelManifest, formats: Sequence[str]) -> None:
    """Write the files of one image, each whole or not at all, and its part of the tables.

    Raises
    ------
    DataError
        If the image cannot be read again for the overlay, or an outline cannot be written.
    """
    from perikarya.predict.outputs.cells import write_part

    given = field
    field = without_own_labels(field)
    field = replace(field, outlines=tuple(map(traced, field.outlines)))  # several writers need the rings
    image_id = field.item.image_id
    files = field_files(out, image_id, formats)
    if "geojson" in files:
        from perikarya.predict.outputs.geo import write_geo

        write_geo(files["geojson"], field, manifest)
    if "roi" in files:
        from perikarya.predict.outputs.rois import write_roi_zip

        write_roi_zip(files["roi"], field, manifest)
    if "overlay" in files:
        from perikarya.predict.outputs.overlay import write_overlay

        write_overlay(files["overlay"], field, manifest)
    if field.feature_nf is not None:
        from perikarya.predict.outputs.anndata import write_features

        write_features(out, image_id, field.feature_nf)
    n_own = sum(a is not b for a, b in zip(given.label_n, field.label_n, strict=True))
    write_part(out, field, manifest, n_own_labels=n_own)


def finish(
    out: Path,
    image_ids: Sequence[str],
    manifest: ModelManifest,
    formats: Sequence[str],
    *,
    model_sha256: str = "",
    features: bool = False,
) -> Finished:
    """Join the parts of images that were written, now or by an earlier call, to the tables over all of them.

    Writes ``cells.parquet``, ``summary.csv``, ``cells.csv`` and ``cells.h5ad`` where asked, and ``confusion.csv`` where
    the files of outlines give classes of the model. Nothing is written where there is no image.
    """
    from perikarya.predict.outputs.cells import join_parts, read_parts
    from perikarya.predict.outputs.summary import summarise, write_confusion, write_summary

    summary = summarise(read_parts(out, image_ids), manifest.class_names)
    if not image_ids:
        return Finished((), summary)
    paths = join_parts(out, image_ids, manifest, as_csv="csv" in formats)
    write_summary(out / "summary.csv", summary)
    paths.append(out / "summary.csv")
    if summary.n_labelled:
        write_confusion(out / "confusion.csv", summary)
        paths.append(out / "confusion.csv")
    else:
        (out / "confusion.csv").unlink(missing_ok=True)  # of an earlier call with other files
    if "h5ad" in formats:
        from perikarya.predict.outputs.anndata import write_h5ad

        path = out / "cells.h5ad"
        write_h5ad(path, out, image_ids, manifest, model_sha256=model_sha256, features=features)
        paths.append(path)
    return Finished(tuple(paths), summary)


def without_own_labels(field: PredictedField) -> PredictedField:
    """Take away the classes that an earlier prediction wrote into the file: agreeing with them would prove nothing."""
    own_n = np.array([outline.predicted for outline in field.outlines], bool)
    if not own_n.any():
        return field
    label_n = field.label_n.copy()
    label_n[own_n] = None
    return replace(field, label_n=label_n)

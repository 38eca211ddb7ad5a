"""The table of predicted cells: one part per image, joined over all images to ``cells.csv`` and ``cells.parquet``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from perikarya.predict.fields import PredictedField
from perikarya.predict.manifest import ModelManifest
from perikarya.runs import replacing

PROB = "prob_"
LABELS_LEFT_OUT = "labels_left_out"
_SCHEMA_VERSION = "1"  # schema.SCHEMA_VERSION; that module takes pandas along, which would double the start of predict
# digits behind the point in the CSV; the Parquet table keeps all
_DECIMALS = {"confidence": 6, "area_um2": 3, "x_px": 2, "y_px": 2, "x_um": 3, "y_um": 3}
_PROB_DECIMALS = 6
_ROWS_PER_GROUP = 100_000  # of the Parquet table


def part_path(out: Path, image_id: str) -> Path:
    """Where the cells of one image are kept until the tables of all images are joined."""
    return out / "done" / f"{image_id}.parquet"


def cells_schema(class_names: tuple[str, ...]) -> pa.Schema:
    """Return the columns of the table of cells; see ``cells_table``."""
    words = ("cell_id", "key", "image_id", "subject", "region", "group", "set", "class")
    places = ("x_px", "y_px", "area_um2", "x_um", "y_um")
    return pa.schema(
        [
            *((name, pa.string()) for name in words),
            *((f"{PROB}{name}", pa.float32()) for name in class_names),
            ("confidence", pa.float32()),
            ("abstained", pa.bool_()),
            ("label", pa.string()),
            ("area_px", pa.int64()),
            *((name, pa.float64()) for name in places),
        ]
    )


def cells_table(field: PredictedField, class_names: tuple[str, ...]) -> pa.Table:
    """Return one row per predicted cell of an image.

    Columns: cell_id; key (what the file of outlines calls it); image_id, subject, region, group, set (empty where
    unknown); class (the most probable one, also of unsure cells), ``prob_<class>`` per class, confidence (the largest
    of them), abstained; label (the class the file gives, where the model knows it); area_px, x_px, y_px (centroid);
    area_um2, x_um, y_um (empty where the scale is unknown).
    """
    n = len(field.cell_id)
    words = {word: _words(field, word) for word in ("subject", "region", "group", "set")}
    columns: dict[str, Any] = {
        "cell_id": _texts(field.cell_id),
        "key": _texts([outline.key for outline in field.outlines]),
        "image_id": _texts([field.item.image_id] * n),
        **{word: _texts(values) for word, values in words.items()},
        "class": _texts([class_names[code] for code in field.code_n]),
    }
    for k, name in enumerate(class_names):
        columns[f"{PROB}{name}"] = pa.array(field.prob_nk[:, k], pa.float32())
    columns["confidence"] = pa.array(field.prob_nk.max(axis=1, initial=0.0), pa.float32())
    columns["abstained"] = pa.array(field.abstained_n, pa.bool_())
    columns["label"] = _texts([label if label in class_names else None for label in field.label_n])
    columns |= _places(field)
    return pa.table(columns, schema=cells_schema(class_names))


def write_part(out: Path, field: PredictedField, manifest: ModelManifest, *, n_own_labels: int = 0) -> None:
    """Keep the cells of one image, whole or not at all; in its metadata, the classes that are not in the table.

    ``n_own_labels`` is the number of cells whose class in the file an earlier prediction wrote.
    """
    unknown = Counter(str(label) for label in field.label_n if label not in (None, *manifest.class_names))
    table = cells_table(field, manifest.class_names)
    left_out = {LABELS_LEFT_OUT: json.dumps({"unknown": unknown, "own": n_own_labels})}
    write_piece(part_path(out, field.item.image_id), table, left_out)


def write_piece(path: Path, table: pa.Table, metadata: Mapping[str, str]) -> None:
    """Write some cells that will be joined with others, whole or not at all."""
    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(dict(metadata)), temporary, compression="zstd")


def read_parts(out: Path, image_ids: Iterable[str]) -> Iterator[pa.Table]:
    """Iterate over the cells of images, one image in memory at a time."""
    for image_id in image_ids:
        yield pq.read_table(part_path(out, image_id), partitioning=None)


def join_parts(out: Path, image_ids: Iterable[str], manifest: ModelManifest, *, as_csv: bool) -> list[Path]:
    """Write ``cells.parquet``, and ``cells.csv`` where asked, over all images; return their paths.

    Parameters
    ----------
    out
        The folder of the prediction.
    image_ids
        The images, at least one, in the order of the rows.
    manifest
        Of the model; its classes and name go into the metadata of the Parquet file.
    as_csv
        Also as CSV, with digits that make sense.
    """
    paths = [out / "cells.parquet", *([out / "cells.csv"] if as_csv else [])]
    tables = read_parts(out, image_ids)
    if not as_csv:
        write_joined(paths[0], tables, manifest)
        return paths
    with csv_writer(paths[1], manifest) as write_csv:
        write_joined(paths[0], _seen(tables, write_csv), manifest)
    return paths


def write_joined(path: Path, tables: Iterable[pa.Table], manifest: ModelManifest, **metadata: str) -> None:
    """Write one Parquet file of many small tables, whole or not at all, with few of them in memory at a time.

    Parameters
    ----------
    path
        The file.
    tables
        By ``cells_table``; equal rows make equal bytes, however they are divided into tables.
    manifest
        Of the model; its classes and name go into the metadata.
    metadata
        What else goes there.
    """
    schema = cells_schema(manifest.class_names).with_metadata(_metadata(manifest) | metadata)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for table in evenly(tables, _ROWS_PER_GROUP):  # a file of thousands of small groups is slow to read
            writer.write_table(table.replace_schema_metadata(schema.metadata).combine_chunks())


@contextmanager
def csv_writer(path: Path, manifest: ModelManifest) -> Iterator[Callable[[pa.Table], None]]:
    """Yield what appends cells to a CSV with digits that make sense; the file is there when the block ends well."""
    schema = _rounded(cells_schema(manifest.class_names).empty_table()).schema
    with replacing(path) as temporary, pcsv.CSVWriter(str(temporary), schema) as writer:
        yield lambda table: writer.write_table(_rounded(table.replace_schema_metadata()))


def _seen(tables: Iterable[pa.Table], look: Callable[[pa.Table], None]) -> Iterator[pa.Table]:
    """Iterate over tables, each shown to ``look`` first."""
    for table in tables:
        look(table)
        yield table


def evenly(tables: Iterable[pa.Table], n_rows: int) -> Iterator[pa.Table]:
    """Join and cut tables to such of ``n_rows`` rows each, fewer in the last; none is empty."""
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in tables:
        waiting.append(table)
        n_waiting += len(table)
        while n_waiting >= n_rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, n_rows)
            waiting, n_waiting = [whole.slice(n_rows)], n_waiting - n_rows
    if n_waiting:
        yield pa.concat_tables(waiting)


def _metadata(manifest: ModelManifest) -> dict[str, str]:
    return {
        "perikarya_schema": _SCHEMA_VERSION,
        "model": manifest.name,
        "class_names": json.dumps(manifest.class_names, ensure_ascii=False),
    }


def _rounded(table: pa.Table) -> pa.Table:
    """Round what goes into the CSV; as float64, whose shortest text has no digits of the binary kind."""
    for i, name in enumerate(table.column_names):
        digits = _PROB_DECIMALS if name.startswith(PROB) else _DECIMALS.get(name)
        if digits is not None:
            table = table.set_column(i, name, pc.round(table.column(i).cast(pa.float64()), digits))
    return table


def _texts(values: Iterable[str | None]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _words(field: PredictedField, word: str) -> list[str | None]:
    """Return a word of each cell: the region drawn around it, else what is known of the image, else of the cell."""
    around = field.region_n if word == "region" else [None] * len(field.outlines)
    told = field.item.words.get(word)
    return [a or told or outline.words.get(word) for a, outline in zip(around, field.outlines, strict=True)]


def _places(field: PredictedField) -> dict[str, pa.Array]:
    columns = {name: pa.array(getattr(field, name)) for name in ("area_px", "x_px", "y_px")}
    scale = field.um_per_px
    in_um = {"area_um2": (field.area_px, 2), "x_um": (field.x_px, 1), "y_um": (field.y_px, 1)}
    for name, (value_n, power) in in_um.items():
        columns[name] = _float64(value_n, None if scale is None else scale**power)
    return columns


def _float64(value_n: NDArray[Any], factor: float | None) -> pa.Array:
    if factor is None:
        return pa.nulls(len(value_n), pa.float64())
    return pa.array(np.asarray(value_n, np.float64) * factor)

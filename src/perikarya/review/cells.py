"""The cells of a study or a run as the page asks for them: columns, filters, order, counts, what models say."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.palette import class_colours
from perikarya.review.clusters import ALONE
from perikarya.review.columns import CategoryColumn, Column, NumberColumn, no_yes, order_rows
from perikarya.review.features import find_features
from perikarya.review.issues import issue_columns
from perikarya.review.later import LaterColumns
from perikarya.review.names import CellNames
from perikarya.review.present import PresentLabels
from perikarya.review.schemas import Query
from perikarya.review.sources import Source, open_source
from perikarya.schema import NO_LABEL, SCHEMA_VERSION

if TYPE_CHECKING:
    from perikarya.data.corrections import Entry
    from perikarya.review.opinions import Opinion

log = logging.getLogger(__name__)

_ENTROPY = "entropy (0: sure, 1: all classes alike)"


def open_review(path: Path, *, study: Path | None = None, reader: str, blind: bool = False) -> ReviewTable:
    """Open a study, a run or a prediction with its study, for a person to look through.

    Parameters
    ----------
    path
        The folder of a study, of a run, or of what ``perikarya predict`` said of a study.
    study
        Take the cells from here instead of where the run's configuration says; a prediction does not say.
    reader
        Who looks.
    blind
        Leave out everything a model says: no models, none of their columns, an order of review without them.

    Raises
    ------
    ConfigError
        If ``study`` is given beside a study, or not given with a prediction.
    DataError, RunError
        If a file is missing or damaged, or models and study do not belong together.
    """
    return ReviewTable(open_source(path, study=study, blind=blind), reader=reader, blind=blind)


class ReviewTable:
    """All cells of a study with what is known of them; may be asked by several threads.

    Attributes
    ----------
    opened
        The study.
    run, config
        The run and its configuration; None without a run, and where models are hidden.
    reader
        Who looks.
    blind
        Whether models are hidden.
    """

    def __init__(self, source: Source, *, reader: str, blind: bool) -> None:
        self.opened, self.run, self.config = source.opened, source.run, source.config
        self.reader, self.blind = reader, blind
        self.label_names = source.opened.study.class_names
        self._source, self._opinions, self._threshold = source.words, source.opinions, source.threshold
        self._labels = PresentLabels(source.opened)
        self._names = CellNames(source.opened.cells)
        self._fixed = self._fixed_columns()
        self._features = find_features(source.opened, source.config)
        self._later = LaterColumns(source, self._of_table, self._features, self._labels.index)

    @property
    def n_cells(self) -> int:
        """How many cells there are."""
        return len(self.opened.cells)

    @property
    def codes(self) -> NDArray[np.int32]:
        """Codes of the present labels, shape (n_cells,); ``NO_LABEL`` without. Never changed in place."""
        return self._labels.now.codes

    @property
    def _of_table(self) -> Opinion | None:
        """What stands in the table: all models together where there are several."""
        return self._opinions[0] if self._opinions else None

    def info(self) -> dict[str, Any]:
        """Return the ``StudyInfo`` of the service."""
        study = self.opened.study
        return {
            "schema_version": SCHEMA_VERSION,
            "name": study.name,
            "source": self._source,
            "class_names": list(self.label_names),
            "class_colours": class_colours(len(self.label_names)),
            "window_px": study.window_px,
            "um_per_px": study.um_per_px,
            "n_cells": self.n_cells,
            "data_hash": self.opened.data_hash,
            "models": [opinion.describe() for opinion in self._opinions],
            "table_model": self._of_table.name if self._of_table else None,
            "blind": self.blind,
            "columns": [column.describe() for column in self._columns().values()],
            "reader": self.reader,
            "has_features": self.features() is not None,
            "map_methods": ["pca", "umap"] if find_spec("umap") else ["pca"],
            "has_fields": (self.opened.root / "fields").is_dir(),
            "revision": self._labels.now.revision,
        }

    def query(self, query: Query) -> dict[str, Any]:
        """Return the ``QueryAnswer`` of the service: rows that fit, in order, and how they are labelled.

        Raises
        ------
        ConfigError
            If a column is unknown or of another kind than asked, or a row is not in the table.
        """
        now, columns = self._labels.now, self._columns()
        kept = np.ones(self.n_cells, np.bool_) if query.within is None else self._only(query.within)
        for wanted in query.filters:
            kept &= _column(columns, wanted.column).matches(wanted)
        if text := query.text.strip():
            kept &= self._names.holding(text)
        rows = order_rows(np.flatnonzero(kept), [(_column(columns, s.column), s.descending) for s in query.sort])
        return {
            "n": len(rows),
            "rows_b64": base64.b64encode(rows.astype("<u4").tobytes()).decode("ascii"),
            "counts": now.counts(len(self.label_names), rows),
            "n_reviewed": now.n_reviewed(rows),
            "revision": now.revision,
        }

    def progress(self) -> dict[str, Any]:
        """Return ``counts``, ``n_reviewed`` and ``revision`` over all cells."""
        now = self._labels.now
        return {
            "counts": now.counts(len(self.label_names)),
            "n_reviewed": now.n_reviewed(),
            "revision": now.revision,
        }

    def cells(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Return the ``Cell`` of each row; raise ``ConfigError`` for a row that is not in the table."""
        now, opinion, cluster = self._labels.now, self._of_table, self._later.cluster
        return [
            {
                "row": row,
                "cell_id": self._names.cell_ids[row],
                "label": int(now.codes[row]),
                "imported_label": int(self._labels.imported[row]),
                "reviewed": bool(now.reviewed[row]),
                **self._said(opinion, row),
                **self._names.of(row),
                "cluster": None if cluster is None or cluster[row] == ALONE else int(cluster[row]),
            }
            for row in self._in_table(rows).tolist()
        ]

    def _said(self, opinion: Opinion | None, row: int) -> dict[str, Any]:
        if opinion is None or not opinion.n_networks[row]:
            return {"predicted": None, "confidence": None, "abstained": None, "prob": None}
        prob = opinion.prob_nk[row]
        return {
            "predicted": int(prob.argmax()),
            "confidence": float(prob.max()),
            "abstained": bool(prob.max() < self._threshold),
            "prob": prob.tolist(),
        }

    def probabilities(self, row: int) -> list[dict[str, Any]]:
        """Return the ``Probabilities`` of each model that has an opinion of a cell, the one of the table first."""
        (row,) = self._in_table([row]).tolist()
        return [
            {
                "model": opinion.name,
                "prob": opinion.prob_nk[row].tolist(),
                "n_networks": int(opinion.n_networks[row]),
                "held_out": opinion.held_out,
            }
            for opinion in self._opinions
            if opinion.n_networks[row]
        ]

    def detail(self, row: int) -> dict[str, Any]:
        """Return the ``CellDetail`` of the service, but for neighbours and field."""
        (cell,) = self.cells([row])
        place = self.opened.cells.iloc[row]
        area_px, um_per_px = int(place["area_px"]), float(self._um_per_px.iloc[row])
        return {
            "cell": cell,
            "x_px": float(place["x_px"]),
            "y_px": float(place["y_px"]),
            "area_px": area_px,
            "area_um2": None if np.isnan(um_per_px) else area_px * um_per_px**2,
            "probabilities": self.probabilities(row),
            "history": [entry.as_dict() | {"row": row} for entry in self.history(cell["cell_id"])],
        }

    def column(self, key: str) -> dict[str, Any]:
        """Return the ``ColumnValues`` of the service; raise ``ConfigError`` for an unknown column."""
        return {"key": key, "values_b64": _column(self._columns(), key).encoded()}

    def warm_up(self) -> None:
        """Begin in the background with what takes longer than opening: near-duplicates, a better order of review."""
        self._later.start()

    def close(self) -> None:
        """End all work."""
        self._later.close()

    def take_in(self, entries: Iterable[Entry]) -> None:
        """Let corrections of the log count; those that are in already change nothing."""
        self._labels.take_in(entries)

    def history(self, cell_id: str) -> tuple[Entry, ...]:
        """Return what people said of a cell, the first entry first."""
        return self._labels.history(cell_id)

    def row_of(self, cell_id: str) -> int:
        """Return the row of a cell; raise ``DataError`` where the study has no such cell."""
        row = self._labels.row_of(cell_id)
        if row is None:
            raise DataError(f"{self.opened.root} has no cell '{cell_id[:100]}'.")
        return row

    def features(self) -> NDArray[np.float16] | None:
        """Return cached features of the cells, shape (n_cells, n_features), mapped; None where there are none."""
        return self._features.values if self._features else None

    @property
    def features_name(self) -> str:
        """What the features are, in words; "" where there are none."""
        return self._features.words if self._features else ""

    def _in_table(self, rows: Sequence[int]) -> NDArray[np.int64]:
        try:
            wanted = np.asarray(rows, np.int64).reshape(-1)
        except OverflowError:
            wanted = np.array([-1])
        if ((wanted < 0) | (wanted >= self.n_cells)).any():
            raise ConfigError(f"A row that was asked for is not in the table, which has {self.n_cells} cells.")
        return wanted

    def _only(self, rows: Sequence[int]) -> NDArray[np.bool_]:
        kept = np.zeros(self.n_cells, np.bool_)
        kept[self._in_table(rows)] = True
        return kept

    def _columns(self) -> dict[str, Column]:
        """Return all columns by key, in the order they are offered."""
        now, opinion = self._labels.now, self._of_table
        names, imported = self.label_names, self._labels.imported
        made: list[Column] = [
            CategoryColumn("label", "label", names, now.codes),
            CategoryColumn("imported_label", "label as imported", names, imported),
            no_yes("reviewed", "reviewed by a person", now.reviewed),
            no_yes("corrected", "corrected", now.codes != imported),
        ]
        if opinion is not None:
            predicted = opinion.predicted
            known = (predicted != NO_LABEL) & (now.codes != NO_LABEL)
            made.append(no_yes("disagrees", "model disagrees with the label", predicted != now.codes, known=known))
        made += [*self._fixed, *self._later.columns()]
        return {column.key: column for column in made}

    def _fixed_columns(self) -> list[Column]:
        """Return what no correction changes; words that all cells lack, or that are too many, are left out."""
        cells, opinion = self.opened.cells, self._of_table
        made: list[Column] = []
        if opinion is not None:
            made += [*_said_columns(opinion, self.label_names), NumberColumn("entropy", _ENTROPY, opinion.entropy)]
            if self._threshold > 0:
                title = f"model abstains (confidence below {self._threshold:g})"
                made.append(no_yes("abstained", title, opinion.confidence < self._threshold, known=opinion.known))
        if self.run is not None:
            made += issue_columns(self.run, self._labels.index, self._labels.imported, self.label_names)
        made += self._names.columns()
        made.append(NumberColumn("area_px", "area (px)", cells["area_px"].to_numpy(np.float32)))
        area_um2 = (cells["area_px"] * self._um_per_px**2).to_numpy(np.float32)
        if np.isfinite(area_um2).any():
            made.append(NumberColumn("area_um2", "area (µm²)", area_um2))
        for other in self._opinions[1:]:
            made += _said_columns(other, self.label_names, mark=other.name)
        return made

    @cached_property
    def _um_per_px(self) -> pd.Series:
        """Side of a pixel of each cell's image, NaN where unknown."""
        return self.opened.cells["um_per_px"].fillna(self.opened.study.um_per_px or np.nan)


def _said_columns(opinion: Opinion, class_names: tuple[str, ...], *, mark: str = "") -> list[Column]:
    """Return what a model predicts and how sure it is; ``mark`` names one that is not the model of the table."""
    suffix, of = (f":{mark}", f" ({mark})") if mark else ("", "")
    return [
        CategoryColumn(f"predicted{suffix}", f"predicted{of}", class_names, opinion.predicted),
        NumberColumn(f"confidence{suffix}", f"confidence{of}", opinion.confidence),
    ]


def _column(columns: dict[str, Column], key: str) -> Column:
    if key not in columns:
        raise UnknownNameError("column", key[:100], columns)
    return columns[key]

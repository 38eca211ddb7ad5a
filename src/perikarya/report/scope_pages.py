"""One light page per region and per group: scores, confusion, damage and cells of that part of the study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.evaluate.metrics import OVERALL, Ints
from perikarya.figures.galleries import mosaic, outlined, pick_examples
from perikarya.figures.plates import ordered_models
from perikarya.report import content
from perikarya.report.damage_words import damage_of
from perikarya.report.images import Shown, embed_photos
from perikarya.report.words import MISSING, Cell, Table, cell, count, number
from perikarya.runs import RunFolder, write_text
from perikarya.schema import SET_WORDS, safe_name

FOLDER = "report"
_SCOPES = (("region", "regions"), ("group", "groups"))
_N_EXAMPLES, _COLUMNS, _TILE_PX = 24, 12, 76
_SHEET_BYTES = 120_000


@dataclass(frozen=True)
class Part:
    """A heading of a page with what stands under it."""

    title: str
    sentences: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    plates: list[Shown] = field(default_factory=list)


def write_scope_pages(
    run: RunFolder,
    opened: OpenStudy,
    results: Mapping[str, Any],
    lead: str,
    *,
    environment: Environment,
    css: str,
) -> list[Cell]:
    """Write ``RUN/report/region_<name>.html`` and ``group_<name>.html``; pages of an earlier report are removed.

    Returns
    -------
    Links to them, relative to ``RUN``, regions first.
    """
    folder = run.root / FOLDER
    for column, _ in _SCOPES:
        for old in folder.glob(f"{column}_*.html"):
            old.unlink()
    links = []
    examples = {k: pick_examples(opened, k, n=len(opened.cells)) for k in range(len(opened.study.class_names))}
    for column, plural in _SCOPES:
        names = _names(results["models"][lead], plural)
        files = _file_names(column, names)
        siblings = [Cell(name, href=file) for name, file in zip(names, files, strict=True)]
        for name, file in zip(names, files, strict=True):
            page = environment.get_template("scope.html.j2").render(
                css=css,
                study=results["study"]["name"],
                scope=column,
                name=name,
                summary=_summary(opened, column, name),
                siblings=siblings,
                parts=_parts(opened, results, lead, column, plural, name, examples),
            )
            write_text(folder / file, page)
            links.append(Cell(name, href=f"{FOLDER}/{file}"))
    return links


def _names(entry: Mapping[str, Any], plural: str) -> list[str]:
    return list(dict.fromkeys([*(entry.get(plural) or {}), *(entry.get(f"external_{plural}") or {})]))


def _file_names(column: str, names: Sequence[str]) -> list[str]:
    """Name the files after the regions; where two become the same, the later one is numbered."""
    used: set[str] = set()
    files = []
    for name in names:
        stem = f"{column}_{safe_name(name)}"
        file, n = stem, 2
        while file.lower() in used:
            file, n = f"{stem}_{n}", n + 1
        used.add(file.lower())
        files.append(f"{file}.html")
    return files


def _summary(opened: OpenStudy, column: str, name: str) -> str:
    cells = opened.cells[(opened.cells[column] == name).fillna(False)]
    animals = f" of {count(int(cells['subject'].nunique()), 'animal')}" if cells["subject"].notna().all() else ""
    return f"{count(len(cells), 'cell')}{animals}, {count(int(cells['image_id'].nunique()), 'image')}"


def _parts(
    opened: OpenStudy,
    results: Mapping[str, Any],
    lead: str,
    column: str,
    plural: str,
    name: str,
    examples: Mapping[int, Ints],
) -> Iterable[Part]:
    for set_name in ("external", "cv"):
        blocks = {
            model: content.scope_blocks(entry, plural, set_name)[name]
            for model, entry in ordered_models(dict(results)).items()
            if name in content.scope_blocks(entry, plural, set_name)
        }
        if blocks:
            yield _scores(blocks, set_name, lead, name, opened.study.class_names)
    said = damage_of(results, column, name)
    if said.tables:
        yield Part("Damage", said.sentences, said.tables)
    plates = list(_sheets(opened, column, name, examples))
    if plates:
        yield Part("Cells", ["Drawn by chance, taking turns over the animals; the line is the outline."], plates=plates)


def _scores(
    blocks: Mapping[str, Mapping[str, Any]], set_name: str, lead: str, name: str, class_names: Sequence[str]
) -> Part:
    """Show all models on one set, and of the leading one each class and the confusion."""
    metrics = content.MAIN_SCORES
    rows = [[Cell(model), *(cell(block[m]) for m in metrics)] for model, block in blocks.items()]
    tables = [Table(f"All models in {name}", ["Model", *(OVERALL.get(m).title for m in metrics)], rows)]
    if lead in blocks:
        tables.append(content.class_table(lead, blocks[lead], set_name))
        tables.append(confusion_table(f"{lead}: confusion; rows are true classes", blocks[lead], class_names))
    n_cells = next(iter(blocks.values()))["n_cells"]
    return Part(f"{SET_WORDS[set_name].capitalize()}: {count(n_cells, 'cell')}", tables=tables)


def confusion_table(caption: str, block: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Show a confusion matrix as counts with the share of each true class, tinted by that share."""
    counts = np.asarray(block["confusion"], np.float64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    rows = [
        [
            Cell(names[i]),
            *(
                Cell(_count(counts[i, j]), f"{100 * share[i, j]:.0f} %" if total[i] else MISSING)
                for j in range(len(names))
            ),
        ]
        for i in range(len(names))
    ]
    return Table(caption, ["True class", *(f"→ {name}" for name in names)], rows, shades=share.tolist())


def _count(value: float) -> str:
    return str(int(value)) if value == int(value) else number(value, 1)


def _sheets(opened: OpenStudy, column: str, name: str, examples: Mapping[int, Ints]) -> Iterable[Shown]:
    inside: NDArray[np.bool_] = (opened.cells[column] == name).fillna(False).to_numpy(dtype=bool)
    for k, order in examples.items():
        rows = order[inside[order]][:_N_EXAMPLES]
        if not len(rows):
            continue
        tiles = [outlined(crop, size_px=_TILE_PX) for crop in opened.read_crops(rows)]
        image = embed_photos(mosaic(tiles, n_cols=min(_COLUMNS, len(tiles))), max_bytes=_SHEET_BYTES)
        label = opened.study.class_names[k]
        alt = f"Contact sheet of {len(tiles)} photographs of cells labelled {label} in {name}."
        yield Shown(
            "cells",
            "",
            f"Cells labelled {label}",
            f"{len(tiles)} of {int((opened.labels[inside] == k).sum())}.",
            alt,
            "",
            image.uri,
            image.width,
            image.height,
        )

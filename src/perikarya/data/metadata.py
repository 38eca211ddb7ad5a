"""What is known of a cell besides its pixels: a CSV table beside the images, or a pattern in their names."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perikarya.errors import ConfigError, DataError

MAX_CSV_BYTES = 64 * 2**20
MAX_CSV_ROWS = 2_000_000
MAX_CSV_COLUMNS = 1000  # their names are listed in notes and messages
WORDS = ("subject", "image_id", "region", "group")  # what a table or a name may tell of a cell

# column -> names it may have in a person's table
METADATA_COLUMNS: dict[str, tuple[str, ...]] = {
    "file": ("file", "filename", "file_name", "path"),
    "subject": ("subject", "animal"),
    "image_id": ("image_id", "image"),
    "region": ("region",),
    "group": ("group",),
    "label": ("label", "class"),
}
_NOTHING = frozenset({"", "na", "n/a", "nan", "null"})


@dataclass(frozen=True)
class CsvRow:
    """One line of a table: its number in the file and its entries by column, None where empty."""

    line: int
    values: Mapping[str, str | None]

    def __getitem__(self, column: str) -> str | None:
        return self.values.get(column)


@dataclass(frozen=True)
class CsvTable:
    """A table that was read: rows, (path, reason) for lines that do not fit, and columns nobody asked for."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]
    problems: tuple[tuple[str, str], ...]
    ignored_columns: tuple[str, ...]


def read_csv(path: Path, *, columns: Mapping[str, Sequence[str]], required: Sequence[str]) -> CsvTable:
    """Read a small CSV table of words: UTF-8, separated by comma, semicolon or tab.

    Parameters
    ----------
    path
        The file.
    columns
        Column -> names it may have in the file (compared without regard to case).
    required
        Columns without which the table is of no use.

    Raises
    ------
    DataError
        If the file is missing, too large, not text or lacks a required column. Single lines that do not fit are
        listed in ``problems`` instead.
    """
    text = _read_text(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        positions, ignored = _columns_of(header, columns, required, path)
        rows: list[CsvRow] = []
        problems: list[tuple[str, str]] = []
        for entries in reader:
            if not any(entry.strip() for entry in entries):
                continue
            if len(entries) != len(header):
                problems.append(
                    (f"{path.name} line {reader.line_num}", f"has {len(entries)} entries, the header has {len(header)}")
                )
                continue
            rows.append(CsvRow(reader.line_num, {c: _entry(entries[i]) for c, i in positions.items()}))
            if len(rows) > MAX_CSV_ROWS:
                raise DataError(f"{path} has more than {MAX_CSV_ROWS} rows; that is no table of outlined cells.")
    except csv.Error as error:
        raise DataError(
            f"{path} is not a readable CSV table (line {reader.line_num}: {error}).\n"
            "Fix: save it again as 'CSV UTF-8'; a quote inside an entry must be doubled."
        ) from None
    return CsvTable(path, tuple(positions), tuple(rows), tuple(problems), ignored)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            raise DataError(f"There is no table at {path}.\nFix: correct the path of --metadata.")
        if path.stat().st_size > MAX_CSV_BYTES:
            raise DataError(
                f"{path} is larger than {MAX_CSV_BYTES // 2**20} MiB; a table of cells is a small text file."
            )
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text.\nFix: save it as 'CSV UTF-8' (not as a workbook).") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from None
    if "\x00" in text:
        raise DataError(f"{path} is not text (it holds null bytes).\nFix: save it as 'CSV UTF-8' (not as a workbook).")
    if not text.strip():
        raise DataError(f"{path} is empty.\nFix: give it a header line and one line per cell, or remove it.")
    return text


def _entry(text: str) -> str | None:
    text = text.strip()
    return None if text.lower() in _NOTHING else text


def _columns_of(
    header: Sequence[str], columns: Mapping[str, Sequence[str]], required: Sequence[str], path: Path
) -> tuple[dict[str, int], tuple[str, ...]]:
    if len(header) > MAX_CSV_COLUMNS:
        raise DataError(
            f"{path} has {len(header)} columns; the limit is {MAX_CSV_COLUMNS}.\n"
            "Fix: keep the columns that say which cell is whose; see 'perikarya study import'."
        )
    names = [name.strip().lower() for name in header]
    positions: dict[str, int] = {}
    for column, aliases in columns.items():
        found = [i for i, name in enumerate(names) if name in aliases]
        if len(found) > 1:
            given = " and ".join(f"'{header[i].strip()}'" for i in found)
            raise DataError(f"{path} gives {column} in two columns ({given}); it is unclear which one holds.")
        if found:
            positions[column] = found[0]
    missing = [column for column in required if column not in positions]
    if missing:
        raise DataError(
            f"{path} has no column '{missing[0]}'; its header is: {', '.join(header)[:300]}.\n"
            f"Fix: name the columns; known are {', '.join('/'.join(a) for a in columns.values())}."
        )
    used = set(positions.values())
    return positions, tuple(name.strip() for i, name in enumerate(header) if i not in used and name.strip())


def normal_path(text: str) -> str:
    """Bring a path in a table to the form in which it is compared: forward slashes, composed Unicode letters."""
    return unicodedata.normalize("NFC", text.replace("\\", "/")).removeprefix("./")


def join_rows(table: CsvTable, files: Mapping[str, Sequence[str]]) -> tuple[dict[str, CsvRow], list[tuple[str, str]]]:
    """Find the file each row of a table means.

    Parameters
    ----------
    table
        Has a column ``file``.
    files
        File -> the ways it may be written in the table, most exact first; a bare name counts only when unique.

    Returns
    -------
    rows
        File -> its row, for the files that the table names once.
    problems
        (where, reason) for rows that name no file, several files or one that was named before.
    """
    meant: dict[str, set[str]] = defaultdict(set)
    for file, spellings in files.items():
        for spelling in spellings:
            meant[normal_path(spelling)].add(file)
    rows: dict[str, CsvRow] = {}
    problems = list(table.problems)
    for row in table.rows:
        where = f"{table.path.name} line {row.line}"
        name = row["file"]
        if name is None:
            problems.append((where, "names no file"))
            continue
        key = normal_path(name)
        if key.startswith("/") or ".." in key.split("/") or re.match(r"[A-Za-z]:/", key):
            problems.append((where, f"'{name}' leaves the folder; give the path inside it"))
        elif not (found := meant.get(key)):
            problems.append((where, f"'{name}' is not among the images"))
        elif len(found) > 1:
            problems.append((where, f"'{name}' could be {' or '.join(sorted(found)[:3])}; write class/name"))
        elif (file := next(iter(found))) in rows:
            problems.append((where, f"'{name}' was given in line {rows[file].line} already"))
        else:
            rows[file] = row
    return rows, problems


def compile_name_pattern(pattern: str) -> re.Pattern[str]:
    """Compile ``--name-pattern``; raise ``ConfigError`` when it is no expression or names nothing we know."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--name-pattern '{pattern}' is not a regular expression: {error}.") from None
    unknown = sorted(set(compiled.groupindex) - set(WORDS))
    if unknown or not compiled.groupindex:
        what = f"the group '{unknown[0]}'" if unknown else "no named group"
        raise ConfigError(
            f"--name-pattern '{pattern}' has {what}; it may name {', '.join(WORDS)}.\n"
            r"Fix: for 'sheep07_CA1_003.png' write (?P<subject>sheep\d+)_(?P<region>[A-Z0-9]+)_"
        )
    return compiled

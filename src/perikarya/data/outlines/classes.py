"""What a source calls its cells, and what the study calls them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from perikarya.data.metadata import read_csv
from perikarya.errors import ConfigError

_Kind: TypeAlias = Literal["class", "name", "group", "colour"]
_KINDS: tuple[_Kind, ...] = get_args(_Kind)
_COLUMNS = {"from": ("from", "old"), "to": ("to", "new")}


@dataclass(frozen=True)
class _Rule:
    """One rule ``kind:what=label``; ``text`` is how it was written, ``label`` None takes the class away."""

    text: str
    kind: _Kind
    what: str
    label: str | None
    pattern: re.Pattern[str] | None = None  # of names

    def fits(self, said: str) -> bool:
        return said == self.what if self.pattern is None else self.pattern.search(said) is not None


@dataclass(frozen=True)
class ClassMap:
    """Rules that turn classes, names, groups and colours of a source into classes; the first that fits counts."""

    rules: tuple[_Rule, ...] = ()
    _used: set[str] = field(default_factory=set, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str | None) -> ClassMap:
        """Read rules from ``--class-map``.

        Parameters
        ----------
        text
            ``old=new,group:2=pyknotic,colour:#ff0000=pyknotic,name:^PN=pyknotic`` or the path of a CSV table with the
            columns ``from`` and ``to``, whose entries may hold commas. A name is a regular expression, searched for.
            An empty right side takes the class away: such cells are without a label. None: no rules.

        Raises
        ------
        ConfigError
            If a rule cannot be read, or one left side is given twice.
        DataError
            If the table cannot be read.
        """
        if text is None or not text.strip():
            return cls()
        return cls.from_pairs(_pairs_of_table(Path(text.strip())) if _is_path(text) else _pairs_of_text(text))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> ClassMap:
        """Make rules of pairs (left side, class), as ``parse`` reads them."""
        rules = tuple(_rule(left, right) for left, right in pairs)
        seen: set[tuple[str, str]] = set()
        for rule in rules:
            if (rule.kind, rule.what) in seen:
                raise ConfigError(f"--class-map says twice what '{rule.text.rpartition('=')[0]}' is.")
            seen.add((rule.kind, rule.what))
        return cls(rules)

    def label(
        self,
        cls: str | None = None,
        *,
        name: str | None = None,
        group: int | str | None = None,
        colour: str | None = None,
    ) -> str | None:
        """Return the class of a cell: by the first rule that fits, else ``cls`` as it is.

        Parameters
        ----------
        cls, name, group
            What the source calls its class, the cell itself, and the number or name of its group.
        colour
            ``#rrggbb``, of the outline.
        """
        said = {
            "class": cls,
            "name": name,
            "group": None if group is None else str(group),
            "colour": None if colour is None else _colour(colour),
        }
        for rule in self.rules:
            value = said[rule.kind]
            if value is not None and rule.fits(value):
                self._used.add(rule.text)
                return rule.label
        return cls

    def unused(self) -> tuple[str, ...]:
        """Return the rules that fitted nothing so far, as they were written: often misspelt."""
        return tuple(rule.text for rule in self.rules if rule.text not in self._used)


def _is_path(text: str) -> bool:
    try:
        return "=" not in text or Path(text.strip()).is_file()
    except OSError:  # longer than paths can be
        return False


def _pairs_of_table(path: Path) -> Iterable[tuple[str, str]]:
    table = read_csv(path, columns=_COLUMNS, required=["from", "to"])
    if table.problems:
        where, reason = table.problems[0]
        raise ConfigError(f"--class-map {path}: {where} {reason}.")
    return [(row["from"] or "", row["to"] or "") for row in table.rows]


def _pairs_of_text(text: str) -> Iterable[tuple[str, str]]:
    for part in filter(str.strip, text.split(",")):
        left, equals, right = part.rpartition("=")
        if not equals:
            raise ConfigError(
                f"--class-map: '{part.strip()}' is no rule; expected old=new, group:2=new, colour:#ff0000=new or "
                "name:PATTERN=new.\nFix: put patterns with commas into a CSV table with columns from,to."
            )
        yield left.strip(), right.strip()


def _rule(left: str, right: str) -> _Rule:
    text = f"{left}={right}"
    prefix, colon, rest = left.partition(":")
    kind = next((kind for kind in _KINDS if colon and prefix.strip() == kind), None)
    what = left if kind is None else rest.strip()
    if not what:
        raise ConfigError(f"--class-map: '{text}' does not say what becomes '{right}'.")
    if kind == "colour":
        what = _colour(what)
        if re.fullmatch(r"#[0-9a-f]{6}", what) is None:
            raise ConfigError(f"--class-map: '{what}' is no colour; write it as colour:#ff0000={right}.")
    pattern = None
    if kind == "name":
        try:
            pattern = re.compile(what)
        except re.error as error:
            raise ConfigError(f"--class-map: '{what}' is not a regular expression: {error}.") from None
    return _Rule(text, kind or "class", what, right or None, pattern)


def _colour(text: str) -> str:
    colour = text.strip().lower()
    short = re.fullmatch(r"#([0-9a-f])([0-9a-f])([0-9a-f])", colour)
    return "#" + "".join(2 * digit for digit in short.groups()) if short else colour

"""Name -> entry tables. Configurations name entries, never import paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from perikarya.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered table of named entries in which a name can be given once only.

    Parameters
    ----------
    kind
        What the entries are, in the singular, for messages: ``network``, ``importer``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Add an entry and return it; raise ``ValueError`` when the name is taken."""
        if name in self._entries:
            raise ValueError(f"The {self.kind} '{name}' is registered already.")
        self._entries[name] = entry
        return entry

    def get(self, name: str) -> T:
        """Return the entry; raise ``UnknownNameError`` with the nearest known name."""
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._entries) from None

    def names(self) -> list[str]:
        """Return all names in the order of registration."""
        return list(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """Iterate over (name, entry)."""
        return iter(self._entries.items())

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

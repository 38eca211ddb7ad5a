"""JSON read value by value: a file of 50,000 outlines never stands in memory as one tree of Python objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from perikarya.data.outlines.base import OutlineError

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_UNFINISHED = re.compile(r"[.eE+-]*|t(r(u)?)?|f(a(l(s)?)?)?|n(u(l)?)?|N(a)?")  # what is left of a number or a word
_TRUNCATED = "the file is truncated: its JSON ends in the middle"


class JsonStream:
    """A place in JSON text that moves forward as values are read.

    Every method raises ``OutlineError`` with a bare reason when the text is not JSON there. ``NaN`` and ``Infinity``
    are read as numbers, since QuPath up to 0.4 writes them as measurements; whoever needs finite numbers must look.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise OutlineError(
                f"the file is not UTF-8 text (byte {error.start}); export it again, or save it as UTF-8"
            ) from None
        self._at = 0

    def peek(self) -> str:
        """Return the next character that is no space, without moving past it; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def value(self) -> tuple[Any, str]:
        """Read one value of any kind; return it and its text."""
        self.peek()
        start = self._at
        try:
            value, self._at = _DECODER.raw_decode(self._text, start)
        except RecursionError:
            raise OutlineError("its JSON is nested too deeply; no program writes outlines so") from None
        except json.JSONDecodeError as error:
            rest = self._text[error.pos :].strip()
            if error.msg.startswith("Unterminated string") or _UNFINISHED.fullmatch(rest):
                raise OutlineError(_TRUNCATED) from None
            raise OutlineError(
                f"the file is not JSON (line {error.lineno}, column {error.colno}: {error.msg})"
            ) from None
        except ValueError:
            raise OutlineError("a whole number in it has thousands of digits") from None
        return value, self._text[start : self._at]

    def elements(self) -> Iterator[tuple[Any, str]]:
        """Read the array that begins here, one element and its text after the other."""
        self._take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._take(",")
                yield self.value()
        self._take("]")

    def members(self) -> Iterator[str]:
        """Read the object that begins here: yield each key, whose value the caller must read before the next one."""
        self._take("{")
        if self.peek() != "}":
            yield self._key()
            while self.peek() == ",":
                self._take(",")
                yield self._key()
        self._take("}")

    def end(self) -> None:
        """Raise ``OutlineError`` unless everything was read."""
        if self.peek():
            raise OutlineError(
                f"something follows after the end of its JSON ({self._where()}); is it several files in one?"
            )

    def _key(self) -> str:
        if self.peek() != '"':
            self._refuse('"')
        key, _ = self.value()
        self._take(":")
        return str(key)

    def _take(self, character: str) -> None:
        if self.peek() != character:
            self._refuse(character)
        self._at += 1

    def _refuse(self, expected: str) -> None:
        if not self.peek():
            raise OutlineError(_TRUNCATED)
        raise OutlineError(f"the file is not JSON ({self._where()}: expected {expected})")

    def _where(self) -> str:
        line = self._text.count("\n", 0, self._at) + 1
        return f"line {line}, column {self._at - self._text.rfind(chr(10), 0, self._at)}"

"""Apply a function to many items in a few threads: decoding and image filters release the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_BATCH = 64  # items in flight: bounds memory whatever the number of files


def map_threaded(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Apply a function to items in a few threads, in order, with a bounded number of results in memory."""
    iterator = iter(items)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        while batch := list(islice(iterator, _BATCH)):
            yield from pool.map(function, batch)

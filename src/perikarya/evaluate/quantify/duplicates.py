"""Cells that stand twice in a table of any size."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.evaluate.quantify.cells import Texts

HASHES_AT_ONCE = 2**25  # 268 MB; for more cells, the names are gone over several times
Named: TypeAlias = tuple[str, Texts]  # where some cells stand, and their names


def find_duplicate(names: Callable[[], Iterator[Named]], *, n_cells: int) -> tuple[str, str, str] | None:
    """Find a name that occurs twice, holding eight bytes per name, and never more than ``HASHES_AT_ONCE`` of them.

    Parameters
    ----------
    names
        Begins anew to iterate over the names of all cells.
    n_cells
        How many there are.

    Returns
    -------
    The name and where it stands, twice; None if no name occurs twice.
    """
    n_passes = -(-n_cells // HASHES_AT_ONCE) or 1
    for turn in range(n_passes):
        twice = _equal_hashes(names(), turn, n_passes)
        found = _second(names(), twice) if len(twice) else None  # names that differ may have one hash
        if found is not None:
            return found
    return None


def _equal_hashes(names: Iterator[Named], turn: int, n_passes: int) -> NDArray[np.uint64]:
    held = array("Q")  # grows where it is; joining numpy arrays would hold them twice
    for _, name_n in names:
        found_n = _hashes(name_n)
        held.frombytes(found_n[found_n % np.uint64(n_passes) == turn].tobytes())
    hash_n = np.frombuffer(held, np.uint64)
    hash_n.sort()
    return np.unique(hash_n[1:][hash_n[1:] == hash_n[:-1]])


def _second(names: Iterator[Named], hashes: NDArray[np.uint64]) -> tuple[str, str, str] | None:
    first: dict[str, str] = {}
    for where, name_n in names:
        for name in name_n[np.isin(_hashes(name_n), hashes)]:
            if name in first:
                return str(name), first[name], where
            first[name] = where
    return None


def _hashes(name_n: Texts) -> NDArray[np.uint64]:
    return np.asarray(pd.util.hash_array(name_n, categorize=False), np.uint64)

"""Fewer animals to train on, for learning curves: whole groups, nested, so that a larger set holds the smaller."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perikarya.errors import ConfigError

_SALT = 0x5AB5E7  # keeps these draws apart from others of the same seed and fold


def nested_subset(
    cells: pd.DataFrame, rows: NDArray[np.int64], *, group_by: str, n_groups: int, seed: int, fold: int
) -> NDArray[np.int64]:
    """Keep the cells of ``n_groups`` groups: the first of a permutation that seed and fold decide.

    Parameters
    ----------
    cells
        The cells table.
    rows
        Shape (n_train,), rows of the table one training may use.
    group_by
        What a group is: ``subject``, ``image_id`` or ``cell``, as in the fold plan.
    n_groups
        How many to keep.

    Returns
    -------
    Shape (at most n_train,): the kept rows in their order. The subset of ``n_groups`` is part of every larger one.

    Raises
    ------
    ConfigError
        If there are fewer groups.
    """
    column = "cell_id" if group_by == "cell" else group_by
    group_n = cells[column].to_numpy(dtype=str)[rows]
    names = np.unique(group_n)
    if n_groups > len(names):
        raise ConfigError(
            f"A training on {n_groups} groups ({group_by}) is asked for, but fold {fold} leaves {len(names)} to train "
            "on.\nA point of the learning curve would repeat the one with all of them. "
            f"Fix: numbers up to {len(names)} (learning_curve, or train_subjects of a model)."
        )
    order = np.random.default_rng([_SALT, seed, fold]).permutation(names)
    return rows[np.isin(group_n, order[:n_groups])]

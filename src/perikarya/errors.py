"""One exception tree. Every message says what is wrong, where, why it matters and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path


class PerikaryaError(Exception):
    """Base of all errors a person can do something about; the command line prints it and exits with 1."""


class ConfigError(PerikaryaError):
    """A setting is unknown, out of range or contradicts another."""


class DataError(PerikaryaError):
    """Images, masks, tables or a study folder are not as they must be."""


class RunError(PerikaryaError):
    """A run folder is busy, incomplete or belongs to another configuration."""


class WeightsError(PerikaryaError):
    """Pretrained weights are missing, gated or do not fit their network."""


class TrainingError(PerikaryaError):
    """A training went wrong in a way that more epochs will not mend."""


class InterruptedWorkError(PerikaryaError):
    """Work was asked to stop and can go on later: its state is on disk. No fault of anybody."""


class ImportRefusedError(DataError):
    """Some files of a source cannot become cells; all of them are listed at once.

    Parameters
    ----------
    source
        The folder or file that was read.
    problems
        Pairs of (path, reason), one for every file that was refused.
    n_good
        How many cells could be imported without the refused files.
    """

    def __init__(self, source: Path, problems: Sequence[tuple[str, str]], *, n_good: int) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  {path}: {reason}" for path, reason in problems)
        super().__init__(
            f"{len(problems)} file(s) in {source} cannot be imported ({n_good} cells are fine):\n{lines}\n"
            "A cell that is dropped in silence biases every count; so nothing was written.\n"
            "Fix: mend or remove these files, or import the rest knowingly with --skip-bad."
        )


class UnknownNameError(ConfigError):
    """A name is not in a registry or a table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        super().__init__(f"There is no {kind} called '{name}'.{hint}\nKnown: {', '.join(names)}.")

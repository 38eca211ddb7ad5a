"""Jobs shared out over Slurm arrays: stages by need, parts by the cluster's limits, so many at once as asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from perikarya.errors import RunError
from perikarya.launch.jobs import Job
from perikarya.settings import LaunchConfig

_MAX_GROUPS = 50  # of jobs with the same needs in one stage; above, all of the stage waits for all that any needs


@dataclass(frozen=True)
class Array:
    """One Slurm array: element i does jobs [i * per_element, (i + 1) * per_element).

    ``needs`` are ids of jobs elsewhere that must end well first; ``follows`` are labels of arrays that must have
    ended, however, so that no more than asked run at once; ``throttle`` is how many elements may run at once.
    """

    label: str
    jobs: tuple[Job, ...]
    per_element: int
    needs: frozenset[str] = frozenset()
    follows: tuple[str, ...] = ()
    throttle: int | None = None

    @property
    def n_elements(self) -> int:
        """How many elements the array has."""
        return math.ceil(len(self.jobs) / self.per_element)


@dataclass(frozen=True)
class _Element:
    jobs: tuple[Job, ...]
    needs: frozenset[str]


@dataclass(frozen=True)
class _Piece:
    """Elements of one array; it starts when the piece at the place ``follows`` has ended."""

    elements: Sequence[_Element]
    at_once: int | None = None
    follows: int | None = None


def arrange(jobs: Sequence[Job], launch: LaunchConfig, *, max_elements: int) -> list[Array]:
    """Share jobs out over arrays, in the order of submission.

    Jobs with the same needs go together, so that a job that fails stops only those that need it. With
    ``launch.jobs``, the arrays of a stage share that number among them in proportion to their size; where they are
    more than that, so many rows of arrays are made whose elements run one after another.

    Parameters
    ----------
    jobs
        What is to be done; needs that are not among them are somebody else's to wait for.
    launch
        How many at once, and how many jobs an element does.
    max_elements
        Of one array on this cluster.

    Raises
    ------
    RunError
        If jobs need one another in a circle.
    """
    per_element = launch.slurm.tasks_per_job
    arrays: list[Array] = []
    before: tuple[str, ...] = ()
    for number, stage in enumerate(_stages(jobs), 1):
        elements = [
            _Element(tuple(group[i : i + per_element]), needs)
            for needs, group in _by_needs(stage).items()
            for i in range(0, len(group), per_element)
        ]
        pieces = _share_out(elements, launch.jobs, max_elements)
        names = [f"stage{number}" + (f"-{i}" if len(pieces) > 1 else "") for i in range(1, len(pieces) + 1)]
        for piece, name in zip(pieces, names, strict=True):
            after = before if piece.follows is None else (names[piece.follows],)
            its_jobs = tuple(job for element in piece.elements for job in element.jobs)
            needs = piece.elements[0].needs
            arrays.append(Array(name, its_jobs, per_element, needs, after if launch.jobs else (), piece.at_once))
        before = tuple(names)
    return arrays


def _stages(jobs: Sequence[Job]) -> list[list[Job]]:
    """Sort jobs by need; those that nobody waits for and that wait for nobody come last."""
    ids = {job.id for job in jobs}
    needed = frozenset[str]().union(*(job.needs for job in jobs))
    free = [job for job in jobs if not job.needs & ids and job.id not in needed]
    rest = [job for job in jobs if job.needs & ids or job.id in needed]
    stages: list[list[Job]] = []
    while rest:
        waiting = {job.id for job in rest}
        ready = [job for job in rest if not job.needs & waiting]
        if not ready:
            raise RunError(f"These jobs need one another in a circle: {', '.join(sorted(waiting))}.")
        stages.append(ready)
        rest = [job for job in rest if job.needs & waiting]
    if not free:
        return stages
    return [*stages[:-1], [*free, *stages[-1]]] if len(stages) > 1 else [*stages, free]


def _by_needs(stage: Sequence[Job]) -> dict[frozenset[str], list[Job]]:
    groups: dict[frozenset[str], list[Job]] = {}
    for job in stage:
        groups.setdefault(job.needs, []).append(job)
    if len(groups) > _MAX_GROUPS:
        return {frozenset[str]().union(*groups): list(stage)}
    return groups


def _share_out(elements: Sequence[_Element], at_once: int | None, max_elements: int) -> list[_Piece]:
    """Cut elements where needs change and where an array is full, and say how many of each piece run at once."""
    pieces = _cut(elements, max_elements)
    if at_once is None:
        return [_Piece(piece) for piece in pieces]
    if len(pieces) <= at_once:
        return [_Piece(piece, n) for piece, n in zip(pieces, _in_proportion(pieces, at_once), strict=True)]
    per_lane = math.ceil(len(elements) / at_once)
    shared: list[_Piece] = []
    for start in range(0, len(elements), per_lane):
        for i, piece in enumerate(_cut(elements[start : start + per_lane], max_elements)):
            shared.append(_Piece(piece, 1, follows=len(shared) - 1 if i else None))
    return shared


def _cut(elements: Sequence[_Element], max_elements: int) -> list[list[_Element]]:
    pieces = []
    for _, group in itertools.groupby(elements, key=lambda element: element.needs):
        alike = list(group)
        size = math.ceil(len(alike) / math.ceil(len(alike) / max_elements))
        pieces += [alike[i : i + size] for i in range(0, len(alike), size)]
    return pieces


def _in_proportion(pieces: Sequence[Sequence[_Element]], at_once: int) -> list[int]:
    """Give each piece a share of what may run at once, so that all end at about the same time."""
    given = [1] * len(pieces)
    for _ in range(at_once - len(pieces)):
        slowest = max(range(len(pieces)), key=lambda i: len(pieces[i]) / given[i])
        given[slowest] += 1
    return given

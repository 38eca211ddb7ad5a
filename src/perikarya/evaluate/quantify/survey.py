"""Which animals, regions and images there are, found in one pass over cells of any number.

What is kept grows with animals and regions, and with at most ``MAX_PARTS`` images of each, not with cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from perikarya.errors import DataError
from perikarya.evaluate.metrics import Ints
from perikarya.evaluate.quantify.cells import ALL_REGIONS, Cells, PredictedCells, Texts
from perikarya.evaluate.stats import CELL, IMAGE, MIN_CLUSTERS

MAX_PARTS = (
    400  # images, or cells, of one animal and region are resampled one by one up to here, beyond in random parts
)


@dataclass(frozen=True)
class Place:
    """Where cells lie; each word is None where it is unknown."""

    subject: str | None
    group: str | None
    region: str | None
    image: str | None


def places_of(cells: PredictedCells) -> tuple[list[Place], Ints]:
    """List the places of some cells in order of appearance, and the place of each cell, shape (n_cells,)."""
    n = len(cells.subject_n)
    nothing = np.full(n, None, dtype=object)
    columns = [cells.subject_n, cells.group_n, cells.region_n, cells.image_n]
    coded = [pd.factorize(nothing if c is None else c) for c in columns]
    key_n = np.zeros(n, np.int64)
    for code_n, names in coded:
        key_n = pd.factorize(key_n * (len(names) + 1) + code_n + 1)[0]
    first_p = np.zeros(key_n.max(initial=-1) + 1, np.int64)
    first_p[key_n[::-1]] = np.arange(n)[::-1]  # of several assignments the last one stays
    words = [[_word(names, code) for code in code_n[first_p]] for code_n, names in coded]
    return [Place(*place) for place in zip(*words, strict=True)], key_n


def _word(names: Texts, code: int) -> str | None:
    return None if code < 0 else str(names[code])


@dataclass
class Scope:
    """One animal and region, or all regions of an animal, while its cells are counted.

    ``n_of_image`` holds the cells of its images: of all of them, or of the first ``MAX_PARTS`` + 1; ``n_alone`` counts
    cells of unknown images.
    """

    n_cells: int = 0
    n_alone: int = 0
    n_of_image: dict[str, int] = field(default_factory=dict)

    def add(self, image: str | None, n: int) -> None:
        """Count cells of one image."""
        self.n_cells += n
        if image is None:
            self.n_alone += n
        elif image in self.n_of_image:
            self.n_of_image[image] += n
        elif len(self.n_of_image) <= MAX_PARTS:
            self.n_of_image[image] = n

    @property
    def n_images(self) -> int:
        """Images, a cell of an unknown one counting as an image of its own; above ``MAX_PARTS``, some such number."""
        return len(self.n_of_image) + self.n_alone

    @property
    def unit(self) -> str:
        """What is resampled: the images, where there are three or more and one of them holds several cells."""
        several = any(n > 1 for n in self.n_of_image.values())
        return IMAGE if several and self.n_images >= MIN_CLUSTERS else CELL

    @property
    def n_parts(self) -> int:
        """How many parts are resampled."""
        return min(self.n_images if self.unit == IMAGE else self.n_cells, MAX_PARTS)


@dataclass
class Survey:
    """What one pass over all cells finds.

    ``scopes`` has the keys (animal, region), ``ALL_REGIONS`` among the regions; ``groups_of`` maps an animal to its
    groups. ``groups`` and ``regions`` stand in order of appearance.
    """

    n_cells: int = 0
    n_unknown: int = 0  # cells without an animal
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)
    groups_of: dict[str, set[str | None]] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)
    regions: dict[str, None] = field(default_factory=dict)

    def add(self, cells: PredictedCells) -> None:
        """Count some cells."""
        places, place_n = places_of(cells)
        for place, n in zip(places, np.bincount(place_n, minlength=len(places)).tolist(), strict=True):
            self.n_cells += n
            if place.group is not None:
                self.groups[place.group] = None
            if place.region is not None:
                self.regions[place.region] = None
            if place.subject is None:
                self.n_unknown += n
                continue
            self.groups_of.setdefault(place.subject, set()).add(place.group)
            for key in scopes_of(place):
                self.scopes.setdefault(key, Scope()).add(place.image, n)

    def check(self) -> None:
        """Refuse cells without an animal, animals of two groups, and a region called ``all``."""
        if self.n_unknown:
            raise DataError(
                f"{self.n_unknown} of {self.n_cells} cell(s) to be counted have no subject.\n"
                "The animal is the unit of every damage figure; cells without one cannot be placed.\n"
                "Fix: give the animals when the study is imported (--metadata), or a column 'subject' in the table."
            )
        for subject in sorted(self.groups_of):
            if len(self.groups_of[subject]) > 1:
                raise DataError(
                    f"Animal {subject} has cells in {len(self.groups_of[subject])} groups.\n"
                    "An animal has one treatment. Fix: correct its group, or give the animals different names."
                )
        if ALL_REGIONS in self.regions:
            raise DataError(f"A region is called '{ALL_REGIONS}', the name of all regions together. Fix: rename it.")

    def group_of(self, subject: str) -> str | None:
        """Return the group of an animal."""
        return next(iter(self.groups_of[subject]))


def survey_of(cells: Cells) -> Survey:
    """Go over all cells and check their places.

    Raises
    ------
    DataError
        If a cell has no animal, an animal has two groups, or a region is called ``all``.
    """
    survey = Survey()
    for chunk in cells.chunks():
        survey.add(chunk)
    survey.check()
    return survey


def scopes_of(place: Place) -> Iterator[tuple[str, str]]:
    """Yield the animal and region a place belongs to, if the region is known, then the animal's regions together."""
    subject = str(place.subject)
    if place.region is not None:
        yield subject, place.region
    yield subject, ALL_REGIONS

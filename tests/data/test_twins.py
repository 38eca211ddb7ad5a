"""What the pixels of all crops say."""

from __future__ import annotations

import numpy as np
import pytest
from tests.tiny import make_study

from perikarya.data.store import OpenStudy
from perikarya.data.twins import read_facts

WINDOW_PX = 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("twins") / "study", cells_per_subject=1)


def with_mask(tiny: OpenStudy, *places: tuple[int, int]) -> OpenStudy:
    """Return the study with another mask in its first crop: these pixels, as (row, column)."""
    crops = np.array(tiny.crops)
    crops[0, ..., 3] = 0
    for place in places:
        crops[(0, *place, 3)] = 255
    return OpenStudy(tiny.root, tiny.study, tiny.cells, crops)


@pytest.mark.parametrize("place", [(0, 9), (WINDOW_PX - 1, 9), (9, 0), (9, WINDOW_PX - 1)])
def test_a_mask_touches_each_of_the_four_edges(tiny: OpenStudy, place: tuple[int, int]) -> None:
    assert read_facts(with_mask(tiny, place)).at_border[0]


@pytest.mark.parametrize("place", [(1, 9), (WINDOW_PX - 2, 9), (9, 1), (9, WINDOW_PX - 2)])
def test_a_mask_one_pixel_from_an_edge_does_not_touch_it(tiny: OpenStudy, place: tuple[int, int]) -> None:
    assert not read_facts(with_mask(tiny, place)).at_border[0]


def test_pixels_that_meet_at_a_corner_are_one_part(tiny: OpenStudy) -> None:
    facts = read_facts(with_mask(tiny, (9, 9), (10, 10), (20, 20)))
    assert (facts.area_px[0], facts.n_parts[0]) == (3, 2)


def test_the_mask_is_no_part_of_what_makes_two_pictures_equal(tiny: OpenStudy) -> None:
    assert read_facts(with_mask(tiny, (9, 9))).pixels == read_facts(tiny).pixels

"""Places of cells: what is resampled, counted in one pass over pieces of any size."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from tests.evaluate.quantify.worlds import CLASS_NAMES, make_cells

from perikarya.evaluate.quantify import survey as module
from perikarya.evaluate.quantify.cells import PredictedCells
from perikarya.evaluate.quantify.survey import Survey, places_of


def some_cells(n: int = 300, *, seed: int = 0) -> PredictedCells:
    rng = np.random.default_rng(seed)
    pick = [np.array(words, object) for words in (["a", "b"], ["x", None, "y"], ["i", "j", None, "k", "l"])]
    subject, region, image = (words[rng.integers(0, len(words), n)] for words in pick)
    group = np.where(subject == "a", "sham", "injured")
    return make_cells(rng.dirichlet([1, 1, 1], n), subject, region_n=region, group_n=group, image_n=image)


def piece(cells: PredictedCells, start: int, end: int) -> PredictedCells:
    cut: dict[str, Any] = {f.name: getattr(cells, f.name) for f in fields(cells)}
    return PredictedCells(**{k: v[start:end] if isinstance(v, np.ndarray) else v for k, v in cut.items()})


def test_places_stand_in_order_of_appearance_and_name_every_cell() -> None:
    cells = some_cells()
    places, place_n = places_of(cells)
    assert len(set(places)) == len(places)
    assert list(dict.fromkeys(place_n.tolist())) == list(range(len(places)))
    for i, place in enumerate(places[p] for p in place_n):
        assert cells.region_n is not None
        assert (place.subject, place.region, place.image) == (cells.subject_n[i], cells.region_n[i], cells.image_n[i])


@pytest.mark.parametrize("borders", [[0, 1, 300], [0, 50, 51, 250, 300], list(range(301))])
def test_pieces_are_counted_as_the_whole(borders: list[int]) -> None:
    cells, whole, pieces = some_cells(), Survey(), Survey()
    whole.add(cells)
    for start, end in pairwise(borders):
        pieces.add(piece(cells, start, end))
    assert pieces == whole
    assert list(pieces.regions) == list(whole.regions)


def test_images_are_what_is_resampled_where_there_are_three_and_one_holds_several_cells() -> None:
    def unit(*images: str | None) -> tuple[str, int]:
        survey = Survey()
        survey.add(make_cells(np.full((len(images), 3), 1 / 3), ["a"] * len(images), image_n=list(images)))  # type: ignore[arg-type]
        scope = survey.scopes["a", "all"]
        return scope.unit, scope.n_parts

    assert unit("i", "i", "j", "j") == ("cell", 4)
    assert unit("i", "j", "k") == ("cell", 3)
    assert unit("i", "i", "j", "k") == ("image_id", 3)
    assert unit("i", "i", "j", None, None) == ("image_id", 4)
    assert unit(None, None, None) == ("cell", 3)


def test_of_many_images_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PARTS", 5)
    survey = Survey()
    images = [f"i{i % 50}" for i in range(200)]
    survey.add(make_cells(np.full((200, 3), 1 / 3), ["a"] * 200, image_n=images))
    scope = survey.scopes["a", "all"]
    assert len(scope.n_of_image) == 6
    assert (scope.unit, scope.n_parts, scope.n_cells) == ("image_id", 5, 200)
    assert CLASS_NAMES

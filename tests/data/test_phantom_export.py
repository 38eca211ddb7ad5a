from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from perikarya.data.importers import import_study
from perikarya.data.importers.base import ImportOptions
from perikarya.data.phantom import PhantomSettings, make_phantom
from perikarya.data.phantom_export import export_phantom
from perikarya.errors import DataError

SETTINGS = PhantomSettings(n_cells=90, n_subjects=3, n_external_subjects=3)


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_phantom(tmp_path_factory.mktemp("export") / "slides", settings=SETTINGS)


def features(path: Path) -> list[dict]:
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    return content["features"]


def test_its_import_gives_the_very_cells_of_the_phantom_study(slides: Path, tmp_path: Path) -> None:
    painted = make_phantom(tmp_path / "painted", settings=SETTINGS).cells
    options = ImportOptions(external=slides / "new", um_per_px=SETTINGS.um_per_px)
    imported = import_study(slides / "graded", tmp_path / "imported", options=options).cells
    columns = ["cell_id", "subject", "region", "group", "set", "area_px"]
    by_id = [cells.sort_values("cell_id")[columns].reset_index(drop=True) for cells in (painted, imported)]
    pd.testing.assert_frame_equal(*by_id)
    development = imported[imported["set"] == "development"].set_index("cell_id")["label"]
    assert development.to_dict() == {i: painted.set_index("cell_id")["label"][i] for i in development.index}


def test_new_cells_come_outlined_but_without_a_class(slides: Path) -> None:
    paths = sorted((slides / "new").glob("*.geojson"))
    assert paths
    for path in paths:
        assert all("classification" not in feature["properties"] for feature in features(path))


def test_objects_are_annotations_with_ids_of_their_own_and_nothing_that_qupath_does_not_write(slides: Path) -> None:
    found = [feature for path in slides.glob("*/*.geojson") for feature in features(path)]
    assert len(found) == SETTINGS.n_cells
    assert len({feature["id"] for feature in found}) == len(found)
    for feature in found:
        assert set(feature) == {"type", "id", "geometry", "properties"}
        assert feature["properties"]["objectType"] == "annotation"
        assert set(feature["properties"]) <= {"objectType", "classification"}


def test_every_image_has_a_row_that_names_its_animal_region_and_group(slides: Path) -> None:
    truth = pd.read_csv(slides / "truth.csv")
    truth["file"] = truth["source"].str.partition("#")[0]
    of_image = truth.drop_duplicates("file").set_index("file")
    for folder in ("graded", "new"):
        table = pd.read_csv(slides / folder / "metadata.csv").set_index("file")
        assert sorted(table.index) == sorted(path.name for path in (slides / folder).glob("*.png"))
        pd.testing.assert_frame_equal(table, of_image.loc[table.index, list(table.columns)])


def test_without_external_animals_there_is_no_folder_of_new_ones(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"n_external_subjects": 0, "n_cells": 60})
    out = export_phantom(tmp_path / "slides", settings=settings)
    assert sorted(path.name for path in out.iterdir()) == ["graded", "truth.csv", "truth.json"]


def test_what_is_there_is_replaced_only_when_asked_and_only_where_it_is_an_exported_phantom(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"n_cells": 60, "n_external_subjects": 0})
    out = export_phantom(tmp_path / "slides", settings=settings)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        export_phantom(out, settings=settings)
    assert not (export_phantom(out, settings=settings, overwrite=True) / "mine.txt").exists()
    (out / "truth.csv").unlink()
    with pytest.raises(DataError, match="is not the folder of an exported phantom"):
        export_phantom(out, settings=settings, overwrite=True)

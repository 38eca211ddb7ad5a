from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.predict.tiny_models import (
    CLASS_NAMES,
    INPUT_PX,
    WINDOW_PX,
    answer,
    cells,
    feature,
    make_field,
    ring,
    tiny_model,
)
from tests.sources import picture

from perikarya.data.augment import resize_batch, tta_views
from perikarya.data.importers import ImportOptions, import_study
from perikarya.data.outlines import ReadOptions, read_outlines
from perikarya.data.outlines.raster import mask_of
from perikarya.data.pictures import open_picture
from perikarya.data.store import OpenStudy
from perikarya.data.windows import cut_from_picture
from perikarya.evaluate.calibration_map import Calibration, softmax
from perikarya.predict.fields import PredictedField, PredictOptions, predict_field
from perikarya.predict.folder import ModelFolder
from perikarya.predict.inputs import FieldInput
from perikarya.predict.networks import DEFAULT_VIEWS, Networks
from perikarya.predict.opening import FieldError

SHARP = Calibration("temperature", 100, scale=(2.0,) * 3, offset=(0.0,) * 3)
SHIFTED = Calibration("vector", 100, scale=(1.0, 0.7, 1.2), offset=(0.3, 0.0, -0.2))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Two networks, each with a calibration of its own."""
    root = tmp_path_factory.mktemp("model")
    return tiny_model(root, n_networks=2, calibrations=[SHARP.to_dict(), SHIFTED.to_dict()], tta_views=2)


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> FieldInput:
    return make_field(tmp_path_factory.mktemp("field"), "field", n=21)


def predict(item: FieldInput, model: ModelFolder, **options: object) -> PredictedField:
    chosen = PredictOptions(**options)  # type: ignore[arg-type]
    return predict_field(item, Networks(model, chosen), chosen)


def windows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, WINDOW_PX, WINDOW_PX, 4), dtype=np.uint8)


def expected_prob(crops: np.ndarray, *, n_views: int, seeds: tuple[int, ...], calibrated: bool) -> np.ndarray:
    """The mean over networks of calibrated means over views, cell by cell."""
    rows = []
    for crop in crops:
        x = resize_batch(crop[None], INPUT_PX)
        networks = []
        for seed in seeds:
            views = [softmax(answer(np.ascontiguousarray(v), seed)[0].astype(float))[0] for v in tta_views(x, n_views)]
            mean = np.mean(views, axis=0)
            networks.append((SHARP, SHIFTED)[seed].apply(mean[None])[0] if calibrated else mean)
        rows.append(np.mean(networks, axis=0))
    return np.array(rows)


@pytest.mark.parametrize(("tta", "ensemble", "calibrated"), list(product([False, True], repeat=3)))
def test_views_networks_and_calibrations_are_combined_as_a_plain_loop_does(
    model: ModelFolder, tta: bool, ensemble: bool, calibrated: bool
) -> None:
    networks = Networks(model, PredictOptions(tta=tta, ensemble=ensemble, calibrated=calibrated))
    seeds = (0, 1) if ensemble else (0,)
    expected = expected_prob(windows(6), n_views=2 if tta else 1, seeds=seeds, calibrated=calibrated)
    prob_nk, features = networks.prob(windows(6))
    np.testing.assert_allclose(prob_nk, expected, atol=1e-5)
    assert (networks.n_networks, networks.n_views, features) == (len(seeds), 2 if tta else 1, None)


def test_views_are_averaged_where_asked_even_if_the_run_averaged_none(tmp_path: Path) -> None:
    once = tiny_model(tmp_path)
    assert Networks(once, PredictOptions(tta=True)).n_views == DEFAULT_VIEWS
    assert Networks(once, PredictOptions()).n_views == 1


def test_features_are_those_of_the_first_network_and_the_cell_as_it_is(model: ModelFolder) -> None:
    networks = Networks(model, PredictOptions(tta=True, ensemble=True, features=True))
    _, features = networks.prob(windows(4))
    np.testing.assert_allclose(features, answer(resize_batch(windows(4), INPUT_PX), 0)[1], atol=1e-4)


def test_every_cell_of_a_field_is_predicted_from_its_own_window(item: FieldInput, model: ModelFolder) -> None:
    field = predict(item, model, calibrated=False)
    with open_picture(item.image) as opened:
        masks = [mask_of(outline, height=150, width=200) for outline in read_outlines(item.outlines).outlines]
        crops = np.stack([cut_from_picture(opened, mask, window_px=WINDOW_PX) for mask in masks])
    np.testing.assert_allclose(field.prob_nk, expected_prob(crops, n_views=1, seeds=(0,), calibrated=False), atol=1e-5)
    assert [outline.key for outline in field.outlines] == [f"cell{i}" for i in range(21)]
    assert field.area_px.tolist() == [int(mask.mask_hw.sum()) for mask in masks]
    assert (field.code_n == field.prob_nk.argmax(axis=1)).all()
    assert field.label_n[:4].tolist() == [*CLASS_NAMES, None]
    assert (field.height, field.width) == (150, 200)


@pytest.fixture(scope="module")
def imported(item: FieldInput, tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    options = ImportOptions(window=WINDOW_PX, classes=CLASS_NAMES)
    return import_study(item.image.parent, tmp_path_factory.mktemp("imported") / "study", options=options)


def test_cells_have_the_identity_place_and_size_that_an_import_gives_them(
    item: FieldInput, model: ModelFolder, imported: OpenStudy
) -> None:
    field = predict(item, model)
    assert field.cell_id.tolist() == imported.cells["cell_id"].tolist()
    for name in ("x_px", "y_px", "area_px"):
        assert getattr(field, name).tolist() == imported.cells[name].tolist()
    assert field.image_sha256 == imported.cells["image_sha256"].iloc[0]


def test_windows_are_those_that_an_import_cuts(item: FieldInput, model: ModelFolder, imported: OpenStudy) -> None:
    networks = Networks(model, PredictOptions())
    prob_nk, _ = networks.prob(imported.read_crops(np.arange(len(imported.cells))))
    np.testing.assert_allclose(predict(item, model).prob_nk, prob_nk, atol=1e-6)


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 64}, {"threads": 1}, {"backend": "openvino"}])
def test_batches_threads_and_backend_do_not_change_what_is_said(
    item: FieldInput, model: ModelFolder, options: dict[str, object]
) -> None:
    usual, other = predict(item, model), predict(item, model, **options)
    np.testing.assert_allclose(other.prob_nk, usual.prob_nk, atol=1e-5)
    assert other.cell_id.tolist() == usual.cell_id.tolist()


def test_cells_keep_the_order_of_their_file_wherever_they_lie(tmp_path: Path, model: ModelFolder) -> None:
    tall = tmp_path / "tall.tif"
    tifffile.imwrite(tall, picture(0, (1600, 60)))
    features = [feature(f"cell{i}", [ring(30, y, 6)]) for i, y in enumerate((1500, 20, 800, 40, 1550))]
    item = make_field(tmp_path, "beside", features=features)
    field = predict(replace(item, image=tall), model)
    np.testing.assert_allclose(field.y_px + 0.5, [1500, 20, 800, 40, 1550], atol=0.5)


def test_outlines_that_cannot_be_used_are_named_and_the_others_predicted(tmp_path: Path, model: ModelFolder) -> None:
    outside = feature("far away", [ring(900, 900, 5)])
    flat = feature("flat", [[[1, 1], [9, 1], [5, 1], [1, 1]]])
    field = predict(make_field(tmp_path, "field", features=[outside, *cells(5), flat]), model)
    assert [outline.key for outline in field.outlines] == [f"cell{i}" for i in range(5)]
    reasons = dict(field.problems)
    assert "outside of the image" in reasons["far away"]
    assert "encloses no area" in reasons["flat"]
    assert len(field.problems) == 2


def test_a_cell_outlined_twice_counts_once(tmp_path: Path, model: ModelFolder) -> None:
    features = cells(4)
    again = {**features[2], "id": "again"}
    field = predict(make_field(tmp_path, "field", features=[*features, again]), model)
    assert len(field.cell_id) == 4
    assert field.problems == (("again", "has the same outline as cell2; a cell counts once"),)


def test_a_field_without_any_usable_outline_is_refused_with_all_reasons(tmp_path: Path, model: ModelFolder) -> None:
    features = [feature(f"cell{i}", [ring(900, 900, 5)]) for i in range(3)]
    with pytest.raises(FieldError, match="none of its 3 outlines can be used") as caught:
        predict(make_field(tmp_path, "field", features=features), model)
    assert [key for key, _ in caught.value.problems] == ["cell0", "cell1", "cell2", ""]


def test_a_field_without_outlines_is_refused(tmp_path: Path, model: ModelFolder) -> None:
    region = feature("r", [ring(50, 50, 40)], label="CA1", kind="region")
    item = make_field(tmp_path, "field", features=[region])
    with pytest.raises(FieldError, match=r"field\.geojson holds no outline of a cell"):
        predict(item, model, read=ReadOptions(regions=frozenset({"CA1"})))


def test_an_image_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, model: ModelFolder) -> None:
    item = make_field(tmp_path, "field")
    item.image.write_bytes(item.image.read_bytes()[:200])
    with pytest.raises(FieldError, match="the image cannot be used"):
        predict(item, model)


def test_outlines_that_cannot_be_read_are_refused_with_the_reason(tmp_path: Path, model: ModelFolder) -> None:
    item = make_field(tmp_path, "field")
    item.outlines.write_text("{")
    with pytest.raises(FieldError, match=r"field\.geojson cannot be used"):
        predict(item, model)


def test_cells_get_the_name_of_the_smallest_region_around_them(tmp_path: Path, model: ModelFolder) -> None:
    features = [
        feature("large", [ring(60, 75, 55)], label="hippocampus", kind="region"),
        feature("small", [ring(40, 75, 20)], label="CA1", kind="region"),
        feature("nameless", [ring(150, 75, 20)], kind="region"),
        *(feature(f"cell{x}", [ring(x, 75, 5)]) for x in (40, 90, 150)),
    ]
    field = predict(make_field(tmp_path, "field", features=features), model)
    assert field.region_n.tolist() == ["CA1", "hippocampus", None]
    assert len(field.regions) >= 2


def test_a_cell_is_in_a_region_by_the_place_of_its_centroid_counted_from_the_corner(
    tmp_path: Path, model: ModelFolder
) -> None:
    cell = feature("cell", [[[39, 70], [42, 70], [42, 73], [39, 73], [39, 70]]])  # pixels 39 to 41: centred at 40.5
    box = [[40.3, 10], [90, 10], [90, 140], [40.3, 140], [40.3, 10]]
    item = make_field(tmp_path, "field", features=[cell, feature("r", [box], label="CA1", kind="region")])
    field = predict(item, model, read=ReadOptions(regions=frozenset({"CA1"})))
    assert field.x_px.tolist() == [40.0]
    assert field.region_n.tolist() == ["CA1"]


def test_cells_below_the_threshold_are_unsure(item: FieldInput, model: ModelFolder, tmp_path: Path) -> None:
    field = predict(item, model)
    assert not field.abstained_n.any()
    middle = float(np.median(field.prob_nk.max(axis=1)))
    unsure = field.prob_nk.max(axis=1) < middle
    assert predict(item, model, threshold=middle).abstained_n.tolist() == unsure.tolist()
    strict = tiny_model(tmp_path, threshold=0.999999)
    assert predict(item, strict).abstained_n.any()
    assert not predict(item, strict, threshold=0.0).abstained_n.any()


# scale


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model(tmp_path_factory.mktemp("scaled"), um_per_px=0.5)


def test_an_image_without_scale_is_refused_where_the_model_has_one(item: FieldInput, scaled: ModelFolder) -> None:
    with pytest.raises(FieldError, match=r"does not tell its scale, .*0\.5 µm per pixel.*--um-per-px"):
        predict(item, scaled)
    assert predict(item, scaled, um_per_px=0.5).um_per_px == 0.5


def test_a_table_goes_before_the_image_and_the_image_before_the_option(
    tmp_path: Path, item: FieldInput, scaled: ModelFolder
) -> None:
    tells = tmp_path / "tells.tif"
    um = 1e4 / 0.5  # pixels per centimetre
    tifffile.imwrite(tells, picture(0, (150, 200)), resolution=(um, um), resolutionunit="CENTIMETER")
    told = replace(item, image=tells)
    assert predict(told, scaled, um_per_px=0.25).um_per_px == pytest.approx(0.5)
    assert any("0.25 is also named" in note for note in predict(told, scaled, um_per_px=0.25).notes)
    assert predict(replace(told, um_per_px=1.0), scaled).um_per_px == 1.0


def test_a_finer_image_is_seen_at_the_scale_of_the_model(item: FieldInput, scaled: ModelFolder) -> None:
    field = predict(item, scaled, um_per_px=0.25)
    with open_picture(item.image) as opened:
        mask = mask_of(field.outlines[5], height=150, width=200)
        crop = cut_from_picture(opened, mask, window_px=WINDOW_PX, scale=2.0)
    expected = expected_prob(crop[None], n_views=1, seeds=(0,), calibrated=False)
    np.testing.assert_allclose(field.prob_nk[5], expected[0], atol=1e-5)
    assert field.cell_id.tolist() == predict(item, scaled, um_per_px=0.5).cell_id.tolist()


def test_a_model_without_scale_takes_windows_in_pixels_and_says_so(item: FieldInput, model: ModelFolder) -> None:
    plain, told = predict(item, model), predict(item, model, um_per_px=0.25)
    assert np.array_equal(plain.prob_nk, told.prob_nk)
    assert (plain.um_per_px, told.um_per_px) == (None, 0.25)
    assert not plain.notes
    assert "trained without a scale" in told.notes[0]


def test_an_image_of_more_bits_than_the_model_knows_is_refused(tmp_path: Path, item: FieldInput) -> None:
    deep = tmp_path / "deep.tif"
    tifffile.imwrite(deep, picture(0, (150, 200)).astype(np.uint16) * 250, photometric="rgb")
    twelve = tiny_model(tmp_path / "twelve", bits=12)
    with pytest.raises(FieldError, match="trained on images of 12 bits"):
        predict(replace(item, image=deep), twelve)
    sixteen = tiny_model(tmp_path / "sixteen", bits=16)
    assert len(predict(replace(item, image=deep), sixteen).cell_id) == 21

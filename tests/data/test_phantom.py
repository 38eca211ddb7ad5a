from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile
from pydantic import ValidationError
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from perikarya.data.phantom import PhantomSettings, make_phantom, paint_source, read_truth
from perikarya.data.phantom_paint import paint_field
from perikarya.data.phantom_plan import (
    CLASS_NAMES,
    GROUPS,
    REGIONS,
    FieldPlan,
    plan_animals,
    plan_fields,
    record_labels,
)
from perikarya.data.store import OpenStudy
from perikarya.errors import DataError

TINY = PhantomSettings(n_cells=30, n_subjects=3, n_external_subjects=0)
SMALL = PhantomSettings(n_cells=60, n_subjects=3, n_external_subjects=3)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    settings = PhantomSettings(n_cells=420, n_subjects=6, n_external_subjects=3, label_noise=0.3, seed=5)
    return make_phantom(tmp_path_factory.mktemp("phantom") / "study", settings=settings)


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    first, again = (make_phantom(tmp_path / name, settings=SMALL) for name in ("a", "b"))
    one, two = hashes(first.root), hashes(again.root)
    del one["study.yaml"], two["study.yaml"]  # says when it was made
    assert one == two
    assert len(one) > 2 * 18
    paint_source(tmp_path / "c", SMALL.model_copy(update={"seed": 1}))
    other = hashes(tmp_path / "c")
    assert not {one[f"fields/{name}"] for name in other if name.endswith(".png") and f"fields/{name}" in one} & set(
        other.values()
    )


def test_it_has_as_many_cells_as_asked_for_in_all_groups_regions_and_sets(phantom: OpenStudy) -> None:
    cells = phantom.cells
    assert len(cells) == 420
    for _, part in cells.groupby("set"):
        assert set(zip(part["group"], part["region"], strict=True)) == {(g, r.name) for g in GROUPS for r in REGIONS}
    assert set(cells["set"]) == {"development", "external"}
    assert phantom.study.class_names == CLASS_NAMES
    assert (phantom.study.window_px, phantom.study.um_per_px) == (80, 0.5)


def test_no_animal_is_in_both_sets_or_two_groups(phantom: OpenStudy) -> None:
    per_animal = phantom.cells.groupby("subject")[["set", "group"]].nunique()
    assert (per_animal == 1).all(axis=None)
    assert len(per_animal) == 9


def test_the_truth_is_kept_apart_from_what_was_recorded(phantom: OpenStudy) -> None:
    truth = read_truth(phantom.root)
    assert truth["cell_id"].tolist() == phantom.cells["cell_id"].tolist()
    assert truth["recorded_class"].tolist() == phantom.cells["label"].tolist()
    assert (truth["area_px"] == phantom.cells["area_px"]).all()
    wrong = truth["true_class"] != truth["recorded_class"]
    assert 0.3 - 0.09 < wrong.mean() < 0.3 + 0.09  # 4 standard errors of 420 draws
    assert "true_class" not in phantom.cells


def test_label_noise_moves_to_the_class_beside_at_the_declared_rate() -> None:
    true_n = np.repeat([0, 1, 2], 20_000)
    recorded_n = record_labels(true_n, label_noise=0.2, rng=np.random.default_rng(0))
    for k in range(3):
        assert abs((recorded_n[true_n == k] != k).mean() - 0.2) < 0.015
    assert np.abs(recorded_n - true_n).max() == 1
    middle = recorded_n[true_n == 1]
    assert abs((middle == 0).sum() / (middle != 1).sum() - 0.5) < 0.04
    assert (record_labels(true_n, label_noise=0.0, rng=np.random.default_rng(0)) == true_n).all()


def test_every_outline_lies_on_a_drawn_cell(phantom: OpenStudy) -> None:
    grey = np.asarray(phantom.crops[..., :3]).mean(axis=3)
    masks = np.asarray(phantom.crops[..., 3])
    kernel = np.ones((3, 3), np.uint8)
    typical = np.median(grey)
    for image, mask in zip(grey, masks, strict=True):
        inside = image[mask > 0].mean()
        near = cv2.dilate(mask, kernel, iterations=8) - cv2.dilate(mask, kernel, iterations=3)
        assert inside < np.median(image[near > 0]) - 8
        assert inside < 0.9 * typical


def test_label_maps_hold_each_cell_once_and_none_is_lost_in_the_fullest_fields() -> None:
    settings = PhantomSettings(n_cells=6000, n_subjects=3, n_external_subjects=0)
    fullest: dict[str, FieldPlan] = {}
    for plan, _ in plan_fields(settings, plan_animals(settings)):
        known = fullest.setdefault(plan.region.name, plan)
        if len(plan.severity_n) > len(known.severity_n):
            fullest[plan.region.name] = plan
    for plan in fullest.values():
        field = paint_field(plan)
        assert len(plan.severity_n) == plan.region.cells_per_field
        assert set(np.unique(field.labels_hw)) == set(range(len(plan.severity_n) + 1))
        assert field.area_px.min() > 40
        assert not field.labels_hw[[0, -1]].any()
        assert not field.labels_hw[:, [0, -1]].any()


def test_animals_are_numbered_from_one_in_each_set() -> None:
    names = [animal.name for animal in plan_animals(SMALL)]
    assert names == ["A01", "A02", "A03", "X01", "X02", "X03"]


@pytest.mark.parametrize("seed", range(20))
def test_stains_differ_but_never_fade_nor_drown_a_section(seed: int) -> None:
    animals = plan_animals(PhantomSettings(n_cells=30, n_subjects=20, n_external_subjects=20, seed=seed))
    strengths = np.array([animal.strength for animal in animals])
    assert strengths.min() >= 0.7
    assert strengths.max() <= 1.4
    assert (strengths.std(axis=0) > 0.05).all()


def pyknotic(settings: PhantomSettings) -> tuple[pd.Series, pd.Series]:
    """Drawn fraction of pyknotic cells per group, and the fraction the plan declares for the same cells."""
    animals = plan_animals(settings)
    rows = [
        (plan.animal.group, plan.animal.name, plan.region.name, (true_n == 2).mean(), len(true_n))
        for plan, true_n in plan_fields(settings, animals)
    ]
    frame = pd.DataFrame(rows, columns=["group", "subject", "region", "fraction", "n"])
    drawn = frame.groupby("group")[["fraction", "n"]].apply(
        lambda part: np.average(part["fraction"], weights=part["n"])
    )
    return drawn, frame.groupby("group")["n"].sum()


def test_the_effect_sets_the_difference_between_the_groups() -> None:
    null, n = pyknotic(PhantomSettings(n_cells=30_000, n_subjects=99, n_external_subjects=0, effect=0.0))
    full, _ = pyknotic(PhantomSettings(n_cells=30_000, n_subjects=99, n_external_subjects=0, effect=1.0))
    assert n.min() > 8000
    assert np.ptp(null.to_numpy()) < 0.02
    assert abs(full["sham"] - null["sham"]) < 0.01
    assert full["ischemia"] > full["ischemia+hypothermia"] + 0.05 > full["sham"] + 0.08


def test_the_declared_fractions_are_those_that_are_drawn(tmp_path: Path) -> None:
    paint_source(tmp_path / "src", SMALL)
    summary = json.loads((tmp_path / "src" / "truth.json").read_text())
    assert {(e["group"], e["region"]) for e in summary["typical_animal"]} == {
        (g, r.name) for g in GROUPS for r in REGIONS
    }
    settings = PhantomSettings(n_cells=60_000, n_subjects=3, n_external_subjects=3)  # the same animals, more cells
    true: dict[tuple[str, str], list[np.ndarray]] = {}
    for plan, true_n in plan_fields(settings, plan_animals(settings)):
        true.setdefault((plan.animal.name, plan.region.name), []).append(true_n)
    for entry in summary["animals"]:
        labels = np.concatenate(true[entry["subject"], entry["region"]])
        expected = np.array(list(entry["fractions"].values()))
        assert list(entry["fractions"]) == list(CLASS_NAMES)
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        drawn = np.bincount(labels, minlength=3) / len(labels)
        assert np.abs(drawn - expected).max() < 4.5 * 0.5 / np.sqrt(len(labels))


def simple_features(study: OpenStudy) -> np.ndarray:
    """Area, darkness inside, core against rim, ring against surroundings: what a person would measure first."""
    rows = []
    kernel = np.ones((3, 3), np.uint8)
    for crop in np.asarray(study.crops):
        grey, mask = crop[..., :3].mean(axis=2), crop[..., 3]
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
        core, rim = grey[depth > 0.55 * depth.max()], grey[(depth > 0) & (depth < 0.4 * depth.max())]
        grown = [cv2.dilate(mask, kernel, iterations=i) for i in (1, 4, 10)]
        ring, around = grey[(grown[1] - grown[0]) > 0].mean(), np.median(grey[(grown[2] - grown[1]) > 0])
        inside = grey[mask > 0]
        rows.append([len(inside), inside.mean() - around, inside.std(), core.mean() - rim.mean(), ring - around])
    return np.array(rows)


def accuracy(features: np.ndarray, study: OpenStudy) -> float:
    forest = RandomForestClassifier(100, min_samples_leaf=2, random_state=0)
    guessed = cross_val_predict(forest, features, study.labels, groups=study.cells["subject"], cv=GroupKFold(3))
    return float((guessed == study.labels).mean())


def test_difficulty_decides_how_well_classes_can_be_told_apart(tmp_path: Path) -> None:
    reached, by_area = {}, {}
    for difficulty in (0.0, 0.3, 1.0):
        settings = PhantomSettings(n_cells=450, n_subjects=6, n_external_subjects=0, difficulty=difficulty)
        study = make_phantom(tmp_path / str(difficulty), settings=settings)
        features = simple_features(study)
        reached[difficulty] = accuracy(features, study)
        by_area[difficulty] = accuracy(features[:, :1], study)
        areas = pd.Series(features[:, 0]).groupby(study.labels).median()
        assert areas.is_monotonic_decreasing
    assert reached[0.0] > 0.97
    assert 0.82 < reached[0.3] < 0.96
    assert 0.4 < reached[1.0] < 0.75
    assert by_area[0.3] < reached[0.3] - 0.2  # size tells something, not everything


def test_files_are_what_the_importer_and_people_expect(phantom: OpenStudy) -> None:
    images = sorted((phantom.root / "fields").glob("*.png"))
    assert len(images) == phantom.cells["image_id"].nunique()
    labels = tifffile.imread(images[0].with_name(f"{images[0].stem}_labels.tif"))
    assert labels.dtype == np.uint16
    assert labels.shape == cv2.imread(str(images[0])).shape[:2]
    assert not list(phantom.root.glob(".*"))  # nothing of the making is left behind


def test_an_existing_study_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    make_phantom(tmp_path / "study", settings=TINY)
    with pytest.raises(DataError, match="exists already"):
        make_phantom(tmp_path / "study", settings=TINY)
    other = make_phantom(tmp_path / "study", settings=TINY.model_copy(update={"n_cells": 20}), overwrite=True)
    assert len(other.cells) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_a_real_study_has_no_truth(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only phantom studies"):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [{"difficulty": 1.5}, {"effect": -1}, {"label_noise": 1}, {"n_subjects": 2}, {"cells": 5}, {"window_px": 40}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PhantomSettings.model_validate(wrong)

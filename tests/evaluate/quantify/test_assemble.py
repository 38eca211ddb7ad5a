"""The damage block of a run and of a table, recomputed by other paths, and its files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import nnls
from tests.evaluate.quantify.worlds import CLASS_NAMES, bayes
from tests.fake_run import FakeRun, make_fake_run

from perikarya.errors import DataError, UnknownNameError
from perikarya.evaluate.quantify.assemble import quantify_predictions, quantify_run
from perikarya.evaluate.quantify.export import tidy_damage, write_damage
from perikarya.settings import QuantifyConfig

QUICK = QuantifyConfig(n_bootstrap=200, n_permutations=200)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return make_fake_run(tmp_path_factory.mktemp("assemble"), models=("alpha",), n_cells=900, n_external=400)


def quantify(fake: FakeRun, cells: pd.DataFrame | None = None, **changes: Any) -> dict[str, Any]:
    settings = QUICK.model_copy(update=changes)
    config = fake.config.model_copy(update={"quantify": settings})
    table = fake.opened.cells if cells is None else cells
    return quantify_run(fake.run, table, fake.opened.study, config, tasks=fake.tasks)


@pytest.fixture(scope="module")
def block(fake: FakeRun) -> dict[str, Any]:
    return quantify(fake)


@pytest.fixture(scope="module")
def predicted(fake: FakeRun) -> pd.DataFrame:
    """Every cell with its mean probabilities, read and averaged by pandas alone."""
    paths = sorted((fake.run.root / "tasks" / "alpha").glob("seed*/fold*/*.parquet"))
    kept = [pd.read_parquet(p) for p in paths if p.stem in ("predictions", "external")]
    prob = pd.concat(kept).groupby("cell_id")[[f"prob_{n}" for n in CLASS_NAMES]].mean()
    return fake.opened.cells.merge(prob, left_on="cell_id", right_index=True, validate="one_to_one")


def probabilistic_by_hand(predicted: pd.DataFrame, subject: str, region: str) -> np.ndarray:
    """Adjusted count by non-negative least squares, its sum held at 1 by a heavy row."""
    columns = [f"prob_{n}" for n in CLASS_NAMES]
    reference = predicted[(predicted["set"] == "development") & (predicted["subject"] != subject)]
    matrix = reference.groupby("label")[columns].mean().loc[list(CLASS_NAMES)].to_numpy()
    own = predicted[(predicted["subject"] == subject) & ((region == "all") | (predicted["region"] == region))]
    observed = own[columns].mean().to_numpy()
    shares, _ = nnls(np.vstack([matrix.T, 1e4 * np.ones(3)]), np.append(observed, 1e4))
    return np.asarray(shares)


def test_fractions_of_every_animal_are_those_computed_by_another_path(
    block: dict[str, Any], predicted: pd.DataFrame
) -> None:
    assert len(block["animals"]) == 20 * 4
    for entry in block["animals"]:
        expected = probabilistic_by_hand(predicted, entry["subject"], entry["region"])
        found = [entry["fractions"][n]["estimate"] for n in CLASS_NAMES]
        np.testing.assert_allclose(found, expected, atol=2e-4)
        assert entry["severity"]["estimate"] == pytest.approx(expected @ [0, 0.5, 1], abs=2e-4)


def test_counts_and_labels_are_those_of_a_cross_table(block: dict[str, Any], predicted: pd.DataFrame) -> None:
    by_label = pd.crosstab([predicted["subject"], predicted["region"]], predicted["label"], normalize="index")
    n_cells = predicted.groupby(["subject", "region"]).size()
    for entry in block["animals"]:
        if entry["region"] == "all":
            continue
        place = (entry["subject"], entry["region"])
        assert entry["n_cells"] == entry["labelled"]["n_cells"] == n_cells[place]
        for name in CLASS_NAMES:
            assert entry["labelled"]["fractions"][name] == pytest.approx(by_label.loc[place, name])


def test_counted_fractions_are_shares_of_the_networks_votes(block: dict[str, Any], fake: FakeRun) -> None:
    path = fake.run.root / "tasks" / "alpha" / "seed0" / "fold0" / "predictions.parquet"
    fold = pd.read_parquet(path).merge(fake.opened.cells[["cell_id", "subject"]], on="cell_id")
    first = fold[[f"prob_{n}" for n in CLASS_NAMES]].to_numpy().argmax(axis=1)
    for subject in fold["subject"].unique():
        own = first[(fold["subject"] == subject).to_numpy()]
        entry = next(a for a in block["animals"] if a["subject"] == subject and a["region"] == "all")
        assert entry["counted"]["fractions"]["pyknotic"] == pytest.approx((own == 2).mean())


def test_groups_are_means_over_animals_with_the_control_first(block: dict[str, Any]) -> None:
    assert block["groups"] == ["sham", "ischemia", "ischemia+hypothermia"]
    assert block["control"] == block["effects"]["control"] == "sham"
    frame = pd.json_normalize(block["animals"])
    for mean in block["group_means"]:
        own = frame[(frame["region"] == mean["region"]) & ((frame["group"] == mean["group"]) | (mean["group"] is None))]
        assert mean["n_animals"] == len(own)
        assert mean["n_cells"] == own["n_cells"].sum()
        if mean["region"] == "all":  # few animals are cut off at 0 here, so that both means agree
            assert mean["severity"]["estimate"] == pytest.approx(own["severity.estimate"].mean(), abs=0.02)
        low, high = mean["severity"]["ci95"]
        assert low < mean["severity"]["estimate"] < high


def test_the_matrix_is_that_of_all_labelled_development_cells(block: dict[str, Any], predicted: pd.DataFrame) -> None:
    reference = predicted[predicted["set"] == "development"]
    expected = reference.groupby("label")[[f"prob_{n}" for n in CLASS_NAMES]].mean().loc[list(CLASS_NAMES)]
    np.testing.assert_allclose(block["correction"]["matrix"], expected, atol=1e-6)
    assert block["correction"]["condition"] == pytest.approx(np.linalg.cond(expected), rel=1e-4)
    assert block["correction"]["reference"]["n_animals"] == 12
    assert block["correction"]["check"]["n_animals"] == 8


def test_the_block_is_plain_json_and_the_same_each_time(fake: FakeRun, block: dict[str, Any]) -> None:
    text = json.dumps(block, allow_nan=False)
    again = quantify(fake)
    assert json.loads(text)["animals"] == again["animals"]
    assert block["effects"] == again["effects"]
    assert block["settings"]["correction"] == "probabilistic"
    assert block["power"]["comparisons"]


def test_unlabelled_animals_are_counted_as_they_are_with_labels(fake: FakeRun, block: dict[str, Any]) -> None:
    cells = fake.opened.cells.copy()
    cells.loc[cells["set"] == "external", "label"] = pd.NA
    bare = quantify(fake, cells)
    external = [a for a in bare["animals"] if a["set"] == "external"]
    assert external
    assert all(a["labelled"] is None for a in external)
    with_labels = [{**a, "labelled": None} for a in block["animals"] if a["set"] == "external"]
    assert external == with_labels
    assert bare["correction"]["check"] is None
    assert bare["agreement"]["n_animals"] == 12


@pytest.mark.parametrize("method", ["none", "adjusted", "em"])
def test_every_correction_gives_a_whole_block(fake: FakeRun, method: str) -> None:
    found = quantify(fake, correction=method)
    json.dumps(found, allow_nan=False)
    assert (found["correction"]["matrix"] is None) == (method == "none")
    for entry in found["animals"]:
        assert sum(v["estimate"] for v in entry["fractions"].values()) == pytest.approx(1)
        if method == "none":
            assert entry["severity"]["estimate"] == pytest.approx(entry["counted"]["severity"])
    assert any("biased" in s for s in found["assumptions"]) == (method == "none")


def test_the_control_can_be_named_and_must_exist(fake: FakeRun) -> None:
    found = quantify(fake, control="ischemia")
    assert found["groups"] == ["ischemia", "sham", "ischemia+hypothermia"]
    assert not any("--control" in s for s in found["assumptions"])
    with pytest.raises(UnknownNameError, match=r"control.* called 'shame'\. Did you mean 'sham'"):
        quantify(fake, control="shame")


def test_animals_unknown_is_a_sentence(tmp_path: Path) -> None:
    bare = make_fake_run(tmp_path, n_cells=200, n_external=0, models=("alpha",), subjects_known=False)
    with pytest.raises(DataError, match=r"200 of 200 cell.* have no subject"):
        quantify(bare)


def some_table(n_animals: int = 12, *, labelled: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    label_n = rng.choice(3, 60 * n_animals, p=[0.4, 0.4, 0.2])
    frame = pd.DataFrame(bayes(label_n, rng, prior=[0.4, 0.4, 0.2]), columns=[f"prob_{n}" for n in CLASS_NAMES])
    frame["subject"] = [f"a{i % n_animals:02d}" for i in range(len(frame))]
    frame["group"] = np.where(np.arange(len(frame)) % n_animals % 2, "treated", "vehicle")
    frame["label"] = np.asarray(CLASS_NAMES)[label_n] if labelled else None
    return frame


def test_a_table_without_regions_has_one_row_per_animal() -> None:
    found = quantify_predictions(some_table(), settings=QUICK)
    assert [a["region"] for a in found["animals"]] == ["all"] * 12
    assert found["regions"] == []
    assert found["class_names"] == list(CLASS_NAMES)
    assert found["control"] == "vehicle"
    assert found["agreement"]["corrected"]["mean_absolute_error"] < 0.08


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("drug", "vehicle control"), "vehicle control"),
        (("drug", "uncontrolled"), "drug"),
        (("sham 1", "sham 2"), "sham 1"),
    ],
)
def test_a_group_called_control_is_the_control_wherever_it_stands(names: tuple[str, str], expected: str) -> None:
    table = some_table()
    table["group"] = table["group"].map(dict(zip(("vehicle", "treated"), names, strict=True)))
    found = quantify_predictions(table, settings=QUICK, groups=names)
    assert found["control"] == found["effects"]["control"] == expected
    assert any(f"'{expected}', by its name or as the first group" in s for s in found["assumptions"])


def test_a_table_without_labels_needs_a_reference_or_no_correction() -> None:
    bare = some_table(labelled=False)
    with pytest.raises(DataError, match="--reference TABLE"):
        quantify_predictions(bare, settings=QUICK)
    counted = quantify_predictions(bare, settings=QUICK.model_copy(update={"correction": "none"}))
    assert counted["correction"]["reference"] is None
    named = some_table().assign(subject=lambda f: "ref " + f["subject"])
    corrected = quantify_predictions(bare, settings=QUICK, reference=named)
    assert corrected["correction"]["reference"]["n_animals"] == 12
    assert corrected["agreement"] is None


def test_what_weakens_the_figures_is_told() -> None:
    table = some_table(4).groupby("subject").head(9).assign(region="CA1")
    notes = " ".join(quantify_predictions(table, settings=QUICK)["notes"])
    assert "Only 4 reference animals" in notes
    assert re.search(r"8 of 8 animals and regions have fewer than 10 cells", notes)
    rare = some_table().query("label != 'pyknotic' or subject in ('a00', 'a01')")
    notes = " ".join(quantify_predictions(rare, settings=QUICK)["notes"])
    assert "Class 'pyknotic' is labelled in 2 reference animal(s) only" in notes
    shifted = some_table()
    shifted[[f"prob_{n}" for n in CLASS_NAMES]] = bayes(
        shifted["label"].map(CLASS_NAMES.index).to_numpy() + 0.5, np.random.default_rng(1), prior=[0.4, 0.4, 0.2]
    )
    reference = some_table().assign(subject=lambda f: "ref " + f["subject"])
    notes = " ".join(quantify_predictions(shifted, settings=QUICK, reference=reference)["notes"])
    assert "the network errs otherwise than on the reference" in notes


def test_files_hold_every_number_once(block: dict[str, Any], tmp_path: Path) -> None:
    paths = write_damage(block, tmp_path / "out")
    assert [p.name for p in paths] == ["damage.json", "damage.csv", "damage_groups.csv"]
    assert json.loads(paths[0].read_text())["animals"] == json.loads(json.dumps(block["animals"]))
    animals, groups = pd.read_csv(paths[1]), pd.read_csv(paths[2])
    assert list(animals) == ["subject", "group", "region", "measure", "correction", "estimate", "lo", "hi", "n_cells"]
    assert set(animals["correction"]) == {"probabilistic", "none", "labels"}
    assert len(animals) == len(block["animals"]) * 4 * 3
    assert not animals.duplicated(["subject", "region", "measure", "correction"]).any()
    entry = block["animals"][5]
    row = animals[
        (animals["subject"] == entry["subject"]) & (animals["region"] == entry["region"])
        & (animals["measure"] == "fraction pyknotic") & (animals["correction"] == "probabilistic")
    ].iloc[0]  # fmt: skip
    value = entry["fractions"]["pyknotic"]
    assert row["estimate"] == pytest.approx(value["estimate"])
    assert [row["lo"], row["hi"]] == pytest.approx(value["ci95"])
    assert len(groups) == len(block["group_means"]) * 4
    assert set(groups["group"]) == {*block["groups"], "all"}


def test_counting_alone_is_written_once(fake: FakeRun) -> None:
    animals, _ = tidy_damage(quantify(fake, correction="none"))
    assert set(animals["correction"]) == {"none", "labels"}

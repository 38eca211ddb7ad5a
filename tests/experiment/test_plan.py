"""What would leak is refused or kept apart before any training starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tiny import make_study

from perikarya.config import CvConfig, ExperimentConfig
from perikarya.data.integrity import check_study
from perikarya.data.splits import FoldPlan
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError
from perikarya.experiment.plan import draw_folds, find_sources


def draw(opened: OpenStudy, cv: CvConfig) -> FoldPlan:
    return draw_folds(opened, cv, check_study(opened).findings)


@pytest.fixture
def twins(tmp_path: Path) -> OpenStudy:
    """A study in which animal 0 shares a picture with animal 1, and animal 2 with the external animal 8."""
    return make_study(tmp_path / "study", copies=((1, 0), (25, 96)))


def test_a_picture_of_two_animals_is_refused_and_both_files_are_named(twins: OpenStudy) -> None:
    with pytest.raises(DataError) as error:
        draw(twins, CvConfig(n_folds=4))
    message = str(error.value)
    for name in ("animal02/1.png", "animal08/0.png", "cv.duplicates=separate"):
        assert name in message


@pytest.mark.parametrize("seed", range(5))
def test_separated_pictures_are_never_on_two_sides(tmp_path: Path, seed: int) -> None:
    opened = make_study(tmp_path / "study", copies=((12, 1), (36, 25), (26, 97)))
    plan = draw(opened, CvConfig(n_folds=4, duplicates="separate", seed=seed))
    fold = dict(zip(plan.frame["cell_id"], plan.frame["fold"], strict=True))
    ids = opened.cells["cell_id"].tolist()
    assert fold[ids[12]] == fold[ids[1]]
    assert fold[ids[36]] == fold[ids[25]]
    assert ids[26] not in fold
    assert len(fold) == 8 * 12 - 1
    assert "1 development cells" in (plan.warning or "")
    animals = opened.cells.set_index("cell_id")["subject"]
    folds_of_animal = plan.frame.groupby(plan.frame["cell_id"].map(animals))["fold"].nunique()
    assert (folds_of_animal == 1).all()


def test_ignored_duplicates_are_on_record(twins: OpenStudy) -> None:
    plan = draw(twins, CvConfig(n_folds=4, duplicates="ignore"))
    assert "ignored, as asked" in (plan.warning or "")


def test_an_animal_in_both_sets_is_refused_even_when_duplicates_are_separated(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "study")
    opened.cells.loc[opened.cells.index[-1], "subject"] = "animal00"
    with pytest.raises(DataError, match="animal00 is in the development and in the external set"):
        draw(opened, CvConfig(n_folds=4, duplicates="separate"))


def test_the_tiny_study_has_no_twins_of_its_own(tmp_path: Path) -> None:
    opened = make_study(tmp_path / "study")
    plan = draw(opened, CvConfig(n_folds=4))
    assert plan.warning is None
    assert np.bincount(plan.frame["fold"]).min() > 0


def test_the_warning_of_the_folds_reaches_the_results(tmp_path: Path) -> None:
    """Folds over cells, when asked for, are told to every reader of the results and the report."""
    from perikarya.config import ExperimentConfig
    from perikarya.experiment.run import RunListener, run_experiment

    make_study(tmp_path / "study")
    config = ExperimentConfig.model_validate(
        {
            "name": "over cells",
            "study": str(tmp_path / "study"),
            "cv": {"n_folds": 3, "group_by": "cell", "folds": [0]},
            "models": [{"name": "cnn", "arch": "custom_cnn", "input_px": 32}],
            "train": {"epochs": 1, "tta_views": 1},
            "evaluate": {"n_bootstrap": 100},
        }
    )
    outcome = run_experiment(config, tmp_path / "run", listener=RunListener())
    assert any("Folds are drawn over single cells" in w for w in outcome.results["protocol"]["warnings"])


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"strategy": "lora"}, "attention"),
        ({"strategy": "head-then-finetune", "train": {"epochs": 2, "head_epochs": 2}}, "epoch"),
        ({"strategy": "finetune", "train": {"last_blocks": 99}}, "blocks"),
    ],
)
def test_what_a_network_cannot_do_is_told_before_work_starts(
    model: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    opened = make_study(tmp_path / "study")
    content = {"name": "x", "study": str(opened.root), "models": [{"name": "custom_cnn", **model}]}
    with pytest.raises(ConfigError, match=sentence):
        find_sources(ExperimentConfig.model_validate(content))

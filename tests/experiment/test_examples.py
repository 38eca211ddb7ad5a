"""The examples run at toy size, by nothing but ``--set``."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tiny import make_study

from perikarya.config import AugmentConfig, TrainConfig, load_config
from perikarya.experiment.run import RunListener, run_experiment

EXAMPLES = Path(__file__).parents[2] / "examples"
TOY = ("models.*.weights=none", "models.*.input_px=32", "cv.n_folds=4", "cv.folds=[0]", "train.epochs=1")


FEWER = {"learning_curve": ("learning_curve=[2,3]", "seeds=[0]")}


@pytest.mark.parametrize(
    "name",
    ["recommended", "learning_curve", pytest.param("study", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_an_example_runs_at_toy_size(name: str, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", cells_per_subject=6)
    config = load_config(EXAMPLES / f"{name}.yaml", overrides=[*TOY, *FEWER.get(name, ()), f"study={study.root}"])
    outcome = run_experiment(config, tmp_path / "run", listener=RunListener())
    assert outcome.failed == {}
    points = {f"{m.name}@{n}" for m in config.models for n in config.learning_curve}
    assert {entry["base"] for entry in outcome.results["models"].values() if entry["kind"] == "network"} == {
        m.name for m in config.models
    } | points


def test_the_recommended_recipe_is_the_default_of_finetune() -> None:
    written = load_config(EXAMPLES / "recommended.yaml")
    assert written.train == TrainConfig()
    assert written.augment == AugmentConfig()

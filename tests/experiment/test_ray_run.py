"""A grid on Ray ends with the numbers of a grid on this machine, whatever is killed on the way."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.experiment.test_run import config, fingerprint
from tests.tiny import make_study

from perikarya.config import ExperimentConfig
from perikarya.experiment.run import Outcome, RunListener, run_experiment
from perikarya.launch.jobs import Event

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed"),
]

ON_RAY = {"engine": "ray", "jobs": 2, "threads": 1, "ray": {"gpus": 0}}
HERE = {"jobs": 2, "threads": 1}
# what tells of the machine and the moment, and of nothing that was computed
_OF_THE_MOMENT = {"provenance", "wall_s", "peak_memory_mib", "inference_s_per_cell"}


class Assassin(RunListener):
    """Kills the process of a task of one model, ``kill -9``, once it has come on a little."""

    def __init__(self, model: str, n_kills: int) -> None:
        self.model, self.left = model, n_kills
        self.told: list[Event] = []

    def event(self, event: Event) -> None:
        self.told.append(event)
        # no task is killed twice: more than 'retries' deaths would be a failure
        if not (self.left and event.kind == "progress" and event.job_id.startswith(f"{self.model}/")):
            return
        if any(e.kind == "died" and e.job_id == event.job_id for e in self.told):
            return
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] == [f"ray::{event.job_id}"]:
                process.kill()
                self.left -= 1


def comparable(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: comparable(value) for key, value in found.items() if key not in _OF_THE_MOMENT}
    return [comparable(value) for value in found] if isinstance(found, list) else found


def assert_same_numbers(one: Path, other: Path) -> None:
    results = [comparable(json.loads((run / "results.json").read_text())) for run in (one, other)]
    assert results[0] == results[1]
    assert fingerprint(one) == fingerprint(other)


def run_both(config_here: ExperimentConfig, config_ray: ExperimentConfig, folder: Path, victim: str) -> Outcome:
    here = run_experiment(config_here, folder / "here", listener=RunListener())
    assassin = Assassin(victim, n_kills=2)
    on_ray = run_experiment(config_ray, folder / "on_ray", listener=assassin)
    assert here.failed == on_ray.failed == {}
    assert [e.kind for e in assassin.told].count("died") >= 1
    assert assassin.left < 2
    assert_same_numbers(folder / "here", folder / "on_ray")
    return on_ray


def test_a_grid_on_ray_with_killed_workers_gives_the_numbers_of_this_machine(tmp_path: Path) -> None:
    studies = [make_study(tmp_path / place / "study").root for place in ("here", "on_ray")]  # features of their own
    train = {"epochs": 12, "patience": 12, "batch_size": 4, "tta_views": 1}  # long enough to be killed meanwhile
    cv = {"n_folds": 4, "folds": [0, 1]}
    (tmp_path / "runs").mkdir()
    outcome = run_both(
        config(studies[0], train=train, cv=cv, launch=HERE),
        config(studies[1], train=train, cv=cv, launch=ON_RAY),
        tmp_path / "runs",
        victim="cnn",
    )
    assert len(outcome.plan.tasks) == 4


@pytest.mark.timeout(3600)
def test_the_grid_of_real_cells_on_ray_gives_the_numbers_of_this_machine(rbc: Path, tmp_path: Path) -> None:
    """Three models, five folds, two seeds; PERIKARYA_RBC_STUDY names a study with cached features: minutes less."""
    grid = ExperimentConfig.model_validate(
        {
            "name": "rbc",
            "study": str(_study_of(rbc, tmp_path)),
            "seeds": [0, 1],
            "cv": {"n_folds": 5, "duplicates": "separate"},
            "models": [
                {"name": "lite0", "arch": "efficientnet_lite0", "strategy": "head", "input_px": 96},
                {"name": "lite1", "arch": "efficientnet_lite1", "strategy": "head", "input_px": 96},
                {
                    "name": "lite0-rgb",
                    "arch": "efficientnet_lite0",
                    "strategy": "head",
                    "input_px": 96,
                    "channels": "rgb",
                },
            ],
            "evaluate": {"n_bootstrap": 200},
            "launch": HERE,
        }
    )
    on_ray = ExperimentConfig.model_validate({**grid.model_dump(), "launch": ON_RAY})
    outcome = run_both(grid, on_ray, tmp_path, victim="lite1")
    assert len(outcome.plan.tasks) == 30


def _study_of(rbc: Path, folder: Path) -> Path:
    ready = os.environ.get("PERIKARYA_RBC_STUDY")
    if ready:
        return Path(ready)
    from typer.testing import CliRunner

    from perikarya.cli import app

    cells = rbc / "cells"
    words = ["study", "import", str(cells / "development"), "--external", str(cells / "external")]
    done = CliRunner().invoke(app, [*words, "--out", str(folder / "study")])
    assert done.exit_code == 0, done.output
    return folder / "study"

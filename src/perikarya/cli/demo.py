"""The demo: everything once, on a painted study, in minutes."""

from __future__ import annotations

import time
from pathlib import Path

from perikarya.cli.console import console
from perikarya.cli.running import show_results, train_with_screen, write_report
from perikarya.cli.studies import describe, show_check
from perikarya.config import CvConfig, ExperimentConfig, LaunchConfig, ModelConfig, TrainConfig
from perikarya.data.integrity import check_study
from perikarya.data.phantom import PhantomSettings, make_phantom
from perikarya.data.store import open_study
from perikarya.errors import RunError
from perikarya.runs import RunFolder


def demo_config(study: Path, *, jobs: int | None) -> ExperimentConfig:
    """Return the demo's experiment: a head on frozen features and a small network from scratch, five folds."""
    return ExperimentConfig(
        name="demo",
        study=str(study),
        cv=CvConfig(n_folds=5),
        models=(
            ModelConfig(name="efficientnet_lite0", arch="efficientnet_lite0", strategy="head", input_px=112),
            ModelConfig(name="custom_cnn", arch="custom_cnn", strategy="finetune", input_px=48),
        ),
        train=TrainConfig(epochs=10, batch_size=32, lr=3e-3, tta_views=2),
        launch=LaunchConfig(jobs=jobs),
    )


def demo_command(out: Path, *, jobs: int | None) -> None:
    """Paint, check, train, validate, report; a second call goes on where the first was stopped."""
    started = time.monotonic()
    study_path, run_path = out / "study", out / "run"
    console.print("[bold]1. A phantom study[/]: painted sections whose truth is known")
    if study_path.exists():
        opened = open_study(study_path)
    else:
        with console.status("Painting fields and cutting cells"):
            opened = make_phantom(study_path, settings=PhantomSettings())
    describe(opened)
    console.print("[bold]2. Check[/]: duplicates, leakage, masks")
    report = check_study(opened)
    show_check(report)
    console.print("[bold]3. Train[/]: two models, five folds over animals, other animals held out")
    outcome = train_with_screen(demo_config(study_path, jobs=jobs), run_path)
    show_results(outcome.results)
    console.print("[bold]4. Report[/]")
    path = write_report(RunFolder(run_path), outcome.plan.config, outcome.results)
    console.print(f"Done in {time.monotonic() - started:.0f} s. Report: {path}", markup=False)
    if outcome.failed:
        raise RunError(f"{len(outcome.failed)} task(s) of the demo failed; see {run_path}/tasks/*/*/*/task.log.")

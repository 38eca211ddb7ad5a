"""A run of thousands of tasks: listed, planned for Slurm, its state asked, its results collected; time and memory.

    python benchmarks/many_tasks.py [--tasks 10000] [--evaluated 100 300 1000] [--out FOLDER]

Nobody trains: the folders of finished tasks are made up, as the tests make them. The status is asked of a run whose
tasks are all finished, and of one where half are. Each step is a process of its own; the kernel tells its peak memory.
The last step needs a Slurm whose limits it can ask. Prints tables and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from _common import REPOSITORY, measured_step, parse_arguments, print_json, print_table

sys.path.append(str(REPOSITORY))  # for the made-up run of the tests

N_MODELS, N_FOLDS = 20, 5
N_CELLS, N_EXTERNAL = 600, 240


def make(root: Path, n_tasks: int) -> None:
    """Make a run whose tasks have all finished, with predictions."""
    from tests.fake_run import make_fake_run

    models = [f"m{i:02d}" for i in range(min(N_MODELS, n_tasks // N_FOLDS))]
    seeds = tuple(range(n_tasks // N_FOLDS // len(models)))
    make_fake_run(root, models=models, seeds=seeds, n_folds=N_FOLDS, n_cells=N_CELLS, n_external=N_EXTERNAL)


def make_states(root: Path, n_tasks: int) -> None:
    """Make a run whose tasks hold nothing but a result each; the status needs no more."""
    from tests.fake_run import make_fake_run

    from perikarya.config import ExperimentConfig
    from perikarya.runs import RunFolder, write_text

    fake = make_fake_run(root, models=("m00",), n_folds=N_FOLDS, n_cells=60, n_external=0)
    seeds = list(range(n_tasks // N_FOLDS))
    content = fake.config.model_dump(mode="json") | {"seeds": seeds}
    config = ExperimentConfig.model_validate(content)
    write_text(fake.run.config, fake.run.config.read_text().splitlines()[0] + "\n" + config.dump())
    made = (fake.run.root / "tasks" / "m00" / "seed0" / "fold0" / "result.json").read_bytes()
    for seed in seeds:
        for fold in range(N_FOLDS):
            folder = RunFolder(fake.run.root).task(_key("m00", seed, fold))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").write_bytes(made)


def _key(model: str, seed: int, fold: int) -> Any:
    from perikarya.runs import TaskKey

    return TaskKey(model, seed, fold)


def lose_half(root: Path) -> None:
    """Take the results of every other seed away."""
    for path in sorted((root / "run" / "tasks").glob("*/seed*[13579]/fold*/result.json")):
        path.unlink()


def status(root: Path) -> None:
    """Ask for the state of every task."""
    from perikarya.experiment.status import run_status
    from perikarya.runs import RunFolder

    run_status(RunFolder(root / "run"))


def evaluate(root: Path) -> None:
    """Collect the results of all tasks."""
    from perikarya.data.store import open_study
    from perikarya.evaluate.collect import evaluate_run, write_results
    from perikarya.experiment.plan import load_run_config, task_keys
    from perikarya.runs import RunFolder

    run, opened = RunFolder(root / "run"), open_study(root / "study")
    config = load_run_config(run)
    write_results(run, evaluate_run(run, opened.cells, opened.study, config, tasks=task_keys(config)))


def phantom(root: Path) -> None:
    """Paint the small study that jobs are planned for: planning looks at every cell."""
    from perikarya.data.phantom import PhantomSettings, make_phantom

    make_phantom(root / "phantom", settings=PhantomSettings(n_cells=300))


def jobs(root: Path) -> None:
    """Plan all tasks and word their sbatch scripts, ten tasks a job, as ``train --engine slurm --dry-run`` does."""
    from perikarya.config import ExperimentConfig
    from perikarya.experiment.plan import load_run_config
    from perikarya.experiment.submit import submit_experiment
    from perikarya.runs import RunFolder

    content = load_run_config(RunFolder(root / "run")).model_dump(mode="json")
    content |= {"models": ["custom_cnn"], "study": str(root / "phantom"), "launch": {"slurm": {"tasks_per_job": 10}}}
    submit_experiment(ExperimentConfig.model_validate(content), root / "never", dry_run=True)


def nothing(_: Path) -> None:
    """Import what evaluating needs, and end."""
    importlib.import_module("perikarya.evaluate.collect")


STEPS = {f.__name__: f for f in (status, evaluate, phantom, jobs, lose_half, nothing)}


measured = partial(measured_step, __file__)


def arguments_of() -> argparse.Namespace:
    """Read the command line."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--tasks", type=int, default=10_000)
        parser.add_argument("--evaluated", type=int, nargs="*", default=[100, 300, 1000])
        parser.add_argument("--out", type=Path, help="a folder that does not exist yet; default: a temporary one")
        parser.add_argument("--step", choices=["make", "make_states", *STEPS], help=argparse.SUPPRESS)

    return parse_arguments(__doc__, extend=extend)


def main() -> None:
    """Do one step, or measure all."""
    arguments = arguments_of()
    if arguments.step in ("make", "make_states"):
        {"make": make, "make_states": make_states}[arguments.step](arguments.out, arguments.tasks)
    elif arguments.step:
        STEPS[arguments.step](arguments.out)
    else:
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Run every step on runs of several sizes."""
    n_tasks, evaluated = (500, [50, 100]) if arguments.quick else (arguments.tasks, arguments.evaluated)
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="many_tasks_"))
    found: dict[str, dict[str, float]] = {"imports": measured("nothing", folder)}
    for n in evaluated:
        measured("make", folder / f"run{n}", tasks=n)
        found[f"evaluate {n} tasks"] = measured("evaluate", folder / f"run{n}")
    measured("make_states", folder / "states", tasks=n_tasks)
    found[f"status, {n_tasks} tasks finished"] = measured("status", folder / "states")
    measured("lose_half", folder / "states")
    found[f"status, half of {n_tasks} finished"] = measured("status", folder / "states")
    measured("phantom", folder / "states")
    found[f"jobs of {n_tasks} tasks for Slurm, dry run"] = measured("jobs", folder / "states")
    rows = [(name, *(values[key] for key in ("wall_s", "cpu_s", "peak_mib"))) for name, values in found.items()]
    print_table(["step", "wall s", "CPU s", "peak MiB"], rows)
    if arguments.out is None:
        shutil.rmtree(folder)
    print_json("many_tasks", tasks=n_tasks, steps=found)


if __name__ == "__main__":
    main()

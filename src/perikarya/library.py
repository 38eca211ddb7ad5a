"""Perikarya from Python: studies, runs and predictions as objects, for notebooks and scripts.

Thin on purpose: every call here is what a command does, with the same files and the same numbers. The names are taken
from ``perikarya`` itself, which imports nothing until one of them is used::

    import perikarya

    study = perikarya.load_study("mystudy")
    run = perikarya.train("examples/quickstart.yaml", "runs/first", study=study)
    predicted = perikarya.Predictor(run).predict("fields/")
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from perikarya.config import ExperimentConfig, QuantifyConfig, load_config, parse_config
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, RunError
from perikarya.experiment.plan import load_run_config
from perikarya.experiment.run import Outcome, RunListener, evaluate_again, run_experiment
from perikarya.experiment.status import run_status
from perikarya.runs import RunFolder, read_json
from perikarya.schema import DEVELOPMENT, EXTERNAL

if TYPE_CHECKING:
    from perikarya.predictor import Predictor

__all__ = ["AnyPath", "LoadedStudy", "Run", "load_run", "load_study", "train"]

AnyPath: TypeAlias = str | Path


@dataclass(frozen=True, repr=False)
class LoadedStudy(OpenStudy):
    """A study that has been read, with a line that tells what is in it.

    ``cells`` is the table of cells, ``crops`` their windows (n_cells, window_px, window_px, 4), mapped rather than
    read, ``labels`` the codes of their classes, ``study`` the description.
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in order of severity where they have one; ``labels`` counts from the first."""
        return self.study.class_names

    def __repr__(self) -> str:
        n_of_set = self.cells["set"].value_counts()
        sets = ", ".join(f"{n_of_set.get(name, 0)} {name}" for name in (DEVELOPMENT, EXTERNAL))
        scale = "scale unknown" if self.study.um_per_px is None else f"{self.study.um_per_px:g} um/px"
        return (
            f"Study '{self.study.name}': {len(self.cells)} cells ({sets}), {self.cells['subject'].nunique()} subjects, "
            f"{self.cells['image_id'].nunique()} images; classes {', '.join(self.class_names)}; "
            f"window {self.study.window_px} px, {scale}"
        )


def load_study(path: AnyPath) -> LoadedStudy:
    """Read a study folder.

    Parameters
    ----------
    path
        The folder, made by ``perikarya study import``.

    Raises
    ------
    DataError
        If it is not a study, or damaged.
    """
    opened = open_study(Path(path))
    return LoadedStudy(opened.root, opened.study, opened.cells, opened.crops)


@dataclass(frozen=True)
class Run:
    """A run folder: what was trained, how well it did, and a way to predict with it.

    Attributes
    ----------
    root
        The folder.
    """

    root: Path

    @cached_property
    def config(self) -> ExperimentConfig:
        """The configuration the run was started with, every setting definite."""
        return load_run_config(self._folder)

    @cached_property
    def results(self) -> pd.DataFrame:
        """Every score with its interval, one per row, as in ``metrics.csv``.

        Columns: model, kind, set (cv, external), scope, scope_value, class, metric, mean, sd_folds, lo, hi, n_cells,
        n_subjects, unit.
        """
        from perikarya.evaluate.tables import tidy_metrics

        return tidy_metrics(self._results)

    @cached_property
    def ranking(self) -> pd.DataFrame:
        """The models from the best on, one per row: model, metric, mean, lo, hi."""
        rows = []
        for entry in self._results["ranking"]:
            low, high = entry["ci95"] or (np.nan, np.nan)
            rows.append({key: entry[key] for key in ("model", "metric", "mean")} | {"lo": low, "hi": high})
        return pd.DataFrame(rows, columns=["model", "metric", "mean", "lo", "hi"])

    @cached_property
    def damage(self) -> pd.DataFrame:
        """Class fractions and severity per animal and region, corrected for misclassification, as in ``damage.csv``.

        Raises
        ------
        RunError
            If damage was not quantified, as where the animals are unknown.
        """
        from perikarya.evaluate.quantify.export import FILES, tidy_damage

        path = self.root / FILES[0]
        if not path.is_file():
            raise RunError(f"{path} is missing: damage of {self.root} was not quantified.\nFix: {self.root}/run.log.")
        return tidy_damage(read_json(path, what="the damage of a run"))[0]

    @property
    def status(self) -> pd.DataFrame:
        """How far each task is now: model, seed, fold, state, share (0 to 1), note."""
        tasks = run_status(self._folder)
        return pd.DataFrame(
            [(t.key.model, t.key.seed, t.key.fold, t.state, t.share, t.note) for t in tasks],
            columns=["model", "seed", "fold", "state", "share", "note"],
        )

    def quantify(
        self,
        predicted: pd.DataFrame,
        *,
        model: str | None = None,
        correction: str | None = None,
        control: str | None = None,
    ) -> dict[str, Any]:
        """Estimate damage per animal and region, and the effect of treatment, from cells a model of this run predicted.

        Parameters
        ----------
        predicted
            What ``Predictor.predict`` gives, with the columns subject and, where known, group and region.
        model
            The model that predicted them; None: the leading one.
        correction
            ``none``, ``adjusted``, ``probabilistic`` or ``em``; how it errs is told by the labelled cells of the run.
        control
            The group others are compared with; None: the one that is called so.

        Returns
        -------
        The content of ``damage.json`` (docs/damage.md); ``evaluate.quantify.export.tidy_damage`` makes tables of it.

        Raises
        ------
        PerikaryaError
            If animals are unknown, or the model cannot tell the classes apart.
        """
        from perikarya.cli.quantifying import changed_settings, labelled_cells_of
        from perikarya.evaluate.quantify.assemble import quantify_predictions

        given = {"correction": correction, "control": control}
        settings = changed_settings(QuantifyConfig(), {k: v for k, v in given.items() if v is not None})
        known, about = labelled_cells_of(self._folder, model)
        return quantify_predictions(
            predicted, about.class_names, settings=settings, reference=known, groups=about.groups, regions=about.regions
        )

    def report(self) -> Path:
        """Write results, figures and the report anew; return the path of the page."""
        from perikarya.cli.running import write_report

        config, results = evaluate_again(self._folder)
        for name in ("results", "ranking", "damage", "_results"):
            self.__dict__.pop(name, None)  # read again when next asked for
        return write_report(self._folder, config, results)

    def predictor(self, model: str | None = None) -> Predictor:
        """Return a model of the run, ready to predict; None: the leading one."""
        from perikarya.predictor import Predictor

        return Predictor(self, model)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.root)

    @cached_property
    def _results(self) -> dict[str, Any]:
        found = read_json(self._folder.results, what="the results of a run (made by 'perikarya evaluate RUN')")
        return dict(found)


def load_run(path: AnyPath) -> Run:
    """Open a run folder that ``train`` or ``perikarya train`` made.

    Raises
    ------
    RunError
        If it is not a run.
    """
    run = Run(Path(path))
    if not RunFolder(run.root).config.is_file():
        raise RunError(f"{path} is no run folder: it has no config.yaml.\nFix: name what was given to train as out.")
    return run


def train(
    config: Mapping[str, Any] | AnyPath,
    out: AnyPath,
    *,
    study: OpenStudy | AnyPath | None = None,
    overrides: Sequence[str] = (),
    progress: bool = False,
) -> Run:
    """Train models x folds x seeds and evaluate them; an unfinished run in ``out`` goes on where it was.

    Parameters
    ----------
    config
        An experiment: the path of a YAML file, or the same content as a dict.
    out
        The run folder.
    study
        The study, instead of the configuration's.
    overrides
        Changes such as ``"train.epochs=3"``.
    progress
        Draw the table of tasks that the command line draws.

    Raises
    ------
    ConfigError
        If a setting is unknown or does not fit, or the work is for a Slurm cluster, which does not answer at once.
    RunError
        If a task failed; what the others found is kept, and the same call tries again.
    PerikaryaError
        If the study, weights or the run folder are not as they must be.
    """
    experiment = _experiment(config, study, overrides)
    if experiment.launch.engine == "slurm":
        raise ConfigError(
            "A Slurm cluster trains when it has room, which a function that returns the run cannot wait for.\n"
            "Fix: 'perikarya train --engine slurm' on the command line, then load_run() when it has ended."
        )
    outcome = _run(experiment, Path(out), progress=progress)
    if outcome.failed:
        task, reason = next(iter(outcome.failed.items()))
        raise RunError(
            f"{len(outcome.failed)} task(s) of {out} failed. {task}: {reason}\n"
            f"Fix: see {out}/tasks/*/*/*/task.log, then the same call; load_run() has what did not fail."
        )
    return Run(Path(out))


def _experiment(
    config: Mapping[str, Any] | AnyPath, study: OpenStudy | AnyPath | None, overrides: Sequence[str]
) -> ExperimentConfig:
    changes = list(overrides)
    if study is not None:
        changes.append(f"study={json.dumps(str(study.root if isinstance(study, OpenStudy) else study))}")
    if not isinstance(config, Mapping):
        return load_config(Path(config), overrides=changes)
    return parse_config(copy.deepcopy(dict(config)), overrides=changes, where="The configuration")


def _run(experiment: ExperimentConfig, out: Path, *, progress: bool) -> Outcome:
    if not progress:
        return run_experiment(experiment, out, listener=RunListener())
    from perikarya.cli.running import train_with_screen

    return train_with_screen(experiment, out)

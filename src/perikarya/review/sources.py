"""What can be looked at: a study, a run with its study, or what a model predicted of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perikarya.config import ExperimentConfig
from perikarya.data.store import OpenStudy, open_study
from perikarya.errors import ConfigError, DataError
from perikarya.review.present import cell_index
from perikarya.runs import RunFolder

if TYPE_CHECKING:
    from perikarya.review.opinions import Opinion

_PREDICTION = ("predict.json", "predictions.parquet")  # of 'perikarya predict MODEL STUDY'


@dataclass(frozen=True)
class Source:
    """A study and what models say of its cells.

    Attributes
    ----------
    opened
        The study.
    words
        What was opened: "study f7", "run lead".
    run, config
        The run and its configuration; None without a run, and where models are hidden.
    opinions
        What models say, the one of the table first; none where models are hidden.
    threshold
        Confidence below which a model abstains; 0: it never does.
    checked
        The run whose check of the study has found near-duplicates; None without a run.
    """

    opened: OpenStudy
    words: str
    run: RunFolder | None = None
    config: ExperimentConfig | None = None
    opinions: tuple[Opinion, ...] = ()
    threshold: float = 0.0
    checked: RunFolder | None = None


def open_source(path: Path, *, study: Path | None, blind: bool) -> Source:
    """Open a study, a run or a prediction; see ``cells.open_review``."""
    name = path.resolve().name
    if (path / "study.yaml").is_file():
        if study is not None:
            raise ConfigError(f"{path} is a study already.\nFix: leave out --study, which is for runs and predictions.")
        return Source(open_study(path), f"study {name}")
    if not path.is_dir():
        raise DataError(f"{path} does not exist; it should be a study or a run folder.\nFix: correct the path.")
    if all((path / file).is_file() for file in _PREDICTION):
        return _prediction(path, study, blind=blind)
    from perikarya.experiment.plan import load_run_config  # loads scipy, which a study alone does not need

    run = RunFolder(path)
    config = load_run_config(run)
    opened = open_study(Path(config.study) if study is None else study)
    if blind:
        return Source(opened, f"run {name}", checked=run)
    from perikarya.review.opinions import read_opinions

    opinions = read_opinions(run, config, cell_index(opened), opened.study.class_names)
    return Source(opened, f"run {name}", run, config, tuple(opinions), config.evaluate.threshold, run)


def _prediction(path: Path, study: Path | None, *, blind: bool) -> Source:
    if study is None:
        raise ConfigError(
            f"{path} holds predictions, which do not say where their cells are.\n"
            "Fix: give the study that was predicted with --study."
        )
    opened, words = open_study(study), f"predictions {path.resolve().name}"
    if blind:
        return Source(opened, words)
    from perikarya.review.opinions import read_prediction

    record, table = (path / file for file in _PREDICTION)
    opinion, threshold = read_prediction(record, table, opened, cell_index(opened))
    return Source(opened, words, opinions=(opinion,), threshold=threshold)

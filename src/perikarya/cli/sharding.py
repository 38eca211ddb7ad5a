"""Large predictions on the command line: ``perikarya predict --shards N --engine ... --jobs J``, and their status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from perikarya.cli.console import console
from perikarya.config import LaunchConfig, apply_override
from perikarya.errors import ConfigError, DataError
from perikarya.launch.hardware import visible_gpus
from perikarya.launch.slurm import ask_cluster
from perikarya.predict.backends import backend_of
from perikarya.predict.inputs import FoundFields
from perikarya.predict.planning import Wish, counted_before, plan_images, plan_study
from perikarya.predict.sharded import ShardListener, missing_shards, prediction_status, run_shards, submit_shards
from perikarya.predict.shards import ShardPlan, continued, has_plan, read_plan
from perikarya.schema import read_yaml, validation_sentences

if TYPE_CHECKING:
    from perikarya.launch.jobs import Event
    from perikarya.launch.slurm.submit import Submission
    from perikarya.predict.finishing import ShardsDone

_MAX_LISTED = 20  # shards that are not done


def load_launch(path: Path | None, overrides: Sequence[str]) -> LaunchConfig:
    """Read the section ``launch`` of a YAML file (of an experiment, say) and apply ``launch.key=value`` overrides.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, a key is unknown, a value does not fit, or an override is of another section.
    """
    try:
        content = {} if path is None else read_yaml(path, what="a configuration with a section 'launch'")
    except DataError as error:
        raise ConfigError(str(error)) from None
    found: dict[str, Any] = {"launch": content.get("launch") or {}}
    for item in overrides:
        if not item.strip().startswith("launch."):
            raise ConfigError(
                f"--set {item}: 'predict' takes settings of the section launch only, such as launch.jobs=4."
            )
        apply_override(found, item)
    try:
        return LaunchConfig.model_validate(found["launch"])
    except ValidationError as error:
        raise ConfigError(
            validation_sentences(error, f"launch in {path}" if path else "launch") + "\nFix: correct the setting(s); "
            "docs/configuration.md lists every one."
        ) from None


def predict_in_shards(
    wish: Wish, source: Path | FoundFields, out: Path, launch: LaunchConfig, *, dry_run: bool
) -> None:
    """Predict a study or images in shards, or submit that; exit code 1 when a shard, image or outline failed.

    Parameters
    ----------
    wish
        Where the number of shards is left open, that of the plan in ``out`` holds.
    source
        A study, or images.
    out
        Folder of the results.
    launch
        Where shards are worked on.
    dry_run
        Say what would be done, or print the scripts that would be submitted; write nothing.
    """
    plan = _planned(wish, source, out)
    launch = launch.model_copy(update={"threads": launch.threads or wish.options.threads, "processes_per_task": 1})
    if launch.engine == "slurm":
        submission = submit_shards(plan, out, launch, dry_run=dry_run)
        if submission is not None:
            _show_submission(submission, out, dry_run=dry_run)
            return
    if dry_run:
        _show_plan(continued(plan, out), out)
        return
    with ShardScreen() as screen:
        done, failed = run_shards(plan, out, launch, gpus=_gpus(wish), listener=screen)
    _show_done(out, done, failed)
    if done.problems:
        raise typer.Exit(1)


def _planned(wish: Wish, source: Path | FoundFields, out: Path) -> ShardPlan:
    if "h5ad" in wish.formats:
        raise ConfigError(
            "--format h5ad needs all cells in memory at once, which a prediction in shards is there to avoid.\n"
            "Fix: leave h5ad out and read the folder 'parts' (pandas, DuckDB, Polars), or predict without --shards."
        )
    if wish.n_shards is None and has_plan(out):
        wish = replace(wish, n_shards=read_plan(out).n_asked)
    if isinstance(source, Path):
        return plan_study(source, wish)
    for note in source.notes:
        console.print(note, markup=False)
    return plan_images(source, wish, known=counted_before(out), show=console.is_terminal)


def _gpus(wish: Wish) -> list[str]:
    """Name the GPUs a model can be computed on; an exported graph is computed on the CPU."""
    if backend_of(wish.model, wish.options.backend) != "torch":
        return []
    return visible_gpus()


class ShardScreen(ShardListener, AbstractContextManager["ShardScreen"]):
    """One bar over all cells; plain lines where the output is no terminal."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._n_cells: dict[str, int] = {}
        self._done: Counter[str] = Counter()
        self._n_jobs = self._n_ended = 0

    def __enter__(self) -> ShardScreen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def planned(self, plan: ShardPlan, waiting: Sequence[int]) -> None:
        """Say how much there is to do."""
        self._n_cells = {plan.name(i): plan.shards[i].n_cells for i in range(len(plan.shards))}
        todo = {plan.name(i) for i in waiting}
        self._done.update({name: n for name, n in self._n_cells.items() if name not in todo})
        self._n_jobs = len(waiting)
        kept = len(plan.shards) - len(waiting)
        words = f"{plan.n_cells:,} cells in {len(plan.shards)} shard(s)" + (f", {kept} done before" if kept else "")
        console.print(f"{words}.", markup=False)
        self._bar = self._progress.add_task("cells", total=plan.n_cells, completed=self._done.total())

    def event(self, event: Event) -> None:
        """Move the bar, and say in a line what ended or failed."""
        name = event.job_id
        if event.kind == "progress":
            self._done[name] = event.done
        elif event.kind == "done":
            self._done[name] = self._n_cells[name]
            self._n_ended += 1
            console.print(f"{self._n_ended}/{self._n_jobs} {name} done", markup=False)
        elif event.kind == "failed":
            console.print(f"{name} failed: {event.message}", markup=False, style="red")
        elif event.kind == "died":
            console.print(f"{name}: its worker {event.message}; a new one goes on with it.", markup=False)
        self._progress.update(self._bar, completed=self._done.total())


def _show_plan(plan: ShardPlan, out: Path) -> None:
    sizes = [shard.n_cells for shard in plan.shards]
    console.print(
        f"{plan.n_cells:,} cells in {len(sizes)} shard(s) of {min(sizes):,} to {max(sizes):,}; "
        f"{len(missing_shards(plan, out))} of them are to be predicted. Nothing was written.",
        markup=False,
    )


def _show_submission(submission: Submission, out: Path, *, dry_run: bool) -> None:
    if dry_run:
        for path, text in zip(submission.scripts, submission.texts, strict=True):
            console.print(f"# {path}", markup=False)
            console.print(text, markup=False)
        console.print(f"{submission.n_jobs} shard(s) would be submitted. Nothing was written.", markup=False)
        return
    live = f", {submission.n_live} are in the queue already" if submission.n_live else ""
    console.print(
        f"{submission.n_jobs} shard(s) submitted{live}: job(s) {', '.join(submission.job_ids) or 'none'}.", markup=False
    )
    console.print(f"How far they are: perikarya status {out}", markup=False)
    console.print("The same command again submits what is missing by then.", markup=False)


def _show_done(out: Path, done: ShardsDone, failed: dict[str, str]) -> None:
    """Print the counts, what there is now and what can be done with it."""
    from perikarya.cli.predicting import show_agreement, show_counts, show_problems

    show_counts(done.finished.summary)
    show_agreement(done.finished.summary)
    n_shards = len(done.plan.shards)
    tables = ", ".join([*(path.name for path in done.finished.paths), "problems.csv", "predict.json"])
    console.print(f"The cells are in {out / 'parts'} ({n_shards - len(done.missing)} files).", markup=False)
    console.print(f"In {out}: {tables}", markup=False)
    if done.missing:
        console.print(f"{len(done.missing)} of {n_shards} shards are missing:", markup=False)
        for name, reason in list(failed.items())[:_MAX_LISTED]:
            console.print(f"  {name}: {reason}", markup=False)
        console.print("Their logs are in done; the same command tries them again.", markup=False)
    elif any(name for names in done.finished.summary.of("animal") for name in names[1:]):
        console.print(f"Next: perikarya quantify {out} --reference RUN (the run of the model)", markup=False)
    if done.problems:
        show_problems(out, done.problems)


def show_prediction_status(out: Path, *, as_json: bool = False) -> None:
    """Print how far a prediction in shards is: shards by state, cells, and what is the matter with shards."""
    cluster = ask_cluster(out)
    shards = prediction_status(out, cluster=cluster.jobs)
    if as_json:
        typer.echo(json.dumps([asdict(shard) for shard in shards], indent=1))
        return
    if cluster.unasked:
        console.print(cluster.unasked, markup=False)
    counts = Counter(shard.state for shard in shards)
    table = Table(*counts, "shards", "cells", box=None, header_style="bold")
    n_done = sum(shard.n_done for shard in shards)
    n_cells = sum(shard.n_done if shard.state == "done" else shard.n_cells for shard in shards)
    table.add_row(*map(str, counts.values()), str(len(shards)), f"{n_done:,} of {n_cells:,}")
    console.print(table)
    noted = [shard for shard in shards if shard.note]
    for shard in noted[:_MAX_LISTED]:
        console.print(
            f"{shard.name}: {shard.state}, {shard.n_done:,} of {shard.n_cells:,} cells. {shard.note}", markup=False
        )
    if len(noted) > _MAX_LISTED:
        console.print(f"... and {len(noted) - _MAX_LISTED} more", markup=False)

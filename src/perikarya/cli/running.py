"""Commands on runs: train, evaluate, report; ``following`` has status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from perikarya.cli.console import console
from perikarya.cli.following import show_submission
from perikarya.cli.screen import RunScreen
from perikarya.config import ExperimentConfig, load_config
from perikarya.data.store import open_study
from perikarya.errors import ConfigError
from perikarya.experiment.plan import open_findings
from perikarya.experiment.run import Outcome, RunListener, evaluate_again, run_experiment
from perikarya.experiment.submit import submit_experiment
from perikarya.launch.jobs import Event, Job
from perikarya.report import build_report
from perikarya.report.pdf import write_pdf
from perikarya.runs import RunFolder
from perikarya.tracking import Follower, check_installed, follow


def train_command(config: Path, out: Path, *, overrides: list[str], dry_run: bool = False) -> None:
    """Run an experiment and write its report, or submit it; exit code 1 when a task failed.

    Raises
    ------
    PerikaryaError
        If it cannot be run; ``ConfigError`` also for a rehearsal of what is not submitted anywhere.
    """
    experiment = load_config(config, overrides=overrides)
    check_installed(experiment.launch.tracking)
    if experiment.launch.engine == "slurm":
        _submit(experiment, out, dry_run=dry_run)
        return
    if dry_run:
        raise ConfigError(
            f"--dry-run shows the scripts of a cluster, and launch.engine is '{experiment.launch.engine}'.\n"
            "Fix: add --engine slurm, or leave --dry-run out."
        )
    outcome = train_with_screen(experiment, out)
    show_results(outcome.results)
    path = write_report(RunFolder(out), outcome.plan.config, outcome.results)
    console.print(f"Report: {path}")
    follow(RunFolder(out), experiment.launch)
    if outcome.failed:
        raise typer.Exit(1)


def _submit(config: ExperimentConfig, out: Path, *, dry_run: bool) -> None:
    """Submit what is missing of an experiment; when nothing is, write the report here."""
    run = RunFolder(out.resolve())
    with console.status("Planning and submitting"):
        done = submit_experiment(config, out, dry_run=dry_run)
    if done.n_jobs or done.n_live or dry_run:
        show_submission(done, run, dry_run=dry_run)
        return
    console.print("All tasks are done already; nothing was submitted.")
    report_command(out, Path(config.study), pdf=False, vectors=False)


def train_with_screen(config: ExperimentConfig, out: Path) -> Outcome:
    """Run an experiment while drawing its progress, and say what failed."""
    with RunScreen() as screen, Follower(RunFolder(out), config.launch) as follower:
        outcome = run_experiment(config, out, listener=_Told(screen, follower))
    if outcome.failed:
        console.print(
            f"[red]{len(outcome.failed)} task(s) failed[/]; the others are evaluated. Their logs: "
            f"{out}/tasks/*/*/*/task.log. The same command tries them again."
        )
    return outcome


class _Told(RunListener):
    """Tells the screen of everything, and the trackers of tasks that have ended."""

    def __init__(self, screen: RunScreen, follower: Follower) -> None:
        self.screen, self.follower = screen, follower

    def planned(self, jobs: list[Job], n_done: int) -> None:
        self.screen.planned(jobs, n_done)

    def event(self, event: Event) -> None:
        self.screen.event(event)
        if event.kind == "done":
            self.follower.task_ended()


def evaluate_command(run: Path, study: Path | None) -> None:
    """Write ``results.json`` anew and print the ranking."""
    _, results = evaluate_again(RunFolder(run), study=str(study) if study else None)
    show_results(results)
    console.print(f"Results: {RunFolder(run).results}")


def report_command(run: Path, study: Path | None, *, pdf: bool, vectors: bool) -> None:
    """Write results, figures and report anew, and where asked the PDF beside it."""
    config, results = evaluate_again(RunFolder(run), study=str(study) if study else None)
    if study:
        config = config.model_copy(update={"study": str(study)})
    show_results(results)
    page = write_report(RunFolder(run), config, results, vectors=vectors)
    console.print(f"Report: {page}", markup=False)
    if pdf:
        with console.status("Printing the report"):
            write_pdf(page, page.with_suffix(".pdf"))
        console.print(f"PDF: {page.with_suffix('.pdf')}", markup=False)


def write_report(run: RunFolder, config: ExperimentConfig, results: dict[str, Any], *, vectors: bool = False) -> Path:
    """Draw the figures and write the page; return its path."""
    opened = open_study(Path(config.study))
    findings = [{"severity": f.severity, "sentence": f.sentence} for f in open_findings(run, config)]
    ok = not any(f["severity"] == "error" for f in findings)
    with console.status("Drawing figures and writing the report"):
        check = {"ok": ok, "findings": findings}
        return build_report(run, opened, config, results, check=check, vectors=vectors)


def show_results(results: dict[str, Any]) -> None:
    """Print the ranking with its intervals."""
    ranking = results["ranking"]
    if not ranking:
        return
    unit = results["protocol"].get("unit", "subject")
    table = Table("model", ranking[0]["metric"], f"95 % interval over {unit}s", box=None, header_style="bold")
    for row in ranking:
        low, high = row["ci95"] or (None, None)
        interval = "not available" if low is None else f"{low:.3f} to {high:.3f}"
        table.add_row(row["model"], "not available" if row["mean"] is None else f"{row['mean']:.3f}", interval)
    console.print(table)

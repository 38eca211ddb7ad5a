"""Commands on runs: train, status, evaluate, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from perikarya.cli.console import console
from perikarya.cli.screen import RunScreen
from perikarya.config import ExperimentConfig, load_config
from perikarya.data.store import open_study
from perikarya.experiment.plan import open_findings
from perikarya.experiment.run import Outcome, evaluate_again, run_experiment
from perikarya.experiment.status import run_status
from perikarya.report import build_report
from perikarya.report.pdf import write_pdf
from perikarya.runs import RunFolder


def train_command(config: Path, out: Path, *, overrides: list[str]) -> None:
    """Run an experiment and write its report; exit code 1 when a task failed."""
    outcome = train_with_screen(load_config(config, overrides=overrides), out)
    show_results(outcome.results)
    path = write_report(RunFolder(out), outcome.plan.config, outcome.results)
    console.print(f"Report: {path}")
    if outcome.failed:
        raise typer.Exit(1)


def train_with_screen(config: ExperimentConfig, out: Path) -> Outcome:
    """Run an experiment while drawing its progress, and say what failed."""
    with RunScreen() as screen:
        outcome = run_experiment(config, out, listener=screen)
    if outcome.failed:
        console.print(
            f"[red]{len(outcome.failed)} task(s) failed[/]; the others are evaluated. Their logs: "
            f"{out}/tasks/*/*/*/task.log. The same command tries them again."
        )
    return outcome


def status_command(run: Path) -> None:
    """Print one line per model, then the tasks that are not done."""
    states = run_status(RunFolder(run))
    table = Table("model", "done", "interrupted", "failed", "waiting", box=None, header_style="bold")
    for model in dict.fromkeys(s.key.model for s in states):
        of_model = [s.state for s in states if s.key.model == model]
        table.add_row(model, *(str(of_model.count(s)) for s in ("done", "interrupted", "failed", "waiting")))
    console.print(table)
    for s in states:
        if s.state in ("failed", "interrupted"):
            console.print(f"{s.key}: {s.state}. {s.note}", markup=False)
    n_done = sum(s.state == "done" for s in states)
    console.print(f"{n_done} of {len(states)} tasks are done.")


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

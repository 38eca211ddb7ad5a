"""What the command line draws: sentences, tables and the progress of a run. Colour only on a terminal."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from perikarya.cli.console import console
from perikarya.experiment.run import RunListener
from perikarya.launch.jobs import Event, Job


class RunScreen(RunListener, AbstractContextManager["RunScreen"]):
    """One bar for the whole run and one per running task; plain lines where the output is no terminal."""

    def __init__(self) -> None:
        self._live = console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._overall: TaskID | None = None
        self._bars: dict[str, TaskID] = {}
        self._started: dict[str, float] = {}
        self._n_ended = 0
        self._n_jobs = 0

    def __enter__(self) -> RunScreen:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def planned(self, jobs: list[Job], n_done: int) -> None:
        """Show how much there is to do."""
        self._n_jobs = len(jobs)
        if n_done:
            console.print(f"{n_done} task(s) are finished already and kept.")
        self._overall = self._progress.add_task("[bold]all tasks", total=len(jobs))

    def event(self, event: Event) -> None:
        """Move the bars, and say in a line what ended or failed."""
        if event.kind == "started":
            self._started[event.job_id] = time.monotonic()
            self._bars[event.job_id] = self._progress.add_task(event.job_id, total=None)
        elif event.kind == "progress":
            self._progress.update(self._bars[event.job_id], completed=event.done, total=event.total)
        else:
            self._end(event)

    def _end(self, event: Event) -> None:
        bar = self._bars.pop(event.job_id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if event.kind == "died":
            console.print(f"[yellow]{event.job_id}: its worker {event.message}; a new one goes on with it.[/]")
            return
        self._n_ended += 1
        if self._overall is not None:
            self._progress.update(self._overall, completed=self._n_ended)
        if event.kind == "failed":
            console.print(f"[red]{event.job_id} failed:[/] ", end="")
            console.print(event.message, markup=False)
        else:
            took = time.monotonic() - self._started.get(event.job_id, time.monotonic())
            console.print(f"{self._n_ended}/{self._n_jobs} {event.job_id} done in {took:.1f} s")

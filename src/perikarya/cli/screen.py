"""What the command line draws of work that goes on: a table on a terminal, lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from rich.console import RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from perikarya.cli.console import console
from perikarya.cli.pace import Pace, RunningJob, as_clock, in_words
from perikarya.experiment.run import RunListener
from perikarya.launch.jobs import Event, Job

_EVERY_JOB_UP_TO = 60  # jobs that each get a line; of more, every fiftieth part does
_LONGEST_SILENCE_S = 600.0
_TROUBLES_TOLD = 20
_WIDEST_BAR = 24


class RunScreen(RunListener, AbstractContextManager["RunScreen"]):
    """A live table of the jobs that are being done and of the whole; plain lines where the output is no terminal."""

    def __init__(self) -> None:
        self._pace = Pace([])
        self._idle = Spinner("dots", "planning")  # while no job is known
        self._live = Live(get_renderable=self.draw, console=console, refresh_per_second=4, transient=True)
        self._n_kept = self._n_troubles = 0
        self._told_at = (0, 0.0)  # jobs ended and seconds gone at the last line

    def __enter__(self) -> RunScreen:
        if console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._n_troubles > _TROUBLES_TOLD:
            console.print(f"[red]{self._n_troubles - _TROUBLES_TOLD} more troubles[/] are in the log of the run.")
        stopped = error is not None and not isinstance(error, Exception)  # by Ctrl-C or SIGTERM
        if stopped and self._pace.n_ended < self._pace.n_jobs:
            self._tell_how_far()

    def _tell_how_far(self) -> None:
        pace = self._pace
        console.print(
            f"{self._n_kept + pace.n_done} of {self._n_kept + pace.n_jobs} tasks are finished, {len(pace.running)}"
            f" under way (kept up to their last saved state), {pace.n_waiting} waiting."
        )

    def planned(self, jobs: list[Job], n_done: int) -> None:
        """Say how much there is to do, and how much of it was done before."""
        self._pace, self._n_kept = Pace(jobs), n_done
        if n_done:
            console.print(f"{n_done} task(s) are finished already and kept.")
        if jobs and not console.is_terminal:
            console.print(f"{len(jobs)} task(s) to do.")

    def event(self, event: Event) -> None:
        """Take in what became known of a job, and tell in a line what a person wants to know."""
        took_s = self._pace.note(event)
        if event.kind == "died":
            self._tell_trouble(
                f"[yellow]{escape(event.job_id)}: its worker {escape(event.message)}.[/] Another goes on with it."
            )
        elif event.kind == "failed":
            self._tell_trouble(f"[red]{escape(event.job_id)} failed:[/] {escape(event.message)}")
        elif event.kind == "done" and not console.is_terminal:
            self._tell_done(event.job_id, took_s or 0.0)
        if self._pace.n_ended == self._pace.n_jobs:
            self._idle.update(text="collecting the results")
            console.print(f"{self._pace.n_done} of {self._pace.n_jobs} tasks done in {as_clock(self._pace.elapsed())}.")

    def _tell_trouble(self, sentence: str) -> None:
        self._n_troubles += 1
        if self._n_troubles <= _TROUBLES_TOLD:
            console.print(sentence)

    def _tell_done(self, job_id: str, took_s: float) -> None:
        """Tell of each job where they are few; of many, of each fiftieth part and after a long silence."""
        pace = self._pace
        n_told, told_s = self._told_at
        step = 1 if pace.n_jobs <= _EVERY_JOB_UP_TO else pace.n_jobs // 50
        silent_s = pace.elapsed() - told_s
        if n_told and pace.n_ended < pace.n_jobs and pace.n_ended - n_told < step and silent_s < _LONGEST_SILENCE_S:
            return
        self._told_at = (pace.n_ended, pace.elapsed())
        left_s = pace.left() if pace.n_ended < pace.n_jobs else None
        left = "" if left_s is None else f"; about {in_words(left_s)} left"
        console.print(f"{pace.n_ended}/{pace.n_jobs} {escape(job_id)} done in {took_s:.1f} s{left}")

    def draw(self) -> RenderableType:
        """Return the table as it is now, no higher than the terminal."""
        if self._pace.n_ended == self._pace.n_jobs:
            return self._idle
        running = list(self._pace.running.values())
        n_rows = max(1, console.height - 4)
        table = Table(box=None, header_style="dim", pad_edge=False)
        for name in ("task", "worker", "", ""):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for name in ("time", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for job in running[:n_rows]:
            table.add_row(*self._row(job))
        if len(running) > n_rows:
            table.add_row(f"and {len(running) - n_rows} more", style="dim")
        table.add_row(*self._last_row(), style="bold")
        return table

    def _row(self, job: RunningJob) -> list[RenderableType]:
        pace = self._pace
        bar = _bar(job.done, job.total)
        share = f"{job.share:.0%}" if job.total else ""
        return [
            Text(job.id), Text(job.where), bar, share, as_clock(pace.elapsed_of(job)), as_clock(pace.left_of(job)),
        ]  # fmt: skip

    def _last_row(self) -> list[RenderableType]:
        pace = self._pace
        bar = _bar(pace.n_ended, pace.n_jobs)
        failed = Text(f"{pace.n_failed} failed", style="red") if pace.n_failed else Text()
        return [
            Text("all tasks"), failed, bar, f"{pace.n_ended}/{pace.n_jobs}",
            as_clock(pace.elapsed()), as_clock(pace.left()),
        ]  # fmt: skip


def _bar(done: int, total: int) -> ProgressBar:
    """Return a bar that leaves room for the words beside it; it pulses while the total is not known."""
    return ProgressBar(total=total or None, completed=done, width=min(_WIDEST_BAR, console.width // 5), pulse=not total)

"""The last job of a run on a cluster: ``python -m perikarya.cli.finale RUN --study STUDY --round N``.

What jobs lost by no fault of their own is submitted again, with another such job behind it; else the run is evaluated
and its report written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from perikarya.cli.console import console
from perikarya.errors import PerikaryaError
from perikarya.experiment.status import run_status
from perikarya.experiment.submit import read_launch, submit_lost
from perikarya.runs import RunFolder
from perikarya.tracking import follow


def main(arguments: Sequence[str]) -> int:
    """Finish a run or see to it that it is finished; the exit code is 1 where tasks are missing in the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--round", type=int, default=1, help="how often tasks have been submitted")
    found = parser.parse_args(arguments)
    run = RunFolder(found.run)
    if _submitted_again(run, found.study, found.round):
        return 0
    from perikarya.cli.running import report_command

    try:
        report_command(run.root, found.study, pdf=False, vectors=False)
    except PerikaryaError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    follow(run, read_launch(run))
    n_missing = sum(task.state != "done" for task in run_status(run))
    if n_missing:
        console.print(
            f"{n_missing} task(s) are missing from this report. See why: perikarya status {run.root}\n"
            "The same 'perikarya train' command as before tries them again.",
            markup=False,
        )
    return int(n_missing > 0)


def _submitted_again(run: RunFolder, study: Path, round_: int) -> bool:
    """Submit what was lost; where the cluster cannot be asked from here, say so and go on without."""
    try:
        again = submit_lost(run, study=study, round_=round_)
    except PerikaryaError as error:
        sys.stderr.write(f"What was lost, if anything, was not submitted again. {error}\n")
        return False
    if again is None:
        return False
    console.print(f"{again.n_jobs} job(s) were lost and are submitted again: {', '.join(again.job_ids)}")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

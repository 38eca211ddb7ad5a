"""What a real Slurm does to elements, with work that only sleeps: each on its own, and without much computing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.slurm.cluster import ROOT, wait_until
from tests.slurm.cluster import run as slurm
from tests.slurm.sleeper import STEP_S, sleepers

from perikarya.config import LaunchConfig
from perikarya.launch.jobs import Job
from perikarya.launch.slurm import JobState, Submission, job_states, live_jobs, submit_jobs

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm"), pytest.mark.timeout(900)]


class Slept:
    """Jobs of so many seconds each, submitted."""

    def __init__(self, folder: Path, n_jobs: int, *, work_s: int, options: tuple[str, ...] = (), **wanted: object):
        self.folder = folder
        content = {"cpus": 1, "mem": "200M", "time": "10", "signal_s": 10, "options": options, **wanted}
        content["setup"] = (f"export PYTHONPATH={ROOT}",)
        launch = LaunchConfig.model_validate({"engine": "slurm", "slurm": content})
        jobs = [Job(f"job{i}", {"steps": int(work_s / STEP_S)}) for i in range(n_jobs)]
        crew = sleepers(folder / "work")
        self.done: Submission = submit_jobs(folder, name="rehearsal", jobs=jobs, crew=crew, finale=(), launch=launch)

    def state(self, job: str = "job0") -> JobState:
        return job_states(self.folder)[job]

    def wait_for_work(self, job: str = "job0", *, start: int = 1) -> int:
        """Wait until a job has been started so often; return the id of its process."""
        path = self.folder / "work" / f"{job}.starts"
        wait_until(f"start {start}", lambda: path.exists() and len(path.read_text().split()) >= start, timeout_s=240)
        time.sleep(1)
        return int(path.read_text().split()[-1])

    def wait_for_end(self) -> None:
        wait_until("nothing is in the queue", lambda: not live_jobs(self.folder), timeout_s=600)

    def is_done(self, job: str = "job0") -> bool:
        return (self.folder / "work" / f"{job}.done").exists()

    def logs(self) -> list[str]:
        return [path.name for path in (self.folder / "slurm/1/log").iterdir()]


def test_a_job_longer_than_its_time_limit_goes_on_where_it_was(tmp_path: Path) -> None:
    work = Slept(tmp_path, 1, work_s=55, time="1", signal_s=30)
    work.wait_for_work(start=2)
    assert work.state().cause in ("", "time limit")
    work.wait_for_end()
    assert work.is_done()
    assert work.state().n_starts >= 2
    assert work.logs() == []


def test_a_cancelled_job_saves_its_state_and_does_not_come_back(tmp_path: Path) -> None:
    work = Slept(tmp_path, 1, work_s=120)
    work.wait_for_work()
    slurm("scancel", work.done.job_ids[0])
    work.wait_for_end()
    assert (tmp_path / "work/job0.saved").exists()
    state = work.state()
    assert (state.kind, state.cause, state.n_starts) == ("failed", "cancelled", 1)


def test_a_preempted_job_saves_its_state_and_comes_back(tmp_path: Path) -> None:
    work = Slept(tmp_path, 1, work_s=15, cpus=3)
    work.wait_for_work()
    node = work.state().node
    asked = ("--partition=urgent", f"--nodelist={node}", "--cpus-per-task=4", "--mem=100M", "--time=1")
    slurm("sbatch", *asked, "--job-name=urgent", "--output=/dev/null", "--wrap=sleep 3")
    work.wait_for_end()
    assert work.is_done()
    assert work.state().n_starts == 2


def test_a_killed_element_is_told_as_such_and_the_others_go_on(tmp_path: Path) -> None:
    work = Slept(tmp_path, 2, work_s=10)
    os.kill(work.wait_for_work(), signal.SIGKILL)
    work.wait_for_end()
    state = work.state()
    assert (state.kind, state.cause) == ("failed", "signal")
    assert work.is_done("job1")
    assert not work.is_done()

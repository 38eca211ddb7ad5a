"""On a real Slurm: what is submitted runs, what goes wrong is told in words. Set SLURM_CONF to try; few CPUs do."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.launch.rehearsal import ROOT, rehearsal_crew

from perikarya.launch.jobs import Job
from perikarya.launch.slurm import JobState, Submission, client, job_states, live_jobs, submit_jobs
from perikarya.settings import LaunchConfig

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
NAME = 'it\'s a "run" 100%'


@pytest.fixture(autouse=True)
def _a_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch on this machine")
    if subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip(f"no Slurm controller answers (SLURM_CONF={os.environ.get('SLURM_CONF', 'not set')})")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))


def submit(folder: Path, work: list[Job], **slurm: Any) -> Submission:
    asked = {"mem": "300M", "cpus": 1, "time": "5", **slurm}
    launch = LaunchConfig.model_validate({"engine": "slurm", "jobs": 2, "slurm": asked})
    finale = ("-c", f"open({str(folder / 'finale')!r}, 'a').write('x')")
    return submit_jobs(folder, name="h2 test", jobs=work, crew=rehearsal_crew(folder), finale=finale, launch=launch)


def wait_until(holds: Callable[[], bool], *, at_most_s: float = 120) -> None:
    end = time.monotonic() + at_most_s
    while not holds():
        assert time.monotonic() < end, "the cluster took too long"
        time.sleep(0.5)


def run(folder: Path, work: list[Job], **slurm: Any) -> dict[str, JobState]:
    submit(folder, work, **slurm)
    wait_until(lambda: not live_jobs(folder))
    wait_until(lambda: "unknown" not in {state.kind for state in job_states(folder).values()})
    return job_states(folder)


def test_jobs_run_once_in_order_of_need_and_the_finale_last_whatever_the_path(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    needy = [Job(f"t{i}", {"do": "work"}, frozenset({"features"})) for i in range(4)]
    hopeless = Job("hopeless", {"do": "work"}, frozenset({"bad"}))
    states = run(folder, [Job("features", {"do": "work"}), Job("bad", {"do": "refuse"}), *needy, hopeless])
    order = (folder / "order").read_text().split()
    assert (order[0], sorted(order[1:])) == ("features", ["t0", "t1", "t2", "t3"])
    assert {job: state.kind for job, state in states.items() if state.kind != "ended"} == {
        "bad": "failed", "hopeless": "failed",
    }  # fmt: skip
    assert (states["bad"].cause, states["hopeless"].cause) == ("exit code", "dependency")
    assert (folder / "finale").read_text() == "x"
    left = sorted(path.name for path in (folder / "slurm" / "1" / "log").iterdir())
    assert left == ["finale.log", "stage1-1.log"]


def test_several_jobs_of_one_element_run_one_after_another(tmp_path: Path) -> None:
    states = run(tmp_path, [Job(f"j{i}", {"do": "work"}) for i in range(5)], tasks_per_job=3)
    assert sorted((tmp_path / "order").read_text().split()) == [f"j{i}" for i in range(5)]
    assert len({state.cluster_id for state in states.values()}) == 2


def test_too_much_memory_is_told_from_other_kills(tmp_path: Path) -> None:
    eater = "import time; b = bytearray(300 << 20); b[::4096] = b'x' * len(b[::4096]); time.sleep(60)"
    states = run(tmp_path / "a", [Job("a", {"do": "work"})], mem="100M", setup=(f'{sys.executable} -c "{eater}"',))
    assert states["a"].cause == "memory"
    assert "asked for 100 MiB" in states["a"].sentence
    states = run(tmp_path / "b", [Job("b", {"do": "work"})], setup=("kill -9 $$",))
    assert (states["b"].cause, "SIGKILL" in states["b"].sentence) == ("signal", True)


def test_a_job_that_was_cancelled_says_by_whom(tmp_path: Path) -> None:
    submit(tmp_path, [Job("a", {"do": "work"})], setup=("sleep 60",))
    wait_until(lambda: job_states(tmp_path)["a"].kind == "running")
    assert job_states(tmp_path)["a"].sentence.startswith("running on ")
    client.scancel([job_states(tmp_path)["a"].cluster_id])
    wait_until(lambda: job_states(tmp_path)["a"].sentence == "cancelled by you")


def test_a_job_that_was_requeued_tells_of_it_and_runs_again(tmp_path: Path) -> None:
    submit(tmp_path, [Job("a", {"do": "work"})], setup=('[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || sleep 60',))
    wait_until(lambda: job_states(tmp_path)["a"].kind == "running")
    client.call(["scontrol", "requeue", job_states(tmp_path)["a"].cluster_id])
    wait_until(lambda: job_states(tmp_path)["a"].kind == "requeued")
    assert "requeued once" in job_states(tmp_path)["a"].sentence
    wait_until(lambda: job_states(tmp_path)["a"].kind == "ended", at_most_s=240)
    wait_until(lambda: job_states(tmp_path)["a"].n_starts == 2)


def test_killing_the_command_again_and_again_doubles_nothing(tmp_path: Path) -> None:
    ids = [f"j{i}" for i in range(3)] + [f"k{i}" for i in range(3)]
    code = f"""
        from pathlib import Path
        from tests.launch.slurm import test_on_a_cluster as here
        from perikarya.launch.jobs import Job
        lasting = {{"do": "work", "sleep_s": 12}}  # longer than all commands together, so that none finds work ended
        work = [Job(i, lasting, frozenset({{"j0"}}) if i[0] == "k" else frozenset()) for i in {ids!r}]
        print("ready", flush=True)
        here.submit(Path({str(tmp_path)!r}), work)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    chance = random.Random(0)
    for _ in range(6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.2))
            process.kill()
    subprocess.run(command, check=True)
    wait_until(lambda: not live_jobs(tmp_path))
    assert sorted((tmp_path / "order").read_text().split()) == sorted(ids)
    assert (tmp_path / "finale").read_text() == "x"

"""On Ray as on this machine: whatever dies, every job ends; what fails by itself fails once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.launch.rehearsal import ROOT, Rehearsal, rehearsal_crew

from perikarya.config import RayConfig
from perikarya.errors import ConfigError, RunError
from perikarya.launch.jobs import Crew, Event, Job
from perikarya.launch.ray import run_on_ray
from perikarya.launch.ray_cluster import QUIET

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

N_GPUS = 2  # pretended


class EnvironmentNoting(Rehearsal):
    """Notes what a worker finds in its environment."""

    def do(self, job: dict[str, Any], progress: Callable[[int, int], None]) -> None:
        with (self.folder / "environment").open("a", encoding="utf-8") as out:
            out.writelines(f"{name}={value}\n" for name, value in os.environ.items() if "\n" not in value)
        super().do(job, progress)


def open_worker(arguments: Sequence[str]) -> Rehearsal:
    return EnvironmentNoting(Path(arguments[0]))


def environment_crew(folder: Path) -> Crew:
    return Crew("tests.launch.test_ray", (str(folder),))


@pytest.fixture(scope="class")
def cluster() -> Iterator[Any]:
    """Start a Ray of two CPUs once for a class; as it is running, ``run_on_ray`` uses it and leaves it alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        for name, value in QUIET.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=N_GPUS,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
        )
        yield ray
        ray.shutdown()


def run(folder: Path, jobs: list[Job], **settings: Any) -> tuple[dict[str, str], list[Event]]:
    events: list[Event] = []
    n_at_once, threads = settings.pop("n_at_once", None), settings.pop("threads", 1)
    failed = run_on_ray(
        jobs,
        crew=settings.pop("crew", rehearsal_crew(folder)),
        settings=RayConfig(gpus=settings.pop("gpus", 0), **settings),
        listener=events.append,
        n_at_once=n_at_once,
        threads=threads,
    )
    return failed, events


def done_in(folder: Path) -> list[str]:
    return (folder / "order").read_text().split()


@pytest.mark.usefixtures("cluster")
class TestOnACluster:
    def test_every_job_is_done_once_by_processes_that_are_kept(self, tmp_path: Path) -> None:
        failed, events = run(tmp_path, [Job(f"j{i}", {"do": "work"}) for i in range(20)])
        assert failed == {}
        assert sorted(done_in(tmp_path)) == sorted(f"j{i}" for i in range(20))
        for i in range(20):
            told = [e.kind for e in events if e.job_id == f"j{i}"]
            assert told[0] == "started"
            assert told[-1] == "done"
            assert told.count("started") == told.count("done") == 1
        assert len(list(tmp_path.glob("worker-*"))) <= 4

    def test_a_killed_worker_costs_only_a_restart_of_its_job(self, tmp_path: Path) -> None:
        jobs = [Job("a", {"do": "die-once"}), *[Job(f"j{i}", {"do": "work"}) for i in range(3)]]
        failed, events = run(tmp_path, jobs)
        assert failed == {}
        assert sorted(done_in(tmp_path)) == ["a", "j0", "j1", "j2"]
        assert [e.kind for e in events if e.job_id == "a" and e.kind != "progress"] == [
            "started",
            "died",
            "started",
            "done",
        ]

    def test_a_job_that_always_kills_its_worker_is_given_up_after_the_retries(self, tmp_path: Path) -> None:
        jobs = [
            Job("bad", {"do": "die"}),
            Job("after", {"do": "work"}, frozenset({"bad"})),
            Job("good", {"do": "work"}),
        ]
        failed, events = run(tmp_path, jobs, retries=1)
        assert set(failed) == {"bad", "after"}
        assert "2 times" in failed["bad"]
        assert [e.kind for e in events if e.job_id == "bad"].count("died") == 1
        assert done_in(tmp_path) == ["good"]

    def test_a_job_that_raises_fails_once_and_its_dependants_are_not_started(self, tmp_path: Path) -> None:
        jobs = [Job("a", {"do": "raise"}), Job("b", {"do": "work"}, frozenset({"a"})), Job("c", {"do": "refuse"})]
        failed, events = run(tmp_path, jobs)
        assert failed == {
            "a": "ValueError: no good",
            "b": "needs 'a', which failed",
            "c": "It is not as it must be. Fix: mend it.",
        }
        assert "Traceback" in (tmp_path / "log" / "a").read_text()
        assert len((tmp_path / "started" / "a").read_text().split()) == 1
        assert {e.job_id for e in events if e.kind == "failed"} == {"a", "b", "c"}

    def test_a_job_waits_for_what_it_needs(self, tmp_path: Path) -> None:
        run(tmp_path, [Job("late", {"do": "work"}, frozenset({"early"})), Job("early", {"do": "work"})])
        assert done_in(tmp_path) == ["early", "late"]

    def test_needs_that_form_a_circle_fail_instead_of_hanging(self, tmp_path: Path) -> None:
        jobs = [Job("a", {"do": "work"}, frozenset({"b"})), Job("b", {"do": "work"}, frozenset({"a"}))]
        failed, events = run(tmp_path, jobs)
        assert set(failed) == {"a", "b"}
        assert [e.kind for e in events] == ["failed", "failed"]

    def test_no_more_jobs_run_at_once_than_asked_for(self, tmp_path: Path) -> None:
        _, events = run(tmp_path, [Job(f"j{i}", {"do": "work", "sleep_s": 0.1}) for i in range(4)], n_at_once=1)
        kinds = [e.kind for e in events if e.kind != "progress"]
        assert kinds == ["started", "done"] * 4

    def test_progress_is_heard_in_order_and_to_its_end(self, tmp_path: Path) -> None:
        _, events = run(tmp_path, [Job("a", {"do": "work", "steps": 8, "sleep_s": 0.2})])
        told = [e.done for e in events if e.kind == "progress"]
        assert told == sorted(told)
        assert told[-1] == 8
        assert 2 < len(told) < 8
        assert {e.total for e in events if e.kind == "progress"} == {8}

    def test_what_ended_well_before_is_not_done_again(self, tmp_path: Path) -> None:
        run(tmp_path, [Job("a", {"do": "work"})])
        failed, events = run(tmp_path, [Job("a", {"do": "work"})])
        assert failed == {}
        assert [e.kind for e in events] == ["started", "done"]
        assert done_in(tmp_path) == ["a"]

    def test_threads_are_limited_before_any_library_loads(self, tmp_path: Path) -> None:
        run(tmp_path, [Job("a", {"do": "work"})], crew=environment_crew(tmp_path), threads=2)
        environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines())
        assert {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")} == {"2"}
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""

    def test_a_job_has_a_gpu_of_its_own_where_the_cluster_has_any(self, tmp_path: Path) -> None:
        jobs = [Job(f"j{i}", {"do": "work", "sleep_s": 1.0}) for i in range(N_GPUS)]
        run(tmp_path, jobs, crew=environment_crew(tmp_path), gpus=None)
        lines = (tmp_path / "environment").read_text().splitlines()
        assert {line for line in lines if line.startswith("CUDA_")} == {
            "CUDA_VISIBLE_DEVICES=0",
            "CUDA_VISIBLE_DEVICES=1",
        }

    @pytest.mark.parametrize(("threads", "gpus"), [(3, 0), (1, N_GPUS + 1)])
    def test_what_no_machine_can_give_is_refused_at_once(self, tmp_path: Path, threads: int, gpus: int) -> None:
        with pytest.raises(ConfigError, match=f"{threads} CPUs and {gpus} GPUs each task asks for"):
            run(tmp_path, [Job("a", {"do": "work"})], threads=threads, gpus=gpus)

    def test_a_machine_without_the_package_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"cannot import tests\.launch\.unwritten"):
            run(tmp_path, [Job("a", {"do": "work"})], crew=Crew("tests.launch.unwritten", (str(tmp_path),)))

    def test_a_worker_that_cannot_be_opened_is_told_instead_of_waited_for(self, tmp_path: Path) -> None:
        crew = Crew("perikarya.experiment.worker", ("--unheard-of",))
        failed, _ = run(tmp_path, [Job("a", {"do": "work"})], crew=crew)
        assert failed == {"a": "The worker could not be opened. SystemExit: 2"}

    def test_a_machine_that_does_not_see_the_run_is_told_and_makes_no_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "run"
        folder.mkdir()

        def lose(event: Event) -> None:
            if event.kind == "died" and folder.exists():  # the job is taken up again by a process that is new
                folder.rename(tmp_path / "elsewhere")

        jobs = [Job("a", {"do": "die"})]
        with pytest.raises(RunError, match="does not see"):
            run_on_ray(
                jobs, crew=rehearsal_crew(folder), settings=RayConfig(gpus=0), listener=lose, n_at_once=1, threads=1
            )
        assert not folder.exists()

    def test_stopping_lets_running_jobs_save_their_state(self, tmp_path: Path) -> None:
        def stop(event: Event) -> None:
            if event.kind == "progress":
                raise KeyboardInterrupt

        jobs = [Job(f"j{i}", {"do": "work", "steps": 100, "sleep_s": 0.1}) for i in range(4)]
        with pytest.raises(KeyboardInterrupt):
            run_on_ray(
                jobs, crew=rehearsal_crew(tmp_path), settings=RayConfig(gpus=0), listener=stop, n_at_once=2, threads=1
            )
        assert "stopped: the run was stopped" in (tmp_path / "log" / "j0").read_text()
        assert not (tmp_path / "order").exists()


def test_without_the_extra_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "perikarya\[ray\]"'):
        run(tmp_path, [Job("a", {"do": "work"})])


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("somewhere", "neither host:port nor 'auto'"),
    ],
)
def test_a_cluster_that_is_not_there_is_told(tmp_path: Path, address: str, why: str) -> None:
    with pytest.raises(RunError, match=why):
        run(tmp_path, [Job("a", {"do": "work"})], address=address)


def test_ray_client_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ray job submit"):
        run(tmp_path, [Job("a", {"do": "work"})], address="ray://head:10001")


SCRIPT = """
import json, signal, sys
from pathlib import Path
from perikarya.config import RayConfig
from perikarya.launch.jobs import Job
from perikarya.launch.ray import run_on_ray
from tests.launch.rehearsal import rehearsal_crew

signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(143))
folder, address = Path(sys.argv[1]), sys.argv[2] or None
jobs = [Job(*words) for words in json.loads(sys.argv[3])]
tell = lambda event: print(event.kind, event.job_id, event.message, flush=True)
failed = run_on_ray(
    jobs, crew=rehearsal_crew(folder), settings=RayConfig(address=address), listener=tell, n_at_once=2, threads=1
)
print(json.dumps(failed))
"""


def start_driver(folder: Path, jobs: list[tuple[str, dict[str, Any]]], address: str = "") -> subprocess.Popen[str]:
    """Run jobs in a process of their own, whose standard output tells the events."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(folder), address, json.dumps(jobs)]
    # a Ray that was started in this process has left its settings here; of them only the right to connect is wanted
    env = {n: value for n, value in os.environ.items() if not n.startswith("RAY_") or n.startswith("RAY_AUTH_")}
    env["PYTHONPATH"] = str(ROOT)
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
class TestInAProcessOfItsOwn:
    def test_ray_started_here_listens_to_this_machine_only_and_says_nothing(self, tmp_path: Path) -> None:
        driver = start_driver(tmp_path, [("a", {"do": "die-once"}), ("b", {"do": "work", "steps": 20, "sleep_s": 0.1})])
        wait_for(lambda: all_started(tmp_path, 2) or driver.poll() is not None, 60)
        listening = {
            connection.laddr.ip
            for process in psutil.Process(driver.pid).children(recursive=True)
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
        told, _ = driver.communicate(timeout=60)
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert listening
        assert {line.split()[0] for line in told.splitlines()} == {"started", "progress", "died", "done", "{}"}

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_a_command_that_is_stopped_leaves_no_process_of_ray(self, tmp_path: Path, signum: signal.Signals) -> None:
        driver = self.start_two_long_jobs(tmp_path)
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(signum)
        driver.communicate(timeout=60)
        assert driver.returncode != 0
        assert "the run was stopped" in (tmp_path / "log" / "j0").read_text()
        wait_for(lambda: not any(is_alive(p.pid) for p in family), 30)

    def test_no_worker_outlives_a_command_that_was_killed(self, tmp_path: Path) -> None:
        driver = self.start_two_long_jobs(tmp_path)
        workers = [int(path.name.removeprefix("worker-")) for path in tmp_path.glob("worker-*")]
        driver.kill()
        driver.communicate(timeout=60)
        assert len(workers) == 2
        wait_for(lambda: not any(is_alive(pid) for pid in workers), 60)

    def start_two_long_jobs(self, folder: Path) -> subprocess.Popen[str]:
        driver = start_driver(folder, [(f"j{i}", {"do": "work", "steps": 600, "sleep_s": 0.1}) for i in range(2)])
        wait_for(lambda: all_started(folder, 2) or driver.poll() is not None, 60)
        return driver

    def test_a_lost_machine_costs_only_a_restart_of_its_jobs(self, tmp_path: Path) -> None:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
            jobs = [(f"j{i}", {"do": "work", "steps": 60, "sleep_s": 0.1}) for i in range(2)]
            driver = start_driver(tmp_path, jobs, address=cluster.address)
            wait_for(lambda: all_started(tmp_path, 2) or driver.poll() is not None, 60)
            cluster.remove_node(machines[0], allow_graceful=False)
            told, _ = driver.communicate(timeout=200)
        finally:
            cluster.shutdown()
        assert driver.returncode == 0, told
        assert sorted(done_in(tmp_path)) == ["j0", "j1"]
        assert [line.split(maxsplit=2)[2] for line in told.splitlines() if line.startswith("died")] == [
            "was lost with its machine"
        ]


def all_started(folder: Path, n: int) -> bool:
    return (folder / "started").is_dir() and len(list((folder / "started").iterdir())) == n


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)

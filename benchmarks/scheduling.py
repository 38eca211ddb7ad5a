"""What an engine costs beside the work: seconds per task for tasks that do nothing, against plain peers.

    python benchmarks/scheduling.py [--quick] [--n 1000] [--engines start local ray slurm] [--at-once 2]

- start: one worker process that does one job, as an element of a Slurm array starts it; against ``python -c pass``
- local: the supervisor with its workers; against ``concurrent.futures.ProcessPoolExecutor``
- ray: jobs on a Ray of this machine, which runs already; against plain remote functions on the same
- slurm: arrays written and submitted by us, one task and fifty per element; against a hand-written ``sbatch`` array of
  ``python -c pass``, and of ``true``. From the first sbatch to the last element's end. Needs a cluster
  (``SLURM_CONF``); no more than ``--at-once`` elements run at a time, for all alike.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from _common import parse_arguments, print_json, print_table
from noop_worker import noop_crew
from perikarya.launch.jobs import Event, Job

HERE = Path(__file__).resolve().parent
_LOOK_EVERY_S = 0.25
_STARTS = 7


@dataclass(frozen=True)
class Line:
    """One row of the table: ``n`` tasks took ``wall_s``; ``peer`` names the row it is held against."""

    name: str
    wall_s: float
    n: int
    peer: str | None = None

    @property
    def s_per_task(self) -> float:
        """Return the wall time per task, in seconds."""
        return self.wall_s / self.n


def _noop_jobs(n: int) -> list[Job]:
    return [Job(f"j{i}", {}) for i in range(n)]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _pass(_: int) -> None:
    pass


class _Count:
    """Counts what ended well, so that a table of times is not one of failures."""

    def __init__(self, n: int) -> None:
        self.n, self.n_done = n, 0

    def __call__(self, event: Event) -> None:
        self.n_done += event.kind == "done"

    def check(self, failed: dict[str, str]) -> None:
        if failed or self.n_done != self.n:
            sys.exit(f"{self.n - self.n_done} of {self.n} tasks did not end well: {dict(list(failed.items())[:1])}")


def start(folder: Path, n: int, at_once: int) -> list[Line]:  # noqa: ARG001 - all engines are called alike
    """Start one process for one job, as an array of Slurm does; the median of several."""
    jobs_file = folder / "jobs.jsonl"
    jobs_file.write_text(json.dumps({"id": "j"}) + "\n")
    element = [*noop_crew(folder).command(), "--jobs-file", str(jobs_file), "--own-log", str(folder / "own.log")]
    times = {"element of an array": [], "python -c pass": []}
    for _ in range(_STARTS):
        for name, command in zip(times, (element, [sys.executable, "-c", "pass"]), strict=True):
            times[name].append(_seconds(lambda c=command: subprocess.run(c, check=True, stdout=subprocess.DEVNULL)))
    ours, plain = (statistics.median(found) for found in times.values())
    return [
        Line("start, element of an array", ours, 1, peer="start, python -c pass"),
        Line("start, python -c pass", plain, 1),
    ]


def local(folder: Path, n: int, at_once: int) -> list[Line]:
    """Run tasks on processes of this machine, their start included."""
    from perikarya.launch.local import run_jobs

    count = _Count(n)
    ours = _seconds(
        lambda: count.check(
            run_jobs(_noop_jobs(n), crew=noop_crew(folder), n_workers=at_once, listener=count, threads=1)
        )
    )

    def pool() -> None:
        with ProcessPoolExecutor(at_once) as executor:
            list(executor.map(_pass, range(n)))

    return [
        Line("local, supervised workers", ours, n, peer="local, ProcessPoolExecutor"),
        Line("local, ProcessPoolExecutor", _seconds(pool), n),
    ]


def ray(folder: Path, n: int, at_once: int) -> list[Line]:
    """Run tasks on a Ray that runs already; each contestant first does a few that are not counted."""
    from perikarya.launch.ray import run_on_ray
    from perikarya.launch.ray_cluster import connected
    from perikarya.settings import RayConfig

    settings = RayConfig(gpus=0)

    def ours(n: int) -> None:
        count = _Count(n)
        count.check(
            run_on_ray(
                _noop_jobs(n), crew=noop_crew(folder), settings=settings, listener=count, n_at_once=None, threads=1
            )
        )

    with connected(settings) as cluster:
        remote = cluster.remote(num_cpus=1, max_retries=3)(_pass)

        def plain(n: int) -> None:
            cluster.get([remote.remote(i) for i in range(n)])

        for contestant in (ours, plain):
            contestant(2 * at_once)
        return [
            Line("Ray, ours", _seconds(lambda: ours(n)), n, peer="Ray, plain remote functions"),
            Line("Ray, plain remote functions", _seconds(lambda: plain(n)), n),
        ]


def slurm(folder: Path, n: int, at_once: int) -> list[Line]:
    """Submit arrays and wait until the last element has left the queue."""
    python = f"{sys.executable} -c pass"
    peer = "sbatch array, python -c pass"
    contestants: dict[str, Callable[[], Iterable[str]]] = {
        "Slurm, ours, one task per element": lambda: _submit(folder / "1", n, at_once, tasks_per_job=1),
        "Slurm, ours, 50 tasks per element": lambda: _submit(folder / "50", n, at_once, tasks_per_job=50),
        peer: lambda: [_sbatch(python, n, at_once)],
        "sbatch array, true": lambda: [_sbatch("true", n, at_once)],
    }
    lines = []
    for name, submit in contestants.items():
        wall_s = _seconds(lambda submit=submit: _wait(submit()))
        lines.append(Line(name, wall_s, n, peer if name.startswith("Slurm") else None))
    for part in ("1", "50"):
        if (n_logs := len(list((folder / part / "log").iterdir()))) != n:
            sys.exit(f"{n - n_logs} of {n} tasks did not run in the cluster; see {folder / part}")
    return lines


def _submit(folder: Path, n: int, at_once: int, *, tasks_per_job: int) -> Iterable[str]:
    from perikarya.launch.slurm.submit import submit_jobs
    from perikarya.settings import LaunchConfig, SlurmConfig

    asked = SlurmConfig(
        cpus=1,
        mem="100M",
        time="10:00",
        tasks_per_job=tasks_per_job,
        setup=(f"export PYTHONPATH={os.environ['PYTHONPATH']}",),
    )
    folder.mkdir()
    launch = LaunchConfig(engine="slurm", jobs=at_once, slurm=asked)
    return submit_jobs(
        folder, name="noop", jobs=_noop_jobs(n), crew=noop_crew(folder), finale=(), launch=launch
    ).job_ids


def _sbatch(command: str, n: int, at_once: int) -> str:
    asked = ["--cpus-per-task=1", "--mem=100M", "--time=10:00", "--output=/dev/null", f"--array=0-{n - 1}%{at_once}"]
    done = subprocess.run(
        ["sbatch", "--parsable", *asked], input=f"#!/bin/bash\n{command}\n", text=True, check=True, capture_output=True
    )
    return done.stdout.strip()


def _wait(job_ids: Iterable[str]) -> None:
    asked = ["squeue", "--noheader", f"--jobs={','.join(job_ids)}"]
    while True:
        found = subprocess.run(asked, text=True, capture_output=True, check=False)
        if "Invalid job id" in found.stderr or (found.returncode == 0 and not found.stdout.strip()):
            return
        time.sleep(_LOOK_EVERY_S)


ENGINES = {"start": start, "local": local, "ray": ray, "slurm": slurm}


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n", type=int, default=1000, help="tasks")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--at-once", type=int, default=2, help="processes at a time")
    parser.add_argument("--scratch", type=Path, help="a folder the nodes of the cluster see; default: a temporary one")


def main() -> None:
    """Time each engine and its peers."""
    arguments = parse_arguments(__doc__, extend=_extend)
    n = 20 if arguments.quick else arguments.n
    logging.getLogger("perikarya").addHandler(logging.NullHandler())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as temporary:
        for name in arguments.engines:
            folder = Path(temporary) / name
            folder.mkdir()
            lines += ENGINES[name](folder, n, arguments.at_once)
    by_name = {line.name: line for line in lines}
    rows = []
    for line in lines:
        peer = by_name.get(line.peer or "")
        rows.append([line.name, line.wall_s, line.s_per_task, peer and line.s_per_task / peer.s_per_task, line.peer])
    print_table(["engine", "wall s", "s per task", "times", "its peer"], rows)
    print_json(
        "scheduling",
        n=n,
        at_once=arguments.at_once,
        wall_s={line.name: round(line.wall_s, 3) for line in lines},
        s_per_task={line.name: round(line.s_per_task, 5) for line in lines},
    )


if __name__ == "__main__":
    main()

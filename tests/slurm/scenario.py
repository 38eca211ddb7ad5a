"""An experiment on a real Slurm, with everything that goes wrong there, ends with the numbers of a quiet local run.

For people: ``python -m tests.slurm.scenario STUDY FOLDER [--large]`` in the root of the repository, SLURM_CONF set;
the cluster must be one that may be maltreated. FOLDER gets the two runs; the exit code tells whether they agree.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tests.slurm.cluster import run as slurm
from tests.slurm.cluster import start_node, state_of, stop_node, wait_until

from perikarya.experiment.claim import CLAIM_FILE, Owner, read_owner
from perikarya.experiment.plan import load_run_config, task_keys
from perikarya.launch.slurm import job_states, live_jobs
from perikarya.launch.slurm.record import read_submissions
from perikarya.runs import RunFolder, TaskKey

log = logging.getLogger(__name__)

LOST_NODE = "cn3"
AFTER_A_MINUTE_S = 540  # before the end of ten minutes
_TIMINGS = ("inference_s_per_cell", "wall_s", "peak_memory_mib", "provenance")

SMALL: dict[str, Any] = {
    "cv": {"n_folds": 4},
    "models": [
        {"name": "head", "arch": "efficientnet_lite0", "strategy": "head", "weights": "none", "input_px": 64},
        {"name": "cnn", "arch": "custom_cnn", "strategy": "finetune", "input_px": 48},
    ],
    "train": {"epochs": 120, "patience": 120, "batch_size": 16, "tta_views": 1},
    "evaluate": {"n_bootstrap": 100, "n_permutations": 100},
    "quantify": {"n_bootstrap": 100, "n_permutations": 100},
}
LARGE: dict[str, Any] = {
    "seeds": [0, 1],
    "cv": {"n_folds": 5, "duplicates": "separate"},
    "models": [
        {"name": "head", "arch": "efficientnet_lite0", "strategy": "head", "input_px": 80},
        {"name": "cnn", "arch": "custom_cnn", "strategy": "finetune", "input_px": 64},
        {"name": "lite", "arch": "efficientnet_lite0", "strategy": "finetune", "input_px": 64, "train": {"epochs": 1}},
    ],
    "train": {"epochs": 4, "batch_size": 32, "tta_views": 1},
    "evaluate": {"n_bootstrap": 200, "n_permutations": 200},
    "quantify": {"n_bootstrap": 200, "n_permutations": 200},
}


def compare(study: Path, folder: Path, content: dict[str, Any], *, signal_s: int, timeout_s: float) -> Mischief:
    """Run an experiment here and on the cluster, be unkind to the latter, and raise where the results differ.

    Jobs have ten minutes, which the report needs too; ``signal_s`` before that they are told that their time is over.
    """
    local, cluster = RunFolder(folder / "local"), RunFolder(folder / "cluster")
    config = folder / "config.yaml"
    _copy_of(study, folder / "study-local")
    _copy_of(study, folder / "study-cluster")
    config.write_text(yaml.safe_dump({"name": "unkind", "study": str(study), **content}), encoding="utf-8")
    perikarya("train", config, "--out", local.root, "--study", folder / "study-local", "--threads", 1, "--jobs", 1)
    wanted = {
        "time": '"10"', "signal_s": signal_s, "cpus": 3, "mem": "1500M", "options": '["--exclude=cn1"]'
    }  # fmt: skip
    settings = [word for key, value in wanted.items() for word in ("--set", f"launch.slurm.{key}={value}")]
    command = ["train", config, "--out", cluster.root, "--study", folder / "study-cluster"]
    perikarya(*command, "--engine", "slurm", "--threads", 1, "--jobs", 4, *settings)
    mischief = Mischief(cluster)
    try:
        mischief.make(timeout_s=timeout_s)
    finally:
        start_node(LOST_NODE)
    different = differences(*(comparable(json.loads(r.results.read_text())) for r in (local, cluster)))
    if different:
        raise AssertionError("the results differ:\n" + "\n".join(different[:20]))
    if not cluster.report.is_file():
        raise AssertionError("there is no report")
    return mischief


@dataclass
class Mischief:
    """What is done to a run, once each, and to which task; ``log`` holds a line for each."""

    run: RunFolder
    done: dict[str, str] = field(default_factory=dict)
    _hurt: set[str] = field(default_factory=set)

    def make(self, *, timeout_s: float) -> None:
        """Be unkind to running tasks until the run has ended by itself."""
        end = time.monotonic() + timeout_s
        while live_jobs(self.run.root):
            if time.monotonic() > end:
                raise TimeoutError(f"the run did not end; so far: {self.done}")
            for key in task_keys(load_run_config(self.run)):
                owner = read_owner(self.run.task(key) / CLAIM_FILE)
                if owner and owner.token not in self._hurt and (self.run.task(key) / "state.pt").exists():
                    self._hurt_one(key, owner)
            time.sleep(0.5)
        missing = {name for name, _ in self._deeds} - self.done.keys()
        if missing:
            raise AssertionError(f"the run ended before there was an occasion for: {', '.join(missing)}")

    @property
    def _deeds(self) -> list[tuple[str, Callable[[TaskKey, Owner, str], bool]]]:
        return [
            ("lost node", self._lose_node),
            ("preemption", self._preempt),
            ("kill -9", self._kill),
            ("time limit", self._signal_time_limit),
        ]

    def _hurt_one(self, key: TaskKey, owner: Owner) -> None:
        state = job_states(self.run.root).get(str(key))
        if state is None or state.kind != "running" or state.node is None:
            return
        for name, deed in self._deeds:
            if name not in self.done and deed(key, owner, state.node):
                log.warning("%s: %s, process %d on %s", name, key, owner.pid, state.node)
                self.done[name] = str(key)
                self._hurt.add(owner.token)
                return

    def _lose_node(self, key: TaskKey, owner: Owner, node: str) -> bool:
        if node != LOST_NODE:
            return False
        stop_node(node)
        wait_until(f"{node} is given up", lambda: state_of(node).startswith("down"), timeout_s=120)
        wait_until(f"{key} was started elsewhere", lambda: self._has_moved_on(key, owner), timeout_s=240)
        start_node(node)
        return True

    def _has_moved_on(self, key: TaskKey, former: Owner) -> bool:
        owner = read_owner(self.run.task(key) / CLAIM_FILE)
        return self.run.task_is_done(key) or (owner is not None and owner.token != former.token)

    def _preempt(self, key: TaskKey, owner: Owner, node: str) -> bool:
        if node == LOST_NODE:
            return False
        asked = ("--partition=urgent", f"--nodelist={node}", "--cpus-per-task=4", "--mem=100M", "--time=1")
        slurm("sbatch", "--parsable", *asked, "--job-name=urgent", "--output=/dev/null", "--wrap=sleep 3")
        return True

    def _kill(self, key: TaskKey, owner: Owner, node: str) -> bool:
        os.kill(owner.pid, signal.SIGKILL)
        return True

    def _signal_time_limit(self, key: TaskKey, owner: Owner, node: str) -> bool:
        if node == LOST_NODE:  # it may not have come back yet, and scancel would wait for it
            return False
        slurm("scancel", "--signal=USR1", "--batch", job_states(self.run.root)[str(key)].cluster_id)
        return True


def perikarya(*words: object) -> str:
    """Run the command line on one thread and return what it prints."""
    command = [sys.executable, "-m", "perikarya", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def comparable(node: Any) -> Any:
    """Leave out of results what depends on the machine and the hour."""
    if isinstance(node, dict):
        return {key: comparable(value) for key, value in node.items() if key not in _TIMINGS}
    return [comparable(value) for value in node] if isinstance(node, list) else node


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Say in which places two results differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [d for key in {**one, **other} for d in differences(one.get(key), other.get(key), f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{where}[{i}]")]
    return [] if one == other else [f"{where}: {str(one)[:60]} here, {str(other)[:60]} on the cluster"]


def account(run: RunFolder) -> str:
    """Tell what the accounts say of all starts of all jobs of a run."""
    ids = [script.cluster_id for one in read_submissions(run.root) for script in one.scripts if script.cluster_id]
    columns = "--format=JobID%12,JobName%30,State%20,ExitCode,Elapsed,NodeList"
    return slurm("sacct", "--duplicates", "--allocations", columns, f"--jobs={','.join(ids)}")


def _copy_of(study: Path, to: Path) -> None:
    shutil.copytree(study, to, ignore=shutil.ignore_patterns("cache"), dirs_exist_ok=True)


def main() -> int:
    """Do as a person asks on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--large", action="store_true", help="3 models x 5 folds x 2 seeds, in jobs of a minute")
    parser.add_argument("--timeout-min", type=float, default=180)
    found = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    found.folder.mkdir(parents=True, exist_ok=True)
    content, signal_s = (LARGE, AFTER_A_MINUTE_S) if found.large else (SMALL, 30)
    folder = found.folder.resolve()
    compare(found.study.resolve(), folder, content, signal_s=signal_s, timeout_s=60 * found.timeout_min)
    sys.stdout.write(account(RunFolder(folder / "cluster")) + "\nThe results are the same.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

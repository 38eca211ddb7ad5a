"""A storm of ``kill -9``: random processes of a run are killed every few seconds until it is done.

Each round runs ``perikarya train`` on a small grid (a head on frozen features and a network from scratch, two folds,
two seeds). Every few seconds one of its processes is killed, the supervising one or a worker, ten times in all; where
that ended the command, it is given again. In the end ``results.json`` (without what was measured by the clock) and
every file of predictions, weights and histories must equal those of an undisturbed run to the byte, and nothing else
may lie there.

    python benchmarks/kill_storm.py                       # 20 rounds on a painted study
    python benchmarks/kill_storm.py STUDY --rounds 3      # on a study of your own

Exit code 1 if any round differs. Which process is killed when is drawn from ``--seed``; what it was doing is chance.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from _common import print_json

SUPERVISOR, WORKER = "supervisor", "worker"
BY_THE_CLOCK = ("inference_s_per_cell", "wall_s", "peak_memory_mib", "provenance")
MEASURED_FILES = ("result.json",)  # per task: times and memory; what it counts is in results.json as well
NETWORK_PX = 32
KILLS_PER_RUN = 10  # in the time of an undisturbed run; many more, and hardly any task would ever end
MAX_COMMANDS = 50
CONFIG = """\
name: kill-storm
study: {study}
seeds: [0, 1]
cv: {{n_folds: 3, folds: [0, 1], duplicates: separate}}
models:
- {{name: head, arch: efficientnet_lite0, strategy: head, input_px: {px}}}
- {{name: custom_cnn, arch: custom_cnn, strategy: finetune, input_px: {px}}}
train: {{epochs: {epochs}, batch_size: 16, lr: 0.003, tta_views: 1}}
evaluate: {{n_bootstrap: 100, n_permutations: 100}}
quantify: {{n_bootstrap: 100, n_permutations: 100}}
launch: {{jobs: {jobs}, threads: 1}}
"""


@dataclass
class Round:
    """What happened in one round."""

    wall_s: float = 0.0
    n_commands: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


class Storm:
    """Gives the command of a run until it ends well, killing its processes meanwhile."""

    def __init__(self, study: Path, folder: Path, options: argparse.Namespace) -> None:
        self.study, self.folder = study, folder
        self.every_s: float | None = options.every
        self.max_kills: int = options.kills
        self.config = folder / "config.yaml"
        self.config.write_text(CONFIG.format(study=study, px=NETWORK_PX, epochs=options.epochs, jobs=options.jobs))

    def undisturbed(self) -> Path:
        """Run the grid once in peace and return the run folder."""
        out = self.folder / "undisturbed"
        began = time.monotonic()
        code = self._start(out, log=self.folder / "undisturbed.log").wait()
        if code:
            sys.exit(f"The undisturbed run ended with exit code {code}:\n{_tail(self.folder / 'undisturbed.log')}")
        self.every_s = self.every_s or (time.monotonic() - began) / KILLS_PER_RUN
        return out

    def round(self, number: int, chance: random.Random, *, expected: Path) -> Round:
        """Run the grid in a storm and compare what comes out with the undisturbed run."""
        found = Round()
        out, log = self.folder / f"round{number}", self.folder / f"round{number}.log"
        shutil.rmtree(self.study / "cache", ignore_errors=True)  # the features are computed in the storm, too
        began = time.monotonic()
        code = -1
        while code != 0:
            found.n_commands += 1
            code = self._one_command(out, log, chance, found)
            if code not in (0, 1, -signal.SIGKILL):
                sys.exit(f"Round {number}: the command ended with exit code {code}:\n{_tail(log)}")
            if found.n_commands > MAX_COMMANDS:
                sys.exit(f"Round {number}: given {MAX_COMMANDS} times, the command does not end well:\n{_tail(log)}")
        found.wall_s = time.monotonic() - began
        found.differences = list(differences(expected, out))
        if not found.differences:
            shutil.rmtree(out)
        return found

    def _start(self, out: Path, *, log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as end:
            command = [sys.executable, "-m", "perikarya", "train", str(self.config), "--out", str(out)]
            return subprocess.Popen(command, stdout=end, stderr=end, stdin=subprocess.DEVNULL)

    def _one_command(self, out: Path, log: Path, chance: random.Random, found: Round) -> int:
        command = self._start(out, log=log)
        while found.kills.total() < self.max_kills:
            try:
                return command.wait(timeout=chance.uniform(0.3, 1.7) * (self.every_s or 0))
            except subprocess.TimeoutExpired:
                self._kill_one(command.pid, chance, found)
        return command.wait()

    def _kill_one(self, supervisor: int, chance: random.Random, found: Round) -> None:
        try:
            workers = psutil.Process(supervisor).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        victim = chance.choice([supervisor, *sorted(process.pid for process in workers)])
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return
        found.kills[SUPERVISOR if victim == supervisor else WORKER] += 1


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Name what differs between two run folders, apart from what the clock decides."""
    if _results(expected) != _results(found):
        yield "results.json differs"
    ours, theirs = _task_files(expected), _task_files(found)
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            yield f"{name} is missing"
        elif name not in ours:
            yield f"{name} was left behind"
        elif Path(name).name not in MEASURED_FILES and ours[name].read_bytes() != theirs[name].read_bytes():
            yield f"{name} differs"


def _task_files(run: Path) -> dict[str, Path]:
    """Return the files of the tasks by their path in the run; logs tell of the storm and are no results."""
    tasks = run / "tasks"
    return {str(p.relative_to(run)): p for p in tasks.rglob("*") if p.is_file() and p.suffix != ".log"}


def _results(run: Path) -> Any:
    return _timeless(json.loads((run / "results.json").read_text(encoding="utf-8")))


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _timeless(value) for key, value in content.items() if key not in BY_THE_CLOCK}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _study(given: Path | None, folder: Path) -> Path:
    """Return a study that may be written into: a copy of the one given, else a small painted one."""
    study = folder / "study"
    if given is not None:
        shutil.copytree(given, study, ignore=shutil.ignore_patterns("cache"))
        return study
    from perikarya.data.phantom import PhantomSettings, make_phantom

    make_phantom(study, settings=PhantomSettings(n_cells=400))
    return study


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, help="a study to train on; default: a phantom, made on the spot")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--every", type=float, help="seconds between two kills, on average; default: a tenth of the undisturbed run"
    )
    parser.add_argument(
        "--kills", type=int, default=10, help="in a round, at most: what follows the tasks begins anew after each"
    )
    parser.add_argument("--epochs", type=int, default=3, help="of the network that is trained from scratch")
    parser.add_argument("--jobs", type=int, default=2, help="workers at once")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = _arguments()
    kills: Counter[str] = Counter()
    n_different = 0
    with tempfile.TemporaryDirectory(prefix="kill-storm-") as temporary:
        folder = Path(temporary)
        storm = Storm(_study(options.study, folder), folder, options)
        expected = storm.undisturbed()
        for number in range(1, options.rounds + 1):
            found = storm.round(number, random.Random(f"{options.seed}/{number}"), expected=expected)
            kills += found.kills
            n_different += bool(found.differences)
            print(
                f"round {number}: {'DIFFERENT' if found.differences else 'the same'} after {found.wall_s:.0f} s,"
                f" {found.kills[WORKER]} workers and {found.kills[SUPERVISOR]} supervisors killed,"
                f" the command given {found.n_commands} times",
                flush=True,
            )
            for difference in found.differences[:20]:
                print(f"  {difference}", flush=True)
    print_json("kill_storm", rounds=options.rounds, different=n_different, kills=dict(kills), seed=options.seed)
    sys.exit(1 if n_different else 0)


if __name__ == "__main__":
    main()

"""One of the processes that train a task together: ``python -m torch.distributed.run … -m perikarya.experiment.rank``.

What it tells goes to its standard output, one JSON object a line, where ``experiment.distributed`` reads. The first
process takes words from its standard input; the others only watch it: when its other end is closed, whoever asked for
the work is gone, and all end at once. So none is ever left behind, whatever is killed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import select
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

from perikarya.errors import InterruptedWorkError, PerikaryaError
from perikarya.runs import RunFolder, TaskKey

log = logging.getLogger(__name__)

GO_ON, STOP = "go on", "stop"  # the words a first process takes
_ALONE = 3  # exit code of a process whose parent is gone
_MAX_MESSAGE = 3000  # characters; a longer line could mix with that of another process


class Link:
    """The pipes to whoever started the processes.

    Making one turns what anything else prints to the standard error.
    """

    def __init__(self, rank: int) -> None:
        self.wish_to_stop = threading.Event()
        self._rank = rank
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._out = os.dup(sys.stdout.fileno())
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        threading.Thread(target=self._listen if rank == 0 else self._watch, daemon=True).start()

    def tell(self, kind: str, **note: Any) -> None:
        """Tell something; nobody is there to hear it only where the process is about to end anyway."""
        os.write(self._out, json.dumps({"kind": kind, "rank": self._rank, **note}).encode() + b"\n")

    def may_write(self) -> None:
        """Ask whether files may be written; raise ``InterruptedWorkError`` where somebody else does it by now."""
        self.tell("may_write")
        if self._answers.get() != GO_ON:
            raise InterruptedWorkError("files are written by another worker")

    def _listen(self) -> None:
        with os.fdopen(sys.stdin.fileno(), encoding="utf-8", closefd=False) as words:
            for line in words:
                if line.strip() == STOP:
                    self.wish_to_stop.set()
                self._answers.put(line.strip())
        os._exit(_ALONE)

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(sys.stdin.fileno(), 0)  # tells of the closed end without reading words meant for the first
        poll.poll()
        os._exit(_ALONE)


def main() -> None:
    """Be one process of a team, as the environment numbers them."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    link = Link(rank)

    def on_sigterm(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal handlers are called so
        link.wish_to_stop.set()

    signal.signal(signal.SIGTERM, on_sigterm)
    words = _parser().parse_args()
    prefix = f"process {rank}: " if rank else ""
    logging.basicConfig(level=logging.WARNING if rank else logging.INFO, format=f"{prefix}%(message)s")
    try:
        _take_part(link, rank, size, words)
    except InterruptedWorkError as asked:
        link.tell("interrupted", message=str(asked)[:_MAX_MESSAGE])
    except PerikaryaError as error:
        link.tell("failed", message=str(error)[:_MAX_MESSAGE])
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - told to whoever waits; the traceback goes to the log
        log.error("%s", traceback.format_exc())
        link.tell("crashed", message=f"{type(error).__name__}: {error}"[:_MAX_MESSAGE])
        sys.exit(1)
    else:
        if rank == 0:  # the others are done when training is, before its files are written
            link.tell("done")


def _take_part(link: Link, rank: int, size: int, words: argparse.Namespace) -> None:
    from perikarya.experiment import task
    from perikarya.experiment.plan import load_run_config, make_plan
    from perikarya.experiment.strategies import Work, train_network
    from perikarya.experiment.worker import limit_threads
    from perikarya.train.distributed import joined_team

    limit_threads(words.threads)
    run, key = RunFolder(words.run), TaskKey(**json.loads(words.task))
    plan = make_plan(load_run_config(run).model_copy(update={"study": words.study}), run)
    with joined_team(rank, size, wish=link.wish_to_stop) as team:

        def progress(done: int, total: int) -> None:
            if team.is_first:
                link.tell("progress", done=done, total=total)
            if team.stopping:
                raise InterruptedWorkError("training was asked to stop")

        if team.is_first:
            task.run_task(plan, key, progress, may_write=link.may_write)
        else:
            train_network(Work(plan, key, plan.config.model(key.model), task.fold_rows(plan, key)), progress)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--study", required=True)
    parser.add_argument("--task", required=True, help="model, seed and fold, as JSON")
    parser.add_argument("--threads", type=int, required=True)
    return parser


if __name__ == "__main__":
    main()

"""Work shared by forked copies of this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from perikarya.errors import DataError
from perikarya.parallel import map_forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="without fork, items are done one after another")


def test_results_come_in_order_from_other_processes() -> None:
    seen = map_forked(lambda x: (x * x, os.getpid()), range(20), n_workers=3)
    assert [square for square, _ in seen] == [x * x for x in range(20)]
    assert 2 <= len({pid for _, pid in seen}) <= 3
    assert os.getpid() not in {pid for _, pid in seen}


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_a_function_raises_reaches_the_caller(n_workers: int) -> None:
    def refuse(x: int) -> int:
        if x in (3, 5):
            raise DataError(f"number {x} is bad")
        return x

    with pytest.raises(DataError, match="number 3 is bad"):
        map_forked(refuse, range(8), n_workers=n_workers)


def test_what_a_killed_worker_leaves_is_done_again(tmp_path: Path) -> None:
    here = os.getpid()

    def die_once(x: int) -> int:
        if x == 4 and os.getpid() != here:
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return -x

    assert map_forked(die_once, range(9), n_workers=2) == [-x for x in range(9)]
    assert (tmp_path / "died").exists()


def test_nothing_to_do_gives_nothing() -> None:
    assert map_forked(lambda x: x, [], n_workers=4) == []


def test_one_worker_does_it_all_in_this_process() -> None:
    assert set(map_forked(lambda _: os.getpid(), range(3), n_workers=1)) == {os.getpid()}


def test_workers_end_when_whoever_forked_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from perikarya.parallel import map_forked\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "def work(x):\n"
        "    (folder / f'pid-{os.getpid()}').touch()\n"
        "    time.sleep(120)\n"
        "map_forked(work, range(2), n_workers=2)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)])
    try:
        _wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    finally:
        parent.kill()
        parent.wait()
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    _wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)

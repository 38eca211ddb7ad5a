"""Work shared by forked copies of this process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

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

"""What can be taken, what falls with what failed, and the order of it all."""

from __future__ import annotations

from perikarya.launch.board import Board
from perikarya.launch.jobs import Job


def job(name: str, *needs: str) -> Job:
    return Job(name, {}, frozenset(needs))


def take_all(board: Board) -> list[str]:
    taken = []
    while (found := board.take()) is not None:
        taken.append(found.id)
    return taken


def test_jobs_are_taken_in_their_order() -> None:
    assert take_all(Board([job("b"), job("a"), job("c")])) == ["b", "a", "c"]


def test_a_job_that_is_put_back_comes_first_again() -> None:
    board = Board([job("a"), job("b")])
    first = board.take()
    assert first is not None
    board.put_back(first)
    assert take_all(board) == ["a", "b"]


def test_a_job_can_be_taken_when_the_last_of_its_needs_is_done() -> None:
    board = Board([job("late", "x", "y"), job("x"), job("y"), job("z")])
    assert take_all(board) == ["x", "y", "z"]
    board.note_done("x")
    assert not board.has_ready
    board.note_done("y")
    assert take_all(board) == ["late"]


def test_what_needs_a_failed_job_falls_with_it_through_any_number_of_steps() -> None:
    board = Board([job("a"), job("b", "a"), job("c", "b"), job("d", "c", "a"), job("free")])
    board.take()
    assert board.note_failed("a", "it broke") == [
        ("a", "it broke"),
        ("b", "needs 'a', which failed"),
        ("d", "needs 'a', which failed"),
        ("c", "needs 'b', which failed"),
    ]
    assert set(board.failed) == {"a", "b", "c", "d"}
    assert board.n_waiting == 1


def test_a_job_that_fell_is_not_revived_by_another_need_that_ends_well() -> None:
    board = Board([job("a"), job("b"), job("c", "a", "b")])
    board.note_failed("a", "it broke")
    board.note_done("b")
    assert "c" not in take_all(board)


def test_what_can_never_be_reached_is_named_with_what_it_waits_for() -> None:
    board = Board([job("a", "b"), job("b", "a"), job("c", "nobody")])
    assert dict(board.note_unreachable()) == {
        "a": "needs b, which never ended",
        "b": "needs a, which never ended",
        "c": "needs nobody, which never ended",
    }
    assert board.n_waiting == 0

"""The log of corrections: nothing lost, nothing doubled, nothing changed unnoticed, whatever happens to its writers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from perikarya.data.corrections import CorrectionLog, NewEntry, Seen, check_reader, present_labels
from perikarya.data.journal import MAX_LINE_BYTES
from perikarya.errors import DataError


def click(n: int) -> str:
    return str(uuid.UUID(int=n))


def label(n: int, cell: str = "c1", old: str | None = "a", new: str | None = "b") -> NewEntry:
    return NewEntry(click(n), "label", cell, old, new)


def undo(n: int, undoes: int, cell: str = "c1", old: str | None = "b") -> NewEntry:
    return NewEntry(click(n), "undo", cell, old, None, None, click(undoes))


def lines(log: CorrectionLog) -> list[bytes]:
    return log.path.read_bytes().splitlines()


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    head = "import os, signal, sys, uuid\nfrom pathlib import Path\nfrom perikarya.data.corrections import *\n"
    return subprocess.Popen([sys.executable, "-c", head + code, *map(str, arguments)], stdout=-1, text=True)


def test_what_was_appended_is_read_by_this_log_and_by_others(tmp_path: Path) -> None:
    mine, other = CorrectionLog(tmp_path), CorrectionLog(tmp_path)
    assert other.read() == []
    seen = Seen("net", (0.25, 0.75))
    written = mine.append([NewEntry(click(1), "label", "c1", "a", "b", seen), label(2, "c2", None)], by=" Ann ")
    assert other.read() == mine.read() == written
    assert [e.seq for e in written] == [1, 2]
    first = written[0]
    assert (first.by, first.kind, first.cell_id, first.old, first.new, first.seen) == (
        "Ann",
        "label",
        "c1",
        "a",
        "b",
        seen,
    )
    mine.append([NewEntry(click(3), "skip", "c3")], by="Ann")
    assert [e.seq for e in other.read(2)] == [3]
    assert other.read(3) == []


def test_an_entry_is_what_the_service_promises_without_the_row(tmp_path: Path) -> None:
    entry = CorrectionLog(tmp_path).append([NewEntry(click(1), "label", "c1", "a", "b", Seen("m", (1.0,)))], by="Ann")[
        0
    ]
    said = entry.as_dict()
    assert set(said) == {
        "schema_version", "seq", "id", "at", "by", "kind", "cell_id", "old", "new", "seen", "undoes",
    }  # fmt: skip
    assert json.loads(json.dumps(said)) == said
    in_file = json.loads((tmp_path / "corrections" / "log.jsonl").read_text())
    assert in_file.pop("previous") == "0" * 16
    assert in_file == said


def test_a_click_sent_twice_is_written_once(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    first = log.append([label(1), label(2, "c2")], by="Ann")
    again = CorrectionLog(tmp_path).append([label(2, "c2"), label(3, "c3"), label(3, "c3")], by="Ann")
    assert again[0] == first[1]
    assert again[1] == again[2]
    assert [e.id for e in log.read()] == [click(1), click(2), click(3)]


def test_two_different_clicks_cannot_have_one_id(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    with pytest.raises(DataError, match="entry 1, which says something else"):
        log.append([label(1, new="c")], by="Ann")
    assert len(log.read()) == 1


def test_of_a_batch_with_one_bad_click_nothing_is_written_or_remembered(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    with pytest.raises(DataError, match="no entry"):
        log.append([label(1), undo(2, undoes=9)], by="Ann")
    assert log.read() == []
    assert [e.seq for e in log.append([label(1)], by="Ann")] == [1]
    assert len(lines(log)) == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (NewEntry("x", "label", "c1", "a", "b"), "id"),
        (NewEntry(click(1), "skip", "c1", "a", "b"), "has no class"),
        (NewEntry(click(1), "label", "c1", "a", "b", None, click(2)), "names the entry"),
        (NewEntry(click(1), "undo", "c1", "a"), "names the entry"),
        (NewEntry(click(1), "paint", "c1", "a", "b"), "kind"),  # type: ignore[arg-type]
        (NewEntry(click(1), "label", "", "a", "b"), "cell_id"),
        (NewEntry(click(1), "label", "c\n1", "a", "b"), "control characters"),
        (NewEntry(click(1), "label", "c1", "a", "b\ud800"), "new: .*unicode"),
        (NewEntry(click(1), "label", "c1", "a", "b" * 501), "new"),
        (NewEntry(click(1), "label", "c1", "a", "b", Seen("m", (float("nan"),))), "prob"),
        (NewEntry(click(1), "label", "c1", "a", "b", Seen("m", (1.5,))), "prob"),
        (NewEntry(click(1), "label", "c1", "a", "b", Seen("m", (0.5,) * 1001)), "prob"),
    ],
)
def test_a_click_that_does_not_fit_gets_a_sentence(tmp_path: Path, entry: NewEntry, said: str) -> None:
    with pytest.raises(DataError, match=said):
        CorrectionLog(tmp_path).append([entry], by="Ann")
    assert not (tmp_path / "corrections").exists()


@pytest.mark.parametrize("name", ["", "  ", "a" * 101, "Ann\nLee", "Ann\x1b[31m", "\u202eAnn", "\ud800"])
def test_a_reader_has_a_printable_name(name: str) -> None:
    with pytest.raises(DataError, match="--reader"):
        check_reader(name)


def test_readers_may_be_called_anything_people_are_called() -> None:
    assert check_reader(" Zoë O'Neil-Žižek (李) ") == "Zoë O'Neil-Žižek (李)"


def test_an_undo_brings_back_what_was_there_before(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1), label(2, old="b", new="c")], by="Ann")
    assert log.append([undo(3, undoes=2)], by="Ann")[0].new == "b"
    assert log.append([undo(4, undoes=1)], by="Ann")[0].new == "a"


def test_undoing_an_earlier_label_leaves_a_later_one_of_somebody_else(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    log.append([label(2, old="b", new="c")], by="Bob")
    assert log.append([undo(3, undoes=1, old="c")], by="Ann")[0].new == "c"
    labels, reviewed = present_labels(pd.DataFrame({"cell_id": ["c1"], "label": ["a"]}), log.read())
    assert (labels.tolist(), reviewed.tolist()) == (["c"], [True])


def test_undone_twice_is_undone_once(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1), undo(2, undoes=1)], by="Ann")
    assert log.append([undo(3, undoes=1)], by="Bob")[0].new == "a"


def test_an_undo_is_final_and_of_the_same_cell(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1), undo(2, undoes=1)], by="Ann")
    with pytest.raises(DataError, match="is an undo, and that is final"):
        log.append([undo(3, undoes=2)], by="Ann")
    with pytest.raises(DataError, match="of cell c2 that could be taken back"):
        log.append([undo(4, undoes=1, cell="c2")], by="Ann")


def test_present_labels_are_those_of_the_table_with_the_log_on_top(tmp_path: Path) -> None:
    cells = pd.DataFrame(
        {"cell_id": ["c1", "c2", "c3", "c4", "c5"], "label": ["a", "a", None, "b", None]}, index=[5, 6, 7, 8, 9]
    )
    log = CorrectionLog(tmp_path)
    log.append(
        [label(1), label(2, "c2", "a", "a"), NewEntry(click(3), "skip", "c4", "b"), label(4, "c5", None)], by="Ann"
    )
    log.append([undo(5, undoes=4, cell="c5")], by="Ann")
    labels, reviewed = present_labels(cells, log.read())
    assert labels.astype(object).where(labels.notna(), None).tolist() == ["b", "a", None, "b", None]
    assert labels.index.tolist() == [5, 6, 7, 8, 9]
    assert reviewed.tolist() == [True, True, False, False, False]
    assert cells["label"].iloc[0] == "a"


def test_a_person_may_say_that_a_cell_has_no_class(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1, new=None)], by="Ann")
    labels, reviewed = present_labels(pd.DataFrame({"cell_id": ["c1"], "label": ["a"]}), log.read())
    assert (labels.isna().tolist(), reviewed.tolist()) == ([True], [True])
    assert log.append([undo(2, undoes=1, old=None)], by="Ann")[0].new == "a"


def test_labels_that_were_applied_can_still_be_taken_back(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    log.append([undo(2, undoes=1)], by="Ann")
    labels, _ = present_labels(
        pd.DataFrame({"cell_id": ["c1"], "label": ["b"]}), log.read()
    )  # a table made after line 1
    assert labels.tolist() == ["a"]


def test_the_log_of_another_study_is_refused(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1, "elsewhere")], by="Ann")
    with pytest.raises(DataError, match="'elsewhere', which this study does not have"):
        present_labels(pd.DataFrame({"cell_id": ["c1"], "label": ["a"]}), log.read())


WRITER = """
log = CorrectionLog(Path(sys.argv[1]))
print("ready", flush=True); sys.stdin.read(1)
for n in range(30):
    new = [NewEntry(str(uuid.uuid4()), "label", f"{sys.argv[2]}-{n}", "a", "b"),
           NewEntry(str(uuid.UUID(int=n)), "label", f"shared-{n}", "a", "b")]
    log.append(new, by=sys.argv[2])
"""


def test_two_processes_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    head = "import sys, uuid\nfrom pathlib import Path\nfrom perikarya.data.corrections import *\n"
    writers = [
        subprocess.Popen([sys.executable, "-c", head + WRITER, tmp_path, who], stdin=-1, stdout=-1, text=True)
        for who in ("Ann", "Bob")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # both wait for it
        assert writer.stdin is not None
        writer.stdin.write("x")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    log = CorrectionLog(tmp_path)
    cells = [entry.cell_id for entry in log.read()]
    expected = {f"{who}-{n}" for who in ("Ann", "Bob", "shared") for n in range(30)}
    assert len(cells) == len(expected)
    assert set(cells) == expected
    for who in ("Ann", "Bob"):
        mine = [cell for cell in cells if cell.startswith(who)]
        assert mine == [f"{who}-{n}" for n in range(30)]
    assert [entry.seq for entry in log.read()] == list(range(1, 91))
    log.verify()


KILLED = """
real = os.write
def half(fd, content):
    if len(content) > 100:
        real(fd, bytes(content)[:int(sys.argv[2])])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(fd, content)
os.write = half
new = [NewEntry(str(uuid.UUID(int=10 + n)), "label", f"k{n}", "a", "b") for n in range(3)]
CorrectionLog(Path(sys.argv[1])).append(new, by="Bob")
"""


@pytest.mark.parametrize("n_bytes", [1, 100, 300])
def test_what_a_process_killed_while_writing_leaves_is_set_aside_and_said(
    tmp_path: Path, n_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    watching = CorrectionLog(tmp_path)
    assert len(watching.read()) == 1
    before = log.path.read_bytes()
    with python(KILLED, tmp_path, str(n_bytes)) as process:
        assert process.wait(60) == -signal.SIGKILL
    torn = log.path.read_bytes()
    assert torn.startswith(before)
    assert len(torn) == len(before) + n_bytes
    n_whole = torn.count(b"\n")
    assert len(watching.read()) == len(CorrectionLog(tmp_path).read()) == n_whole
    assert watching.verify() == CorrectionLog(tmp_path).verify()
    log.append([label(2, "c2"), label(3, "c3")], by="Ann")
    assert log.path.read_bytes().startswith(torn + b"\n")  # no byte was removed
    n_torn = len(torn) - (torn.rfind(b"\n") + 1) + 1
    said = [json.loads(line).get("after_torn_bytes") for line in lines(log)[-2:]]
    assert said == [n_torn, None]
    assert f"{n_torn} bytes of a write that was cut off" in caplog.text
    for reader in (log, watching, CorrectionLog(tmp_path)):
        assert [e.cell_id for e in reader.read()][-2:] == ["c2", "c3"]
        assert len(reader.read()) == n_whole + 2


def test_an_entry_that_lacks_only_its_line_break_counts(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1), label(2, "c2")], by="Ann")
    log.path.write_bytes(log.path.read_bytes()[:-1])
    other = CorrectionLog(tmp_path)
    assert len(other.read()) == 1
    other.append([label(2, "c2"), label(3, "c3")], by="Ann")
    assert [e.cell_id for e in CorrectionLog(tmp_path).read()] == ["c1", "c2", "c3"]
    assert b"torn" not in other.path.read_bytes()


def test_killed_again_and_again_all_that_was_answered_is_there(tmp_path: Path) -> None:
    code = """
log = CorrectionLog(Path(sys.argv[1]))
n = 0
while True:
    entry = log.append([NewEntry(str(uuid.uuid4()), "label", "c1", "a", "b")], by="Ann")[0]
    print(entry.id, flush=True)
"""
    answered: list[str] = []
    for n_lines in (3, 40):
        with python(code, tmp_path) as process:
            assert process.stdout is not None
            answered += [process.stdout.readline().strip() for _ in range(n_lines)]
            process.send_signal(signal.SIGKILL)
            answered += process.stdout.read().split()
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Bob")
    ids = [entry.id for entry in log.read()]
    assert set(answered) <= set(ids)
    assert len(ids) == len(set(ids)) <= len(answered) + 3


def changed(log: CorrectionLog, change: Callable[[list[bytes]], list[bytes]]) -> None:
    log.path.write_bytes(b"".join(line + b"\n" for line in change(lines(log))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ls: [ls[0].replace(b'"new":"b"', b'"new":"z"'), *ls[1:]], "line 2 does not fit to the line before it"),
        (
            lambda ls: [ls[0].replace(b'"by":"Ann"', b'"by":"Eve"'), *ls[1:]],
            "line 2 does not fit to the line before it",
        ),
        (lambda ls: [*ls[:1], *ls[2:]], "line 2 is not entry 2"),
        (lambda ls: [ls[1], ls[0], *ls[2:]], "line 1 is not entry 1"),
        (lambda ls: [*ls[:2], *ls], "line 3 is not entry 3"),
        (lambda ls: [ls[0], b"oops", *ls[1:]], "line 3 does not say how many bytes"),
        (lambda ls: [ls[0], b"[1]", *ls[1:]], "line 3 does not say how many bytes"),
        (lambda ls: [b"", *ls], "line 2 does not say how many bytes"),
    ],
)
def test_a_changed_past_is_noticed(tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], said: str) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(n, f"c{n}") for n in range(1, 4)], by="Ann")
    changed(log, change)
    with pytest.raises(DataError, match=said):
        CorrectionLog(tmp_path).read()
    with pytest.raises(DataError, match=said):
        CorrectionLog(tmp_path).append([label(9)], by="Ann")
    with pytest.raises(DataError, match=r"line|shorter"):
        log.verify()


def test_the_last_line_is_guarded_by_whoever_has_read_it(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    changed(log, lambda ls: [ls[0].replace(b"Ann", b"Eve")])
    with pytest.raises(DataError, match="lines read before have changed"):
        log.verify()


def test_a_log_that_becomes_shorter_is_noticed_at_once(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1), label(2, "c2")], by="Ann")
    changed(log, lambda ls: ls[:1])
    with pytest.raises(DataError, match="has become shorter"):
        log.read()


def test_the_hash_tells_logs_apart(tmp_path: Path) -> None:
    log = CorrectionLog(tmp_path)
    empty = log.verify()
    log.append([label(1)], by="Ann")
    one = log.verify()
    log.append([label(2)], by="Ann")
    assert len({empty, one, log.verify()}) == 3
    assert log.lines(1) + lines(log)[1] + b"\n" == log.path.read_bytes()
    assert log.lines(0) == b""


GOOD = {
    "schema_version": 1, "seq": 1, "id": click(1), "at": "2026-01-01T00:00:00+00:00", "by": "Ann", "kind": "label",
    "cell_id": "c1", "old": "a", "new": "b", "seen": None, "undoes": None, "previous": "0" * 16,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"by": "Ann\u001b[2J"}, "line 1 does not fit: by"),
        ({"by": "\u202eAnn"}, "line 1 does not fit: by"),
        ({"cell_id": "c\u0000"}, "line 1 does not fit: cell_id"),
        ({"new": 7}, "line 1 does not fit: new"),
        ({"kind": "../../etc/passwd"}, "line 1 does not fit: kind"),
        ({"id": "../../etc/passwd"}, "line 1 does not fit: id"),
        ({"at": "yesterday"}, "line 1 does not fit: at"),
        ({"seen": {"model": "m", "prob": [2]}}, "line 1 does not fit: seen.prob"),
        ({"seen": {"model": "m", "prob": "0.5"}}, "line 1 does not fit: seen.prob"),
        ({"row": 3}, "line 1 does not fit: row"),
        ({"seq": "1"}, "line 1 is not entry 1"),
        ({"schema_version": 2}, "line 1 does not have schema version 1"),
        ({"previous": None}, "line 1 does not fit to the line before"),
        ({"after_torn_bytes": 5}, "line 1 does not say how many bytes"),
    ],
)
def test_a_hostile_line_gets_a_sentence_that_does_not_repeat_it(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    path = tmp_path / "corrections" / "log.jsonl"
    path.parent.mkdir()
    path.write_text(json.dumps(GOOD) + "\n")
    assert len(CorrectionLog(tmp_path).read()) == 1
    path.write_text(json.dumps(GOOD | changes) + "\n")
    with pytest.raises(DataError, match=said) as caught:
        CorrectionLog(tmp_path).read()
    assert "\x1b" not in str(caught.value)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b'{"schema_version": 1, "by": "' + b"x" * MAX_LINE_BYTES,
        b"x" * (10 * MAX_LINE_BYTES) + b"\n",
        b"[" * (MAX_LINE_BYTES - 10) + b"\n" + b"[" * 100 + b"\n",
        b"oops\n" * MAX_LINE_BYTES,
        b"\x00" * (MAX_LINE_BYTES + 1),
    ],
)
def test_a_huge_heap_of_something_else_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "corrections" / "log.jsonl"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is longer than 64 KiB|is not JSON") as caught:
        CorrectionLog(tmp_path).append([label(1)], by="Ann")
    assert len(str(caught.value)) < 1000
    assert path.read_bytes() == content


def test_a_log_that_leads_out_of_the_study_is_not_written_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log.jsonl").write_bytes(b"")
    linked_folder, linked_file = tmp_path / "s1", tmp_path / "s2"
    linked_folder.mkdir()
    (linked_folder / "corrections").symlink_to(outside)
    (linked_file / "corrections").mkdir(parents=True)
    (linked_file / "corrections" / "log.jsonl").symlink_to(outside / "log.jsonl")
    for study in (linked_folder, linked_file):
        with pytest.raises(DataError, match=r"leads out of|cannot be used"):
            CorrectionLog(study).append([label(1)], by="Ann")
    assert (outside / "log.jsonl").read_bytes() == b""


def test_a_pipe_in_place_of_the_log_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "corrections").mkdir()
    os.mkfifo(tmp_path / "corrections" / "log.jsonl")
    with pytest.raises(DataError, match="is not a regular file"):
        CorrectionLog(tmp_path).append([label(1)], by="Ann")


def test_a_folder_that_cannot_be_written_to_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be used as the log of corrections: Not a directory"):
        CorrectionLog(tmp_path / "file").append([label(1)], by="Ann")
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    real = os.open

    def read_only(path: object, flags: int, *rest: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(DataError, match=r"Read-only file system.*\n.*copy the study to where you may write"):
        log.append([label(2)], by="Ann")
    assert len(CorrectionLog(tmp_path).read()) == 1  # reading goes on


def test_a_full_disk_gets_a_sentence_and_nothing_is_believed_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = CorrectionLog(tmp_path)
    log.append([label(1)], by="Ann")
    real = os.write
    room = [50, 0]

    def full(fd: int, content: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, bytes(content)[: room.pop(0)])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(DataError, match="No space left on device"):
            log.append([label(2, "c2")], by="Ann")
    assert len(log.read()) == 1
    assert log.append([label(2, "c2")], by="Ann")[0].seq == 2
    assert len(CorrectionLog(tmp_path).read()) == 2


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_handle: object, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("perikarya.data.journal.fcntl.flock", no_locks)
    with pytest.raises(DataError, match="cannot lock files"):
        CorrectionLog(tmp_path).append([label(1)], by="Ann")


def test_the_answer_comes_after_the_disk_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_write, real_sync = os.write, os.fsync

    def write(fd: int, content: bytes) -> int:
        order.append("write")
        return real_write(fd, content)

    def sync(fd: int) -> None:
        order.append("sync")
        real_sync(fd)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", sync)
    CorrectionLog(tmp_path).append([label(1)], by="Ann")
    assert order[-2:] == ["write", "sync"]

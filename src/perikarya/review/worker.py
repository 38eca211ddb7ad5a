"""A process that does long or heavy work beside the service, and the pipes to it.

It can be ended at any moment, gives all its memory back, and takes nothing down with it when it dies. Questions and
answers are a line of JSON, which tells how many raw bytes follow it; nothing is pickled.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, NoReturn, TypeAlias

from perikarya import errors
from perikarya.errors import InterruptedWorkError, PerikaryaError
from perikarya.review.components import Progress

log = logging.getLogger(__name__)

Words: TypeAlias = Mapping[str, Any]  # what JSON can hold
Answer: TypeAlias = Callable[[Words, bytes, Progress], tuple[Words, bytes]]

IDLE_S = 300.0
_NICE = 5  # the page is served first
_TAIL = 60  # lines kept of what a process prints
_LONGEST_REASON = 300  # characters
_UNCAUGHT = 1  # exit code of Python after a traceback, whose last line names the error
_LAST_WORDS_S = 5.0  # a process that fails needs a moment to say why and to end
_N_BYTES, _SHARE, _REFUSAL, _SENTENCE = "n_bytes", "share", "refusal", "sentence"
_KINDS = {c.__name__: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PerikaryaError)}


class WorkerError(PerikaryaError):
    """A process beside the service has died, or cannot be started."""


class Worker:
    """Answers questions one at a time in a process that is started by the first and kept for those that follow.

    Parameters
    ----------
    module
        What the process runs; it must call ``answer_questions``.
    doing
        What it does, in words that begin a sentence: "The map by UMAP".
    fix
        What a person can do when it has died.
    idle_s
        The process is ended when nobody has asked for so long.
    """

    def __init__(self, module: str, *, doing: str, fix: str, idle_s: float = IDLE_S) -> None:
        self._module, self._doing, self._fix, self._idle_s = module, doing, fix, idle_s
        self._turn = threading.Lock()  # one question at a time; whoever ends the process has it
        self._lock = threading.Lock()  # of what follows
        self._process: _Process | None = None
        self._closed = False
        self._nap = threading.Timer(0, self._end_unless_busy)

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        with self._lock:
            return None if self._process is None or self._process.ended else self._process.pid

    def ask(self, words: Words, content: bytes = b"", *, progress: Progress | None = None) -> tuple[Words, bytes]:
        """Return the answer to a question.

        Parameters
        ----------
        words, content
            The question: what JSON can hold, and raw bytes.
        progress
            Called with the share that is done; where it raises, the process is ended.

        Raises
        ------
        PerikaryaError
            Of the class and with the sentence that the process refused the question with.
        WorkerError
            If the process died; the next question starts another.
        InterruptedWorkError
            If ``close`` was called.
        """
        with self._turn:
            self._nap.cancel()
            process = self._started()
            try:
                said = process.answer(words, content, progress or _quiet)
            except BaseException:
                self._end()
                raise
            if said is None:
                raise self._why_died()
            self._nap = threading.Timer(self._idle_s, self._end_unless_busy)
            self._nap.daemon = True
            self._nap.start()
        if _REFUSAL in said[0]:
            raise _refusal(said[0])
        return said

    def end(self) -> None:
        """End the process between two questions, which gives its memory back; the next question starts another."""
        with self._turn:
            self._end()

    def close(self) -> None:
        """End the process at once, whatever it is at, and answer no further questions."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.kill()
        self.end()

    def _started(self) -> _Process:
        if self._process is not None and self._process.ended:
            self._end()
        with self._lock:
            if self._closed:
                raise InterruptedWorkError(f"{self._doing} was not started, for the service is ending.")
            if self._process is None:
                try:
                    self._process = _Process(self._module)
                except OSError as error:
                    raise WorkerError(f"{self._doing} cannot be started: {error.strerror}.\nFix: {self._fix}") from None
            return self._process

    def _end(self, *, patience_s: float = 0.0) -> str:
        """End the process, if there is one, after giving it time to end by itself, and say why it ended."""
        self._nap.cancel()
        with self._lock:
            process, self._process = self._process, None
        return "" if process is None else process.end(patience_s=patience_s)

    def _end_unless_busy(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._turn.release()

    def _why_died(self) -> PerikaryaError:
        reason = self._end(patience_s=_LAST_WORDS_S)
        if self._closed:
            return InterruptedWorkError(f"{self._doing} was interrupted; it starts anew when it is asked for.")
        return WorkerError(f"{self._doing} failed: {reason}\nFix: {self._fix}")


class _Process:
    """One process, from its start to its end."""

    def __init__(self, module: str) -> None:
        question_fd, questions_fd = os.pipe()
        answers_fd, answer_fd = os.pipe()
        self._questions, self._answers = os.fdopen(questions_fd, "wb"), os.fdopen(answers_fd, "rb")
        try:
            self._popen = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
                [sys.executable, "-m", module, str(question_fd), str(answer_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[question_fd, answer_fd],
                start_new_session=True,  # Ctrl-C goes to the service, which ends its workers
            )
        except OSError:
            self._close_pipes()
            raise
        finally:
            os.close(question_fd)
            os.close(answer_fd)
        self._printed: deque[str] = deque(maxlen=_TAIL)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def answer(self, words: Words, content: bytes, progress: Progress) -> tuple[Words, bytes] | None:
        """Ask, tell ``progress`` how far it is, and return the answer; None: it has died."""
        with suppress(BrokenPipeError):  # it has died, as its answer shows
            _write(self._questions, words, content)
        while (said := _read(self._answers)) is not None and _SHARE in said[0]:
            progress(float(said[0][_SHARE]))
        return said

    def kill(self) -> None:
        """End it and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def end(self, *, patience_s: float) -> str:
        """Kill it where it lives on, wait until it is gone, and say why it ended."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=patience_s)
        self.kill()
        code = self._popen.wait()
        self._listener.join()
        self._close_pipes()
        return self._reason(code)

    def _close_pipes(self) -> None:
        with suppress(BrokenPipeError):  # of a question that it died over
            self._questions.close()
        self._answers.close()

    def _listen(self) -> None:
        if self._popen.stdout is None:
            raise ValueError("the process was started without a pipe for what it prints")
        with self._popen.stdout as lines:
            for line in lines:
                if words := line.decode(errors="replace").rstrip():
                    self._printed.append(words)
                    log.debug("process %d: %s", self._popen.pid, words)

    def _reason(self, code: int) -> str:
        if code < 0:
            return f"its process was ended by signal {-code}, as it happens where memory runs out."
        if code == _UNCAUGHT and self._printed:
            log.error("Process %d died:\n%s", self._popen.pid, "\n".join(self._printed))
            return self._printed[-1].strip()[:_LONGEST_REASON]
        return f"its process ended with code {code}."


def answer_questions(answer: Answer) -> NoReturn:
    """Be the process of a ``Worker``: answer what it asks, and end with it, busy or not.

    What packages print is no answer; the last line of a traceback is told where this process dies of an error.

    Parameters
    ----------
    answer
        Called with the words and bytes of a question and with what takes the share that is done; returns words and
        bytes. A ``PerikaryaError`` is passed on to who asked; any other error ends this process.
    """
    os.nice(_NICE)
    question_fd, answer_fd = map(int, sys.argv[1:])
    for fd in (question_fd, answer_fd):
        os.set_inheritable(fd, False)  # else whatever this process starts would keep the pipes open
    waiting: queue.SimpleQueue[tuple[Words, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(os.fdopen(question_fd, "rb"), waiting), daemon=True).start()
    answers = os.fdopen(answer_fd, "wb")
    while True:
        words, content = waiting.get()
        try:
            said, found = answer(words, content, lambda share: _write(answers, {_SHARE: share}))
        except PerikaryaError as error:
            said, found = {_REFUSAL: _kind(error), _SENTENCE: str(error)}, b""
        _write(answers, said, found)


def _take(questions: IO[bytes], waiting: queue.SimpleQueue[tuple[Words, bytes]]) -> None:
    while (question := _read(questions)) is not None:
        waiting.put(question)
    os._exit(0)  # nobody is there to hear the answer


def _write(pipe: IO[bytes], words: Words, content: bytes = b"") -> None:
    pipe.write(json.dumps({**words, _N_BYTES: len(content)}).encode() + b"\n")
    pipe.write(content)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Return the next question or answer; None where the other side ended, be it in the middle."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        return None
    words: dict[str, Any] = json.loads(line)
    n_bytes = words.pop(_N_BYTES)
    content = pipe.read(n_bytes)
    return (words, content) if len(content) == n_bytes else None


def _kind(error: PerikaryaError) -> str:
    """Name the nearest class of ``errors`` that an error belongs to."""
    return next(c.__name__ for c in type(error).__mro__ if _KINDS.get(c.__name__) is c)


def _refusal(said: Words) -> PerikaryaError:
    kind = _KINDS[said[_REFUSAL]]
    return kind.__new__(kind, said[_SENTENCE])  # not called: some make their sentence of other things


def _quiet(_share: float) -> None:
    """Say nothing."""

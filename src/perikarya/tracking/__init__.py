"""Listeners on the run folder: finished tasks and results are logged to MLflow or TensorBoard. Off by default.

Trackers read files only. They can be called after every task, at the end, later, or on a copy of the run folder:
what was logged before is not logged again. A tracker that fails never fails a run.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

from perikarya.errors import ConfigError, PerikaryaError
from perikarya.runs import RunFolder, TaskKey
from perikarya.settings import LaunchConfig
from perikarya.tracking.base import Tracker, sync

log = logging.getLogger(__name__)

TrackerName = Literal["mlflow", "tensorboard"]
TRACKERS: tuple[TrackerName, ...] = ("mlflow", "tensorboard")
_PAUSE_S = 5.0  # between two looks at the run folder while tasks end


def check_installed(names: Sequence[TrackerName]) -> None:
    """Raise ``ConfigError`` where a tracker's package is missing; loads none of them."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"Tracking by {name} needs the package {name}. Fix: pip install 'perikarya[tracking]', or leave "
                "launch.tracking empty: 'perikarya track' logs a finished run just as well."
            )


def open_tracker(run: RunFolder, name: TrackerName, uri: str | None = None) -> Tracker:
    """Connect to where a run is logged.

    Parameters
    ----------
    run
        The run folder.
    name
        ``mlflow`` or ``tensorboard``.
    uri
        MLflow: an address such as ``http://host:5000`` or ``sqlite:///file.db``, or a folder. TensorBoard: a folder.
        By default a folder beside the run, shared with other runs there.

    Raises
    ------
    ConfigError
        If its package is missing.
    RunError
        If the run or the tracker cannot be opened.
    """
    check_installed([name])
    if name == "mlflow":
        from perikarya.tracking.mlflow import MlflowTracker, default_uri

        return MlflowTracker(run, uri or default_uri(run))
    from perikarya.tracking.tensorboard import TensorBoardTracker, default_folder

    return TensorBoardTracker(run, Path(uri) if uri else default_folder(run))


def follow(run: RunFolder, launch: LaunchConfig) -> None:
    """Log what the trackers of ``launch.tracking`` lack of a run; what goes wrong is a sentence in the log."""
    for name in launch.tracking:

        def log_rest(name: TrackerName = name) -> None:
            tracker = open_tracker(run, name, _uri(name, launch))
            sync(run, tracker)
            log.info("Logged to %s. To look: %s", name, tracker.how_to_look())

        _try(log_rest, name, run)


class Follower:
    """Logs tasks as they end, in a thread of its own: ``task_ended`` costs its caller nothing.

    Use it as a context. A tracker that fails is told of once and left alone; ``follow`` makes up for it at the end.
    """

    def __init__(self, run: RunFolder, launch: LaunchConfig) -> None:
        self.run, self.launch = run, launch
        self._ended, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def task_ended(self) -> None:
        """Say that there may be something new in the run folder."""
        self._ended.set()

    def __enter__(self) -> Self:
        if self.launch.tracking:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is being logged; the rest is for ``follow``."""
        self._stop.set()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        logs = {name: self._log_new(name) for name in self.launch.tracking}
        while logs:
            self._ended.wait()
            self._ended.clear()
            if self._stop.is_set():
                return
            logs = {name: log_new for name, log_new in logs.items() if _try(log_new, name, self.run)}
            self._stop.wait(_PAUSE_S)

    def _log_new(self, name: TrackerName) -> Callable[[], None]:
        """Return what logs the tasks that have ended since it was last called; it connects when called first."""
        known: dict[TaskKey, str] = {}
        opened: list[Tracker] = []

        def log_new() -> None:
            if not opened:
                opened.append(open_tracker(self.run, name, _uri(name, self.launch)))
            sync(self.run, opened[0], known=known)

        return log_new


def _uri(name: TrackerName, launch: LaunchConfig) -> str | None:
    return launch.mlflow_uri if name == "mlflow" else None


def _try(action: Callable[[], None], name: TrackerName, run: RunFolder) -> bool:
    """Tell whether it went well; whatever ails a tracker, the run is whole and must end well."""
    try:
        action()
    except PerikaryaError as error:
        log.warning("The run was not logged to %s. %s", name, error)
    except Exception as error:  # noqa: BLE001 - of any package of any tracker
        words = f"{type(error).__name__}: {error}"
        log.warning("The run was not logged to %s (%s). Fix: perikarya track %s --to %s", name, words, run.root, name)
    else:
        return True
    return False

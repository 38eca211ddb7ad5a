"""MLflow: a run per experiment with numbers, figures and report, below it a run per task with settings and curves.

MLflow is imported where it is used (seconds). Its telemetry, on by default since version 3, is switched off.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perikarya.errors import RunError
from perikarya.experiment.plan import load_run_config, run_hashes
from perikarya.runs import RunFolder
from perikarya.tracking.base import RunRecord, Setting, TaskRecord

_TAG = "perikarya."
_TASK_DIGEST, _RUN_DIGEST = f"{_TAG}result_sha256", f"{_TAG}results_sha256"
_PARENT = "mlflow.parentRunId"
_SHOWN_AS_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # else version 3 shows pages of chat traces
_SQLITE = "sqlite:///"
_MAX_METRICS, _MAX_SETTINGS, _MAX_SETTING_CHARS = 1000, 100, 500  # of a request, to servers since version 2.20
_PAGE = 1000  # of runs, per request
# a server that does not answer costs a minute, not MLflow's four; set the variables to decide otherwise
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def default_uri(run: RunFolder) -> str:
    """Return where runs are logged unless told: a database in a folder beside the run, shared with the runs there."""
    return f"{_SQLITE}{run.root.resolve().parent / 'mlflow' / 'mlflow.db'}"


@dataclass(frozen=True)
class _Logged:
    """A task's run on the server."""

    run_id: str
    parent: str
    whole: bool


class MlflowTracker:
    """Logs to an MLflow server or database; what is there is found by tags, so a copy of a run is not logged twice."""

    def __init__(self, run: RunFolder, uri: str) -> None:
        """Connect, and make the experiment where it is new; ``uri`` may be a folder, for a database in it."""
        self.uri = uri if "://" in uri else f"{_SQLITE}{Path(uri).resolve() / 'mlflow.db'}"
        self._name = run.root.resolve().name
        self._config_hash, self._data_hash = run_hashes(run)
        self._parent: str | None = None
        self._logged: dict[str, _Logged] | None = None  # by digest; asked for once, for it holds all tasks
        with _sentences(self.uri):
            self._client = _client(self.uri)
            self._experiment = self._experiment_of(load_run_config(run).name)

    def _experiment_of(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        place = _artifacts_beside(self.uri)
        return str(self._client.create_experiment(name, artifact_location=place, tags=_SHOWN_AS_TRAINING))

    def known(self, digests: Collection[str]) -> set[str]:
        """Find the tasks' runs by tag, and with them the parent this run, or a copy of it, was given."""
        if self._logged is None:
            with _sentences(self.uri):
                self._logged = self._find_logged()
        mine = {d: self._logged[d] for d in digests if d in self._logged}
        if self._parent is None and mine:
            self._parent = next(iter(mine.values())).parent
        return {d for d, logged in mine.items() if logged.whole}

    def log_task(self, task: TaskRecord) -> None:
        """Log a task below its parent; its run is called finished last."""
        with _sentences(self.uri):
            begun = (self._logged or {}).get(task.digest)
            run_id = begun.run_id if begun else self._begin_task(task)
            self._log_settings(run_id, task.settings)
            self._log_metrics(run_id, [(n, x, task.ended_s, 0) for n, x in task.numbers.items()])
            self._log_metrics(run_id, _points(task))
            self._client.set_terminated(run_id, end_time=_ms(task.ended_s))

    def log_run(self, run: RunRecord) -> None:
        """Log numbers and files of the run as a whole, unless it holds the same already."""
        with _sentences(self.uri):
            parent = self._parent_run(started_s=time.time())
            tags = self._client.get_run(parent).data.tags
            if f"{_TAG}folder" not in tags:
                self._log_settings(parent, run.settings)
                self._client.set_tag(parent, f"{_TAG}folder", str(run.folder.resolve()))
            if not run.digest or tags.get(_RUN_DIGEST) == run.digest:
                return
            now_s = time.time()
            self._log_metrics(parent, [(name, value, now_s, 0) for name, value in run.numbers.items()])
            for path in run.figures:
                self._client.log_artifact(parent, str(path), "figures")
            for path in run.pages:
                self._client.log_artifact(parent, str(path))
            self._set_tags(parent, _tags(run.facts) | {_RUN_DIGEST: run.digest})
            self._client.set_terminated(parent)

    def how_to_look(self) -> str:
        """Name the command, or the address of the server."""
        if self.uri.startswith(("http://", "https://")):
            return f"open {self.uri}"
        return f"MLFLOW_DISABLE_TELEMETRY=true mlflow ui --backend-store-uri {shlex.quote(self.uri)}"

    def _begin_task(self, task: TaskRecord) -> str:
        parent = self._parent_run(started_s=task.started_s)
        tags = {**_tags(task.facts), _TASK_DIGEST: task.digest, _PARENT: parent}
        return self._create(task.name, tags, started_s=task.started_s)

    def _parent_run(self, *, started_s: float) -> str:
        """Return the id of the run that the tasks' runs lie below; it is made with the first thing that is logged."""
        if self._parent is None:
            tags = _tags({"config_hash": self._config_hash, "data_hash": self._data_hash})
            self._parent = self._create(self._name, tags, started_s=started_s)
        return self._parent

    def _create(self, name: str, tags: Mapping[str, str], *, started_s: float) -> str:
        made = self._client.create_run(self._experiment, start_time=_ms(started_s), run_name=name, tags=dict(tags))
        return str(made.info.run_id)

    def _find_logged(self) -> dict[str, _Logged]:
        found: dict[str, _Logged] = {}
        token = None
        while True:
            query = f"tags.`{_TAG}config_hash` = '{self._config_hash}'"
            page = self._client.search_runs([self._experiment], query, max_results=_PAGE, page_token=token)
            for run in page:
                tags = run.data.tags
                if _TASK_DIGEST in tags and _PARENT in tags:
                    whole = run.info.status == "FINISHED"
                    found[tags[_TASK_DIGEST]] = _Logged(run.info.run_id, tags[_PARENT], whole)
            token = page.token
            if not token:
                return found

    def _log_settings(self, run_id: str, settings: Mapping[str, Setting]) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_MAX_SETTING_CHARS]) for name, value in settings.items()]
        for i in range(0, len(params), _MAX_SETTINGS):
            self._client.log_batch(run_id, params=params[i : i + _MAX_SETTINGS])

    def _log_metrics(self, run_id: str, points: Sequence[tuple[str, float, float, int]]) -> None:
        """Log points of (name, value, seconds since 1970, step)."""
        from mlflow.entities import Metric

        metrics = [Metric(name, value, _ms(at_s), step) for name, value, at_s, step in points]
        for i in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(run_id, metrics=metrics[i : i + _MAX_METRICS])

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError:
        raise RunError("Logging to MLflow needs its package. Fix: pip install 'perikarya[tracking]'") from None
    for chatty in ("mlflow", "alembic"):  # they tell of every table they make
        logging.getLogger(chatty).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _artifacts_beside(uri: str) -> str | None:
    """Return where files go: beside a database file, else where the server says."""
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).resolve().parent / "artifacts").as_uri()


@contextmanager
def _sentences(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into a sentence."""
    try:
        yield
    except ImportError as error:
        raise RunError(f"MLflow cannot be loaded ({error}).\nFix: pip install 'perikarya[tracking]'") from None
    except OSError as error:
        raise RunError(f"Nothing can be logged to {uri}: {error}.") from None
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):
            raise
        first = (str(error).splitlines() or ["no reason given"])[0]
        raise RunError(
            f"MLflow at {uri} refused: {first[:300]}\n"
            "Nothing of the run is lost; what was logged stays. Fix: mend that, then 'perikarya track' adds the rest."
        ) from None


def _points(task: TaskRecord) -> list[tuple[str, float, float, int]]:
    names = [str(c) for c in task.curves if c != "epoch"]
    return [
        (name, float(row[name]), task.time_of(i), int(row["epoch"]))
        for i, row in enumerate(task.curves.to_dict("records"))
        for name in names
        if row[name] == row[name]  # NaN: a class without cells
    ]


def _tags(facts: Mapping[str, str]) -> dict[str, str]:
    return {f"{_TAG}{name}": value for name, value in facts.items()}


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

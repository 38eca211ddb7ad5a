"""Maps of all cells, and the components they are drawn from; made in the background, kept in the study's cache."""

from __future__ import annotations

import base64
import logging
import threading
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from perikarya.data.store import OpenStudy
from perikarya.errors import InterruptedWorkError, PerikaryaError, UnknownNameError
from perikarya.review.components import N_COMPONENTS, Floats32, Progress, principal_components
from perikarya.review.map_source import map_source
from perikarya.review.umap_work import UmapWork
from perikarya.runs import replacing

log = logging.getLogger(__name__)

Method: TypeAlias = Literal["pca", "umap"]
METHODS: tuple[Method, ...] = get_args(Method)
_N_COLUMNS: dict[Method, int] = {"pca": N_COMPONENTS, "umap": 2}  # of what is kept for a method
_COMPONENTS_SHARE = 0.3  # of the time a map by UMAP takes

_Tell: TypeAlias = Callable[[float, str], None]  # share done, what is being done


@dataclass(frozen=True)
class _State:
    status: Literal["absent", "working", "ready", "failed"]
    progress: float = 0.0
    message: str = ""


class Maps:
    """The maps of a study by each method; they are made in the background, one at a time.

    Parameters
    ----------
    opened
        The study.
    features_nd
        Shape (n_cells, n_features), mapped from disk; None where there are none, see ``map_source``.
    words
        What the features are of.

    Attributes
    ----------
    has_features
        Whether the components are of features: only then cells that are near are alike.
    """

    def __init__(self, opened: OpenStudy, features_nd: NDArray[Any] | None, words: str = "") -> None:
        self._source = map_source(opened, features_nd, words)
        self.has_features = self._source.is_features
        self._is_quick = features_nd is not None
        self._folder, self._n_cells = opened.root / "cache", len(opened.cells)
        self._states: dict[Method, _State] = {}
        self._made: dict[Method, Floats32] = {}
        self._lock = threading.Lock()  # of states and what is made
        self._turn = threading.Lock()  # of the work
        self._closed = threading.Event()
        self._umap = UmapWork()

    def state(self, method: str) -> dict[str, Any]:
        """Return how far a map is, and the map once it is there: ``MapState`` of the page.

        Raises
        ------
        UnknownNameError
            If there is no such method.
        """
        known = _method(method)
        self._kept(known)
        with self._lock:
            state, made_nk = self._states.get(known, _State("absent")), self._made.get(known)
        packed = "" if made_nk is None else base64.b64encode(made_nk[:, :2].astype("<f4").tobytes()).decode()
        return {"method": known, **asdict(state), "features": self._source.words, "xy_b64": packed}

    def start(self, method: str) -> dict[str, Any]:
        """Begin to make a map in the background, unless it is there or being made, and return its state."""
        known = _method(method)
        if self._kept(known) is None:
            with self._lock:
                state = self._states.get(known)
                if not self._closed.is_set() and (state is None or state.status == "failed"):
                    self._states[known] = _State("working", 0.0, "Waiting for its turn.")
                    threading.Thread(target=self._work, args=(known,), name=f"map-{known}", daemon=True).start()
        return self.state(known)

    def warm_up(self) -> None:
        """Begin to make the components that neighbours are found by, where that takes seconds."""
        if self._is_quick:
            self.start("pca")

    def components(self) -> Floats32 | None:
        """Return the components, shape (n_cells, 32), or None while they are not there."""
        return self._kept("pca")

    def close(self) -> None:
        """End all work; what is not finished is not kept."""
        self._closed.set()
        self._source.close()
        self._umap.cancel()

    def _kept(self, method: Method) -> Floats32 | None:
        """Return what was made, now or by an earlier session."""
        with self._lock:
            if method not in self._made and method not in self._states:
                found_nk = _read(self._path(method), (self._n_cells, _N_COLUMNS[method]))
                if found_nk is not None:
                    self._made[method] = found_nk
                    self._states[method] = _State("ready", 1.0)
            return self._made.get(method)

    def _path(self, method: Method) -> Path:
        return self._folder / f"review-{method}-{self._source.key}.npz"

    def _work(self, method: Method) -> None:
        try:
            with self._turn:
                self._make(method, lambda share, doing: self._set(method, _State("working", share, doing)))
        except InterruptedWorkError as error:
            self._set(method, _State("absent", 0.0, str(error)))
        except PerikaryaError as error:
            self._set(method, _State("failed", 0.0, str(error)))
        except Exception as error:  # a thread has nobody above it; the page says what the log explains
            log.exception("The map by %s failed", method)
            self._set(method, _State("failed", 0.0, f"The map failed unexpectedly ({error!r}); the log says more."))

    def _make(self, method: Method, tell: _Tell) -> Floats32:
        kept_nk = self._kept(method)
        if kept_nk is not None:
            return kept_nk
        if method == "umap":
            components_nk = self._make("pca", lambda share, doing: tell(_COMPONENTS_SHARE * share, doing))
            made_nk = self._umap.run(
                components_nk,
                progress=lambda share: tell(_COMPONENTS_SHARE + (1 - _COMPONENTS_SHARE) * share, "Laying cells out."),
            )
        else:
            made_nk = self._make_components(tell)
        message = _write(self._path(method), made_nk)
        with self._lock:
            self._made[method] = made_nk
            self._states[method] = _State("ready", 1.0, message)
        return made_nk

    def _make_components(self, tell: _Tell) -> Floats32:
        def going_on(start: float, end: float, doing: str) -> Progress:
            def progress(share: float) -> None:
                if self._closed.is_set():
                    raise InterruptedWorkError("The service is ending; the map was not finished.")
                tell(start + (end - start) * share, doing)

            return progress

        loaded = self._source.share
        table_nd = self._source.load(going_on(0.0, loaded, f"Reading {self._source.words.partition(':')[0]}."))
        return principal_components(table_nd, progress=going_on(loaded, 1.0, "Finding the main differences."))

    def _set(self, method: Method, state: _State) -> None:
        with self._lock:
            self._states[method] = state


def _method(name: str) -> Method:
    for method in METHODS:
        if method == name:
            return method
    raise UnknownNameError("map", name, METHODS)


def _read(path: Path, shape: tuple[int, int]) -> Floats32 | None:
    """Read what an earlier session kept; None where there is nothing, or nothing that can be used."""
    try:
        with path.open("rb") as handle:  # numpy leaves files open that are no archives
            found_nk = np.asarray(np.load(handle, allow_pickle=False)["values"], np.float32)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read (%s); it is made anew.", path, error)
        return None
    return found_nk if found_nk.shape == shape and np.isfinite(found_nk).all() else None


def _write(path: Path, made_nk: Floats32) -> str:
    """Keep what was made for the next session; return what a person should know of it."""
    try:
        with replacing(path) as temporary, temporary.open("wb") as handle:
            np.savez(handle, values=made_nk)
    except OSError as error:
        log.warning("%s cannot be written (%s)", path, error)
        return f"Kept for this session only: {path.parent} cannot be written to ({error.strerror})."
    return ""

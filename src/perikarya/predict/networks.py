"""A model as a function of windows: resizing, views, networks, softmax, calibration, and the mean over all of it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from perikarya.data.augment import resize_batch, tta_views
from perikarya.evaluate.calibration_map import Calibration, Floats, softmax
from perikarya.predict.backends import Backend, open_backend, usable_threads
from perikarya.predict.folder import ModelFolder

if TYPE_CHECKING:
    from perikarya.predict.fields import PredictOptions
    from perikarya.predict.from_run import RunModel

DEFAULT_VIEWS = 4  # where test-time augmentation is asked of a model that was never evaluated with it
_PIXELS_AT_ONCE = 2**17  # of a batch: its activations then stay in the cache, and calls cost nothing beside them
_CELLS_AT_ONCE = (4, 64)


class Networks:
    """One network of a model, or all of them, on one backend.

    Parameters
    ----------
    model
        An exported model or one that is still in its run.
    options
        Views, networks, calibration, backend, threads, features and the size of a batch are taken from here.

    Attributes
    ----------
    n_views
        Views of each cell that are averaged.
    batch_size
        Cells that should be handed over at once.

    Raises
    ------
    ConfigError, DataError
        See ``backends.open_backend``.
    """

    def __init__(self, model: ModelFolder | RunModel, options: PredictOptions) -> None:
        manifest = model.manifest
        self.manifest = manifest
        networks = range(len(manifest.networks)) if options.ensemble else range(1)
        self._threads = usable_threads(options.threads)
        self._backends: list[Backend] = [
            open_backend(
                model,
                i,
                backend=options.backend,
                threads=self._threads,
                features=options.features and i == 0,
            )
            for i in networks
        ]
        self._calibrations = [
            Calibration.from_dict(manifest.networks[i].calibration or {})
            if options.calibrated and manifest.networks[i].calibration is not None
            else None
            for i in networks
        ]
        self.n_views = (manifest.tta_views if manifest.tta_views > 1 else DEFAULT_VIEWS) if options.tta else 1
        self.batch_size = options.batch_size or batch_size_of(manifest.input_px)
        self._turn = nullcontext() if self._backends[0].parallel else Lock()
        cv2.setNumThreads(1)  # cells are small, and several are worked on at once

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backends[0].name

    @property
    def n_networks(self) -> int:
        """How many networks are averaged."""
        return len(self._backends)

    @contextmanager
    def workers(self) -> Iterator[ThreadPoolExecutor]:
        """Yield the threads that should ask: one per core, or two where one prepares while the other one is served."""
        pool = ThreadPoolExecutor(self._threads if self._backends[0].parallel else 2, "perikarya-predict")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def prob(self, crops_nhwc: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Predict some cells; safe to call from several threads.

        Parameters
        ----------
        crops_nhwc
            Windows of the model's size and scale, shape (n, window_px, window_px, 4), uint8.

        Returns
        -------
        Probabilities, shape (n, n_classes), rows sum to 1, and the features of the first network and the first view,
        shape (n, n_features), where they were asked for.
        """
        x_nhwc = resize_batch(crops_nhwc, self.manifest.input_px)  # once for all views and networks
        views = tta_views(x_nhwc, self.n_views)
        features: NDArray[np.float32] | None = None
        by_network: list[Floats] = []
        for backend, calibration in zip(self._backends, self._calibrations, strict=True):
            by_view: list[Floats] = []
            for view in views:
                with self._turn:
                    logits, found = backend.run(view)
                features = found if features is None else features
                by_view.append(softmax(logits.astype(np.float64)))
            mean_nk = np.mean(by_view, axis=0)
            by_network.append(mean_nk if calibration is None else calibration.apply(mean_nk))
        return np.mean(by_network, axis=0).astype(np.float32), features


def batch_size_of(input_px: int) -> int:
    """Return how many cells of that input size are computed at once on a CPU."""
    least, most = _CELLS_AT_ONCE
    return int(np.clip(_PIXELS_AT_ONCE // input_px**2, least, most))

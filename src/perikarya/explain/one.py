"""Where a network looks at one cell: a map by a network that was not trained on it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from importlib import util
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perikarya.config import ExperimentConfig, ModelConfig
from perikarya.data.augment import resize_batch
from perikarya.data.splits import FoldPlan
from perikarya.data.store import OpenStudy
from perikarya.errors import ConfigError, DataError, RunError
from perikarya.evaluate.outputs import PREDICTION_FILES, load_result
from perikarya.experiment.plan import task_keys
from perikarya.runs import RunFolder, TaskKey
from perikarya.schema import EXTERNAL, table_columns

if TYPE_CHECKING:
    from perikarya.models.build import CellNetwork

_MOST_NETWORKS = 3  # kept ready
_PROB = "prob_"  # begins the columns of predictions
_PACKAGES = ("torch", "timm", "safetensors")


class CellExplainer:
    """Explains cells of a study by the networks of a run; torch is imported when a cell is first asked for.

    Parameters
    ----------
    run
        The run folder.
    opened
        The study it was trained on.
    config
        The run's resolved configuration.
    """

    def __init__(self, run: RunFolder, opened: OpenStudy, config: ExperimentConfig) -> None:
        self._run, self._opened, self._config = run, opened, config
        self._networks: OrderedDict[TaskKey, CellNetwork] = OrderedDict()
        self._lock = threading.Lock()  # one map at a time: a network is changed while it is explained

    def explain(self, model: str, row: int, about: int) -> NDArray[np.float32]:
        """Map how much each place of a cell spoke for a class.

        Parameters
        ----------
        model
            Name of a model of the run.
        row
            Of the cell in the table.
        about
            Code of the class.

        Returns
        -------
        Shape (input_px, input_px), float32, 0 to 1, by the method to trust for the network; it covers the crop. All 0
        where nothing spoke for the class.

        Raises
        ------
        ConfigError
            If there is no such model, it cannot be explained, or a package is missing.
        DataError
            If there is no such cell or class.
        RunError, WeightsError
            If no finished network is there that was not trained on the cell, or its weights are not.
        """
        settings = self._config.model(model)
        self._check(row, about)
        key = self._network_for(settings, row)
        with self._lock:
            from perikarya.models.explain import advised_method, class_maps

            network = self._network(key)
            x_nhwc = resize_batch(self._opened.read_crops(np.array([row])), int(settings.input_px or 0))
            x_nchw = np.ascontiguousarray(x_nhwc.transpose(0, 3, 1, 2))
            (map_hw,) = class_maps(network, settings.arch, x_nchw, [about], method=advised_method(network))
            return np.asarray(map_hw)

    def _check(self, row: int, about: int) -> None:
        if not 0 <= row < len(self._opened.cells):
            raise DataError(f"There is no cell in row {row}; the study has {len(self._opened.cells)}.")
        if not 0 <= about < len(self._opened.study.class_names):
            raise DataError(f"There is no class {about}: the study has {len(self._opened.study.class_names)}.")
        missing = [name for name in _PACKAGES if util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"To see where a network looks takes {', '.join(missing)}, not installed here.\n"
                "Fix: pip install 'perikarya[train,explain]', then start the page again."
            )

    @cached_property
    def _fold_of(self) -> dict[str, int]:
        frame = FoldPlan.load(self._run.folds).frame
        return dict(zip(frame["cell_id"].to_numpy(dtype=str), frame["fold"].to_numpy(), strict=True))

    def _network_for(self, model: ModelConfig, row: int) -> TaskKey:
        """Choose the network: that which the cell's fold tested; for a cell of no fold, the first finished one."""
        cell = self._opened.cells.iloc[row]
        fold = self._fold_of.get(str(cell["cell_id"]))
        done = [key for key in task_keys(self._config) if key.model == model.name and self._run.task_is_done(key)]
        if not done:
            raise RunError(
                f"{model.name} has no finished training, so there is no network to ask.\n"
                "Fix: finish the run with the command that started it; 'perikarya status' shows how far it is."
            )
        kfold = self._config.cv.scheme == "kfold"
        fair = [key for key in done if fold is None or (kfold and key.fold == fold)]
        if not fair:
            way = f", or train fold {fold} too" if kfold else ""
            raise RunError(
                f"Every finished network of {model.name} was trained on this cell, or stopped by it.\n"
                "What a network sees in a cell it has learnt by heart says little of how it sees new ones. "
                f"Fix: choose a cell of the external set{way}."
            )
        kept = [key for key in fair if (self._run.task(key) / "model.safetensors").is_file()]
        chosen = (kept or fair)[0]
        self._check_study(chosen, known=fold is not None or cell["set"] == EXTERNAL)
        return chosen

    def _check_study(self, key: TaskKey, *, known: bool) -> None:
        """Refuse a cell of which it is not known whether the network was trained on it, and other classes.

        A study whose labels were corrected since has other data, but its cells are the same and are known by name.
        """
        if load_result(self._run, key)["data_hash"] == self._opened.data_hash:
            return
        class_names = self._opened.study.class_names
        if self._classes_of(key) != class_names:
            raise RunError(
                f"{key} was not trained on the classes of {self._opened.root} ({', '.join(class_names)}).\n"
                "Its answers would be taken for those about other classes. "
                "Fix: name the study it was trained on with --study."
            )
        if not known:
            raise RunError(
                f"{key} was trained on an earlier state of {self._opened.root}, which names this cell differently.\n"
                "So it may have been trained on it. Fix: name the study it was trained on with --study."
            )

    def _classes_of(self, key: TaskKey) -> tuple[str, ...] | None:
        for name in PREDICTION_FILES.values():
            path = self._run.task(key) / name
            if path.is_file():
                columns = table_columns(path, what="predictions")
                return tuple(c.removeprefix(_PROB) for c in columns if c.startswith(_PROB))
        return None

    def _network(self, key: TaskKey) -> CellNetwork:
        if key not in self._networks:
            from perikarya.models.trained import trained_network

            self._networks[key] = trained_network(
                self._run,
                key,
                self._config,
                n_classes=len(self._opened.study.class_names),
                weights_sha256=str((load_result(self._run, key).get("weights") or {}).get("sha256", "")),
            )
        self._networks.move_to_end(key)
        if len(self._networks) > _MOST_NETWORKS:
            self._networks.popitem(last=False)
        return self._networks[key]

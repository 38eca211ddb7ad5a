"""What computes a network: torch, ONNX Runtime or OpenVINO, behind one small interface.

On a CPU a network runs on one core, and several batches run at once, one in each thread of the caller: nothing is
handed back and forth inside a batch, so two cores do twice the work of one also where a layer takes microseconds, and
a core that decodes or writes meanwhile holds no other one up. Torch, which holds the interpreter's lock between
layers, divides each layer over the cores instead.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from threading import local
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from perikarya.errors import ConfigError, DataError, UnknownNameError
from perikarya.parallel import n_cores
from perikarya.predict.folder import ModelFolder

if TYPE_CHECKING:
    from perikarya.predict.from_run import RunModel

BackendName = Literal["onnxruntime", "openvino", "torch"]
Answer = tuple[NDArray[np.float32], NDArray[np.float32] | None]  # logits (n, n_classes), features (n, n_features)

BACKENDS: dict[BackendName, str] = {"onnxruntime": "predict", "openvino": "openvino", "torch": "train"}  # name -> extra
# networks whose answers change by more than 1e-4 from one start of a backend to the next: with OpenVINO 2026.4 those of
# SwinV2, right at some starts and up to 8e-3 off at others
UNSTEADY: dict[BackendName, frozenset[str]] = {"openvino": frozenset({"hybrid2", "swinv2_large"})}
AUTO = "auto"
INPUT, LOGITS, FEATURES = "crops", "logits", "features"  # names inside a graph

log = logging.getLogger(__name__)


class Backend(Protocol):
    """One network, ready to be asked.

    Attributes
    ----------
    name
        In ``BACKENDS``.
    parallel
        Whether it is asked from several threads at once, each of which then has a core of its own.
    """

    name: BackendName
    parallel: bool

    def run(self, crops_nhwc: NDArray[np.uint8]) -> Answer:
        """Map cells (n, input_px, input_px, 4), uint8, any n, to logits and, where they were asked for, features."""


def open_backend(
    model: ModelFolder | RunModel,
    network: int,
    *,
    backend: str = AUTO,
    threads: int | None = None,
    features: bool = False,
) -> Backend:
    """Open one network of a model.

    Parameters
    ----------
    model
        An exported model or one that is still in its run.
    network
        Its position in the manifest.
    backend
        ``auto`` or a name of ``BACKENDS``.
    threads
        Cores it may use; None: all.
    features
        Whether features are wanted beside logits.

    Raises
    ------
    ConfigError
        If there is no such backend, it is not installed, or it cannot compute a model of this format.
    DataError
        If a file of the model cannot be used.
    """
    name = backend_of(model, backend)
    n_threads = usable_threads(threads)
    if name == "torch":
        return TorchBackend(model, network, threads=n_threads, features=features)
    folder = _folder(model, name)
    if name == "onnxruntime":
        return OnnxRuntimeBackend(folder, network, features=features)
    return OpenVinoBackend(folder, network, threads=n_threads, features=features)


def backend_of(model: ModelFolder | RunModel, wanted: str = AUTO) -> BackendName:
    """Return which backend computes a model, and check that it can.

    Chosen automatically, ONNX Runtime computes ONNX graphs (OpenVINO, where only that is installed), OpenVINO its own
    graphs and torch bare tensors.

    Raises
    ------
    ConfigError
        If there is no such backend, it is not installed, or it cannot compute this model.
    """
    kind = model.manifest.format
    able: dict[str, tuple[BackendName, ...]] = {
        "onnx": ("onnxruntime", "openvino"),
        "openvino": ("openvino",),
        "safetensors": ("torch",),
    }
    if wanted == AUTO:
        installed = [name for name in able[kind] if find_spec(name) is not None]
        chosen = installed[0] if installed else able[kind][0]
        if installed and chosen != able[kind][0]:
            log.info("%s is not installed; %s computes the network", able[kind][0], chosen)
    elif wanted in BACKENDS:
        chosen = next(name for name in BACKENDS if name == wanted)
    else:
        raise UnknownNameError("backend", wanted, (AUTO, *BACKENDS))
    if chosen not in able[kind]:
        raise ConfigError(
            f"{chosen} cannot compute {model.manifest.name}, which is stored as {kind}.\n"
            f"Fix: --backend {' or '.join(able[kind])}, or export the model in another --format."
        )
    if model.manifest.arch in UNSTEADY.get(chosen, ()):
        raise ConfigError(
            f"{chosen} gives other probabilities for a {model.manifest.arch} each time it starts, so it cannot compute "
            f"{model.manifest.name}.\nFix: export it as ONNX and install ONNX Runtime."
        )
    if find_spec(chosen) is None:
        raise ConfigError(
            f"{model.manifest.name} is stored as {kind}, and the package {chosen}, which computes that, is not "
            f'installed.\nFix: pip install "perikarya[{BACKENDS[chosen]}]".'
        )
    return chosen


def usable_threads(wanted: int | None) -> int:
    """Return how many threads to use: as many as physical cores that this process may use, or fewer where so wanted.

    More threads than cores take each other's turns; one layer then waits for the slowest of them.
    """
    import psutil

    cores = min(n_cores(), psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    return max(1, cores if wanted is None else min(wanted, n_cores()))


def _folder(model: ModelFolder | RunModel, name: BackendName) -> ModelFolder:
    if not isinstance(model, ModelFolder):
        raise ConfigError(f"{name} computes exported models only.\nFix: 'perikarya export RUN', or --backend torch.")
    return model


class OnnxRuntimeBackend:
    """An ONNX graph on the CPU."""

    name: BackendName = "onnxruntime"
    parallel = True

    def __init__(self, model: ModelFolder, network: int, *, features: bool) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # plans of memory are kept for every size of a batch, and sizes differ
        options.enable_mem_pattern = False
        path = model.network_path(network)
        refused = (errors.Fail, errors.InvalidGraph, errors.InvalidProtobuf, errors.NotImplemented)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except refused as error:
            raise _unusable(path, self.name, error) from None
        self._outputs = [LOGITS, FEATURES] if features else [LOGITS]

    def run(self, crops_nhwc: NDArray[np.uint8]) -> Answer:
        """Map cells to logits and features; see ``Backend``."""
        found = self._session.run(self._outputs, {INPUT: np.ascontiguousarray(crops_nhwc)})
        return found[0], found[1] if len(found) > 1 else None


class OpenVinoBackend:
    """An OpenVINO or ONNX graph on the CPU, in fp32: half precision, where a CPU has it, would change answers."""

    name: BackendName = "openvino"
    parallel = True

    def __init__(self, model: ModelFolder, network: int, *, threads: int, features: bool) -> None:
        import openvino

        path = model.network_path(network)
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._compiled: Any = openvino.Core().compile_model(path, "CPU", settings)
        except RuntimeError as error:
            raise _unusable(path, self.name, error) from None
        self._features = features
        self._local = local()

    def run(self, crops_nhwc: NDArray[np.uint8]) -> Answer:
        """Map cells to logits and features; see ``Backend``."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        request.infer({INPUT: np.ascontiguousarray(crops_nhwc)})
        logits = request.get_tensor(LOGITS).data.copy()
        return logits, request.get_tensor(FEATURES).data.copy() if self._features else None


class TorchBackend:
    """A network that torch computes, from a run folder or from exported tensors; on a GPU where there is one."""

    name: BackendName = "torch"
    parallel = False

    def __init__(self, model: ModelFolder | RunModel, network: int, *, threads: int, features: bool) -> None:
        import torch

        from perikarya.predict.graphs import CellGraph, read_network

        built = read_network(model, network) if isinstance(model, ModelFolder) else model.build(network)
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = CellGraph(built).eval().to(self._device).to(memory_format=torch.channels_last)
        self._features = features

    def run(self, crops_nhwc: NDArray[np.uint8]) -> Answer:
        """Map cells to logits and features; see ``Backend``."""
        import torch

        with torch.inference_mode():
            crops = torch.from_numpy(np.ascontiguousarray(crops_nhwc)).to(self._device)
            logits, features = self._module(crops)
        return logits.cpu().numpy(), features.cpu().numpy() if self._features else None


def _unusable(path: object, name: str, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be computed by this version of {name} ({str(error).strip().splitlines()[0][:200]}).\n"
        f"Fix: pip install --upgrade {name}, or export the model again with the versions of this machine."
    )

"""Make a folder of a run's model that predicts anywhere."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from perikarya.errors import ConfigError, RunError, UnknownNameError
from perikarya.predict.agreement import (
    N_CELLS,
    RunCells,
    cells_of_run,
    compare,
    random_cells,
    refuse_difference,
    summarise,
)
from perikarya.predict.backends import open_backend
from perikarya.predict.card import card
from perikarya.predict.folder import ModelFolder, new_model_folder, open_model
from perikarya.predict.from_run import RunModel, model_of_run
from perikarya.predict.graphs import SUFFIXES, write_onnx, write_openvino, write_openvino_of, write_tensors
from perikarya.predict.manifest import MODEL_FILE, Format, ModelManifest, NetworkFile, Precision
from perikarya.predict.quantise import N_CALIBRATION, N_HELD_OUT, refuse_changed_classes, write_int8
from perikarya.runs import RunFolder, file_sha256, provenance, write_text

if TYPE_CHECKING:
    from perikarya.models.build import CellNetwork
    from perikarya.predict.agreement import Compared, Crops

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # (networks done, in all)
_NEEDS: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "safetensors": ("safetensors",),
}
_EXTRAS: dict[str, str] = {"openvino": "openvino", "safetensors": "train"}  # package -> extra; others: export


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, and as what.

    ``model``, ``seed`` and ``folds`` are those of ``from_run.model_of_run``; ``study`` is where the study is now, None:
    where the run's configuration says.
    """

    model: str | None = None
    format: str = "onnx"
    precision: str = "fp32"
    seed: int | None = None
    folds: Sequence[int] | None = None
    study: Path | None = None
    overwrite: bool = False


def export_model(run: RunFolder, out: Path, options: ExportOptions, *, progress: Progress | None = None) -> ModelFolder:
    """Export a model of a finished run into a folder that appears whole or not at all.

    Every network is compared with torch on cells of the run it was not trained on before anything is kept.

    Parameters
    ----------
    run
        The run folder.
    out
        The folder to make.
    options
        What to export.
    progress
        Called with (networks done, networks in all).

    Raises
    ------
    ConfigError
        If there is no such model, format or precision, they do not go together, or a package is missing.
    DataError
        If ``out`` is there already, or the study is damaged.
    RunError
        If nothing is finished, or an exported network gives other answers than the one that was trained.
    """
    kind, precision = _checked(options)
    model = model_of_run(run, options.model, seed=options.seed, folds=options.folds)
    cells = cells_of_run(run, options.study)
    if precision == "int8" and cells is None:
        raise RunError(
            "int8 takes its scales from training cells and is judged on held-out ones, and the study is not here.\n"
            "Fix: name it with --study, or --precision fp32."
        )
    with new_model_folder(out, overwrite=options.overwrite) as folder:
        job = _Job(model, folder, kind, precision, cells)
        files, found = [], []
        for i in range(len(model.keys)):
            file, compared = job.network(i)
            files.append(file)
            found.append(compared)
            if progress is not None:
                progress(i + 1, len(model.keys))
        _write_description(job, files, found)
    return open_model(out)


def _checked(options: ExportOptions) -> tuple[Format, Precision]:
    """Return format and precision, or raise ``ConfigError``."""
    kinds: dict[str, Format] = {kind: kind for kind in get_args(Format)}
    precisions: dict[str, Precision] = {precision: precision for precision in get_args(Precision)}
    if options.format not in kinds:
        raise UnknownNameError("format", options.format, kinds)
    if options.precision not in precisions:
        raise UnknownNameError("precision", options.precision, precisions)
    kind, precision = kinds[options.format], precisions[options.precision]
    if kind == "safetensors" and precision == "int8":
        raise ConfigError("int8 is made of graphs, not of bare tensors.\nFix: --format onnx or --format openvino.")
    needs = (*_NEEDS[kind], *(("onnxruntime",) if precision == "int8" else ()))
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({_EXTRAS.get(name, "export") for name in missing}))
        raise ConfigError(
            f'--format {kind} needs the package(s) {", ".join(missing)}. Fix: pip install "perikarya[{extras}]".'
        )
    return kind, precision


@dataclass(frozen=True)
class _Job:
    """One export: which model goes where, as what."""

    model: RunModel
    folder: Path
    kind: Format
    precision: Precision
    cells: RunCells | None

    def path(self, i: int) -> Path:
        """Return the file of a network."""
        return self.folder / f"fold{self.model.keys[i].fold}{SUFFIXES[self.kind]}"

    def network(self, i: int) -> tuple[NetworkFile, Compared]:
        """Write one network and compare it with the one that was trained."""
        key, side = self.model.keys[i], self.model.manifest.input_px
        self._write(self.model.build(i), i)
        file = self._described(i)
        n = N_HELD_OUT if self.precision == "int8" else N_CELLS
        crops = random_cells(input_px=side) if self.cells is None else self.cells.held_out(key, input_px=side, n=n)
        exported = open_backend(ModelFolder(self.folder, self.manifest([file]), sha256=""), 0)
        found = compare(exported, open_backend(self.model, i, backend="torch"), crops)
        log.info("%s as %s: %s", key, self.kind, found)
        if self.precision == "int8":
            refuse_changed_classes(found, network=str(key))
        else:
            refuse_difference(found, network=str(key), kind=self.kind)
        return file, found

    def manifest(self, networks: Sequence[NetworkFile], **changes: Any) -> ModelManifest:
        """Describe the model as files."""
        content = self.model.manifest.model_dump()
        content |= {"format": self.kind, "precision": self.precision, "networks": networks, **changes}
        return ModelManifest.model_validate(content)

    def _described(self, i: int) -> NetworkFile:
        path = self.path(i)
        beside = [path.with_suffix(".bin")] if self.kind == "openvino" else []
        return self.model.manifest.networks[i].model_copy(
            update={
                "file": path.name,
                "sha256": file_sha256(path),
                "extra_files": {other.name: file_sha256(other) for other in beside},
            }
        )

    def _write(self, network: CellNetwork, i: int) -> None:
        path, side = self.path(i), self.model.manifest.input_px
        if self.kind == "safetensors":
            write_tensors(network, path)
        elif self.precision == "int8":
            self._write_int8(network, i)
        elif self.kind == "onnx":
            write_onnx(network, path, input_px=side)
        else:
            write_openvino_of(network, path, input_px=side)

    def _write_int8(self, network: CellNetwork, i: int) -> None:
        path, side = self.path(i), self.model.manifest.input_px
        fp32, int8 = path.with_suffix(".fp32.onnx"), path.with_suffix(".onnx")
        write_onnx(network, fp32, input_px=side)
        write_int8(fp32, int8, self._training_cells(i))
        fp32.unlink()
        if self.kind == "openvino":
            write_openvino(int8, path)
            int8.unlink()

    def _training_cells(self, i: int) -> Crops:
        if self.cells is None:
            raise ValueError("int8 needs the cells of the run")
        return self.cells.training(self.model.keys[i], input_px=self.model.manifest.input_px, n=N_CALIBRATION)


def _write_description(job: _Job, files: Sequence[NetworkFile], found: Sequence[Compared]) -> None:
    """Write the card and, last, the manifest."""
    cells = "random pictures, for the study was not at hand" if job.cells is None else "held-out cells"
    manifest = job.manifest(
        files,
        agreement=summarise(found, of=cells),
        provenance=job.model.manifest.provenance | {"exported": provenance()},
    )
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_text(job.folder / "README.md", card(manifest, sha256=hashlib.sha256(text.encode()).hexdigest()))
    write_text(job.folder / MODEL_FILE, text)

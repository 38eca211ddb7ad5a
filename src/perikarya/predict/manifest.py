"""What an exported model says of itself: ``model.json``, enough to use it without the run it comes from.

Only pydantic and the standard library are imported here, for prediction on an exported model starts with this file.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from perikarya.errors import DataError
from perikarya.settings import Channels, Fraction, Settings

MODEL_SCHEMA_VERSION = 1
MODEL_FILE = "model.json"
MAX_NETWORKS = 1000
SAME_SCALE = 0.01  # scales that differ by less, relatively, are one: microscopes are not calibrated any better

Format = Literal["onnx", "openvino", "safetensors"]
Precision = Literal["fp32", "int8"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$")]  # one part of a path, never a way out
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class NetworkFile(Settings):
    """One trained network of a model: its file and what was fitted to its own validation cells.

    ``sha256`` is empty, and ``file`` a mere name, for a network still in its run folder. ``calibration`` and
    ``conformal`` are what ``evaluate.calibrators.Calibration`` and ``evaluate.conformal.ConformalSets`` read with
    ``from_dict``; the sets are of calibrated probabilities.
    """

    file: FileName
    sha256: Sha256 | Literal[""] = ""
    extra_files: dict[FileName, Sha256] = Field(default_factory=dict)
    seed: int
    fold: Annotated[int, Field(ge=0)]
    calibration: dict[str, Any] | None = None
    conformal: dict[str, Any] | None = None


class ModelStudy(Settings):
    """The study a model was trained on."""

    name: str
    data_hash: str
    n_cells: int
    n_subjects: int | None = None


class PretrainedWeights(Settings):
    """Where a network started from; its licence holds for what was trained on it."""

    source: str
    sha256: str = ""
    licence: str = ""


class Agreement(Settings):
    """How the exported networks answer beside torch in fp32, over all networks, one view of each cell.

    ``max_abs_diff`` is the largest difference of a probability, ``same_class`` the smallest share of cells, over the
    networks, whose most probable class is the same.
    """

    cells: Annotated[int, Field(ge=1)]
    max_abs_diff: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    same_class: Fraction
    of: str  # which cells, in words


class ModelManifest(Settings):
    """Everything that turns pixels of a cell into probabilities with names, apart from the networks themselves.

    Attributes
    ----------
    window_px, um_per_px
        The window around a cell: its side in pixels, and their size (None where the study's scale is unknown).
    bits
        Of the 16-bit images it was trained on, how many bits were brought to 8; None where all had 8.
    input_px, channels, ordinal
        Side of a network's input, what of a crop it is shown, and whether it has continuation ratios inside. A graph
        has all of that inside but the size; the tensors of ``safetensors`` are put into a network built from them.
    tta_views
        Views of a cell (``data.augment.tta_views``) its run averaged over; 1: none but the cell as it is.
    threshold
        Abstain where the largest probability is below; 0: never.
    n_features
        Pooled features before the classifier.
    metrics
        ``cv`` and ``external`` of the model in ``results.json``, and of its ``ensemble`` where it has several networks.
    """

    schema_version: Literal[1] = 1
    name: str
    arch: str
    strategy: str
    class_names: Annotated[tuple[str, ...], Field(min_length=2)]
    class_colours: tuple[Colour, ...]
    window_px: Annotated[int, Field(ge=8, le=2048)]
    um_per_px: Positive | None = None
    bits: Annotated[int, Field(ge=8, le=16)] | None = None
    input_px: Annotated[int, Field(ge=16, le=1024)]
    channels: Channels
    ordinal: bool = False
    tta_views: Literal[1, 2, 4, 8] = 1
    format: Format
    precision: Precision = "fp32"
    networks: Annotated[tuple[NetworkFile, ...], Field(min_length=1, max_length=MAX_NETWORKS)]
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    n_features: Annotated[int, Field(ge=1)]
    weights: PretrainedWeights
    metrics: dict[str, Any] = Field(default_factory=dict)
    study: ModelStudy
    agreement: Agreement | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        k = len(self.class_names)
        if len(set(self.class_names)) != k:
            raise ValueError("class_names holds a name twice")
        if len(self.class_colours) != k:
            raise ValueError(f"there are {k} class_names but {len(self.class_colours)} class_colours")
        names = [name for network in self.networks for name in (network.file, *network.extra_files)]
        if len(set(names)) != len(names) or MODEL_FILE in names:
            raise ValueError("two networks name the same file")
        for network in self.networks:
            _check_fits(network, k)
        return self

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def window_um(self) -> float | None:
        """Side of the window in micrometres, where the scale is known."""
        return None if self.um_per_px is None else self.window_px * self.um_per_px

    def check_scale(self, *, window_px: int, um_per_px: float | None, where: str) -> None:
        """Refuse crops of another window or another scale than the model was trained on.

        Parameters
        ----------
        window_px
            Side of the crops.
        um_per_px
            Size of their pixels; None where unknown.
        where
            What the crops are of, for the message, such as the path of a study.

        Raises
        ------
        DataError
            If the window differs, the size of a pixel by more than 1 %, or if that size is unknown though the model's
            is known.
        """
        if window_px != self.window_px:
            raise DataError(
                f"{where} has windows of {window_px} px, but {self.name} was trained on windows of {self.window_px} px"
                f"{self._window_words()}.\nIt would see more or less around each cell than it learned. "
                f"Fix: import again with --window {self.window_px}."
            )
        if self.um_per_px is None:
            return
        if um_per_px is None:
            raise DataError(
                f"{where} does not tell its scale, and {self.name} was trained at {self.um_per_px:.4g} µm per pixel.\n"
                "Size tells damaged cells from healthy ones; at another scale its answers mean nothing.\n"
                "Fix: --um-per-px"
            )
        if not math.isclose(um_per_px, self.um_per_px, rel_tol=SAME_SCALE):
            raise DataError(
                f"{where} has {um_per_px:.4g} µm per pixel, but {self.name} was trained at {self.um_per_px:.4g}.\n"
                "Size tells damaged cells from healthy ones; at another scale its answers mean nothing. "
                f"Fix: import again at {self.um_per_px:.4g} µm per pixel, or correct --um-per-px."
            )

    def _window_words(self) -> str:
        return "" if self.window_um is None else f" ({self.window_um:.4g} µm)"


def read_manifest(text: str, *, where: str) -> ModelManifest:
    """Read the text of a ``model.json``.

    Raises
    ------
    DataError
        If it is not JSON, of another schema version, or does not describe a model.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} is not readable JSON ({error}); it should describe an exported model.\nFix: export it again."
        ) from None
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != MODEL_SCHEMA_VERSION or isinstance(found, bool):
        raise DataError(
            f"{where} has schema version {found!r}; this Perikarya reads models of version {MODEL_SCHEMA_VERSION}.\n"
            "What it does not know it could misread. Fix: update Perikarya, or export the model again."
        )
    try:
        return ModelManifest.model_validate(content)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(whole file)'}: {e['msg']}" for e in error.errors()[:10]]
        raise DataError(
            f"{where} does not describe a model:\n" + "\n".join(lines) + "\nFix: export the model again."
        ) from None


def _check_fits(network: NetworkFile, n_classes: int) -> None:
    """Raise ``ValueError`` where a calibration or conformal sets are not of so many classes."""
    calibration, conformal = network.calibration, network.conformal
    if calibration is not None and _length(calibration, "scale", "curves") != n_classes:
        raise ValueError(f"the calibration of {network.file} is not of {n_classes} classes")
    if conformal is not None and _length(conformal, "floor") != n_classes:
        raise ValueError(f"the conformal sets of {network.file} are not of {n_classes} classes")


def _length(content: dict[str, Any], *keys: str) -> int:
    return max(len(part) if isinstance(part := content.get(key), list | tuple) else 0 for key in keys)

"""What an experiment is: frozen settings in which an unknown key is an error, and their content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from perikarya.errors import ConfigError, DataError
from perikarya.schema import read_yaml, validation_sentences

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


class CvConfig(Settings):
    """How the development set is divided.

    ``kfold``: fold k tests, fold k+1 stops the training, the others train. ``single``: one training on all folds
    but the first, which stops it; nothing of the development set is tested, the external set is.
    """

    scheme: Literal["kfold", "single"] = "kfold"
    n_folds: Annotated[int, Field(ge=3, le=100)] = 5
    group_by: Literal["auto", "subject", "image_id", "cell"] = "auto"
    seed: int = 0
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None = None  # only these test folds; None: all
    # same pictures on two sides: refuse to train; separate them (one fold, or left out); or ignore them
    duplicates: Literal["refuse", "separate", "ignore"] = "refuse"

    @model_validator(mode="after")
    def _folds_exist(self) -> Self:
        if self.folds and max(self.folds) >= self.n_folds:
            raise ValueError(f"folds names fold {max(self.folds)} but n_folds is {self.n_folds} (folds count from 0)")
        if self.scheme == "single" and self.folds is not None:
            raise ValueError("folds makes no sense with scheme 'single', which trains once on everything")
        return self


class TrainConfig(Settings):
    """How one network is fine-tuned."""

    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: NonNegative = 1e-2
    warmup: Fraction = 0.25  # share of all steps in which the learning rate rises from nearly 0; cosine to 0 after
    patience: Annotated[int, Field(ge=1)] = 12  # epochs without a better validation loss
    grad_clip: Annotated[float, Field(gt=0)] | None = 5.0  # largest norm of the gradient
    label_smoothing: Fraction = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    tta_views: Literal[1, 2, 4, 8] = 4  # flips and quarter turns averaged at prediction
    amp: bool = True  # mixed precision, on a GPU only: on a CPU it is slower

    @model_validator(mode="after")
    def _warmup_leaves_steps(self) -> Self:
        if self.warmup >= 1:
            raise ValueError("warmup must be below 1, else the learning rate never falls")
        return self


class HeadConfig(Settings):
    """How a linear head is fitted to frozen features; the penalty with the best stopping-fold loss is kept."""

    penalties: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1,
    )  # fmt: skip
    class_weights: Literal["none", "balanced"] = "balanced"
    tta_views: Literal[1, 2, 4, 8] = 1


class AugmentConfig(Settings):
    """Random changes of training cells; the mask moves with its image. All ranges are symmetric unless said."""

    flip: bool = True
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    scale: Fraction = 0.15  # 0.15: between 1/1.15 and 1.15 times the size
    translate: Fraction = 0.05  # of the window
    brightness: Fraction = 0.15
    contrast: Fraction = 0.15
    saturation: Fraction = 0.15
    gamma: Fraction = 0.0
    blur_sigma_px: NonNegative = 0.0  # largest sigma, drawn from 0 up
    noise: Fraction = 0.0  # largest standard deviation, share of full intensity


class ResampleConfig(Settings):
    """How training rows are balanced over the classes; never touches held-out rows."""

    method: Literal["none", "undersample", "oversample"] = "none"


class EvaluateConfig(Settings):
    """How numbers get their uncertainty."""

    n_bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0


class LaunchConfig(Settings):
    """Where tasks run; outside the hash, for it must not change what is computed."""

    engine: Literal["local"] = "local"
    jobs: Annotated[int, Field(ge=1)] | None = None  # None: one per GPU, else 1
    threads: Annotated[int, Field(ge=1)] | None = None  # per worker; None: cores / jobs


class ModelConfig(Settings):
    """One row of the benchmark: a network, where its weights come from and how it is trained.

    ``train`` and ``head`` override single settings of the experiment's sections for this model.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    arch: str = ""
    strategy: Literal["auto", "head", "finetune"] = "auto"
    weights: str = "default"  # default (the zoo's), none, or a local .safetensors / .pth file
    input_px: Annotated[int, Field(ge=16, le=1024)] | None = None  # None: the zoo's size for the strategy
    mask_init: Literal["zero", "mean", "random"] = "zero"
    train: dict[str, Any] = Field(default_factory=dict)
    head: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and not value.get("arch") and "name" in value:
            value = {**value, "arch": value["name"]}
        return value


class ExperimentConfig(Settings):
    """A whole experiment, as written in a YAML file."""

    name: str
    study: str
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    cv: CvConfig = CvConfig()
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    train: TrainConfig = TrainConfig()
    head: HeadConfig = HeadConfig()
    augment: AugmentConfig = AugmentConfig()
    resample: ResampleConfig = ResampleConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    launch: LaunchConfig = LaunchConfig()

    @model_validator(mode="after")
    def _names_and_overrides_fit(self) -> Self:
        names = [m.name for m in self.models]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"two models are called '{twice[0]}'; give each its own name and share 'arch'")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds holds a seed twice")
        for model in self.models:
            self.train_of(model)
            self.head_of(model)
        return self

    def train_of(self, model: ModelConfig) -> TrainConfig:
        """Return the training settings of one model: the experiment's, then the model's own."""
        return _override(self.train, model.train, f"models.{model.name}.train")

    def head_of(self, model: ModelConfig) -> HeadConfig:
        """Return the head settings of one model: the experiment's, then the model's own."""
        return _override(self.head, model.head, f"models.{model.name}.head")

    def model(self, name: str) -> ModelConfig:
        """Return the model of that name; raise ``ConfigError`` when there is none."""
        for model in self.models:
            if model.name == name:
                return model
        raise ConfigError(f"The experiment has no model '{name}'; it has {', '.join(m.name for m in self.models)}.")

    def content_hash(self) -> str:
        """Return a hash of all that decides the numbers (16 hex digits); ``launch`` and the study's path do not."""
        content = self.model_dump(mode="json", exclude={"launch", "study"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def dump(self) -> str:
        """Return the configuration as YAML."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(base: S, changes: dict[str, Any], where: str) -> S:
    try:
        return type(base).model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(validation_sentences(error, where)) from None


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment from YAML and apply ``key=value`` overrides (``train.epochs=3``, ``models.0.strategy=head``).

    Raises
    ------
    ConfigError
        If the file is missing or damaged, a key is unknown or a value does not fit.
    """
    try:
        content = read_yaml(path, what="an experiment's configuration (see examples/)")
    except DataError as error:
        raise ConfigError(str(error)) from None
    for item in overrides:
        _apply_override(content, item)
    try:
        return ExperimentConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            validation_sentences(error, path) + "\nA misspelt setting would silently leave its default in force.\n"
            "Fix: correct the line(s); docs/configuration.md lists every setting."
        ) from None


def _apply_override(content: dict[str, Any], item: str) -> None:
    key, sep, text = item.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set takes key=value, such as train.epochs=3; got '{item}'.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}: '{text}' is not a YAML value.") from None
    *parents, last = key.strip().split(".")
    node: Any = content
    for part in parents:
        node = _child(node, part, item)
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            raise ConfigError(f"--set {item}: '{last}' is not a position in a list of {len(node)}.")
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {item}: '{'.'.join(parents)}' is a single value; it has no '{last}'.")


def _child(node: Any, part: str, item: str) -> Any:
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        if isinstance(node[int(part)], str):  # a model given by its bare name
            node[int(part)] = {"name": node[int(part)]}
        return node[int(part)]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise ConfigError(f"--set {item}: there is no '{part}' to set something in.")

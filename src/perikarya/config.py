"""What an experiment is: its sections (``settings``) in one frozen whole, read from YAML, with a content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from perikarya.errors import ConfigError, DataError
from perikarya.schema import read_yaml, validation_sentences
from perikarya.settings import (
    AUGMENT_PRESETS,
    AugmentConfig,
    CvConfig,
    EvaluateConfig,
    HeadConfig,
    LaunchConfig,
    ModelConfig,
    QuantifyConfig,
    RayConfig,
    ResampleConfig,
    Settings,
    SlurmConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "CvConfig",
    "EvaluateConfig",
    "ExperimentConfig",
    "HeadConfig",
    "LaunchConfig",
    "ModelConfig",
    "QuantifyConfig",
    "RayConfig",
    "ResampleConfig",
    "Settings",
    "SlurmConfig",
    "TrainConfig",
    "apply_override",
    "load_config",
]

S = TypeVar("S", bound=Settings)


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
    quantify: QuantifyConfig = QuantifyConfig()
    # numbers of animals to train every model on, beside all of them: adds models called '<name>@<number>'
    learning_curve: tuple[Annotated[int, Field(ge=1)], ...] = ()
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
            self.augment_of(model)
            self.resample_of(model)
        return self

    def train_of(self, model: ModelConfig) -> TrainConfig:
        """Return the training settings of one model: the experiment's, then the model's own."""
        return _override(self.train, model.train, f"models.{model.name}.train")

    def head_of(self, model: ModelConfig) -> HeadConfig:
        """Return the head settings of one model: the experiment's, then the model's own."""
        return _override(self.head, model.head, f"models.{model.name}.head")

    def augment_of(self, model: ModelConfig) -> AugmentConfig:
        """Return the augmentation of one model; a preset of its own starts from that preset, not the experiment's."""
        base = AugmentConfig(preset=model.augment["preset"]) if _names_preset(model.augment) else self.augment
        return _override(base, model.augment, f"models.{model.name}.augment")

    def resample_of(self, model: ModelConfig) -> ResampleConfig:
        """Return the resampling of one model: the experiment's, then the model's own."""
        return _override(self.resample, model.resample, f"models.{model.name}.resample")

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


def _names_preset(changes: dict[str, Any]) -> bool:
    return changes.get("preset") in AUGMENT_PRESETS


def _override(base: S, changes: dict[str, Any], where: str) -> S:
    try:
        return type(base).model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise ValueError(validation_sentences(error, where)) from None


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment from YAML and apply ``key=value`` overrides.

    ``train.epochs=3`` changes one value, ``models.0.strategy=head`` one model, ``models.*.weights=none`` all of them.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, a key is unknown or a value does not fit.
    """
    try:
        content = read_yaml(path, what="an experiment's configuration (see examples/)")
    except DataError as error:
        raise ConfigError(str(error)) from None
    return parse_config(content, overrides=overrides, where=path)


def parse_config(content: dict[str, Any], *, overrides: Sequence[str] = (), where: Path | str) -> ExperimentConfig:
    """Check an experiment's content, changed in place by ``key=value`` overrides; ``where`` it is from, for messages.

    Raises
    ------
    ConfigError
        If a key is unknown or a value does not fit.
    """
    for item in overrides:
        apply_override(content, item)
    try:
        return ExperimentConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(
            validation_sentences(error, where) + "\nA misspelt setting would silently leave its default in force.\n"
            "Fix: correct the line(s); docs/configuration.md lists every setting."
        ) from None


def apply_override(content: dict[str, Any], item: str) -> None:
    """Set one value of a configuration by ``key=value``; raise ``ConfigError`` where that cannot be done."""
    key, sep, text = item.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set takes key=value, such as train.epochs=3; got '{item}'.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}: '{text}' is not a YAML value.") from None
    *parents, last = key.strip().split(".")
    nodes: list[Any] = [content]
    for part in parents:
        nodes = [child for node in nodes for child in _children(node, part, item)]
    for node in nodes:
        _set_in(node, last, value, item=item, parents=parents)


def _set_in(node: Any, last: str, value: Any, *, item: str, parents: list[str]) -> None:
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            raise ConfigError(f"--set {item}: '{last}' is not a position in a list of {len(node)}.")
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"--set {item}: '{'.'.join(parents)}' is a single value; it has no '{last}'.")


def _children(node: Any, part: str, item: str) -> list[Any]:
    """Return what a part of a key names: one child, or every element of a list for ``*``."""
    if isinstance(node, list) and (part == "*" or (part.isdigit() and int(part) < len(node))):
        places = range(len(node)) if part == "*" else [int(part)]
        for i in places:
            if isinstance(node[i], str):  # a model given by its bare name
                node[i] = {"name": node[i]}
        return [node[i] for i in places]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return [node[part]]
    raise ConfigError(f"--set {item}: there is no '{part}' to set something in.")

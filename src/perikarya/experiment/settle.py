"""Make an experiment definite: what its models leave open comes from the zoo, so that nothing is decided later."""

from __future__ import annotations

from perikarya.config import ExperimentConfig, ModelConfig
from perikarya.errors import ConfigError
from perikarya.models.zoo import NETWORKS, NetworkSpec, check_input_px
from perikarya.settings import SMOTE_FAMILY


def resolve_config(config: ExperimentConfig, *, on_gpu: bool) -> ExperimentConfig:
    """Return the configuration with nothing left open; this is what is hashed and kept in the run folder.

    Raises
    ------
    ConfigError
        If a model asks for what its strategy or its network cannot do.
    """
    models = [_resolve_model(config, m, on_gpu=on_gpu) for m in config.models]
    return config.model_copy(update={"models": (*models, *_learning_curve(models, config.learning_curve))})


def _learning_curve(models: list[ModelConfig], n_subjects: tuple[int, ...]) -> list[ModelConfig]:
    """Return each model once more for every number of animals; none is added twice to a resolved configuration."""
    known = {m.name for m in models}
    points = [
        m.model_copy(update={"name": f"{m.name}@{n}", "train_subjects": n})
        for m in models
        if m.train_subjects is None
        for n in n_subjects
    ]
    return [p for p in points if p.name not in known]


def _resolve_model(config: ExperimentConfig, model: ModelConfig, *, on_gpu: bool) -> ModelConfig:
    """Fill in strategy, input size, training details and the space of resampling.

    ``auto`` means a head on frozen features on a CPU and fine-tuning on a GPU; a network without pretrained weights
    is fine-tuned anywhere, for features of random filters are of little use.
    """
    spec = NETWORKS.get(model.arch)
    pretrained = model.weights != "none" and not (model.weights == "default" and spec.weights is None)
    strategy = model.strategy
    if strategy == "auto":
        strategy = "head" if pretrained and not on_gpu else "finetune"
    input_px = model.input_px or (spec.head_px if strategy == "head" else spec.input_px)
    check_input_px(model.arch, input_px)
    changes = {"strategy": strategy, "input_px": input_px, "resample": _resampling(config, model, strategy)}
    if strategy != "head":
        changes["train"] = _training(config, model, spec)
    return model.model_copy(update=changes)


def _training(config: ExperimentConfig, model: ModelConfig, spec: NetworkSpec) -> dict[str, object]:
    asked = config.train_of(model)
    zoo = {
        "lr": spec.lr,
        "checkpointing": spec.checkpointing,
        "micro_batch": _divisor(asked.batch_size, spec.micro_batch),
    }
    return {**model.train, **{key: value for key, value in zoo.items() if getattr(asked, key) is None}}


def _divisor(batch_size: int, most: int | None) -> int:
    """Return the largest number of cells that divides a batch and is at most ``most``."""
    limit = min(most or batch_size, batch_size)
    return next(n for n in range(limit, 0, -1) if batch_size % n == 0)


def _resampling(config: ExperimentConfig, model: ModelConfig, strategy: str) -> dict[str, object]:
    asked = config.resample_of(model)
    if asked.method not in SMOTE_FAMILY:
        return model.resample
    space = asked.space if asked.space != "auto" else "features" if strategy == "head" else "pixels"
    if space == "features" and strategy != "head":
        raise ConfigError(
            f"models.{model.name}.resample: {asked.method} in the space of features needs frozen features, and "
            f"strategy '{strategy}' changes them while it trains.\n"
            "Fix: 'space: pixels' for this model, or 'strategy: head'."
        )
    return {**model.resample, "space": space}

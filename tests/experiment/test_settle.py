"""What an experiment leaves open is filled in before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from perikarya.config import ExperimentConfig
from perikarya.errors import ConfigError, UnknownNameError
from perikarya.experiment.settle import resolve_config
from perikarya.models.zoo import NETWORKS
from perikarya.settings import SMOTE_FAMILY


def settled(*, on_gpu: bool = False, **model: Any) -> tuple[ExperimentConfig, Any]:
    """Resolve an experiment with one model and return it with that model."""
    content = {"name": "x", "study": "s", "models": [{"name": "efficientnet_lite0", **model}]}
    config = resolve_config(ExperimentConfig.model_validate(content), on_gpu=on_gpu)
    return config, config.models[0]


def test_auto_means_a_head_on_a_cpu_and_fine_tuning_on_a_gpu_or_without_weights() -> None:
    assert settled()[1].strategy == "head"
    assert settled(on_gpu=True)[1].strategy == "finetune"
    assert settled(weights="none")[1].strategy == "finetune"
    assert settled(name="custom_cnn")[1].strategy == "finetune"
    assert settled()[1].input_px == NETWORKS.get("efficientnet_lite0").head_px
    assert settled(on_gpu=True)[1].input_px == NETWORKS.get("efficientnet_lite0").input_px


def test_an_unknown_network_names_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet50'"):
        settled(name="resnet5")


def test_the_learning_rate_comes_from_the_zoo_unless_it_is_written() -> None:
    config, model = settled(strategy="finetune")
    assert config.train_of(model).lr == NETWORKS.get("efficientnet_lite0").lr
    config, model = settled(strategy="finetune", train={"lr": 0.5})
    assert config.train_of(model).lr == 0.5


def test_a_large_network_takes_its_batch_in_parts_that_divide_it() -> None:
    config, model = settled(name="swin_large", strategy="finetune", train={"batch_size": 18})
    train = config.train_of(model)
    most = NETWORKS.get("swin_large").micro_batch
    assert most is not None
    assert train.micro_batch is not None
    assert train.micro_batch <= most
    assert 18 % train.micro_batch == 0
    assert train.checkpointing is NETWORKS.get("swin_large").checkpointing


def test_a_learning_curve_adds_each_model_once_per_number_of_animals() -> None:
    content = {"name": "x", "study": "s", "models": ["efficientnet_lite0", "custom_cnn"], "learning_curve": [4, 8]}
    config = resolve_config(ExperimentConfig.model_validate(content), on_gpu=False)
    assert {m.name: m.train_subjects for m in config.models} == {
        "efficientnet_lite0": None, "custom_cnn": None, "efficientnet_lite0@4": 4, "efficientnet_lite0@8": 8,
        "custom_cnn@4": 4, "custom_cnn@8": 8,
    }  # fmt: skip
    assert config.model("efficientnet_lite0@4").strategy == config.model("efficientnet_lite0").strategy
    assert resolve_config(config, on_gpu=False) == config


def test_a_settled_experiment_settles_to_itself() -> None:
    config, _ = settled(strategy="finetune", resample={"method": "smote"})
    assert resolve_config(config, on_gpu=True) == config


@pytest.mark.parametrize("method", SMOTE_FAMILY)
def test_synthetic_cells_are_made_where_the_strategy_can_use_them(method: str) -> None:
    for strategy, space in (("head", "features"), ("finetune", "pixels")):
        config, model = settled(strategy=strategy, resample={"method": method})
        assert config.resample_of(model).space == space


def test_features_that_change_cannot_be_resampled() -> None:
    with pytest.raises(ConfigError, match="frozen features"):
        settled(strategy="finetune", resample={"method": "smote", "space": "features"})


def test_a_size_the_network_does_not_take_is_told_before_work_starts() -> None:
    with pytest.raises(ConfigError, match="multiples of 16"):
        settled(name="vit_base_224", input_px=100)

"""Settings: unknown keys are errors, the hash covers what decides the numbers, the examples are valid."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from perikarya.config import AUGMENT_PRESETS, AugmentConfig, ExperimentConfig, load_config
from perikarya.errors import ConfigError
from perikarya.models.zoo import NETWORKS

ROOT = Path(__file__).parents[1]
BASE = {"name": "x", "study": "s", "models": [{"name": "a", "arch": "custom_cnn"}, {"name": "b", "arch": "custom_cnn"}]}


def config(**changes: object) -> ExperimentConfig:
    return ExperimentConfig.model_validate({**BASE, **changes})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_the_examples_are_valid_and_name_networks_of_the_zoo(path: Path) -> None:
    for model in load_config(path).models:
        assert model.arch in NETWORKS


def test_the_page_of_settings_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import configuration_page

    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_page.page(), (
        "run: python tools/configuration_page.py"
    )
    sys.modules.pop("configuration_page")


def test_the_hash_covers_what_decides_the_numbers_and_nothing_else() -> None:
    base = config().content_hash()
    assert config(train={"lr": 2e-3}).content_hash() != base
    assert config(seeds=[1]).content_hash() != base
    assert config(launch={"jobs": 8}).content_hash() == base
    assert config(study="elsewhere").content_hash() == base


def test_a_model_overrides_single_settings() -> None:
    models = [{"name": "a", "arch": "custom_cnn", "train": {"epochs": 3}}]
    one = config(models=models, train={"lr": 0.5})
    assert one.train_of(one.models[0]).epochs == 3
    assert one.train_of(one.models[0]).lr == 0.5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": [{"name": "a", "arch": "custom_cnn", "train": {"epoch": 3}}]}, "epoch"),
        ({"models": ["custom_cnn", "custom_cnn"]}, "two models are called"),
        ({"models": [{"name": "../up"}]}, "pattern"),
        ({"cv": {"n_folds": 2}}, "greater than or equal to 3"),
        ({"cv": {"n_folds": 5, "folds": [5]}}, "folds count from 0"),
        ({"cv": {"scheme": "single", "folds": [0]}}, "no sense"),
        ({"seeds": [1, 1]}, "twice"),
        ({"train": {"warmup": 1.0}}, "below 1"),
        ({"frain": {}}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config(**changes)


def test_overrides_reach_into_lists_and_bare_names(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nstudy: s\nmodels: [custom_cnn]\n")
    loaded = load_config(path, overrides=["models.0.input_px=48", "train.epochs=2", "cv.folds=[1, 2]"])
    assert loaded.models[0].input_px == 48
    assert loaded.train.epochs == 2
    assert loaded.cv.folds == (1, 2)


@pytest.mark.parametrize("item", ["epochs", "=3", "models.7.lr=1", "name.first=x", "train.epochs={", "models.x=1"])
def test_an_override_that_hits_nothing_is_refused(item: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nstudy: s\nmodels: [custom_cnn]\n")
    with pytest.raises(ConfigError):
        load_config(path, overrides=[item])


def test_a_star_sets_a_value_in_every_model(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("name: x\nstudy: s\nmodels: [custom_cnn, {name: resnet50, weights: default}]\n")
    config = load_config(path, overrides=["models.*.weights=none", "models.*.train.epochs=2"])
    assert [m.weights for m in config.models] == ["none", "none"]
    assert [config.train_of(m).epochs for m in config.models] == [2, 2]


def test_a_preset_fills_in_what_is_not_written_out(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "name: x\nstudy: s\naugment: {preset: none, gamma: 0.1}\n"
        "models: [custom_cnn, {name: resnet50, augment: {preset: strong, noise: 0.5}}]\n"
    )
    config = load_config(path)
    assert (config.augment.flip, config.augment.gamma, config.augment.noise) == (False, 0.1, 0.0)
    strong = config.augment_of(config.models[1])
    assert strong == AugmentConfig.model_validate({"preset": "strong", "noise": 0.5})
    assert strong.flip
    assert strong.gamma == AUGMENT_PRESETS["strong"]["gamma"]
    assert load_config_of(config) == config


def load_config_of(config: ExperimentConfig) -> ExperimentConfig:
    """Write a configuration and read it back, as a run folder does."""
    return ExperimentConfig.model_validate(yaml.safe_load(config.dump()))


def test_a_time_that_yaml_took_for_a_number_is_refused_with_the_way_to_write_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: a\nstudy: s\nmodels: [custom_cnn]\nlaunch: {slurm: {time: 4:00:00}}\n")
    with pytest.raises(ConfigError, match='write "4:00:00"'):
        load_config(path)
    path.write_text("name: a\nstudy: s\nmodels: [custom_cnn]\nlaunch: {slurm: {time: '4:00:00'}}\n")
    assert load_config(path).launch.slurm.time == "4:00:00"

"""What a network cannot do is refused before any work, and every network of the zoo can do what its kind allows."""

from __future__ import annotations

import pytest

from perikarya.config import TrainConfig
from perikarya.errors import ConfigError
from perikarya.models.zoo import NETWORKS
from perikarya.train.check import check_trainable

CONVOLUTIONS_ONLY = ("custom_cnn", "resnet50", "efficientnet", "convnext")


@pytest.mark.parametrize(
    ("strategy", "settings", "sentence"),
    [
        ("lora", {}, "has none"),
        ("finetune", {"last_blocks": 50}, "has 4 blocks"),
        ("head-then-finetune", {"epochs": 3, "head_epochs": 3}, "never finetune"),
    ],
)
def test_what_cannot_be_trained_is_refused(strategy: str, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_trainable("custom_cnn", train=TrainConfig.model_validate(settings), strategy=strategy)


@pytest.mark.slow
@pytest.mark.parametrize("arch", NETWORKS.names())
def test_every_network_trains_layer_by_layer_its_last_block_and_with_less_memory(arch: str) -> None:
    train = TrainConfig(layer_decay=0.8, last_blocks=1, checkpointing=True)
    check_trainable(arch, train=train, strategy="finetune")


@pytest.mark.slow
@pytest.mark.parametrize("arch", [name for name in NETWORKS.names() if not name.startswith(CONVOLUTIONS_ONLY)])
def test_every_network_with_attention_takes_additions(arch: str) -> None:
    check_trainable(arch, train=TrainConfig(), strategy="lora")

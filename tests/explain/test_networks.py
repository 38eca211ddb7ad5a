"""Whatever way a network was trained, the one that is explained answers as the one that was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.explain.training import train
from tests.models.reduced import reduced
from tests.tiny import make_study

from perikarya.config import ExperimentConfig
from perikarya.explain.run import explain_run
from perikarya.models.zoo import NETWORKS

pytest.importorskip("pytorch_grad_cam", reason="the extra 'explain' is not installed")

MODELS: list[dict[str, Any]] = [
    {"name": "cnn_ordinal", "arch": "custom_cnn", "input_px": 32, "train": {"loss": "ordinal"}},
    {"name": "cnn_mask", "arch": "custom_cnn", "input_px": 32, "channels": "mask"},
    {"name": "vit_lora", "arch": "vit_base_224", "strategy": "lora"},
    {"name": "vit_slowly", "arch": "vit_base_224", "strategy": "head-then-finetune", "train": {"head_epochs": 1}},
    {"name": "hybrid", "arch": "hybrid_vit_384", "strategy": "finetune", "train": {"last_blocks": 1}},
    {"name": "swin", "arch": "swin_large", "strategy": "finetune", "train": {"layer_decay": 0.8}},
    {"name": "vit_head", "arch": "vit_base_224", "strategy": "head"},
    {"name": "mask_head", "arch": "resnet50", "strategy": "head", "channels": "masked-rgb"},
]


def _marks(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in ("cnn_ordinal", "vit_head") else [pytest.mark.slow]


@pytest.fixture
def small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name, spec in NETWORKS.items():
        monkeypatch.setitem(NETWORKS._entries, name, reduced(spec))


@pytest.mark.usefixtures("small_zoo")
@pytest.mark.parametrize("model", [pytest.param(m, id=m["name"], marks=_marks(m["name"])) for m in MODELS])
def test_the_network_that_is_explained_is_the_one_that_was_trained(model: dict[str, Any], tmp_path: Path) -> None:
    if model.get("strategy") == "lora":
        pytest.importorskip("peft", reason="the extra 'lora' is not installed")
    opened = make_study(tmp_path / "study")
    content = {
        "name": "one",
        "study": str(opened.root),
        "cv": {"n_folds": 4, "folds": [0]},
        "models": [{"weights": "none", **model}],
        "train": {"epochs": 2, "batch_size": 16, "tta_views": 1, "lr": 3e-3},
        "evaluate": {"n_bootstrap": 100},
    }
    plan = train(ExperimentConfig.model_validate(content), tmp_path / "run")
    entry = explain_run(plan.run, opened, plan.config, n_per_class=2)[model["name"]]
    assert "reason" not in entry, entry["reason"]
    assert entry["difference_from_file"] < 5e-3
    assert entry["method"] == ("attention-gradient" if "vit" in model["arch"] else "gradcam")
    assert entry["n_cells"] + entry["n_empty"] == 6

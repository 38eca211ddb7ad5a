"""What a network costs: counted right, measured apart, refused in a sentence."""

from __future__ import annotations

import json

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from perikarya.cli.app import app
from perikarya.errors import ConfigError, TrainingError, UnknownNameError
from perikarya.models.build import build_network, n_parameters
from perikarya.train import measure as measuring
from perikarya.train.measure import measure


def test_multiplications_are_counted_as_by_hand() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, padding=1, bias=False), torch.nn.Flatten())
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 4, 8, 8))
    assert counter.get_total_flops() / 2 == 4 * 6 * 9 * 8 * 8


def test_a_network_is_measured_in_processes_of_its_own() -> None:
    before = psutil.Process().memory_info().rss
    cost = measure("custom_cnn", input_px=32, batch=4, train=True)
    assert cost.params_m == pytest.approx(n_parameters(build_network("custom_cnn", n_classes=3)) / 1e6)
    assert cost.gmacs == pytest.approx(_gmacs("custom_cnn", 32))
    assert min(cost.cells_per_s_1, cost.cells_per_s_batch, cost.step_cells_per_s or 0) > 0
    assert 0 < cost.peak_gib < 2
    assert 0 < (cost.step_peak_gib or 0) < 2
    assert (cost.step_cells, cost.micro_batch, cost.checkpointing) == (16, 16, False)
    assert psutil.Process().memory_info().rss - before < 200e6


def _gmacs(arch: str, side: int) -> float:
    network = build_network(arch, n_classes=3).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 4, side, side, dtype=torch.uint8))
    return float(counter.get_total_flops()) / 2e9


def test_a_network_that_cannot_fit_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=1 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(measuring, "_in_process", lambda *_: pytest.fail("it was started"))
    with pytest.raises(TrainingError, match="gigapath needs more than"):
        measure("gigapath", input_px=None, batch=2, train=False)


def test_a_process_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="custom_cnn could not be measured"):
        measure("custom_cnn", input_px=None, batch=2, train=False)


def test_wrong_names_and_sizes_are_told_first() -> None:
    with pytest.raises(UnknownNameError):
        measure("resnet5", input_px=None, batch=2, train=False)
    with pytest.raises(ConfigError, match="takes sides"):
        measure("vit_base_224", input_px=100, batch=2, train=False)


def test_the_command_goes_on_after_a_failure_and_ends_with_1() -> None:
    names = ["vit_base_224", "custom_cnn"]
    done = CliRunner().invoke(app, ["models", *names, "--measure", "--input-px", "40", "--batch", "2", "--json"])
    assert done.exit_code == 1
    first, second = json.loads(done.stdout)
    assert "takes sides" in first["failed"]
    assert second["name"] == "custom_cnn"
    assert second["input_px"] == 40


def test_the_list_tells_licence_and_gating_to_other_programs() -> None:
    done = CliRunner().invoke(app, ["models", "--json"])
    listed = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert listed["uni"]["weights"]["gated"]
    assert listed["uni"]["weights"]["licence"] == "CC-BY-NC-ND-4.0"
    assert listed["custom_cnn"]["weights"] is None

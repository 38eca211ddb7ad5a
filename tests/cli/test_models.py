"""The list of networks is whole on a narrow terminal."""

from __future__ import annotations

import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from perikarya.cli import models as listing
from perikarya.cli.app import app
from perikarya.models.zoo import NETWORKS


def listed_at(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(listing, "console", Console(soft_wrap=True, highlight=False, width=width))
    listing.models_command()
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_cut_off(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = listed_at(width, monkeypatch, capsys)
    assert max(len(line) for line in shown.splitlines()) <= width
    together = " ".join(shown.split())
    for name, spec in NETWORKS.items():
        (line,) = re.findall(rf"^  {name} .*$", shown, flags=re.MULTILINE)
        assert f"{spec.params_m:.1f} M" in line
        assert str(spec.input_px) in line
        assert spec.summary in together
        if spec.weights is not None:
            assert spec.weights.name in together
            assert spec.weights.licence in line
            assert (f"{spec.weights.name}, gated" in together) == spec.weights.gated


def test_networks_stand_under_their_kind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = listed_at(80, monkeypatch, capsys)
    parts = re.split(r"^(?=\S)", shown, flags=re.MULTILINE)[1:]
    assert len(parts) == len(listing._KINDS)
    for kind, part in zip(listing._KINDS, parts, strict=True):
        assert [n for n, s in NETWORKS.items() if s.kind == kind] == re.findall(r"^  (\w+)", part, flags=re.MULTILINE)


def test_a_head_that_sees_another_size_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = listed_at(80, monkeypatch, capsys)
    assert re.search(r"efficientnet_lite0 +112, head 160 +3\.4 M  Apache-2\.0$", shown, flags=re.MULTILINE)
    assert re.search(r"resnet50 +224 +23\.5 M  Apache-2\.0$", shown, flags=re.MULTILINE)


def test_a_misspelt_network_is_told_before_any_is_measured() -> None:
    done = CliRunner().invoke(app, ["models", "resnet5", "--measure"])
    assert done.exit_code == 1
    assert "There is no network called 'resnet5'" in str(done.exception)

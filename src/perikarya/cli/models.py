"""The list of networks: two lines each, so that nothing is cut off on a terminal of 80 columns."""

from __future__ import annotations

import json
from dataclasses import asdict
from textwrap import wrap

import typer
from rich.markup import escape

from perikarya.cli.console import console
from perikarya.models.zoo import NETWORKS
from perikarya.models.zoo_spec import NetworkSpec

_KINDS = {
    "study": "of the published study",
    "small": "small, for a laptop",
    "modern": "a strong default",
    "encoder": "encoders, to be frozen",
}
_INDENT = " " * 4


def models_command(*, as_json: bool = False) -> None:
    """Print the zoo: name, input size, parameters, weights, their licence, and whether the hub asks for consent."""
    if as_json:
        typer.echo(json.dumps([_facts(name, spec) for name, spec in NETWORKS.items()], indent=1))
        return
    console.print(_line("network", "input px", "parameters", "licence of the weights"))
    for kind, title in _KINDS.items():
        console.print(f"[bold]{title}[/bold]")
        for name, spec in NETWORKS.items():
            if spec.kind == kind:
                _show(name, spec)


def _facts(name: str, spec: NetworkSpec) -> dict[str, object]:
    weights = None if spec.weights is None else asdict(spec.weights)
    shown = ("kind", "summary", "input_px", "head_px", "params_m", "lr", "mean", "std", "pooling", "input_multiple")
    return {"name": name, **{key: getattr(spec, key) for key in shown}, "weights": weights}


def _show(name: str, spec: NetworkSpec) -> None:
    px = str(spec.input_px) if spec.input_px == spec.head_px else f"{spec.input_px}, head {spec.head_px}"
    licence, source = "", "none, trained from random"
    if spec.weights is not None:
        licence, source = spec.weights.licence, spec.weights.name
        source = f"package {source}" if spec.weights.source == "package" else source
        source += ", gated: the hub wants its terms accepted" if spec.weights.gated else ""
    console.print(escape(_line(name, px, f"{spec.params_m:.1f} M", licence)))
    for part in (spec.summary, f"weights: {source}"):
        for text in wrap(part, console.width - len(_INDENT), break_long_words=False, break_on_hyphens=False):
            console.print(f"[dim]{_INDENT}{escape(text)}[/dim]")


def _line(name: str, px: str, parameters: str, licence: str) -> str:
    return f"  {name:<21} {px:<13} {parameters:>10}  {licence}".rstrip()

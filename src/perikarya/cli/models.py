"""The list of networks."""

from __future__ import annotations

from rich.table import Table

from perikarya.cli.screen import console
from perikarya.models.zoo import NETWORKS


def models_command() -> None:
    """Print the zoo: name, input size, parameters, weights and licence."""
    from perikarya.models.build import build_network, n_parameters

    table = Table("name", "what", "input px", "head px", "parameters", "weights", "licence", box=None)
    for name, spec in NETWORKS.items():
        million = n_parameters(build_network(name, n_classes=3)) / 1e6
        source = "none (trained from random)" if spec.weights is None else f"{spec.weights.source} {spec.weights.name}"
        licence = "" if spec.weights is None else spec.weights.licence
        table.add_row(name, spec.summary, str(spec.input_px), str(spec.head_px), f"{million:.1f} M", source, licence)
    console.print(table)

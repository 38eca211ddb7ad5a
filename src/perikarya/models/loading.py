"""Put the tensors of a file into a three-channel network: all of them but the classifier, or none."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from perikarya.errors import WeightsError
from perikarya.models.layouts import Checkpoint, State, read_checkpoint
from perikarya.models.weights import WeightsFile, read_state_dict
from perikarya.models.zoo_spec import NetworkSpec

log = logging.getLogger(__name__)

Build = Callable[[NetworkSpec], nn.Module]  # builds the three-channel network of a specification


def load_pretrained(spec: NetworkSpec, weights: WeightsFile, build: Build) -> tuple[nn.Module, NetworkSpec]:
    """Build a network on RGB, load pretrained weights and return it with what is now known of it.

    Parameters
    ----------
    spec
        What the zoo has on record; for a network that is read in several sizes, the file decides on size and
        normalisation.
    weights
        A file on this machine.
    build
        Builds the network that a specification describes.

    Raises
    ------
    WeightsError
        If the file does not fit the network.
    """
    checkpoint = read_checkpoint(read_state_dict(weights))
    spec = _as_in_file(spec, checkpoint, weights)
    network = build(spec)
    state = _fitted(checkpoint, network, spec)
    _load(network, state, weights)
    return network, spec


def spec_of_width(spec: NetworkSpec, width: int) -> NetworkSpec | None:
    """Return the size of a network whose tokens have that width, or None where it is not read in that size."""
    if not spec.by_width:
        return spec
    name = spec.by_width.get(width)
    return None if name is None else replace(spec, timm_name=name)


def _as_in_file(spec: NetworkSpec, checkpoint: Checkpoint, weights: WeightsFile) -> NetworkSpec:
    if not spec.by_width:
        return spec
    token = checkpoint.state.get("cls_token")
    found = None if token is None else spec_of_width(spec, token.shape[-1])
    if found is None:
        raise WeightsError(
            f"{weights.source} holds no vision transformer with tokens of width {sorted(spec.by_width)}.\n"
            "Tensors of another network would not make this one. Fix: name a ViT-B/16 or ViT-S/16 checkpoint."
        )
    mean, std = checkpoint.normalisation
    log.info("%s: %s, laid out by %s; mean %s, std %s", weights.source, found.timm_name, checkpoint.layout, mean, std)
    return replace(found, mean=mean, std=std)


def _fitted(checkpoint: Checkpoint, network: nn.Module, spec: NetworkSpec) -> State:
    """Bring tensors to the names and the grid of a network."""
    state = checkpoint.state
    if spec.weights is not None and spec.weights.source == "package":
        state = _renamed_in_order(state, spec)
    # what timm itself does to the files it loads: older names, position embeddings and windows of another size
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    if "antialias" in signature(adapt).parameters:
        adapt = partial(adapt, antialias=checkpoint.antialias)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"timm\.layers")  # how it indexes when it fits windows
            adapted: State = adapt(state, network)
    except (RuntimeError, AttributeError, KeyError, ValueError, AssertionError) as error:
        raise WeightsError(
            f"The tensors cannot be brought to this network's size: {str(error).splitlines()[0][:200]}\n"
            "Fix: choose weights of the same architecture."
        ) from None
    return adapted


def _renamed_in_order(state: State, spec: NetworkSpec) -> State:
    """Give tensors the names of timm's network: the Lite packages use other names in the same order."""
    import timm

    with torch.device("meta"):
        target = timm.create_model(spec.timm_name).state_dict()
    if set(state) & set(target):
        return state
    if [v.shape for v in state.values()] != [v.shape for v in target.values()]:
        raise WeightsError(
            f"The tensors do not match {spec.timm_name} one for one; a newer package or timm may have changed.\n"
            "Fix: install the versions of constraints.txt."
        )
    return dict(zip(target, state.values(), strict=True))


def _load(network: nn.Module, state: State, weights: WeightsFile) -> None:
    """Load everything but the classifier, strictly."""
    prefixes = classifier_prefixes(network)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
    target = {name: t for name, t in network.state_dict().items() if not name.startswith(prefixes)}
    wrong = [n for n in target if n not in state or state[n].shape != target[n].shape]
    unknown = [n for n in state if n not in target]
    if wrong or unknown:
        raise WeightsError(
            f"{weights.source} does not fit the network: {len(wrong)} of {len(target)} tensors are missing or of "
            f"another shape (first: {(wrong or unknown)[0]}), {len(unknown)} are unknown.\n"
            "A partly loaded network trains, but is not the network it claims to be.\n"
            "Fix: choose weights of the same architecture."
        )
    network.load_state_dict(state, strict=False)


def classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Return how the names of the classifier's tensors begin."""
    cfg: dict[str, Any] | None = getattr(network, "pretrained_cfg", None)
    found = cfg["classifier"] if cfg else "head"
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(f"{name}." for name in names)

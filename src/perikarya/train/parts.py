"""What of a network trains: everything, its last blocks, its classifier, or low-rank additions to its attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from timm.models import group_parameters
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from perikarya.config import TrainConfig
from perikarya.errors import ConfigError, TrainingError
from perikarya.models.build import CellNetwork
from perikarya.models.stem import TwoPathStem
from perikarya.train.lora import add_lora

Strategy = Literal["finetune", "head-then-finetune", "lora"]

_BACKBONE = "backbone."
_LORA = ".lora_"
_RGB, _MASK = "parametrizations.weight.original0", "parametrizations.weight.original1"


class TrainedParts:
    """A network made ready for a strategy, in place; ``restore`` makes it plain again.

    What is new learns at the full rate wherever it sits: the classifier, and the filters of the mask. Those of a
    pretrained network start at zero, so frozen, or slowed as the first layer they belong to, they would keep the
    outline from the network. For the time of training they are a tensor of their own. Their price: gradients go
    through the frozen layers above them too, so ``last_blocks`` saves time only where there is no mask.

    Parameters
    ----------
    network
        As built, on its device.
    train
        ``layer_decay``, ``last_blocks``, ``lora_rank``, ``lora_alpha`` and ``checkpointing``.
    strategy
        What trains in the end.

    Raises
    ------
    ConfigError
        If the settings contradict each other, or the network cannot be trained in this way.
    """

    def __init__(self, network: CellNetwork, *, train: TrainConfig, strategy: Strategy) -> None:
        backbone = network.backbone
        self.network = network
        self._classifier = _classifier_modules(backbone)
        self._rates = _rates(backbone, train.layer_decay)
        self._undo: list[Callable[[], None]] = [_activate_out_of_place(backbone)]
        chosen = _chosen(backbone, train, strategy)
        if train.checkpointing:
            self._undo.append(_checkpoint_activations(backbone))
        if chosen is not None or train.layer_decay < 1:
            self._undo.append(split_mask_filters(backbone))
        if strategy == "lora":
            self._undo.append(add_lora(backbone, rank=train.lora_rank, alpha=train.lora_alpha))
        self._new = self._new_names()
        names = {name for name, _ in network.named_parameters()}
        self._trained = names if chosen is None else {n for n in names if n in self._new or _plain(n) in chosen}
        self.train_classifier_only(False)

    def train_classifier_only(self, only: bool) -> None:
        """Freeze all but the classifier, or let everything train that is to train in the end."""
        self._classifier_only = only
        wanted = self._names_of(self._classifier) if only else self._trained
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in wanted)

    def set_training_mode(self) -> None:
        """Put the network into training mode, but what is frozen keeps the statistics of its normalisation."""
        self.network.train(not self._classifier_only)
        for module in self._classifier:
            module.train()
        for module in self.network.modules():
            parameters = list(module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and parameters and not any(p.requires_grad for p in parameters):
                module.eval()

    def rate_of(self, name: str) -> float:
        """Return what share of the learning rate a parameter of the network learns at."""
        return 1.0 if name in self._new else self._rates.get(_plain(name), 1.0)

    def changing(self) -> dict[str, Tensor]:
        """Return what a training changes, by name: what trains in the end, and all running statistics; no copies."""
        frozen = {name for name, _ in self.network.named_parameters()} - self._trained
        return {name: t for name, t in self.network.state_dict().items() if name not in frozen}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy into the network what ``changing`` gave."""
        for name, live in self.changing().items():
            live.copy_(tensors[name])

    def refuse_idle_lora(self) -> None:
        """Raise ``TrainingError`` when, after a step, an addition to an attention matrix has had no gradient."""
        idle = [n for n, p in self.network.named_parameters() if _LORA in n and p.requires_grad and p.grad is None]
        if idle:
            raise TrainingError(
                f"{len(idle)} LoRA additions take no part in the network's answer (first: {idle[0]}).\n"
                "Its attention uses its matrices past their layers, so training would leave them as they are.\n"
                "Fix: 'strategy: finetune' for this model, if need be with train.last_blocks."
            )

    def restore(self) -> None:
        """Merge and undo what was changed for training; the network has the layers it was built with."""
        for undo in reversed(self._undo):
            undo()
        self.network.requires_grad_(True)

    def _new_names(self) -> set[str]:
        mask_paths = [module.mask for module in self.network.modules() if isinstance(module, TwoPathStem)]
        added = {name for name, _ in self.network.named_parameters() if name.endswith(_MASK) or _LORA in name}
        return added | self._names_of([*self._classifier, *mask_paths])

    def _names_of(self, modules: list[nn.Module]) -> set[str]:
        wanted = {id(p) for module in modules for p in module.parameters()}
        return {name for name, p in self.network.named_parameters() if id(p) in wanted}


def split_mask_filters(backbone: nn.Module) -> Callable[[], None]:
    """Make the filters of RGB and of the mask two parameters each, in place; return a function that joins them.

    The answers of the network stay the same.
    """
    convs = _widened_convs(backbone)
    for conv in convs:
        parametrize.register_parametrization(conv, "weight", _SideBySide())

    def join() -> None:
        for conv in convs:
            parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)

    return join


class _SideBySide(nn.Module):
    """Filters of four channels, (out, 4, h, w), made of those of RGB and those of the mask."""

    def forward(self, rgb_oihw: Tensor, mask_oihw: Tensor) -> Tensor:
        return torch.cat([rgb_oihw, mask_oihw], dim=1)

    def right_inverse(self, weight_oihw: Tensor) -> tuple[Tensor, Tensor]:
        return weight_oihw[:, :3].clone(), weight_oihw[:, 3:].clone()


def _widened_convs(backbone: nn.Module) -> list[nn.Module]:
    """Return the first convolutions that see the mask beside RGB; a network that joins others has one of each."""
    found = {}
    for prefix, module in backbone.named_modules():
        first = (getattr(module, "pretrained_cfg", None) or {}).get("first_conv")
        for name in [first] if isinstance(first, str) else first or []:
            conv = module.get_submodule(name)
            if getattr(conv, "in_channels", 0) == 4:
                found[f"{prefix}.{name}"] = conv
    return list({id(conv): conv for conv in found.values()}.values())


def _plain(name: str) -> str:
    return name.removeprefix(_BACKBONE).replace(_RGB, "weight")


def _classifier_modules(backbone: nn.Module) -> list[nn.Module]:
    found = backbone.get_classifier()  # type: ignore[operator]
    return [found] if isinstance(found, nn.Module) else list(found)


def _layer_numbers(backbone: nn.Module, *, coarse: bool) -> dict[str, int]:
    """Return the layer of each parameter, from 0 at the input to the classifier, as timm divides its networks.

    Layers are blocks, or stages where ``coarse`` and the network has them.
    """
    found = group_parameters(backbone, backbone.group_matcher(coarse=coarse), reverse=True)  # type: ignore[operator]
    top = max(found.values())
    return {name: found.get(name, top) for name, _ in backbone.named_parameters()}


def _rates(backbone: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return the share of the learning rate of each parameter, ``layer_decay`` less per layer below the classifier."""
    if layer_decay == 1:
        return {}
    layers = _layer_numbers(backbone, coarse=False)
    top = max(layers.values())
    return {name: layer_decay ** (top - layer) for name, layer in layers.items()}


def _chosen(backbone: nn.Module, train: TrainConfig, strategy: Strategy) -> set[str] | None:
    """Return the pretrained parameters that train, or None for all."""
    if strategy == "lora":
        if train.last_blocks is not None:
            raise ConfigError(
                f"strategy 'lora' adds to all attention matrices, so train.last_blocks: {train.last_blocks} has "
                "nothing to choose from. Fix: leave it out, or use 'strategy: finetune'."
            )
        return set()
    if train.last_blocks is None:
        return None
    layers = _layer_numbers(backbone, coarse=True)
    top = max(layers.values())
    if train.last_blocks >= top:  # layer 0 is the stem
        raise ConfigError(
            f"train.last_blocks is {train.last_blocks}, but {type(backbone).__name__} has {top - 1} blocks between "
            "its first layer and its classifier.\nFix: a smaller number, or leave it out to train everything."
        )
    return {name for name, layer in layers.items() if layer >= top - train.last_blocks}


def _activate_out_of_place(backbone: nn.Module) -> Callable[[], None]:
    """Let activations write to new memory, and return a function that undoes it.

    The derivative of these needs their input, so that in place they have to copy it first, which takes longer (5 % of
    a step of efficientnet_lite0). That of ReLU follows from its output.
    """
    changed = [m for m in backbone.modules() if isinstance(m, (nn.ReLU6, nn.SiLU)) and m.inplace]
    for module in changed:
        module.inplace = False

    def undo() -> None:
        for module in changed:
            module.inplace = True

    return undo


def _checkpoint_activations(backbone: nn.Module) -> Callable[[], None]:
    switch: Any = getattr(backbone, "set_grad_checkpointing", None)
    try:
        supported = switch is not None
        if supported:
            switch(True)
    except AssertionError:  # how timm says that a network cannot
        supported = False
    if not supported:
        raise ConfigError(
            f"{type(backbone).__name__} cannot compute activations twice instead of keeping them.\n"
            "Fix: 'train.checkpointing: false' for this model; a smaller train.micro_batch saves memory too."
        )
    return lambda: switch(False)

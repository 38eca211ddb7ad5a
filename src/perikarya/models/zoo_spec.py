"""What is on record of a network: where its weights come from, what it accepts, how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

Kind = Literal["study", "small", "modern", "encoder"]
Pooling = Literal["average", "class token", "class token and mean"]


@dataclass(frozen=True)
class PretrainedWeights:
    """Where pretrained weights come from and under which licence.

    Parameters
    ----------
    source
        ``package`` (a Python package that ships the file), ``hub`` (a model of the Hugging Face hub) or ``branches``
        (the weights of the networks that are joined).
    name
        Import name of the package, id of the model, or the names of the joined networks.
    licence
        As its publisher states it.
    extra
        The pip extra that installs the package.
    gated
        Whether the hub hands the file out only to people who have accepted its terms.
    imagenet
        Whether they were trained for the classes of ImageNet, which ``weights: imagenet`` asks for.
    """

    source: Literal["package", "hub", "branches"]
    name: str
    licence: str
    extra: str = ""
    gated: bool = False
    imagenet: bool = True

    @property
    def page(self) -> str:
        """The page that describes the weights, in words; empty for joined networks, whose parts have their own."""
        where = {"hub": "at the Hugging Face hub", "package": "at the package index", "branches": ""}[self.source]
        return f"the page of {self.name} {where}" if where else ""


@dataclass(frozen=True)
class NetworkSpec:
    """One network of the zoo.

    Parameters
    ----------
    summary
        What it is, in half a line.
    kind
        ``study``: of the published study; ``small``: for laptops; ``modern``: a strong default; ``encoder``: a
        foundation model, meant to be frozen.
    input_px, head_px
        Side of the input it is fine-tuned at, and the side its frozen features are taken at.
    params_m
        Millions of parameters with four channels and three classes.
    lr
        Learning rate of fine-tuning that suits AdamW and batches of 32.
    timm_name, timm_kwargs
        Network of timm and what it is built with, beside channels, classes and size.
    swiglu
        Whether its transformer blocks are gated (SwiGLU) instead of plain.
    by_width
        Width of the tokens -> name in timm, for a network that is read in several sizes.
    build_own
        Builds a network of ours: (in_chans, n_classes) -> network.
    branches
        Names of the networks whose features are joined.
    weights
        None where it is trained from random weights.
    mean, std
        Those its weights were trained with, for RGB in 0..1.
    pooling
        What its features are made of.
    sized
        Whether it is built for one input size, to which position embeddings and windows are fitted.
    input_multiple, min_px
        Sides it accepts: multiples of the first, from the second up.
    micro_batch
        Cells in memory at once during fine-tuning, so that a training step fits 16 GB; None: as many as a batch has.
    checkpointing
        Whether fine-tuning computes activations twice instead of keeping them.
    """

    summary: str
    kind: Kind
    input_px: int
    head_px: int
    params_m: float
    lr: float
    timm_name: str = ""
    timm_kwargs: Mapping[str, Any] = field(default_factory=dict)
    swiglu: bool = False
    by_width: Mapping[int, str] = field(default_factory=dict)
    build_own: Callable[[int, int], nn.Module] | None = None
    branches: tuple[str, ...] = ()
    weights: PretrainedWeights | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pooling: Pooling = "average"
    sized: bool = False
    input_multiple: int = 1
    min_px: int = 32
    micro_batch: int | None = None
    checkpointing: bool = False

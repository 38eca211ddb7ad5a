"""What a phantom study holds before anything is painted: animals, fields, cells and the truth behind them.

The mix of classes follows a cumulative logit model (McCullagh, J. R. Stat. Soc. B 42, 1980): one latent damage per
animal and region shifts both thresholds. Damage rises with the group's injury and the region's vulnerability, and
varies from animal to animal, so that the animal, not the cell, is the unit of the experiment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from perikarya.schema import DEVELOPMENT, EXTERNAL
from perikarya.settings import Fraction, Settings

CLASS_NAMES = ("normal", "intermediate", "pyknotic")
GROUPS = ("sham", "ischemia", "ischemia+hypothermia")

_INJURY = {"sham": 0.0, "ischemia": 2.4, "ischemia+hypothermia": 1.1}  # logits in a fully vulnerable region
_THRESHOLDS = (0.1, -2.9)  # logits of "at least intermediate" and "pyknotic" in an undamaged animal
_SD_ANIMAL, _SD_ANIMAL_REGION = 0.45, 0.25  # logits
_SEVERITY_SD = (0.04, 1.1)  # spread of the severity of cells of one class: at difficulty 0, and what difficulty 1 adds
_LARGEST_UM = 30.0  # what a window must hold: the largest perikaryon


class PhantomSettings(Settings):
    """What a phantom study is like.

    ``difficulty`` 0 gives cells typical of their class; at 1 neighbouring classes overlap widely. ``effect`` scales
    the difference between the groups; 0 is no difference. ``label_noise`` is the probability that a recorded label
    is that of a neighbouring class.
    """

    n_cells: Annotated[int, Field(ge=1, le=10_000_000)] = 1200
    seed: Annotated[int, Field(ge=0)] = 0
    difficulty: Fraction = 0.3
    effect: Annotated[float, Field(ge=0, le=3)] = 1.0
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    n_subjects: Annotated[int, Field(ge=3, le=999)] = 18
    n_external_subjects: Annotated[int, Field(ge=0, le=999)] = 6
    window_px: Annotated[int, Field(ge=32, le=512)] = 80
    um_per_px: Annotated[float, Field(ge=0.2, le=1.0)] = 0.5

    @model_validator(mode="after")
    def _window_holds_a_cell(self) -> Self:
        if self.window_px * self.um_per_px < _LARGEST_UM:
            raise ValueError(
                f"a window of {self.window_px} px at {self.um_per_px} um/px is smaller than a large neuron "
                f"({_LARGEST_UM:.0f} um); raise window_px to {int(np.ceil(_LARGEST_UM / self.um_per_px))}"
            )
        return self


@dataclass(frozen=True)
class Region:
    """How one brain region looks and how vulnerable it is; lengths in micrometres, stains in optical density."""

    name: str
    soma_radius_um: float
    cells_per_field: int  # as many as a field holds
    layer_sd_um: float | None  # neurons lie in a layer of this half-width; None: scattered
    angularity: float  # 0 round (granule cells) to 1 pyramidal
    dendrite: float  # 0 none to 1 a long apical stump
    vulnerability: float  # share of the group's injury
    red: float  # acid fuchsin / eosin of the neuropil
    blue: float  # thionine / haematoxylin of the neuropil
    fibres: int  # per field
    glia: int  # per field


REGIONS = (
    Region("CA1", 9.0, 22, 17.0, 0.9, 0.9, 1.00, 0.125, 0.060, 60, 9),
    Region("CA3", 10.5, 18, 24.0, 0.8, 0.7, 0.65, 0.140, 0.068, 90, 9),
    Region("CA4", 10.0, 13, None, 0.7, 0.3, 0.85, 0.120, 0.055, 70, 13),
    Region("DG", 6.6, 36, 11.0, 0.2, 0.1, 0.35, 0.110, 0.068, 40, 8),
    Region("PS1", 8.6, 18, None, 0.8, 0.8, 0.75, 0.150, 0.048, 50, 12),
    Region("PS2", 10.8, 15, None, 1.0, 1.0, 0.95, 0.160, 0.045, 80, 11),
)


@dataclass(frozen=True)
class Animal:
    """One animal: its group, its set, its stain and its deviation from the group's damage, in logits."""

    name: str
    group: str
    set: str
    deviation_r: tuple[float, ...]  # one per region
    stain_rgb: tuple[tuple[float, ...], tuple[float, ...]]  # optical density per unit of blue and of red stain
    strength: tuple[float, float]  # of blue and red stain
    n_factor: float  # relative number of cells


@dataclass(frozen=True)
class FieldPlan:
    """One field to be painted and the cells it must show."""

    name: str
    animal: Animal
    region: Region
    severity_n: NDArray[np.float64]  # per cell; the classes' typical cells are at 0, 1 and 2
    spread: float  # independent spread of each feature of a cell, in units of severity
    um_per_px: float
    entropy: tuple[int, ...]


def class_fractions(group: str, region: Region, *, effect: float, deviation: float = 0.0) -> NDArray[np.float64]:
    """Return the expected fractions of the classes, shape (3,).

    Parameters
    ----------
    group
        One of ``GROUPS``.
    region
        The brain region; its vulnerability scales the group's injury.
    effect
        Scale of the difference between the groups; 0 makes them equal.
    deviation
        Of one animal from its group, in logits; 0 is the typical animal.
    """
    damage = effect * _INJURY[group] * region.vulnerability + deviation
    at_least = 1 / (1 + np.exp(-(np.asarray(_THRESHOLDS) + damage)))
    return np.array([1 - at_least[0], at_least[0] - at_least[1], at_least[1]])


def plan_animals(settings: PhantomSettings) -> list[Animal]:
    """Draw the animals of both sets; groups take turns, so each set has all groups if it has three animals."""
    animals = []
    for set_name, n, letter in (
        (DEVELOPMENT, settings.n_subjects, "A"),
        (EXTERNAL, settings.n_external_subjects, "X"),
    ):
        for i in range(n):
            rng = np.random.default_rng([settings.seed, 1, ord(letter), i])
            animals.append(_draw_animal(rng, f"{letter}{i + 1:02d}", GROUPS[i % len(GROUPS)], set_name))
    return animals


def _draw_animal(rng: np.random.Generator, name: str, group: str, set_name: str) -> Animal:
    deviation = rng.normal(0, _SD_ANIMAL) + rng.normal(0, _SD_ANIMAL_REGION, len(REGIONS))
    # thionine / haematoxylin and acid fuchsin / eosin; after Ruifrok & Johnston, Anal. Quant. Cytol. Histol. 23, 2001
    blue = np.array([0.66, 0.66, 0.33]) + rng.normal(0, [0.03, 0.025, 0.03])
    red = np.array([0.20, 0.90, 0.34]) + rng.normal(0, [0.04, 0.03, 0.05])
    strength = rng.normal([1.0, 1.0], [0.09, 0.13])
    if set_name == EXTERNAL:  # another batch of sections: redder and a little paler
        blue += [0.05, 0.0, -0.05]
        strength *= [0.92, 1.15]
    vectors = tuple(tuple(float(x) for x in v / np.linalg.norm(v)) for v in (blue, red))
    blue_strength, red_strength = np.clip(strength, 0.7, 1.4)
    return Animal(
        name=name,
        group=group,
        set=set_name,
        deviation_r=tuple(float(d) for d in deviation),
        stain_rgb=(vectors[0], vectors[1]),
        strength=(float(blue_strength), float(red_strength)),
        n_factor=float(np.exp(rng.normal(0, 0.15))),
    )


def plan_fields(settings: PhantomSettings, animals: list[Animal]) -> Iterator[tuple[FieldPlan, NDArray[np.int64]]]:
    """Yield one field after another with the true class of each of its cells, shape (n_cells_in_field,)."""
    counts = _cells_per_animal_and_region(settings, animals)
    sd = _SEVERITY_SD[0] + _SEVERITY_SD[1] * settings.difficulty
    for a, animal in enumerate(animals):
        for r, region in enumerate(REGIONS):
            rng = np.random.default_rng([settings.seed, 2, a, r])
            fractions = class_fractions(animal.group, region, effect=settings.effect, deviation=animal.deviation_r[r])
            n_fields = -(-int(counts[a, r]) // region.cells_per_field)
            for f, n in enumerate(_share(int(counts[a, r]), np.ones(n_fields))):
                true_n = rng.choice(len(CLASS_NAMES), size=int(n), p=fractions).astype(np.int64)
                plan = FieldPlan(
                    name=f"{animal.name}_{region.name}_{f + 1:0{max(2, len(str(n_fields)))}d}",
                    animal=animal,
                    region=region,
                    severity_n=true_n + rng.normal(0, 0.7 * sd, int(n)),
                    spread=0.7 * sd,
                    um_per_px=settings.um_per_px,
                    entropy=(settings.seed, 3, a, r, f),
                )
                yield plan, true_n


def _cells_per_animal_and_region(settings: PhantomSettings, animals: list[Animal]) -> NDArray[np.int64]:
    density = np.sqrt([region.cells_per_field for region in REGIONS])
    weights = np.outer([animal.n_factor for animal in animals], density)
    counts = _share(settings.n_cells, weights.ravel())
    return np.asarray(counts.reshape(len(animals), len(REGIONS)), np.int64)


def _share(total: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Divide a total in proportion to weights, by largest remainders."""
    if not len(weights):
        return np.zeros(0, np.int64)
    exact = np.asarray(total * weights / weights.sum(), np.float64)
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - int(counts.sum())]] += 1
    return counts


def record_labels(true_n: NDArray[np.int64], *, label_noise: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return what an erring grader writes down: with probability ``label_noise`` a class next to the true one."""
    wrong = rng.random(len(true_n)) < label_noise
    step = np.where(rng.random(len(true_n)) < 0.5, -1, 1)
    last = len(CLASS_NAMES) - 1
    step = np.where(true_n == 0, 1, np.where(true_n == last, -1, step))
    return np.where(wrong, true_n + step, true_n).astype(np.int64)

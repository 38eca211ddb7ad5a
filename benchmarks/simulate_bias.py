"""A planted treatment effect, estimated by every way of correcting: how biased, and do the intervals hold the truth.

    python benchmarks/simulate_bias.py [--quick] [--simulations 150] [--out docs/figures]

Animals with a known mix of classes in two groups, cells seen through an imperfect classifier whose recall differs
between classes, labelled reference animals with another mix. Prints a table and, as its last line, one JSON object;
with ``--out``, ``bias.csv`` and ``bias.png`` (and ``.pdf``) go to that folder.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from perikarya.evaluate.quantify.cells import SEVERITY, PredictedCells, fraction_measure, one_hot
from perikarya.evaluate.quantify.correction import METHODS, Reference, make_correction
from perikarya.evaluate.quantify.fractions import (
    Ends,
    GroupMean,
    ends,
    group_means,
    measure_animals,
    row_intervals,
)
from perikarya.evaluate.quantify.severity import severity_of
from perikarya.evaluate.quantify.tally import rows_of
from perikarya.figures.style import INK, light_grid, panels, save_figure, styled
from perikarya.runs import write_text
from perikarya.schema import NO_LABEL

CLASS_NAMES = ("normal", "intermediate", "pyknotic")
GROUPS = ("control", "treated")
SEED = 0
COVERAGES = {
    "effect_covered": ("effect", "D", "#A50026"),
    "treated_covered": ("treated group", "s", "#E69F00"),
    "control_covered": ("control group", "o", "#0072B2"),
    "animals_covered": ("single animals", "^", "#7F7F7F"),
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """A made-up laboratory.

    ``damage`` is the latent damage (logits) of a typical animal per group, ``reference_damage`` that of the labelled
    animals; ``sd_animal`` varies it. A cell shows its class blurred by normal noise (``overlap``, in steps between
    neighbouring classes) and by its animal's stain (``sd_stain``, 0: label shift holds exactly). ``boldness`` above 1
    makes the classifier surer than it should be.
    """

    damage: tuple[float, float] = (0.0, 1.6)
    reference_damage: float = 0.5
    sd_animal: float = 0.45
    overlap: float = 0.6
    sd_stain: float = 0.0
    boldness: float = 1.0
    n_per_group: int = 8
    n_reference: int = 16
    n_cells: int = 150

    def shares(self, damage: Floats | float) -> Floats:
        """Return the fractions of the classes at a latent damage, shape (..., 3): a cumulative logit model."""
        logits = np.asarray(damage)[..., None] + np.array([0.1, -2.2])
        above = 1.0 / (1.0 + np.exp(-logits))
        return np.stack([1 - above[..., 0], above[..., 0] - above[..., 1], above[..., 1]], axis=-1)

    def classifier(self) -> Floats:
        """Return the prior the classifier has learnt: the mix of typical reference animals."""
        return self.shares(self.reference_damage)

    def predict(self, label_n: NDArray[np.int64], stain_n: Floats, rng: np.random.Generator) -> Floats:
        """Return Bayes' probabilities of cells under the reference's mix, shape (n_cells, 3)."""
        seen_n = label_n + self.overlap * rng.standard_normal(len(label_n)) + stain_n
        distance_nk = (seen_n[:, None] - np.arange(3)) / self.overlap
        logit_nk = self.boldness * (-0.5 * distance_nk**2 + np.log(self.classifier()))
        prob_nk = np.exp(logit_nk - logit_nk.max(axis=1, keepdims=True))
        return np.asarray(prob_nk / prob_nk.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Animals:
    """Animals with their true fractions and their cells."""

    share_ak: Floats
    animal_n: NDArray[np.int64]
    label_n: NDArray[np.int64]
    prob_nk: Floats


def draw_animals(world: World, damage_a: Floats, rng: np.random.Generator) -> Animals:
    """Draw animals around a latent damage, their cells and what the classifier says of them."""
    share_ak = world.shares(damage_a + world.sd_animal * rng.standard_normal(len(damage_a)))
    label_n = np.concatenate([rng.choice(3, world.n_cells, p=share) for share in share_ak])
    animal_n = np.repeat(np.arange(len(damage_a)), world.n_cells)
    stain_n = (world.sd_stain * rng.standard_normal(len(damage_a)))[animal_n]
    return Animals(share_ak, animal_n, label_n, world.predict(label_n, stain_n, rng))


def true_severity(world: World, *, n: int = 400_001) -> Floats:
    """Return the mean severity over all animals of each group, by numerical integration."""
    z = np.linspace(-8, 8, n)
    weight = np.exp(-0.5 * z**2)
    values = [severity_of(world.shares(d + world.sd_animal * z)) for d in world.damage]
    return np.array([(weight * v).sum() / weight.sum() for v in values])


def simulate_bias(
    world: World, *, n_simulations: int, n_draws: int = 400, methods: tuple[str, ...] = METHODS, seed: int = SEED
) -> pd.DataFrame:
    """Estimate the planted effect again and again by every method.

    Returns
    -------
    One row per simulation and method: ``effect`` (difference of mean severity), ``effect_covered``,
    ``control_covered``, ``treated_covered`` (does the 95 % interval of the group's mean hold the truth) and
    ``animals_covered`` (share of animals whose interval of severity holds their own truth); ``truth`` is the effect.
    """
    truth_g = true_severity(world)
    found = []
    for i in range(n_simulations):
        rng = np.random.default_rng([seed, i])
        reference = draw_animals(world, np.full(world.n_reference, world.reference_damage), rng)
        target = draw_animals(world, np.repeat(world.damage, world.n_per_group), rng)
        for method in methods:
            found.append({"simulation": i, "method": method, "truth": float(truth_g[1] - truth_g[0])})
            found[-1] |= _one(world, reference, target, method, truth_g, n_draws=n_draws, seed=seed + i)
    return pd.DataFrame(found)


def _one(
    world: World, reference: Animals, target: Animals, method: str, truth_g: Floats, *, n_draws: int, seed: int
) -> dict[str, float]:
    cells = _cells(target, world.n_per_group)
    rows = rows_of(cells, groups=GROUPS, regions=(), seed=seed)
    correction = make_correction(method, _reference(reference), n_draws=n_draws, seed=seed)
    measured = measure_animals(cells, rows, correction, n_draws=n_draws, seed=seed)
    intervals = row_intervals(measured.bounded, rows, confidence=0.95, n_reference=world.n_reference)
    order = [int(r.subject[1:]) for r in rows]
    control, treated, _ = group_means(measured.free, CLASS_NAMES, groups=GROUPS, regions=(), seed=seed)
    difference_b = treated.draws[SEVERITY] - control.draws[SEVERITY]
    return {
        "effect": treated.estimate[SEVERITY] - control.estimate[SEVERITY],
        "effect_covered": _covers(difference_b, truth_g[1] - truth_g[0], control),
        "control_covered": _covers(control.draws[SEVERITY], truth_g[0], control),
        "treated_covered": _covers(treated.draws[SEVERITY], truth_g[1], treated),
        "animals_covered": _share_covered(intervals[SEVERITY], severity_of(target.share_ak)[order]),
        "worst_class_covered": _share_covered(intervals[fraction_measure(CLASS_NAMES[-1])], target.share_ak[order, -1]),
    }


def _cells(animals: Animals, n_per_group: int) -> PredictedCells:
    return PredictedCells(
        prob_nk=animals.prob_nk,
        label_n=np.full(len(animals.label_n), NO_LABEL),
        subject_n=np.array([f"a{a:03d}" for a in animals.animal_n], dtype=object),
        region_n=None,
        group_n=np.array([GROUPS[a // n_per_group] for a in animals.animal_n], dtype=object),
        image_n=np.array([f"image {i}" for i in range(len(animals.animal_n))], dtype=object),
        class_names=CLASS_NAMES,
    )


def _reference(animals: Animals) -> Reference:
    unit_n = np.array([f"reference {a:03d}" for a in animals.animal_n], dtype=object)
    votes = one_hot(animals.prob_nk.argmax(axis=1), 3)
    return Reference(animals.label_n, animals.prob_nk, votes, unit_n, CLASS_NAMES)


def _covers(draws_b: Floats, truth: float, group: GroupMean) -> bool:
    found = ends(draws_b, confidence=0.95, n_clusters=group.n_animals)
    return found is not None and found[0] <= truth <= found[1]


def _share_covered(intervals: list[Ends], truth_a: Floats) -> float:
    return float(np.mean([e is not None and e[0] <= t <= e[1] for e, t in zip(intervals, truth_a, strict=True)]))


def summarise(simulated: pd.DataFrame) -> pd.DataFrame:
    """Return mean effect, bias with its Monte Carlo error, and coverage per method."""
    grouped = simulated.groupby("method", sort=False)
    n = grouped.size()
    table = pd.DataFrame({"truth": grouped["truth"].first(), "effect": grouped["effect"].mean()})
    table["bias"] = table["effect"] - table["truth"]
    table["bias_se"] = grouped["effect"].std(ddof=1) / np.sqrt(n)
    table["low"], table["high"] = grouped["effect"].quantile(0.025), grouped["effect"].quantile(0.975)
    table["rmse"] = [float(np.sqrt(((g["effect"] - g["truth"]) ** 2).mean())) for _, g in grouped]
    for name in [c for c in map(str, simulated) if c.endswith("_covered")]:
        table[name] = grouped[name].mean()
    return table.assign(n_simulations=n)


SCENARIOS: dict[str, tuple[World, tuple[str, ...]]] = {
    "150 cells per animal": (World(), METHODS),
    "20 cells per animal, harder classes": (World(n_cells=20, overlap=0.8), ("none", "probabilistic", "em")),
    "an overconfident classifier": (World(boldness=2.5), ("mean", "probabilistic", "em")),
    "stain differs between animals": (World(sd_stain=0.25), ("none", "probabilistic", "em")),
}


@styled
def plot_bias(summary: pd.DataFrame) -> Figure:
    """Draw the mean estimate with the range of 95 % of the studies, and the coverage of 95 % intervals."""
    scenarios = list(dict.fromkeys(summary["scenario"]))
    sizes = [int((summary["scenario"] == s).sum()) for s in scenarios]
    figure, axes = panels(
        len(scenarios), 2, height_in=1.0 + 0.5 * len(scenarios) + 0.2 * sum(sizes), height_ratios=sizes, sharex="col"
    )
    for (left, right), name in zip(axes, scenarios, strict=True):
        part = summary[summary["scenario"] == name].reset_index()
        y = np.arange(len(part))
        left.axvline(part["truth"].iloc[0], color=INK, lw=0.8, ls=(0, (4, 2)))
        left.hlines(y, part["low"], part["high"], color="#0072B2", lw=1.2)
        left.plot(part["effect"], y, "o", ms=4.2, color="#0072B2")
        left.set_yticks(y, part["method"])
        left.set_title(name)
        right.axvspan(0.93, 0.97, color="#dfe4ea")
        for column, (label, marker, colour) in COVERAGES.items():
            right.plot(part[column], y, marker, ms=4, color=colour, label=label, ls="none", clip_on=False)
        right.set_xlim(0, 1.02)
        for ax in (left, right):
            light_grid(ax, axis="x")
            ax.set_ylim(len(part) - 0.5, -0.5)
        right.set_yticks(y, [])
    axes[-1, 0].set_xlabel("Estimated effect on severity (dashed: planted)")
    axes[-1, 1].set_xlabel("Intervals that hold the truth (band: 93-97 %)")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def main() -> None:
    """Simulate every scenario, print, and write the figure and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short run: seconds instead of minutes")
    parser.add_argument("--simulations", type=int, default=150, help="studies per scenario")
    parser.add_argument("--out", type=Path, help="folder for bias.csv and bias.png")
    arguments = parser.parse_args()
    n = 5 if arguments.quick else arguments.simulations
    parts = []
    for name, (world, methods) in SCENARIOS.items():
        simulated = simulate_bias(world, n_simulations=n, methods=methods)
        parts.append(summarise(simulated).assign(scenario=name))
    summary = pd.concat(parts)
    print(summary.drop(columns=["low", "high"]).round(3).to_string())
    if arguments.out is not None:
        write_text(arguments.out / "bias.csv", summary.round(5).to_csv())
        save_figure(plot_bias(summary), arguments.out, "bias")
    print(json.dumps({"benchmark": "simulate_bias", "n_simulations": n, "rows": _rows(summary)}))


def _rows(summary: pd.DataFrame) -> list[dict[str, Any]]:
    records = summary.round(4).reset_index().to_dict("records")
    return [{str(key): value for key, value in record.items()} for record in records]


if __name__ == "__main__":
    main()

"""How often the tests of a treatment cry wolf, what their intervals cover, and whether power is as calculated.

    python benchmarks/simulate_effects.py [--quick] [--studies 2000] [--part type-one] [--out docs/figures]

Draws studies in which cells of one animal are alike: each animal has its own class fractions (Dirichlet), each cell a
predicted probability of a fair classifier. Without an effect a test at 5 % should reject in 5 % of the studies. Writes
``type_one.csv`` and ``type_one.png``, prints tables and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from perikarya.evaluate.quantify.effects import TwoGroups, effect_sizes
from perikarya.evaluate.quantify.mixed import last_class_model, severity_model
from perikarya.evaluate.quantify.permutation import labelings, permutation_test
from perikarya.evaluate.quantify.power import detectable_effect, power_of
from perikarya.evaluate.stats import wilson_interval

Floats = NDArray[np.float64]
LEVEL = 0.05
SCORE = np.array([0.0, 0.5, 1.0])
TESTS = {
    "permutation": "animal permutation, severity",
    "permutation_last": "animal permutation, last class",
    "plain_permutation": "animal permutation, not studentised",
    "mixed": "mixed model, severity",
    "gee": "GEE, last class",
    "chi_square": "chi-square of cells",
}


@dataclass(frozen=True)
class Design:
    """A study of two groups; ``icc`` is the correlation of two cells of one animal, per group."""

    n_animals: tuple[int, int] = (6, 6)
    icc: tuple[float, float] = (0.15, 0.15)
    n_cells: tuple[int, int] = (30, 80)  # per animal, from and to
    fractions: tuple[float, float, float] = (0.3, 0.45, 0.25)
    shift: float = 0.0  # of the group's cells, from the first class to the last

    @property
    def name(self) -> str:
        """One line for tables and figures."""
        icc = "/".join(f"{x:g}" for x in dict.fromkeys(self.icc))
        return f"{self.n_animals[0]}+{self.n_animals[1]} animals, ICC {icc}"


DESIGNS = (
    Design(),
    Design(icc=(0.1, 0.1)),
    Design(icc=(0.2, 0.2)),
    Design(n_animals=(4, 4)),
    Design(n_animals=(4, 10), icc=(0.3, 0.05)),
)


@dataclass(frozen=True)
class SimulatedCells:
    """The cells of one study: expected severity, last class or not, predicted class, group (1 or 0) and animal."""

    severity_n: Floats
    last_n: Floats
    class_n: NDArray[np.int64]
    is_group_n: Floats
    animal_n: NDArray[np.int64]

    def animals(self, value_n: Floats) -> TwoGroups:
        """Average a value of the cells within each animal."""
        mean = np.bincount(self.animal_n, value_n) / np.bincount(self.animal_n)
        is_group = np.bincount(self.animal_n, self.is_group_n) > 0
        return TwoGroups(mean[is_group], mean[~is_group], mean[is_group][None], mean[~is_group][None])


def draw_study(design: Design, rng: np.random.Generator) -> SimulatedCells:
    """Draw one study; the first group is the treated one."""
    fraction_ak = np.concatenate(
        [
            rng.dirichlet(np.array(mean) * (1 / icc - 1), n)  # its cells have this correlation, whatever the class
            for mean, icc, n in zip(_means(design), design.icc, design.n_animals, strict=True)
        ]
    )
    n_cells = rng.integers(design.n_cells[0], design.n_cells[1] + 1, sum(design.n_animals))
    animal_n = np.repeat(np.arange(len(n_cells)), n_cells)
    below = fraction_ak.cumsum(axis=1)[animal_n, :-1]
    true_n = (rng.random((len(animal_n), 1)) > below).sum(axis=1)
    logit_nk = 3 * np.eye(len(SCORE))[true_n] + rng.normal(0, 1, (len(animal_n), len(SCORE)))
    prob_nk = np.exp(logit_nk) / np.exp(logit_nk).sum(axis=1, keepdims=True)
    class_n = prob_nk.argmax(axis=1)
    is_group_n = (animal_n < design.n_animals[0]).astype(np.float64)
    return SimulatedCells(prob_nk @ SCORE, (class_n == 2).astype(np.float64), class_n, is_group_n, animal_n)


def _means(design: Design) -> tuple[Sequence[float], Sequence[float]]:
    first, middle, last = design.fractions
    return (first - design.shift, middle, last + design.shift), design.fractions


def simulate_type_one(
    design: Design = DESIGNS[0], *, n_studies: int, seed: int = 0, models: bool = True
) -> pd.DataFrame:
    """Test the same null studies by every test.

    Returns
    -------
    One row per study: the p value of each of ``TESTS`` (NaN where a model could not be fitted) and ``covered``, whether
    the 95 % interval of the difference in severity holds zero. ``models`` off leaves out the models of cells, which
    take most of the time, and the intervals.
    """
    rng = np.random.default_rng([seed, *design.n_animals])
    rows = []
    for _ in range(n_studies):
        cells = draw_study(design, rng)
        severity, last = cells.animals(cells.severity_n), cells.animals(cells.last_n)
        row: dict[str, Any] = {
            "permutation": _permutation(severity),
            "permutation_last": _permutation(last),
            "plain_permutation": plain_permutation(severity),
            "chi_square": float(chi2_contingency(_crosstab(cells))[1]),
        }
        if models:
            sides = cells.is_group_n, cells.animal_n
            row["mixed"] = severity_model(cells.severity_n, *sides, confidence=1 - LEVEL)["p"]
            row["gee"] = last_class_model(cells.last_n, *sides, confidence=1 - LEVEL)["p"]
            low, high = effect_sizes(severity, n_draws=2000, confidence=1 - LEVEL, seed=seed)["difference"]["ci95"]
            row["covered"] = bool(low <= 0 <= high)
        rows.append(row)
    return pd.DataFrame(rows)


def _permutation(animals: TwoGroups) -> float:
    return float(permutation_test(animals.group_n, animals.reference_n, n_permutations=10_000, seed=0)["p"])


def plain_permutation(animals: TwoGroups) -> float:
    """Test a plain difference of means by all labelings: what the studentised test is there to improve on."""
    value = np.concatenate([animals.group_n, animals.reference_n])
    n, n_group = len(value), len(animals.group_n)
    sums = labelings(n, n_group) @ (value - value.mean())  # the difference of means is proportional to it
    return float((np.abs(sums) >= abs(sums[0]) - 1e-12).mean())


def _crosstab(cells: SimulatedCells) -> NDArray[np.int64]:
    table = np.bincount(cells.class_n + 3 * cells.is_group_n.astype(np.int64), minlength=6).reshape(2, 3)
    return table[:, table.sum(axis=0) > 0]


def simulate_power(design: Design, *, n_studies: int, seed: int = 0, models: bool = True) -> dict[str, float]:
    """Compare the power that is calculated from true difference and spread with the share of studies that find it.

    Difference and spread of the animals' severity come from 20,000 animals of each group.
    """
    rng = np.random.default_rng([seed, 1])
    many = draw_study(replace(design, n_animals=(20_000, 20_000)), rng)
    animals = many.animals(many.severity_n)
    difference = float(animals.group_n.mean() - animals.reference_n.mean())
    sd = float(np.sqrt((animals.group_n.var() + animals.reference_n.var()) / 2))
    found, fitted = 0, 0
    for _ in range(n_studies):
        cells = draw_study(design, rng)
        found += _permutation(cells.animals(cells.severity_n)) <= LEVEL
        if models:
            p = severity_model(cells.severity_n, cells.is_group_n, cells.animal_n, confidence=1 - LEVEL)["p"]
            fitted += p is not None and p <= LEVEL
    return {
        "animals_per_group": design.n_animals[0],
        "difference": difference,
        "sd": sd,
        "calculated": power_of(difference / sd, design.n_animals[0], level=LEVEL),
        "permutation": found / n_studies,
        "mixed": fitted / n_studies if models else float("nan"),
    }


def simulate_shared_error(n_animals: int, *, n_studies: int, error: float = 0.15, seed: int = 0) -> dict[str, float]:
    """Count how often intervals hold the true difference when one unknown factor scales the values of all animals.

    So does a misclassification matrix that is slightly wrong. Returns the shares for no such error, for one whose joint
    draws are handed over, and for one that is ignored.
    """
    rng = np.random.default_rng([seed, n_animals])
    held = {"no_error": 0, "carried": 0, "ignored": 0}
    for _ in range(n_studies):
        group, reference = rng.normal(0.6, 0.08, n_animals), rng.normal(0.2, 0.05, n_animals)
        factor, drawn = rng.normal(1, error), rng.normal(1, error, (500, 1))
        wrong, wrong_reference = factor * group, factor * reference
        for name, animals in {
            "no_error": TwoGroups(group, reference, group[None], reference[None]),
            "carried": TwoGroups(wrong, wrong_reference, wrong * drawn, wrong_reference * drawn),
            "ignored": TwoGroups(wrong, wrong_reference, wrong[None], wrong_reference[None]),
        }.items():
            low, high = effect_sizes(animals, n_draws=1000, confidence=1 - LEVEL, seed=seed)["difference"]["ci95"]
            held[name] += low <= 0.4 <= high
    return {"animals": n_animals} | {name: n / n_studies for name, n in held.items()}


def planted(n_animals: int, *, power: float = 0.8, icc: float = 0.15) -> Design:
    """Return a design whose effect so many animals per group should find with this power, to a first approximation."""
    classes = np.array(Design.fractions)
    sd = float(np.sqrt((classes @ SCORE**2 - (classes @ SCORE) ** 2) * (icc + (1 - icc) / np.mean(Design.n_cells))))
    shift = detectable_effect(n_animals, power=power, level=LEVEL) * sd
    return Design(n_animals=(n_animals, n_animals), icc=(icc, icc), shift=round(min(shift, 0.29), 3))


def rates(studies: pd.DataFrame) -> pd.DataFrame:
    """Return for each test the share of studies it rejects, with Wilson's interval, and how many it could not fit."""
    rows = []
    for test in (t for t in TESTS if t in studies):
        p = studies[test].astype(np.float64)
        fitted = p.dropna()
        rate = float((fitted <= LEVEL).mean())
        low, high = wilson_interval(rate, len(fitted), confidence=0.95) or (np.nan, np.nan)
        rows.append({"test": test, "rejected": rate, "low": low, "high": high, "not_fitted": int(p.isna().sum())})
    return pd.DataFrame(rows)


def plot_type_one(table: pd.DataFrame) -> Any:
    """Draw the rates of all tests and designs on a logarithmic axis, with the band from 3 to 7 %."""
    from perikarya.figures.style import class_colours, class_marker, light_grid, panels, styled

    @styled
    def draw() -> Any:
        designs = list(dict.fromkeys(table["design"]))
        figure, axes = panels(1, 1, height_in=0.9 + 0.62 * len(designs))
        ax = axes[0, 0]
        ax.axvspan(0.03, 0.07, color="#e8f1e4", lw=0)
        ax.axvline(LEVEL, color="#6b7785", lw=0.8, ls=(0, (4, 2)))
        for i, (test, colour) in enumerate(zip(TESTS, class_colours(len(TESTS)), strict=True)):
            part = table[table["test"] == test].set_index("design").reindex(designs)
            y = np.arange(len(designs)) + (i - (len(TESTS) - 1) / 2) * 0.13
            ax.hlines(y, part["low"], part["high"], color=colour, lw=1.2)
            ax.plot(part["rejected"], y, class_marker(i), color=colour, ms=4, label=TESTS[test])
        ax.set_xscale("log")
        ticks = [0.01, 0.03, 0.05, 0.07, 0.2, 0.5, 1.0]
        ax.set_xlim(0.008, 1.0)
        ax.set_xticks(ticks, [f"{t:.0%}" for t in ticks])
        ax.set_xticks([], minor=True)
        ax.set_yticks(range(len(designs)), designs)
        ax.invert_yaxis()
        ax.set_xlabel("Studies without an effect in which the test finds one at 5 %")
        light_grid(ax, axis="x")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3)
        return figure

    return draw()


def run_type_one(n_studies: int, out: Path | None) -> pd.DataFrame:
    """Simulate all null designs, print a table of each and write figure and CSV."""
    from _common import print_table
    from perikarya.figures.style import save_figure

    tables = []
    for design in DESIGNS:
        studies = simulate_type_one(design, n_studies=n_studies)
        coverage = float(studies["covered"].mean())
        tables.append(rates(studies).assign(design=design.name, n_studies=n_studies, coverage=coverage))
        print_table(["test", "rejected", "low", "high", "not fitted"], tables[-1].iloc[:, :5].values.tolist())
        print(f"{design.name}: the interval of the difference holds the truth in {coverage:.1%}\n")
    table = pd.concat(tables, ignore_index=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "type_one.csv", index=False, float_format="%.4f")
        save_figure(plot_type_one(table), out, "type_one")
    return table


def main() -> None:
    """Run the parts that are asked for."""
    from _common import parse_arguments, print_json, print_table

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--studies", type=int, default=2000, help="simulated studies per design")
        parser.add_argument("--part", choices=["all", "type-one", "power", "shared-error"], default="all")
        parser.add_argument("--out", type=Path, help="folder of type_one.csv and type_one.png")

    arguments = parse_arguments(__doc__, extend=extend)
    n_studies, part = 100 if arguments.quick else arguments.studies, arguments.part
    found: dict[str, Any] = {}
    if part in ("all", "type-one"):
        found["type_one"] = run_type_one(n_studies, arguments.out).to_dict("records")
    if part in ("all", "power"):
        found["power"] = [simulate_power(planted(n), n_studies=n_studies) for n in (5, 8, 12)]
        print_table(list(found["power"][0]), [list(p.values()) for p in found["power"]])
    if part in ("all", "shared-error"):
        found["shared_error"] = [simulate_shared_error(n, n_studies=n_studies) for n in (3, 4, 6, 10)]
        print_table(list(found["shared_error"][0]), [list(p.values()) for p in found["shared_error"]])
    print_json("simulate_effects", n_studies=n_studies, **found)


if __name__ == "__main__":
    main()

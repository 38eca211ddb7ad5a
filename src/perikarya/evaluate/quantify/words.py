"""What a reader of a damage figure must know, in whole sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from perikarya.evaluate.protocol import FEW_CLUSTERS
from perikarya.evaluate.quantify.cells import ALL_REGIONS
from perikarya.evaluate.quantify.gather import Gathered
from perikarya.evaluate.stats import IMAGE, MIN_CLUSTERS
from perikarya.schema import DEVELOPMENT, EXTERNAL
from perikarya.settings import QuantifyConfig

FEW_CELLS = 10  # of one animal and region; below, a fraction moves in steps of more than ten points
POOR_CONDITION = 10.0

_HOW = {
    "none": "Fractions are shares of the labels the network predicts, not corrected for its errors: they are biased "
    "wherever recall differs between classes.",
    "adjusted": "Fractions are shares of predicted labels, corrected by the misclassification matrix of the reference "
    "cells (adjusted count).",
    "probabilistic": "Fractions are mean predicted probabilities, corrected by their means over the reference cells of "
    "each true class (probabilistic adjusted count).",
    "em": "Fractions are those under which the calibrated probabilities are most likely (prior shift by EM).",
}


def assumptions(
    settings: QuantifyConfig, corrected: dict[str, Any], gathered: Gathered, groups: Sequence[str]
) -> list[str]:
    """Say how the figures came about and what must hold for them to be right."""
    return list(_assumptions(settings, corrected, gathered, groups))


def _assumptions(
    settings: QuantifyConfig, corrected: dict[str, Any], gathered: Gathered, groups: Sequence[str]
) -> Iterator[str]:
    yield _HOW[settings.correction]
    reference = corrected["reference"]
    if reference is not None:
        yield (
            "The correction assumes that the network errs on the animals counted as it does on the reference animals: "
            "the same probability of each predicted class given the true one, in every region; only the mix of classes "
            "may differ."
        )
        yield (
            f"The reference is {reference['n_cells']} labelled cells of {reference['n_animals']} animals, predicted by "
            "networks that were not trained on them; an animal of the reference is corrected by the others alone."
        )
    yield (
        "Severity is the mean of the classes' ranks, 0 for the first and 1 for the last "
        f"({', '.join(gathered.cells.class_names)}), under these fractions: it takes the steps between neighbouring "
        "classes as equal."
    )
    yield (
        "An animal's interval resamples its images where it has three or more in a region, else its cells"
        + (", and the reference animals" if reference is not None else "")
        + (
            "; it also holds how much reference animals differ in the network's errors"
            if settings.correction in ("adjusted", "probabilistic")
            else ""
        )
        + ". Groups are means over animals, each counting once, and their intervals resample animals. "
        f"'{ALL_REGIONS}' pools an animal's cells of every region."
    )
    sets = {s: sum(v == s for v in gathered.set_of.values()) for s in (DEVELOPMENT, EXTERNAL)}
    if all(sets.values()):
        yield (
            f"{sets[DEVELOPMENT]} animals are of the development set, each predicted by networks that did not see it, "
            f"and {sets[EXTERNAL]} of the external set, predicted by all networks; groups hold both."
        )
    if groups and settings.control is None:
        yield f"The control is taken to be '{groups[0]}', by its name or as the first group; --control names another."


def findings(corrected: dict[str, Any], animals: Sequence[dict[str, Any]]) -> list[str]:
    """Say what weakens these very figures."""
    return list(_findings(corrected, animals))


def _findings(corrected: dict[str, Any], animals: Sequence[dict[str, Any]]) -> Iterator[str]:
    reference, check = corrected["reference"], corrected["check"]
    if reference is not None:
        if reference["n_animals"] < FEW_CLUSTERS:
            yield (
                f"Only {reference['n_animals']} reference animals show how the network errs; the error of the "
                "correction is larger than the intervals say."
            )
        for name, n in reference["n_animals_per_class"].items():
            if n < MIN_CLUSTERS:
                yield f"Class '{name}' is labelled in {n} reference animal(s) only; its correction rests on them."
        if corrected["condition"] > POOR_CONDITION:
            yield (
                f"The classes are hard to tell apart (condition number {corrected['condition']:.1f}): the correction "
                "multiplies the error of counting, and intervals are wide."
            )
    if check is not None and check["differs"]:
        yield (
            f"On {check['n_animals']} labelled animals outside the reference the network errs otherwise than on the "
            f"reference ({check['measure']} of {', '.join(check['differs'])}): the correction's assumption does not "
            "hold there, and corrected figures may be off."
        )
    n_small = sum(a["n_cells"] < FEW_CELLS for a in animals)
    if n_small:
        yield f"{n_small} of {len(animals)} animals and regions have fewer than {FEW_CELLS} cells."
    if any(a["resampled"] == IMAGE and a["n_resampled"] < FEW_CLUSTERS for a in animals):
        yield f"Intervals of animals that resample fewer than {FEW_CLUSTERS} images tend to be too narrow."

"""The items of TRIPOD+AI and of CLAIM 2024, in short, each with what the facts of a run say of it.

TRIPOD+AI: Collins et al. 2024, doi:10.1136/bmj-2023-078378. CLAIM 2024: Tejani et al. 2024, doi:10.1148/ryai.240300.
Items are paraphrased; a submission needs the forms of the guidelines themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Status = Literal["met", "partly", "not met", "not applicable", "authors"]
STATUSES: tuple[Status, ...] = ("met", "partly", "not met", "not applicable", "authors")


@dataclass(frozen=True)
class Item:
    """One item of a guideline: what it asks, whether this run meets it, and where or why."""

    number: str
    asks: str
    status: Status
    where: str


@dataclass(frozen=True)
class Facts:
    """What the files of a run tell that an item may ask for."""

    has_external: bool
    has_cv: bool
    by_animal: bool
    animals_known: bool
    has_scopes: bool
    has_intervals: bool
    has_calibration: bool
    has_abstention: bool
    has_damage: bool
    has_labels: bool
    has_explain: bool
    has_saturation: bool
    has_comparisons: bool
    has_ensemble: bool
    has_check: bool
    balances: bool
    n_unlabelled: int
    weights_named: bool


def _authors(number: str, asks: str, hint: str = "") -> Item:
    return Item(number, asks, "authors", hint or "Only the authors can say.")


def _if(ok: bool, number: str, asks: str, where: str, why_not: str, otherwise: Status = "not met") -> Item:
    return Item(number, asks, "met" if ok else otherwise, where if ok else why_not)


def tripod_items(f: Facts) -> Iterator[Item]:
    """Decide the items of TRIPOD+AI."""
    yield _authors("1–4", "Title, abstract, context, intended users, known inequalities, objectives")
    yield _authors("5a–6c", "Sources and dates of the data, setting, eligibility, treatments")
    yield _if(
        f.has_check,
        "7",
        "Preparation and checking of the data",
        "The study: check for duplicates, outlines, leakage.",
        "The study was not checked before this report.",
    )
    yield _authors(
        "8a–8c",
        "Outcome, how it was graded, by whom, blinded to what",
        "Authors: who graded the cells, how, and blind to group or not.",
    )
    yield Item(
        "9a–9c",
        "Predictors and how they were measured",
        "met",
        "Methods: Networks (channels, input size); the outline is part of the input.",
    )
    yield Item(
        "10",
        "Sample size and its justification",
        "partly" if f.has_saturation else "not met",
        (
            "What limits accuracy shows what more animals would bring; "
            if f.has_saturation
            else "The numbers are given; "
        )
        + "no calculation before the study is on record.",
    )
    yield Item(
        "11",
        "Missing data",
        "met",
        f"{f.n_unlabelled} cell(s) without a label, not scored; every other cell is complete.",
    )
    yield _if(
        f.by_animal,
        "12a",
        "How data were divided for development and evaluation",
        "Methods: Design; no animal on two sides.",
        "Folds were not drawn over animals: cells of one animal may be on two sides.",
        "partly",
    )
    yield Item(
        "12c",
        "Type of model, all steps of building it, internal validation",
        "met" if f.has_cv else "partly",
        "Methods: Networks, Training, Design."
        if f.has_cv
        else "Methods; a single training, without internal validation.",
    )
    yield _if(
        f.has_scopes,
        "12d",
        "Differences between clusters of the data",
        "Regions and groups.",
        "The study has no regions and groups.",
        "not applicable",
    )
    yield Item("12e", "Measures and plots of performance", "met", "Models compared; the leading model.")
    yield Item(
        "12f–12g",
        "Updating of a model; how predictions were calculated",
        "not applicable",
        "No published model was updated; predictions: Methods.",
    )
    yield _if(
        f.balances,
        "13",
        "Class imbalance, methods and their effect on calibration",
        "Methods: Augmentation and balance of classes; calibration of each model.",
        "Classes were not resampled; balanced scores and scores per class are given.",
        "met",
    )
    yield Item(
        "14",
        "Fairness: performance in groups",
        "partly" if f.has_scopes else "not met",
        "Scores by region and group; other attributes of the animals are not in the data."
        if f.has_scopes
        else "No groups are on record.",
    )
    yield Item(
        "15",
        "Output of the model and thresholds",
        "met",
        "Probabilities of each class; the class is the most probable."
        + (" Abstention: its own section." if f.has_abstention else ""),
    )
    yield _if(
        f.has_external,
        "16",
        "Differences between training and evaluation data",
        "The study: cells of both sets by class; animals of the external set took no part in training.",
        "There is no external set.",
        "not applicable",
    )
    yield _authors("17", "Ethical approval")
    yield _authors("18a–18e", "Funding, conflicts of interest, protocol, registration, sharing of data")
    yield Item("18f", "Sharing of code", "met", "Perikarya is open; settings, versions, seeds and hashes: Provenance.")
    yield Item("19", "Involvement of patients and public", "not applicable", "Animal study.")
    yield Item(
        "20a–20c",
        "Flow and characteristics of subjects, sets compared",
        "partly",
        "The study: cells, animals and images per set and class; exclusions before import are the authors'.",
    )
    yield Item(
        "21",
        "Numbers in each analysis",
        "met" if f.animals_known else "partly",
        "Every table names its cells" + (" and animals." if f.animals_known else "; the animals are not known."),
    )
    yield Item(
        "22",
        "The full model, so that others can predict with it",
        "met",
        "model.safetensors of every network in the run folder; settings in Provenance.",
    )
    yield _if(
        f.has_intervals,
        "23a",
        "Performance with intervals, in subgroups too",
        "Models compared; the leading model; regions and groups.",
        "Too few independent units for intervals.",
        "partly",
    )
    yield _if(
        f.has_scopes,
        "23b",
        "Differences of performance between clusters",
        "Regions and groups.",
        "The study has no regions and groups.",
        "not applicable",
    )
    yield Item("24", "Results of updating", "not applicable", "No model was updated.")
    yield _authors(
        "25–27c", "Interpretation, limits, use in practice", "Authors; limits known to the software: model card."
    )


def claim_items(f: Facts) -> Iterator[Item]:
    """Decide the items of CLAIM 2024."""
    yield _authors("1–4", "Title, abstract, background, objectives")
    yield _authors("5–6", "Prospective or retrospective; goal of the study")
    yield _authors("7–8", "Sources of the data, inclusion and exclusion")
    yield Item("9", "Preprocessing", "met", "Methods: Cells, Networks.")
    yield _authors("10", "Selection of subsets of the data", "Authors; all cells of the study folder were used.")
    yield Item("11", "De-identification", "not applicable", "Animal study.")
    yield Item("12", "Missing data", "met", f"{f.n_unlabelled} cell(s) without a label, not scored.")
    yield _authors("13", "How images were acquired", "Authors: stain, scanner, magnification.")
    yield _authors("14–17", "Reference standard: definition, reason, source, annotation of the test set")
    yield Item(
        "18",
        "Variability between and within readers",
        "partly" if f.has_labels else "not met",
        "Label quality estimates the share of wrong labels; repeated readings are the authors'."
        if f.has_labels
        else "No repeated readings are on record.",
    )
    yield Item("19", "How data were assigned to partitions", "met", "Methods: Design, with the seed; folds.parquet.")
    yield _if(
        f.by_animal,
        "20",
        "Level at which partitions are disjoint",
        "Animals.",
        "Not animals: they are unknown or the settings chose otherwise.",
        "partly",
    )
    yield Item(
        "21",
        "Intended sample size",
        "not met",
        "No calculation before the study is on record." + (" A learning curve is given." if f.has_saturation else ""),
    )
    yield Item("22", "Description of the model", "met", "Methods: Networks.")
    yield Item("23", "Software and versions", "met", "Methods: Software; Provenance.")
    yield _if(
        f.weights_named,
        "24",
        "Initialisation of the model",
        "Methods: Networks, with source, licence and hash of the weights.",
        "The source of some weights is not on record.",
        "partly",
    )
    yield Item(
        "25",
        "Training: augmentation, hyperparameters, number of models",
        "met",
        "Methods: Training, Augmentation; All settings.",
    )
    yield Item(
        "26",
        "Selection of the final model",
        "met",
        "Methods: the state with the lowest loss on the stopping fold; models are ordered by "
        + (
            "their external score, which flatters the first."
            if f.has_external
            else "their cross-validated score, which flatters the first."
        ),
    )
    yield _if(f.has_ensemble, "27", "Ensembles", "Methods: Ensembles and views.", "No ensemble.", "not applicable")
    yield Item("28", "Measures of performance", "met", "Methods: Scores.")
    yield _if(
        f.has_intervals,
        "29",
        "Uncertainty and significance",
        "Methods: Uncertainty" + (", Comparison." if f.has_comparisons else "."),
        "Too few independent units for intervals.",
        "partly",
    )
    yield Item(
        "30",
        "Robustness",
        "partly" if f.has_scopes or f.has_saturation else "not met",
        "Regions, groups, seeds and folds; other stains and scanners were not tested."
        if f.has_scopes or f.has_saturation
        else "No subgroups; other stains and scanners were not tested.",
    )
    yield _if(
        f.has_explain,
        "31",
        "Explanation of the model",
        "Where the networks look.",
        "Run 'perikarya explain' to add it.",
    )
    yield _if(
        f.has_cv, "32", "Evaluation on internal data", "Cross-validation.", "No cell of the development set was tested."
    )
    yield _if(
        f.has_external,
        "33",
        "Testing on external data",
        "External set: other animals than in training.",
        "There is no external set.",
    )
    yield Item("34", "Registration of a clinical trial", "not applicable", "Animal study.")
    yield Item(
        "35",
        "Numbers included and excluded",
        "partly",
        "The study: numbers included; exclusions before import are the authors'.",
    )
    yield Item(
        "36",
        "Characteristics of the cases in each partition",
        "partly",
        "The study: classes, regions and groups; age, sex and weight of the animals are the authors'.",
    )
    yield _if(
        f.has_intervals,
        "37–38",
        "Performance and its precision",
        "Models compared; the leading model.",
        "Too few independent units for intervals.",
        "partly",
    )
    yield Item("39", "Analysis of failures", "met", "The leading model: surest mistakes; every cell: explore.")
    yield _authors("40–41", "Limits, implications for practice", "Authors; limits known to the software: model card.")
    yield _authors("42", "Full protocol of the study")
    yield Item(
        "43",
        "Availability of software, model and data",
        "partly",
        "Software is open, networks are in the run folder; the authors say where they and the data can be had.",
    )
    yield _authors("44", "Funding")

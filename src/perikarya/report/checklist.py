"""Which items of TRIPOD+AI and of CLAIM 2024 a run meets, decided from its files; the rest only authors can answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perikarya.config import ExperimentConfig
from perikarya.report.guidelines import STATUSES, Facts, Item, claim_items, tripod_items
from perikarya.report.words import Cell, Table


def facts_of(results: Mapping[str, Any], config: ExperimentConfig, lead: str, *, checked: bool) -> Facts:
    """Read the facts from ``results.json`` and the configuration; ``lead`` is the leading model."""
    entry, sets = results["models"][lead], results["study"]["sets"]
    blocks = [entry[s] for s in ("external", "cv") if entry.get(s)]
    networks = [m for m in results["models"].values() if m["kind"] == "network"]
    return Facts(
        has_external=any(m.get("external") for m in results["models"].values()),
        has_cv=any(m.get("cv") for m in results["models"].values()),
        by_animal=results["protocol"]["group_by"] == "subject",
        animals_known=all(s["n_subjects"] is not None for s in sets.values()),
        has_scopes=any(entry.get(k) for k in ("regions", "groups", "external_regions", "external_groups")),
        has_intervals=any(b["balanced_accuracy"]["ci95"] for b in blocks),
        has_calibration=bool(entry.get("calibration")),
        has_abstention=bool(entry.get("abstention")),
        has_damage=bool(results.get("damage")),
        has_labels=bool(results.get("label_quality")),
        has_explain=bool((results.get("explain") or {}).get("models")),
        has_saturation=bool(results.get("saturation")),
        has_comparisons=bool(results.get("comparisons")),
        has_ensemble=any(m["kind"] == "ensemble" for m in results["models"].values()),
        has_check=checked,
        balances=config.resample.method != "none" or any(m.resample for m in config.models),
        n_unlabelled=sum(s["n_cells"] - s["n_labelled"] for s in sets.values()),
        weights_named=all((m.get("weights") or {}).get("source") for m in networks),
    )


def checklist_tables(facts: Facts) -> list[Table]:
    """Return one table per guideline, its caption counting what is met."""
    named = (("TRIPOD+AI", tripod_items(facts)), ("CLAIM 2024", claim_items(facts)))
    return [_table(name, list(items)) for name, items in named]


def _table(name: str, items: list[Item]) -> Table:
    counts = {s: sum(i.status == s for i in items) for s in STATUSES}
    told = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    rows = [[Cell(i.number), Cell(i.asks), Cell(i.status), Cell(i.where)] for i in items]
    return Table(f"{name}: {told}", ["Item", "What it asks", "Here", "Where or why"], rows)

"""What a run says of damage and of the effect of treatment: sentences and tables of ``results["damage"]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perikarya.evaluate.quantify.cells import ALL_REGIONS, SEVERITY
from perikarya.report.words import MISSING, Cell, Folded, Said, Table, bounds, cell, count, listed, number, p_value

_FRACTION = "fraction_"
_LEVEL = 0.05


def damage_headline(results: Mapping[str, Any]) -> list[str]:
    """Say in a sentence each how damaged the groups are and what each pair of groups differs by."""
    block = results.get("damage")
    if not block:
        return []
    said = []
    means = [m for m in block["group_means"] if m["region"] == ALL_REGIONS and m["group"] is not None]
    if means:
        names = block["class_names"]
        listed_means = listed([f"{m['group']} {_with_interval(m[SEVERITY])}" for m in means])
        said.append(f"Severity of damage, from 0 (all {names[0]}) to 1 (all {names[-1]}): {listed_means}.")
    said += [s for c in block["effects"]["comparisons"] if (s := _effect_sentence(c))]
    return said


def _with_interval(value: Mapping[str, Any]) -> str:
    ends = bounds(value["ci95"], 2)
    return number(value["estimate"], 2) + (f" ({ends})" if ends else "")


def _effect_sentence(comparison: Mapping[str, Any]) -> str:
    effects = [e for e in comparison["effects"] if e["measure"] == SEVERITY]
    overall = next((e for e in effects if e["region"] == ALL_REGIONS), None)
    if overall is None or overall["difference"]["estimate"] is None:
        return ""
    estimate = overall["difference"]["estimate"]
    more = "higher" if estimate >= 0 else "lower"
    ends = bounds(overall["difference"]["ci95"]) or "no interval"
    animals = f"{overall['n_group']} and {overall['n_reference']} animals"
    test = f"; {overall['reason']}" if overall["p"] is None else f"; permutation p {p_value(overall['p'])}; {animals}"
    return (
        f"{comparison['group']} against {comparison['reference']}: severity {more} by {number(abs(estimate))} "
        f"(difference {ends}{test}).{_regions_that_differ(effects)}"
    )


def _regions_that_differ(effects: list[Mapping[str, Any]]) -> str:
    regions = [e for e in effects if e["region"] != ALL_REGIONS and e["p_holm"] is not None]
    if len(regions) < 2:
        return ""
    clear = [e for e in regions if e["p_holm"] <= _LEVEL]
    if not clear:
        return f" In none of {len(regions)} regions alone is p below {_LEVEL:g} after Holm's correction."
    named = listed([f"{e['region']} ({number(e['difference']['estimate'])}, p {p_value(e['p_holm'])})" for e in clear])
    return f" By region, after Holm's correction: {named}."


def damage(results: Mapping[str, Any]) -> Said:
    """Tell damage per group, the effect of treatment per region, and, folded, animals, plans and assumptions."""
    block = results.get("damage")
    if not block:
        return Said()
    effects = block["effects"]
    tables = [_group_table(block)] if block["group_means"] else []
    tables += [_effect_table(c, SEVERITY) for c in effects["comparisons"]]
    others = [m for m in effects["measures"] if m != SEVERITY]
    folded = [
        Folded(f"Effect on the share of {_measure(m)}", tables=[_effect_table(c, m) for c in effects["comparisons"]])
        for m in others
        if effects["comparisons"]
    ]
    folded.append(Folded("Every animal", tables=[_animal_table(block, block["animals"], "Each animal and region")]))
    plans = [t for c in block["power"]["comparisons"] if (t := _power_table(c))]
    if plans:
        folded.append(Folded("The next study: how many animals", [block["power"]["warning"]], plans))
    folded.append(Folded("What these figures assume", list(block["assumptions"])))
    sentences = [*damage_headline(results), *block["notes"]]
    model = (block.get("source") or {}).get("model")
    if model:
        sentences.append(f"Counted by {model}. The same numbers: damage.json and damage.csv.")
    if effects.get("reason"):
        sentences.append(f"No effect is given: {effects['reason']}.")
    return Said(sentences, tables, folded)


def damage_of(results: Mapping[str, Any], column: str, name: str) -> Said:
    """Tell the damage of one region, animal by animal, or of one group."""
    block = results.get("damage")
    if not block:
        return Said()
    chosen = [a for a in block["animals"] if a[column] == name]
    if column == "group":
        chosen = [a for a in chosen if a["region"] == ALL_REGIONS]
    tables = [_animal_table(block, chosen, f"Each animal of {name}")] if chosen else []
    if column == "region":
        rows = [row for c in block["effects"]["comparisons"] for row in _effect_rows(c, SEVERITY, {name})]
        if rows:
            tables.append(Table(f"Effect on severity in {name}", _EFFECT_HEAD, rows))
    return Said([], tables)


def _group_table(block: Mapping[str, Any]) -> Table:
    names, order = block["class_names"], [ALL_REGIONS, *block["regions"]]
    rows = [
        [
            Cell(str(m["group"] or "all groups"), _place(m["region"])),
            Cell(str(m["n_animals"]), count(m["n_cells"], "cell")),
            cell(m[SEVERITY]),
            *(cell(m["fractions"][name]) for name in names),
        ]
        for m in sorted(block["group_means"], key=lambda m: order.index(m["region"]))
    ]
    return Table(
        "Damage: means over animals", ["Group and region", "Animals", "Severity", *(f"Share {n}" for n in names)], rows
    )


def _place(region: str) -> str:
    return "all regions together" if region == ALL_REGIONS else region


def _animal_table(block: Mapping[str, Any], animals: Iterable[Mapping[str, Any]], caption: str) -> Table:
    names = block["class_names"]
    rows = []
    for a in animals:
        place = ", ".join(x for x in (a["group"], _place(a["region"])) if x)
        labelled = a.get("labelled")
        by_label = (
            Cell(MISSING) if not labelled else Cell(number(labelled[SEVERITY]), count(labelled["n_cells"], "label"))
        )
        rows.append(
            [
                Cell(str(a["subject"]), place),
                Cell(str(a["n_cells"])),
                cell(a[SEVERITY]),
                *(cell(a["fractions"][n]) for n in names),
                Cell(number(a["counted"][SEVERITY])),
                by_label,
            ]
        )
    head = [
        "Animal",
        "Cells",
        "Severity",
        *(f"Share {n}" for n in names),
        "Severity, uncorrected",
        "Severity by labels",
    ]
    return Table(caption, head, rows)


_EFFECT_HEAD = [
    "Region",
    "Animals",
    "Difference",
    "Ratio",
    "Cliff's delta",
    "p",
    "p after Holm",
    "p of the model of cells",
]


def _effect_table(comparison: Mapping[str, Any], measure: str) -> Table:
    caption = f"{comparison['group']} against {comparison['reference']}: {_measure(measure)}"
    return Table(caption, _EFFECT_HEAD, _effect_rows(comparison, measure, None))


def _measure(measure: str) -> str:
    return measure.removeprefix(_FRACTION) if measure.startswith(_FRACTION) else measure


def _effect_rows(comparison: Mapping[str, Any], measure: str, regions: set[str] | None) -> list[list[Cell]]:
    second = {(m["region"], m["measure"]): m for m in comparison["models"]}
    rows = []
    for e in comparison["effects"]:
        if e["measure"] != measure or (regions is not None and e["region"] not in regions):
            continue
        model = second.get((e["region"], measure)) or {}
        label = e["region"] if regions is None else f"{comparison['group']} against {comparison['reference']}"
        rows.append(
            [
                Cell(_place(label), e["reason"] or ""),
                Cell(f"{e['n_group']} / {e['n_reference']}"),
                cell(e["difference"]),
                cell(e["ratio"]),
                cell(e["cliffs_delta"]),
                Cell(p_value(e["p"])),
                Cell(p_value(e["p_holm"])),
                Cell(p_value(model.get("p"))),
            ]
        )
    return rows


def _power_table(comparison: Mapping[str, Any]) -> Table | None:
    rows = []
    for plan in comparison["plans"]:
        if plan["measure"] != SEVERITY:
            continue
        asked = [a for a in plan["animals_per_group"] if a["what"] == "given"]
        by_difference: dict[float, list[Cell]] = {}
        for a in asked:
            by_difference.setdefault(a["difference"], []).append(_animals_needed(a))
        for difference, cells in by_difference.items():
            rows.append([Cell(_place(plan["region"])), Cell(number(difference, 2)), *cells])
    if not rows:
        return None
    powers = [f"Power {100 * p:g} %" for p in dict.fromkeys(a["power"] for a in asked)]
    caption = (
        f"{comparison['group']} against {comparison['reference']}: animals per group to see a difference in severity"
    )
    return Table(caption, ["Region", "Difference", *powers], rows)


def _animals_needed(asked: Mapping[str, Any]) -> Cell:
    low, high = asked["ci95"]
    ends = "" if low is None or high is None else f"{low}–{high}"
    return Cell("more than 1000" if asked["n"] is None else str(asked["n"]), ends)

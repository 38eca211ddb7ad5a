"""From three measurements to one sentence: the animals, the labels or the network, or what is missing to tell.

Every question is answered yes, no or unknown. The rule is written in docs/saturation.md; change both together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from perikarya.evaluate.ceiling import READINGS

Answer = Literal["yes", "no", "unknown"]

WORTHWHILE = 0.01  # of the score: less is not worth twice the animals or another network
NOTHING = 0.001  # a fitted curve never rises, so its gain is never quite 0; up to here it counts as none
SMALL = 0.03  # a gain that is surely below this counts as a curve gone flat
MIN_REPEATS = 3  # draws of training animals (seeds) from which their luck can be told
NEAR = 0.02  # of the ceiling: estimates of it are off by as much (docs/saturation.md)
TOO_WIDE = 0.05  # headroom up to here at most, or "at the ceiling" would only mean that the interval is wide


@dataclass(frozen=True)
class Evidence:
    """What is known of a run's best network.

    Attributes
    ----------
    metric
        The score in words.
    animals
        What the learning curve counts: animals, or images where animals are unknown.
    best, score
        The best network and its score.
    curve
        Name of the model whose learning curve is judged, and the curve; None without a fitted one.
    ceiling, headroom, networks
        The blocks of ``saturation_block``; None where there is none.
    """

    metric: str
    animals: str
    best: str
    score: float
    curve: tuple[str, dict[str, Any]] | None
    ceiling: dict[str, Any] | None
    headroom: dict[str, Any] | None
    networks: dict[str, Any] | None


def decide(evidence: Evidence) -> dict[str, Any]:
    """Return ``verdict``, ``sentence``, ``answers`` to the three questions and what is ``missing``."""
    data = more_animals_help(evidence)
    labels = labels_limit(evidence, data)
    network = another_network_helps(evidence)
    independent = evidence.ceiling is not None and evidence.ceiling["source"] == READINGS
    in_order = [
        ("labels", labels == "yes" and independent),
        ("data", data == "yes"),
        ("networks", network == "yes"),
        ("labels", labels == "yes"),
    ]
    verdict = next((name for name, holds in in_order if holds), "undecided")
    missing = _missing(evidence, data, labels)
    return {
        "verdict": verdict,
        "sentence": _SENTENCES[verdict](evidence, missing),
        "answers": {"more_animals_help": data, "at_label_ceiling": labels, "another_network_helps": network},
        "missing": missing,
    }


def more_animals_help(evidence: Evidence) -> Answer:
    """Yes: twice the animals should gain 0.01 and surely more than 0.001; no: less than 0.01, surely less than 0.03."""
    interval = evidence.curve[1]["gain"]["ci95"] if evidence.curve else None
    if evidence.curve is None or interval is None:
        return "unknown"
    if evidence.curve[1]["gain"]["estimate"] >= WORTHWHILE:
        return "yes" if interval[0] > NOTHING else "unknown"
    return "no" if interval[1] < SMALL else "unknown"


def labels_limit(evidence: Evidence, more_animals: Answer) -> Answer:
    """Yes: the score may be within 0.02 of the ceiling and surely is within 0.05; no: surely not within 0.02.

    A ceiling from readings lies somewhere between their agreement and the estimate, which the no allows for.

    A ceiling from confident learning leans on the networks themselves: poor networks make labels look poor. It is
    believed only where the learning curve has gone flat.
    """
    interval = evidence.headroom["ci95"] if evidence.headroom else None
    if evidence.ceiling is None or interval is None:
        return "unknown"
    at_least = evidence.ceiling["at_least"]
    doubt = 0.0 if at_least is None else evidence.ceiling["estimate"] - at_least
    if interval[0] > NEAR + doubt:
        return "no"
    reached = interval[0] <= NEAR and interval[1] < TOO_WIDE
    believed = evidence.ceiling["source"] == READINGS or more_animals == "no"
    return "yes" if reached and believed else "unknown"


def another_network_helps(evidence: Evidence) -> Answer:
    """Yes: networks differ beyond chance and the best beats every other by 0.01; no: it does not beat them."""
    networks = evidence.networks
    if networks is None or networks["p"] is None:
        return "unknown"
    leads = networks["beats_all"] and networks["lead"]["estimate"] >= WORTHWHILE
    return "yes" if leads and networks["p"] < 0.05 else "no"


def _data_sentence(e: Evidence, _: list[str]) -> str:
    if e.curve is None:
        raise ValueError("this verdict needs a learning curve")
    name, curve = e.curve
    now, doubled = curve["now"]["n_subjects"], curve["doubled"]["n_subjects"]
    return (
        f"The limit is the data: training on twice the {e.animals} ({doubled:.0f} instead of {now:.0f}) is expected to "
        f"raise the {e.metric} of {name}, now {1 - curve['points'][-1]['error']:.3f}, by {_points(curve['gain'])}."
    )


def _labels_sentence(e: Evidence, _: list[str]) -> str:
    if e.ceiling is None:
        raise ValueError("this verdict needs a ceiling")
    doubt = (
        ""
        if e.ceiling["source"] == READINGS
        else " Confident learning cannot tell wrong labels from cells that look alike: have some graded twice."
    )
    return (
        f"The limit is the labels: {e.best} reaches a {e.metric} of {e.score:.3f}, and labels like these allow "
        f"{_with_interval(e.ceiling)} ({e.ceiling['source']}, {e.ceiling['n_cells']} cells).{doubt}"
    )


def _networks_sentence(e: Evidence, _: list[str]) -> str:
    if e.networks is None:
        raise ValueError("this verdict needs several networks")
    return (
        f"The limit is the network: {e.best} ({e.metric} {e.score:.3f}) beats all others, {e.networks['runner_up']} by "
        f"{_points(e.networks['lead'])}; look for stronger networks before more {e.animals}."
    )


def _undecided_sentence(e: Evidence, missing: list[str]) -> str:
    left = (
        "the curve is flat, the score is below what the labels allow and no network stands out; what is left is what "
        "the pictures show, or a weakness that all these networks share"
    )
    return f"Undecided what limits the {e.metric} of {e.best} ({e.score:.3f}): {'; '.join(missing) or left}."


_SENTENCES = {
    "data": _data_sentence,
    "labels": _labels_sentence,
    "networks": _networks_sentence,
    "undecided": _undecided_sentence,
}


def _missing(e: Evidence, data: Answer, labels: Answer) -> list[str]:
    """Say what would decide the questions that are open."""
    found = []
    if e.curve is None:
        found.append(f"no learning curve could be fitted (learning_curve: at least two smaller numbers of {e.animals})")
    elif data == "unknown":
        found.append(
            f"what twice the {e.animals} would bring is too uncertain, {_points(e.curve[1]['gain'])}: more seeds or "
            f"{e.animals} would tell"
        )
    if e.curve is not None and e.curve[1]["n_repeats"] < MIN_REPEATS:
        n_repeats = e.curve[1]["n_repeats"]
        found.append(f"the curve rests on {n_repeats} draw(s) of {e.animals} (seeds: {MIN_REPEATS} or more)")
    if e.ceiling is None:
        found.append("nothing is known of the labels (have some cells graded twice: readings.csv)")
    elif labels == "unknown":
        more = "more cells" if e.ceiling["source"] == READINGS else "some cells"
        found.append(
            f"the labels allow {_allowed(e.ceiling)} by {e.ceiling['source']} and may hold it back: {more} "
            "graded twice (readings.csv) would tell"
        )
    if e.networks is None:
        found.append("only one network was tried")
    return found


def _points(number: dict[str, Any]) -> str:
    """Write a difference of scores in points, with its interval."""
    interval = number["ci95"]
    span = "" if interval is None else f" (interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
    return f"{100 * number['estimate']:.1f} points{span}"


def _allowed(ceiling: dict[str, Any]) -> str:
    if ceiling["at_least"] is None:
        return _with_interval(ceiling)
    return f"something between {ceiling['at_least']:.3f} and {ceiling['estimate']:.3f}"


def _with_interval(number: dict[str, Any]) -> str:
    interval = number["ci95"]
    return f"{number['estimate']:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")

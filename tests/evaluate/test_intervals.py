"""Intervals of scores against the t interval, scipy's BCa and a calculation one line after another."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import bootstrap, norm, t

from perikarya.config import EvaluateConfig
from perikarya.evaluate import jackknife
from perikarya.evaluate.intervals import Resampled, effective_clusters, interval_words, score_intervals
from perikarya.evaluate.jackknife import Influence, influence, leave_out
from perikarya.evaluate.outputs import Scored
from perikarya.evaluate.stats import CHUNK_VALUES, Clusters, clusters_of, draw_chunks, draw_counts, strata_of
from perikarya.evaluate.summary import _Sample, measure, score_names

SHARE = np.array([[0.0, 1.0]])
NO_BOUND = np.array([[0.0, np.inf]])


def resampled(
    draws: NDArray[np.float64], estimate: float, *, df: float = 1e9, se: float = 0.0, acceleration: float = 0.0
) -> Resampled:
    pull = Influence(np.array([se]), np.array([acceleration]))
    return Resampled(np.array([estimate]), draws[None], pull, np.array([df]))


def interval(scores: Resampled, bounds: NDArray[np.float64] = SHARE, *, bca: bool = False) -> NDArray[np.float64]:
    return score_intervals(scores, bounds, confidence=0.95, bca=bca)[0]


def mean_of_animals(value_s: NDArray[np.float64], n_draws: int = 20_000) -> Resampled:
    """The mean of one value per animal, as the product resamples it."""
    n = len(value_s)
    plan = leave_out(n)
    left_out = np.concatenate(list(plan.chunks())) @ value_s / n
    draws = draw_counts(n, n_draws=n_draws, seed=0) @ value_s / n
    return Resampled(value_s.mean()[None], draws[None], influence(left_out[None], plan), np.array([n - 1.0]))


def test_for_the_mean_of_equal_animals_it_is_the_t_interval_of_the_mean() -> None:
    value = 100 + norm.ppf((np.arange(10) + 0.5) / 10)  # far from the bound, where a log scale is straight
    expected = t.interval(0.95, 9, value.mean(), value.std(ddof=1) / np.sqrt(10))
    np.testing.assert_allclose(interval(mean_of_animals(value), NO_BOUND), expected, rtol=3e-4)


def test_plain_percentiles_remain_where_clusters_are_endless() -> None:
    draws = np.linspace(0.2, 0.7, 1001)
    np.testing.assert_allclose(interval(resampled(draws, 0.45)), np.quantile(draws, [0.025, 0.975]), atol=1e-8)


def test_bca_without_stretching_is_that_of_scipy() -> None:
    value = np.random.default_rng(3).gamma(2.0, 1.0, 600)  # enough that Student's t and n / (n - 1) do not show
    ours = mean_of_animals(value, n_draws=9000)
    found = score_intervals(ours, NO_BOUND, confidence=0.95, bca=True)[0]
    theirs = bootstrap((value,), np.mean, n_resamples=9000, method="BCa", random_state=1, batch=500).confidence_interval
    np.testing.assert_allclose(found, theirs, atol=0.04 * (theirs.high - theirs.low))
    plain = score_intervals(ours, NO_BOUND, confidence=0.95, bca=False)[0]
    assert found[1] > plain[1], "skewed to the right, so both ends lie further right"
    assert found[0] > plain[0]


def test_quantiles_move_from_the_estimate_on_the_logit_scale() -> None:
    draws = np.linspace(0.6, 0.95, 2001)
    low, high = np.quantile(draws, [0.025, 0.975])
    factor = t.ppf(0.975, 6.5) / norm.ppf(0.975) * 0.2 / draws.std()  # the jackknife says 0.2, the draws less
    found = interval(resampled(draws, 0.9, df=6.5, se=0.2))
    for end, quantile in zip(found, (low, high), strict=True):
        x = np.log(0.9 / 0.1) + factor * (np.log(quantile / (1 - quantile)) - np.log(0.9 / 0.1))
        assert end == pytest.approx(1 / (1 + np.exp(-x)), abs=1e-9)
    narrow = interval(resampled(draws, 0.9, df=6.5, se=0.001))
    assert narrow[0] > found[0], "a smaller jackknife error widens less"
    assert narrow[0] < low, "but never narrows"


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 2.0), (0.0, np.inf)])
def test_an_interval_stays_within_the_bounds_of_its_score(bounds: tuple[float, float]) -> None:
    low, high = bounds[0], min(bounds[1], 5.0)
    draws = np.concatenate([np.full(50, high), np.linspace(low + 0.3 * (high - low), high, 500)])
    found = interval(resampled(draws, low + 0.8 * (high - low), df=1.0, se=5.0), np.array([bounds]))
    assert bounds[0] <= found[0] < found[1] <= bounds[1]
    if np.isfinite(bounds[1]):
        assert found[1] == bounds[1], "draws at the bound stay there"


@pytest.mark.parametrize("bca", [False, True])
def test_no_interval_is_better_than_a_wrong_one(bca: bool) -> None:
    good = np.linspace(0.3, 0.8, 100)
    holes = np.where(np.arange(100) < 11, np.nan, good)
    assert np.isfinite(interval(resampled(good, 0.5), bca=bca)).all()
    assert np.isfinite(interval(resampled(np.where(np.arange(100) < 10, np.nan, good), 0.5), bca=bca)).all()
    for scores in (
        resampled(holes, 0.5),
        resampled(np.full(100, 0.5), 0.5),
        resampled(np.full(100, np.nan), 0.5),
        resampled(good, np.nan),
        resampled(good, 0.5, se=np.nan),
    ):
        assert np.isnan(interval(scores, bca=bca)).all()


@pytest.mark.parametrize("estimate", [0.2, 0.31])
def test_where_resampling_only_adds_to_a_score_its_draws_are_moved_onto_it(estimate: float) -> None:
    """As with the calibration error: BCa would put both ends below nine tenths of the draws."""
    draws = np.linspace(0.3, 0.8, 1001)
    low, high = interval(resampled(draws, estimate), bca=True)
    shift = logit(estimate) - logit(0.55)
    expected = expit(logit(np.quantile(draws, [0.025, 0.975])) + shift)
    np.testing.assert_allclose([low, high], expected, atol=2e-3)
    assert low < estimate < high


def test_past_the_pole_of_bca_the_end_is_the_last_draw() -> None:
    found = interval(resampled(np.linspace(0.3, 0.8, 101), 0.55, acceleration=0.9), bca=True)
    assert found[1] == pytest.approx(0.8)


def test_effective_clusters_count_equal_ones_once_and_a_giant_alone() -> None:
    assert effective_clusters(np.full(7, 30)) == pytest.approx(7)
    assert effective_clusters(np.array([1000, 1, 1])) == pytest.approx(1, abs=0.01)
    assert effective_clusters(np.array([10, 10, 0])) == pytest.approx(2)
    np.testing.assert_allclose(effective_clusters(np.array([[5, 0], [5, 0]])), [2, 0])


def test_the_jackknife_leaves_every_cluster_out_once_and_knows_the_error_of_a_mean() -> None:
    value = np.random.default_rng(0).gamma(1.0, 1.0, 12)
    plan = leave_out(12)
    weight = np.concatenate(list(plan.chunks()))
    left_out = weight @ value / weight.sum(axis=1)
    np.testing.assert_allclose(sorted(left_out), sorted(np.delete(value, i).mean() for i in range(12)))
    found = influence(left_out[None], plan)
    assert found.se_v[0] == pytest.approx(value.std(ddof=1) / np.sqrt(12))
    deviation = value - value.mean()
    assert found.acceleration_v[0] == pytest.approx((deviation**3).sum() / (6 * (deviation**2).sum() ** 1.5))


def test_within_strata_the_jackknife_knows_the_error_of_a_stratified_mean() -> None:
    value = np.random.default_rng(1).normal(size=9) + np.array([0, 5] * 4 + [0])
    strata = tuple([0, 1] * 4 + [0])
    plan = leave_out(9, strata)
    weight = np.concatenate(list(plan.chunks()))
    np.testing.assert_allclose(weight.sum(axis=1), 9)
    h = np.array(strata)
    variance = sum((np.sum(h == s) / 9) ** 2 * value[h == s].var(ddof=1) / np.sum(h == s) for s in (0, 1))
    assert influence((weight @ value / 9)[None], plan).se_v[0] == pytest.approx(np.sqrt(variance))


def test_many_clusters_are_left_out_in_blocks_that_keep_error_and_skewness(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.random.default_rng(2).gamma(0.5, 1.0, 4000)
    exact, blocks = (influence(_left_out(value, plan), plan) for plan in (leave_out(4000), _all(4000, monkeypatch)))
    assert leave_out(4000).n_j.tolist() != [1] * 4000
    assert exact.se_v[0] == pytest.approx(blocks.se_v[0], rel=0.1)
    assert exact.acceleration_v[0] == pytest.approx(blocks.acceleration_v[0], abs=0.003)
    strata = leave_out(4000, tuple([0] * 3990 + [1] * 10))
    assert len(strata.n_j) == pytest.approx(jackknife.MAX_LEFT_OUT, abs=3)
    assert strata.n_j.sum() == 4000


def _all(n: int, monkeypatch: pytest.MonkeyPatch) -> jackknife.LeftOut:
    with monkeypatch.context() as patch:
        patch.setattr(jackknife, "MAX_LEFT_OUT", n)
        return leave_out(n)


def _left_out(value: NDArray[np.float64], plan: jackknife.LeftOut) -> NDArray[np.float64]:
    return np.concatenate([w @ value / w.sum(axis=1) for w in plan.chunks()])[None]


def cells_of(groups: list[list[str | None]]) -> tuple[pd.DataFrame, Clusters]:
    rows = [(f"s{i:02d}", g) for i, of_animal in enumerate(groups) for g in of_animal]
    cells = pd.DataFrame(rows, columns=["subject", "group"])
    return cells, clusters_of(cells, "subject")


def strata_in(groups: list[list[str | None]]) -> tuple[int, ...]:
    return strata_of(*cells_of(groups))


def test_strata_are_groups_and_an_animal_of_two_groups_belongs_to_their_joint_stratum() -> None:
    assert strata_in([["a"], ["b"], ["a"], ["b"]]) == (0, 1, 0, 1)
    both = strata_in([["a"], ["a"], ["b"], ["b"], ["a", "b"], ["b", "a"], [None], [None]])
    assert len(set(both)) == 4
    assert both[4] == both[5]
    assert both[6] == both[7]


def test_an_animal_alone_in_its_group_is_drawn_with_others() -> None:
    """Drawn within itself it would be the same in every draw and hide its uncertainty."""
    assert strata_in([["a"], ["a"], ["a"], ["b"], ["b"], ["c"]])[3:] == (1, 1, 1), "with the smallest other group"
    alone = strata_in([["a"], ["b"], ["c"], ["d"], ["d"]])
    assert len({*alone[:3]}) == 1
    assert alone[3] == alone[4] != alone[0]
    assert strata_in([["a"]]) == (0,)


def test_stratified_draws_keep_the_number_of_animals_of_every_group() -> None:
    strata = (0, 1, 0, 1, 1, 0, 2, 2)
    counts = draw_counts(8, n_draws=300, seed=1, strata=strata)
    for h in range(3):
        inside = np.array(strata) == h
        assert (counts[:, inside].sum(axis=1) == inside.sum()).all()
        assert (counts[:, inside].std(axis=0) > 0.3).all()
    np.testing.assert_array_equal(draw_counts(8, n_draws=5, seed=1), draw_counts(8, n_draws=5, seed=1, strata=(0,) * 8))


def test_draws_in_chunks_are_the_same_draws() -> None:
    n = CHUNK_VALUES // 50  # 50 draws a chunk
    chunks = list(draw_chunks(n, n_draws=120, seed=5))
    assert [len(c) for c in chunks] == [50, 50, 20]
    np.testing.assert_array_equal(np.concatenate(chunks), draw_counts(n, n_draws=120, seed=5))
    draw_counts.cache_clear()


def study(n_animals: int = 12, n: int = 360) -> tuple[Scored, pd.DataFrame]:
    rng = np.random.default_rng(4)
    animal = np.sort(rng.choice(n_animals, n, p=rng.dirichlet(np.full(n_animals, 3.0))))
    label = rng.integers(0, 3, n)
    weight = np.exp(
        -np.abs(label + rng.normal(0, 0.3, n_animals)[animal] + rng.normal(0, 0.5, n) - np.arange(3)[:, None]).T
    )
    cells = pd.DataFrame(
        {
            "cell_id": [f"c{i}" for i in range(n)],
            "subject": [f"s{a:02d}" for a in animal],
            "image_id": "x",
            "group": np.where(animal % 3 == 0, "sham", "ischemia"),
            "label": np.array(["a", "b", "c"])[label],
        }
    )
    return Scored(np.arange(n), label, weight / weight.sum(axis=1, keepdims=True)), cells


@pytest.mark.parametrize("bca", [False, True])
@pytest.mark.parametrize("stratify", ["none", "group"])
def test_the_interval_of_recall_follows_step_by_step(bca: bool, stratify: str) -> None:
    """Rows copied and dropped one by one, formulas written out: no line shared with the product."""
    scored, cells = study()
    settings = EvaluateConfig(n_bootstrap=300, interval="bca" if bca else "percentile", stratify=stratify)
    found = measure([scored], [], cells, class_names=("a", "b", "c"), settings=settings).block["per_class"]["c"]
    of_class = cells[cells["label"] == "c"].assign(hit=scored.prob_nk.argmax(axis=1)[cells["label"] == "c"] == 2)
    animals = sorted(cells["subject"].unique())
    group = cells.groupby("subject")["group"].first()
    strata = [[a for a in animals if stratify == "none" or group[a] == g] for g in sorted(set(group))]
    strata = strata[:1] if stratify == "none" else strata
    hits = {a: of_class.loc[of_class["subject"] == a, "hit"].tolist() for a in animals}

    def recall(weights: dict[str, float]) -> float:
        total = sum(w * len(hits[a]) for a, w in weights.items())
        return sum(w * sum(hits[a]) for a, w in weights.items()) / total

    rng = np.random.default_rng([0, len(animals)])
    taken = [[[s[i] for i in row] for row in rng.integers(0, len(s), (300, len(s)))] for s in strata]
    draws = []
    for b in range(300):
        drawn = [a for of_stratum in taken for a in of_stratum[b]]
        draws.append(recall({a: float(drawn.count(a)) for a in animals}))
    pulls, variance = [], 0.0
    for s in strata:
        m = len(s)
        without = [recall({b: 0.0 if b == a else m / (m - 1) if b in s else 1.0 for b in animals}) for a in s]
        pull = [sum(without) / m - w for w in without]
        variance += (m - 1) / m * sum(p**2 for p in pull)
        pulls += [(m - 1) / m * p for p in pull]
    estimate = recall(dict.fromkeys(animals, 1.0))
    z0, acceleration = 0.0, 0.0
    if bca:
        z0 = norm.ppf(np.mean([(d < estimate - 1e-12) + 0.5 * (abs(d - estimate) <= 1e-12) for d in draws]))
        acceleration = sum(p**3 for p in pulls) / (6 * sum(p**2 for p in pulls) ** 1.5)
    n_of = [len(h) for h in hits.values()]
    df = sum(n_of) ** 2 / sum(n**2 for n in n_of) - len(strata)
    factor = t.ppf(0.975, df) / norm.ppf(0.975) * max(1.0, np.sqrt(variance) / np.std(draws))
    for end, z in zip(found["recall"]["ci95"], (norm.ppf(0.025), norm.ppf(0.975)), strict=True):
        tail = norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z)))
        q = np.quantile(draws, tail)
        x = np.log(estimate / (1 - estimate))
        x += factor * (np.log(q / (1 - q)) - x)
        assert end == pytest.approx(1 / (1 + np.exp(-x)), abs=1e-9)


def test_a_score_of_a_class_rests_on_its_cells_and_a_mean_over_classes_on_the_scarcest() -> None:
    label = np.repeat([0, 1, 2], 40)
    animal = np.concatenate([np.arange(40) % 8, np.arange(40) % 4, np.arange(40) % 2])
    scored = Scored(np.arange(120), label, np.full((120, 3), 1 / 3))
    sample = _Sample([scored, scored], [animal, animal], Clusters("subject", animal, 8), None)
    found = dict(zip(score_names(3), sample.effective(), strict=True))
    n_all = np.bincount(animal)
    for name in ("accuracy", "loss", "kappa", "severe_error"):
        assert found[(name, None)] == pytest.approx(120**2 / (n_all**2).sum())
    for name in ("balanced_accuracy", "macro_f1", "macro_auc", "macro_ap"):
        assert found[(name, None)] == pytest.approx(2)
    for name in ("recall", "precision", "f1", "auc", "ap", "loss"):
        assert [found[(name, k)] for k in range(3)] == pytest.approx([8, 4, 2])
    assert found[("specificity", 2)] == found[("accuracy", None)]


def test_the_words_name_what_was_drawn_and_how() -> None:
    stratified = EvaluateConfig(interval="bca", stratify="group")
    assert interval_words("subject", stratified).startswith(
        "BCa bootstrap over subjects within treatment groups, widened"
    )
    plain = interval_words("cell", EvaluateConfig(interval="percentile"))
    assert plain.startswith("Wilson for accuracy")
    assert plain.endswith("percentile bootstrap over cells for the others")

"""The two-way rule against explicit double sums and the analysis of variance, and on simulated votes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from seedpo.core.stats.classical import wilson_interval
from seedpo.core.stats.two_way import Rate, Spread, two_way_rate, two_way_spread


def votes(
    seed: int, *, raters: int, prompts: int, spread: float, share: float = 0.5, worth: float = 0.0
) -> tuple[np.ndarray, ...]:
    """Votes of every rater on a share of the prompts; raters and prompts lean by as many logits."""
    generator = np.random.default_rng(seed)
    by_rater, by_prompt = generator.normal(0, spread, raters), generator.normal(0, spread, prompts)
    who, what = np.nonzero(generator.random((raters, prompts)) < share)
    chance = 1 / (1 + np.exp(-worth - by_rater[who] - by_prompt[what]))
    return (generator.random(len(who)) < chance).astype(float), who, what


def by_double_sums(influences: np.ndarray, who: np.ndarray, what: np.ndarray) -> tuple[float, float]:
    """Variance and degrees of freedom as the module's formulas say, pair of votes by pair of votes."""
    count = len(influences)
    names = ("raters", "prompts", "cells")
    products, shared = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    apart = 0
    for n in range(count):
        for m in range(count):
            same_rater, same_prompt = who[n] == who[m], what[n] == what[m]
            apart += not (same_rater or same_prompt)
            for name, same in zip(names, (same_rater, same_prompt, same_rater and same_prompt), strict=True):
                products[name] += influences[n] * influences[m] * same
                shared[name] += same
    one_way = {name: products[name] * count**2 / (count**2 - shared[name]) for name in names}
    df = {name: count**2 / shared[name] - 1 for name in names}
    both = (products["raters"] + products["prompts"] - products["cells"]) * count**2 / apart
    variance = max(both, *one_way.values())
    return variance, variance**2 / sum(one_way[name] ** 2 / df[name] for name in names)


@pytest.mark.parametrize("seed", range(8))
def test_variance_is_that_of_explicit_double_sums(seed: int) -> None:
    points, who, what = votes(seed, raters=5, prompts=9, spread=seed / 4)
    if seed % 2:  # several votes of a rater on a prompt
        points, who, what = (np.concatenate([part, part[::3]]) for part in (points, who, what))
        points[-3:] = 0.5
    influences = (points - points.mean()) / len(points)
    expected = by_double_sums(influences, who, what)
    found = two_way_spread(influences, who + 7, what * 3)
    assert (found.variance, found.df) == pytest.approx(expected, rel=1e-9)


def test_in_a_balanced_design_it_is_the_analysis_of_variance() -> None:
    """(MS_raters + MS_prompts - MS_rest) / N, and degrees of freedom from mean squares."""
    raters, prompts = 6, 11
    generator = np.random.default_rng(2)
    table = (
        generator.normal(size=(raters, 1)) + generator.normal(size=prompts) + generator.normal(size=(raters, prompts))
    )
    rows, columns, mean = table.mean(1, keepdims=True), table.mean(0), table.mean()
    by_rater = prompts * ((rows - mean) ** 2).sum() / (raters - 1)
    by_prompt = raters * ((columns - mean) ** 2).sum() / (prompts - 1)
    rest = ((table - rows - columns + mean) ** 2).sum() / ((raters - 1) * (prompts - 1))
    total = ((table - mean) ** 2).sum() / (table.size - 1)
    who, what = (index.ravel() for index in np.indices(table.shape))
    found = two_way_spread((table - mean).ravel() / table.size, who, what)
    variance = by_rater + by_prompt - rest
    assert found.variance == pytest.approx(variance / table.size, rel=1e-12)
    below = by_rater**2 / (raters - 1) + by_prompt**2 / (prompts - 1) + total**2 / (table.size - 1)
    assert found.df == pytest.approx(variance**2 / below, rel=1e-9)
    assert found.cells == pytest.approx(table.size)


def test_one_rater_leaves_prompts_and_one_prompt_leaves_raters() -> None:
    values, many, single = np.array([0.3, -0.2, -0.1, 0.1, -0.1]), np.array([0, 1, 2, 2, 3]), np.zeros(5, dtype=int)
    first, second = two_way_spread(values, single, many), two_way_spread(values, many, single)
    assert first == second
    assert first.variance > 0
    assert two_way_spread(values, single, single) == Spread(variance=0.0, df=1.0, cells=1.0)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_test_rejects_exactly_what_is_outside_of_the_interval(level: float) -> None:
    for seed in range(20):
        given = votes(seed, raters=6, prompts=12, spread=0.7, worth=seed / 8)
        rate = two_way_rate(*given, level=level)
        for end in (rate.low, rate.high):
            if 0.0 < end < 1.0:
                assert two_way_rate(*given, level=level, null=end).p == pytest.approx(1 - level, rel=1e-6)
        assert (rate.p < 1 - level) == (not rate.low <= 0.5 <= rate.high)


def test_the_interval_is_wilsons_with_as_many_votes_as_have_the_variance() -> None:
    rate = two_way_rate(*votes(4, raters=8, prompts=20, spread=0.8))
    size = rate.mean * (1 - rate.mean) / rate.error**2
    expected = wilson_interval(rate.mean * size, size, z=stats.t.ppf(0.975, rate.df))
    assert (rate.low, rate.high) == pytest.approx(expected, rel=1e-9)
    assert rate.p == pytest.approx(2 * stats.t.sf(abs(rate.mean - 0.5) / math.sqrt(0.25 / size), rate.df), rel=1e-9)


def test_where_all_votes_agree_there_is_a_width() -> None:
    """Wilson's interval of 60 votes with 5 - 1 degrees of freedom; one dissent makes it no narrower."""
    who, what = np.divmod(np.arange(60), 12)
    points = np.ones(60)
    rate = two_way_rate(points, who, what)
    assert (rate.low, rate.high) == pytest.approx(wilson_interval(60, 60, z=stats.t.ppf(0.975, 4)))
    points[7] = 0.0
    assert two_way_rate(points, who, what).low < rate.low
    ties = two_way_rate(np.full(60, 0.5), who, what)
    assert ties.low < 0.5 < ties.high
    assert ties.p == 1.0


def test_more_votes_of_the_same_raters_on_the_same_prompts_say_nothing_new() -> None:
    """Each vote three times: a rule for independent votes would be narrower by the square root of three."""
    points, who, what = votes(1, raters=8, prompts=15, spread=0.5)
    once, thrice = (two_way_rate(*(np.repeat(part, times) for part in (points, who, what))) for times in (1, 3))
    assert thrice.high - thrice.low >= 0.95 * (once.high - once.low)


def coverage(raters: int, prompts: int, spread: float, studies: int = 300, **options: float) -> tuple[float, float]:
    """How often the two-way interval holds 1/2, and how often Wilson's does."""
    inside = independent = 0
    for seed in range(studies):
        given = votes(seed, raters=raters, prompts=prompts, spread=spread, **options)
        rate = two_way_rate(*given)
        low, high = wilson_interval(given[0].sum(), len(given[0]))
        inside += rate.low <= 0.5 <= rate.high
        independent += low <= 0.5 <= high
    return inside / studies, independent / studies


@pytest.mark.parametrize(("raters", "prompts", "spread"), [(5, 30, 0.8), (12, 30, 0.5), (12, 30, 1.0), (20, 8, 1.0)])
def test_coverage_where_raters_and_prompts_differ(raters: int, prompts: int, spread: float) -> None:
    """95 % within three standard errors of 300 studies, where an interval for independent votes is far too narrow."""
    two_way, independent = coverage(raters, prompts, spread)
    assert 0.91 <= two_way <= 0.99
    assert independent < 0.9


def test_coverage_of_independent_votes() -> None:
    two_way, _ = coverage(12, 40, 0.0, share=0.25)
    assert 0.94 <= two_way <= 0.995


@pytest.mark.parametrize(
    ("points", "who", "null"),
    [([], [], 0.5), ([1.0, 0.0], [0], 0.5), ([1.2], [0], 0.5), ([math.nan], [0], 0.5), ([1.0], [0], 1.0)],
)
def test_what_is_no_vote_is_refused(points: list, who: list, null: float) -> None:
    with pytest.raises(ValueError, match="must"):
        two_way_rate(points, who, who, null=null)


def test_a_rate_has_the_mean_and_its_error() -> None:
    points, who, what = votes(0, raters=5, prompts=7, spread=0.0)
    rate = two_way_rate(points, who, what)
    assert isinstance(rate, Rate)
    assert rate.mean == pytest.approx(points.mean())
    assert rate.error**2 == pytest.approx(two_way_spread((points - points.mean()) / len(points), who, what).variance)

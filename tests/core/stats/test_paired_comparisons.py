from __future__ import annotations

import math

import choix
import numpy as np
import pytest
from scipy import optimize, stats

from seedpo.core.stats.paired_comparisons import (
    fit_strengths,
    has_bounds,
    is_connected,
    strength_intervals,
    tables,
)
from seedpo.core.stats.two_way import two_way_spread


def test_two_competitors_are_the_log_odds() -> None:
    fit = fit_strengths([[0, 30], [10, 0]])
    assert fit.values[0] - fit.values[1] == pytest.approx(math.log(3))
    assert fit.values.sum() == pytest.approx(0.0, abs=1e-12)
    assert (fit.tie, fit.penalised) == (0.0, False)


def test_two_competitors_with_ties_fit_every_share_exactly() -> None:
    """Three shares and two parameters: P[win] / P[loss] = e^d, P[tie] / sqrt(P[win] P[loss]) = nu."""
    fit = fit_strengths([[0, 30], [10, 0]], [[0, 20], [20, 0]])
    assert fit.values[0] - fit.values[1] == pytest.approx(math.log(3))
    assert fit.tie == pytest.approx(20 / math.sqrt(300))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_ties_it_is_the_fit_of_choix(seed: int) -> None:
    generator = np.random.default_rng(seed)
    strengths = generator.normal(0, 1, 6)
    data = []
    for _ in range(300):
        i, j = generator.choice(6, size=2, replace=False)
        better = generator.random() < 1 / (1 + math.exp(strengths[j] - strengths[i]))
        data.append((int(i), int(j)) if better else (int(j), int(i)))
    wins = np.zeros((6, 6))
    for winner, loser in data:
        wins[winner, loser] += 1
    expected = choix.ilsr_pairwise(6, data, alpha=0.0, max_iter=1000, tol=1e-12)
    fit = fit_strengths(wins)
    assert not fit.penalised
    assert fit.values == pytest.approx(expected - expected.mean(), abs=1e-6)


def test_with_ties_it_is_the_maximum_of_davidsons_likelihood() -> None:
    """Against a general optimiser of the likelihood as it stands in the paper, in strengths instead of logarithms."""
    generator = np.random.default_rng(5)
    wins = generator.integers(1, 20, (4, 4))
    ties = np.triu(generator.integers(0, 9, (4, 4)), 1)
    ties = ties + ties.T

    def negative(place: np.ndarray) -> float:
        pi, nu, total = np.exp(np.append(place[:3], 0.0)), math.exp(place[3]), 0.0
        for i in range(4):
            for j in range(i + 1, 4):
                whole = pi[i] + pi[j] + nu * math.sqrt(pi[i] * pi[j])
                total += wins[i, j] * math.log(pi[i] / whole) + wins[j, i] * math.log(pi[j] / whole)
                total += ties[i, j] * math.log(nu * math.sqrt(pi[i] * pi[j]) / whole)
        return -total

    found = optimize.minimize(negative, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    expected = np.append(found[:3], 0.0)
    fit = fit_strengths(wins, ties)
    assert fit.values == pytest.approx(expected - expected.mean(), abs=1e-5)
    assert fit.tie == pytest.approx(math.exp(found[3]), rel=1e-5)


@pytest.mark.parametrize(
    ("wins", "ties"),
    [
        ([[0, 9], [0, 0]], None),
        ([[0, 9], [0, 0]], [[0, 2], [2, 0]]),
        ([[0, 0], [0, 0]], [[0, 7], [7, 0]]),
        ([[0, 3, 3], [0, 0, 2], [0, 1, 0]], None),
    ],
)
def test_where_nothing_finite_fits_best_the_fit_is_finite_and_says_so(wins: list, ties: list | None) -> None:
    fit = fit_strengths(wins, ties)
    assert fit.penalised
    assert np.isfinite(fit.values).all()
    assert math.isfinite(fit.tie)
    assert fit.values[0] == fit.values.max()


def test_the_penalty_is_half_a_win_in_each_direction() -> None:
    fit = fit_strengths([[0, 9], [0, 0]])
    assert fit.values[0] - fit.values[1] == pytest.approx(math.log(9.5 / 0.5))


def test_extreme_counts_converge() -> None:
    fit = fit_strengths([[0, 1e6, 5], [1, 0, 1e6], [1, 1, 0]], np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]))
    assert np.isfinite(fit.values).all()
    assert fit.values.argsort().tolist() == [2, 1, 0]


def test_connection_and_bounds() -> None:
    chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    nothing = np.zeros((3, 3))
    assert is_connected(chain, nothing)
    assert not has_bounds(chain)
    assert has_bounds(chain + np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]]))
    apart = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert not is_connected(apart, nothing)
    assert is_connected(apart, np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]]))
    with pytest.raises(ValueError, match="disconnected"):
        fit_strengths(apart)


def test_bad_tables_are_refused() -> None:
    for wins, ties in (
        ([[0, 1, 2]], None),
        ([[0, -1], [1, 0]], None),
        ([[0, 1], [1, 0]], [[0, 1], [2, 0]]),
        ([[0]], None),
    ):
        with pytest.raises(ValueError, match="wins"):
            fit_strengths(wins, ties)


def test_tables_from_votes() -> None:
    first, second = np.array([0, 0, 0, 2, 1, 1]), np.array([1, 1, 1, 0, 0, 0])
    won, tied = tables(first, second, np.array([1.0, 0.5, 0.5, 0.0, 1.0, 1.0]), 3)
    assert won.tolist() == [[0, 1, 1], [2, 0, 0], [0, 0, 0]]
    assert tied.tolist() == [[0, 2, 0], [2, 0, 0], [0, 0, 0]]


def study(seed: int, strengths: np.ndarray, *, raters: int = 10, prompts: int = 24) -> dict:
    """Every rater compares one pair of competitors on every prompt, with ties; prompts lean."""
    generator = np.random.default_rng(seed)
    who, what = (part.ravel() for part in np.meshgrid(np.arange(raters), np.arange(prompts), indexing="ij"))
    first = generator.integers(len(strengths), size=len(who))
    second = (first + generator.integers(1, len(strengths), size=len(who))) % len(strengths)
    lean = generator.normal(0, 0.7, (prompts, len(strengths)))
    worth = strengths + lean[what]
    half = (worth[np.arange(len(who)), first] - worth[np.arange(len(who)), second]) / 2
    odds = np.stack([np.exp(half), np.full_like(half, 0.5), np.exp(-half)], axis=1)
    drawn = (generator.random(len(who))[:, None] > np.cumsum(odds / odds.sum(1, keepdims=True), 1)).sum(1)
    return {
        "first": first,
        "second": second,
        "points": np.array([1.0, 0.5, 0.0])[drawn],
        "raters": who,
        "prompts": what,
    }


def test_intervals_cover_equal_strengths() -> None:
    inside = []
    for seed in range(100):
        found = strength_intervals(**study(seed, np.zeros(3)), competitors=3)
        inside.append((found.low <= 0.0) & (found.high >= 0.0))
    assert 0.92 <= np.mean(inside) <= 0.98


def test_intervals_notice_a_clear_difference() -> None:
    found = strength_intervals(**study(1, np.array([1.0, 0.0, -1.0])), competitors=3)
    assert (found.low <= found.fit.values).all()
    assert (found.fit.values <= found.high).all()
    assert found.low[0] > found.high[2]


def test_variance_is_the_sandwich_of_the_likelihood() -> None:
    """Scores and information by differences of the logarithm of Davidson's likelihood, clusters by double sums."""
    votes = study(3, np.array([0.8, 0.0, -0.5]), raters=6, prompts=8)
    found = strength_intervals(**votes, competitors=3)
    count = len(votes["points"])

    def logs(place: np.ndarray) -> np.ndarray:
        """Log-likelihoods (N,) at two strengths, the third being 0, and log nu."""
        s = np.array([place[0], place[1], 0.0])
        half, tie = (s[votes["first"]] - s[votes["second"]]) / 2, np.full(count, place[2])
        logits = np.stack([half, tie, -half])
        row = {1.0: 0, 0.5: 1, 0.0: 2}
        chosen = logits[[row[point] for point in votes["points"]], np.arange(count)]
        return chosen - np.log(np.exp(logits).sum(0))

    values = found.fit.values
    place = np.array([values[0] - values[2], values[1] - values[2], math.log(found.fit.tie)])
    step = 1e-4 * np.eye(3)
    scores = np.stack([(logs(place + row) - logs(place - row)) / 2e-4 for row in step])
    information = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            signs = [(a, b, logs(place + a * step[i] + b * step[j]).sum()) for a in (1, -1) for b in (1, -1)]
            information[i, j] = -sum(a * b * value for a, b, value in signs) / 4e-8
    # Strengths with sum 0 from differences to the third one.
    turn = np.array([[2, -1, 0], [-1, 2, 0], [-1, -1, 0]]) / 3.0
    influences = (turn @ np.linalg.inv(information) @ scores).T
    for k in range(3):
        spread = two_way_spread(influences[:, k], votes["raters"], votes["prompts"])
        half = math.sqrt(spread.variance) * stats.t.ppf(0.975, spread.df)
        assert found.high[k] - values[k] == pytest.approx(half, rel=1e-4)
        assert values[k] - found.low[k] == pytest.approx(half, rel=1e-4)


def test_a_competitor_that_wins_all_gets_a_finite_interval_that_says_so() -> None:
    votes = study(2, np.array([0.0, 0.0, 0.0]))
    top = (votes["first"] == 0) | (votes["second"] == 0)
    votes["points"] = np.where(top, (votes["first"] == 0).astype(float), votes["points"])
    found = strength_intervals(**votes, competitors=3)
    assert found.fit.penalised
    assert np.isfinite([*found.low, *found.high]).all()
    assert found.high[0] - found.low[0] > 1.0

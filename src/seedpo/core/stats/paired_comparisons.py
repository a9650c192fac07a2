"""Strengths of competitors from paired comparisons with ties: Bradley and Terry (1952), after Davidson (1970).

With log-strengths s and d = s_i - s_j,

    P[i beats j] = e^(d/2) / Z,   P[tie] = nu / Z,   P[j beats i] = e^(-d/2) / Z,   Z = e^(d/2) + e^(-d/2) + nu.

Without ties nu = 0, which is the model of Bradley and Terry: P[i beats j] = 1 / (1 + e^-d). Strengths are fixed up to
a constant; here they add up to 0. The likelihood is concave, so Newton's method finds its maximum if there is one.
There is none if some competitors have never lost to the rest: their strength has no bound. The fit then adds half a win
in each direction to every pair that was compared, and reports it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seedpo.core.stats.student import student_quantile
from seedpo.core.stats.two_way import two_way_spread

Array = NDArray[np.float64]
Index = NDArray[np.int64]

PENALTY = 0.5
"""Wins added in each direction to each compared pair if the likelihood has no maximum."""

_STEPS, _PRECISION = 200, 1e-9


@dataclass(frozen=True, eq=False)
class Strengths:
    """A fit.

    Attributes:
        values: log-strengths (K,), with sum 0.
        tie: nu of Davidson's model; 0 without ties.
        penalised: whether wins were added because the likelihood has no maximum.
        covariance: of the log-strengths if votes were independent (K, K): the inverse of their information. With ties
            there is one row and column more, for log nu.
    """

    values: Array
    tie: float
    penalised: bool
    covariance: Array


@dataclass(frozen=True, eq=False)
class StrengthIntervals:
    """A fit with intervals.

    Attributes:
        fit: of all votes.
        low, high: ends of the interval of each log-strength (K,).
    """

    fit: Strengths
    low: Array
    high: Array


def is_connected(wins: ArrayLike, ties: ArrayLike) -> bool:
    """Whether comparisons connect all competitors, whoever won; otherwise strengths are meaningless.

    Args:
        wins: (K, K), wins[i, j] = how often i beat j.
        ties: (K, K), symmetric.
    """
    met = np.asarray(wins, dtype=np.float64) + np.asarray(ties, dtype=np.float64)
    return _all_reached((met + met.T) > 0)


def has_bounds(wins: ArrayLike) -> bool:
    """Whether wins connect every competitor to every other one (Ford 1957), so that the likelihood has a maximum.

    With ties the condition is sufficient but not necessary: the penalty may then be added needlessly.

    Args:
        wins: (K, K), wins[i, j] = how often i beat j.
    """
    return _all_reached(np.asarray(wins, dtype=np.float64) > 0)


def fit_strengths(wins: ArrayLike, ties: ArrayLike | None = None) -> Strengths:
    """The strengths of maximum likelihood, penalised only if the likelihood has no maximum.

    Args:
        wins: (K, K), wins[i, j] = how often i beat j; K >= 2; weights are allowed; the diagonal is ignored.
        ties: (K, K), symmetric; `None` if there are none.

    Raises:
        ValueError: if shapes are wrong, a count is negative, or the comparisons are disconnected.
    """
    won = np.array(wins, dtype=np.float64)
    tied = np.zeros_like(won) if ties is None else np.array(ties, dtype=np.float64)
    if won.ndim != 2 or won.shape[0] != won.shape[1] or won.shape != tied.shape or len(won) < 2:
        raise ValueError(f"wins {won.shape} and ties {tied.shape} must both be (K, K), K >= 2")
    if (won < 0).any() or (tied < 0).any() or (tied != tied.T).any():
        raise ValueError("wins and ties must be at least 0, and ties the same in both directions")
    np.fill_diagonal(won, 0.0)
    np.fill_diagonal(tied, 0.0)
    if not is_connected(won, tied):
        raise ValueError("the comparisons are disconnected; fit each connected part alone")
    penalised = not has_bounds(won)
    if penalised:
        won += PENALTY * ((won + won.T + tied) > 0)
    first, second = np.nonzero(np.triu(won + won.T + tied))
    outcomes = np.stack([won[first, second], tied[first, second], won[second, first]], axis=1)
    incidence = np.zeros((len(first), len(won)))
    incidence[np.arange(len(first)), first] = 1.0
    incidence[np.arange(len(first)), second] = -1.0
    values, tie, covariance = _newton(outcomes, incidence)
    return Strengths(values, tie, penalised, covariance)


def strength_intervals(
    first: Index,
    second: Index,
    points: Array,
    *,
    competitors: int,
    raters: Index,
    prompts: Index,
    level: float = 0.95,
) -> StrengthIntervals:
    """Strengths with intervals over raters and prompts (:mod:`seedpo.core.stats.two_way`).

    A vote's influence on the strengths is the inverse information times its score. The variance is at least that of
    independent votes, so that it is not 0 where all votes agree.

    Args:
        first, second: competitors of each vote (N,), from 0 to ``competitors`` - 1.
        points: 1 if the first won, 0 if the second, 0.5 for a tie, (N,).
        competitors: K.
        raters, prompts: whose and of what each vote is (N,).
        level: of the intervals.

    Raises:
        ValueError: if the comparisons are disconnected.
    """
    fit = fit_strengths(*tables(first, second, points, competitors))
    influences = _influences(fit, first, second, points)
    spreads = [two_way_spread(column - column.mean(), raters, prompts) for column in influences.T]
    errors = np.sqrt([max(spread.variance, fit.covariance[k, k]) for k, spread in enumerate(spreads)])
    half = errors * [student_quantile(level, spread.df) for spread in spreads]
    return StrengthIntervals(fit=fit, low=fit.values - half, high=fit.values + half)


def _influences(fit: Strengths, first: Index, second: Index, points: Array) -> Array:
    """How much each vote moved each log-strength, (N, K)."""
    competitors = len(fit.values)
    half = (fit.values[first] - fit.values[second]) / 2.0
    odds = np.stack([np.exp(half), np.full_like(half, fit.tie), np.exp(-half)])
    win, tie, loss = odds / odds.sum(0)
    scores = np.zeros((len(points), len(fit.covariance)))
    rows = np.arange(len(points))
    scores[rows, first] = points - 0.5 - (win - loss) / 2.0
    scores[rows, second] = -scores[rows, first]
    if fit.tie > 0.0:
        scores[:, -1] = (points == 0.5) - tie
    return np.asarray(scores @ fit.covariance[:, :competitors])


def tables(first: Index, second: Index, points: Array, competitors: int) -> tuple[Array, Array]:
    """Wins and ties, each (K, K), of votes: see :func:`strength_intervals`."""
    shape = competitors, competitors
    won, tied = np.zeros(shape), np.zeros(shape)
    np.add.at(won, (first, second), points == 1.0)
    np.add.at(won, (second, first), points == 0.0)
    np.add.at(tied, (first, second), points == 0.5)
    return won, tied + tied.T


def _newton(outcomes: Array, incidence: Array) -> tuple[Array, float, Array]:
    """Maximises the likelihood of outcomes (M, 3) of pairs, whose differences are ``incidence`` (M, K) @ s.

    Returns:
        log-strengths, nu, and the inverse of the information.
    """
    count, with_ties = outcomes.sum(1), bool(outcomes[:, 1].any())
    competitors = incidence.shape[1]
    place = np.zeros(competitors + with_ties)
    design = np.hstack([incidence, np.zeros((len(count), int(with_ties)))])
    value, shares = _log_likelihood(place, outcomes, design, with_ties)
    # Keeps the sum of the strengths, on which the likelihood does not depend, at 0.
    anchor = np.zeros((len(place), len(place)))
    anchor[:competitors, :competitors] = 1.0
    for _ in range(_STEPS):
        win, tie, loss = shares
        spread = (win + loss) / 4.0 - ((win - loss) / 2.0) ** 2
        gradient = design.T @ ((outcomes[:, 0] - outcomes[:, 2]) / 2.0 - count * (win - loss) / 2.0)
        curvature = design.T @ (design * (count * spread)[:, None]) + anchor
        if with_ties:
            mixed = design.T @ (-count * tie * (win - loss) / 2.0)
            curvature[-1, :-1], curvature[:-1, -1] = mixed[:-1], mixed[:-1]
            curvature[-1, -1] = (count * tie * (1.0 - tie)).sum()
            gradient[-1] = (outcomes[:, 1] - count * tie).sum()
        if np.abs(gradient).max() <= _PRECISION * count.sum():
            break
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while scale > 1e-12:
            trial, shares = _log_likelihood(place + scale * step, outcomes, design, with_ties)
            if trial >= value:
                break
            scale /= 2.0
        place, value = place + scale * step, trial
    values = place[:competitors] - place[:competitors].mean()
    covariance = np.linalg.inv(curvature)
    covariance[:competitors, :competitors] -= 1.0 / competitors**2  # what the anchor added
    return values, math.exp(place[-1]) if with_ties else 0.0, covariance


def _log_likelihood(
    place: Array, outcomes: Array, design: Array, with_ties: bool
) -> tuple[float, tuple[Array, Array, Array]]:
    """The log-likelihood, and the probabilities of win, tie and loss of each pair."""
    half = (design @ place) / 2.0
    ties = np.full_like(half, place[-1] if with_ties else -np.inf)
    logits = np.stack([half, ties, -half], axis=1)
    top = logits.max(1)
    norm = top + np.log(np.exp(logits - top[:, None]).sum(1))
    logs = logits - norm[:, None]
    value = float((outcomes * np.where(outcomes > 0, logs, 0.0)).sum())
    win, tie, loss = np.exp(logs).T
    return value, (win, tie, loss)


def _all_reached(edges: NDArray[np.bool_]) -> bool:
    reached = edges | np.eye(len(edges), dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(len(edges))))):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return bool(reached.all())

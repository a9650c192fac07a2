"""How many raters and prompts a study needs to show a difference of a given size.

With R raters, P prompts and k raters per pair, each rater giving as many votes as the others, the rate of one model
against another has the variance

    V = v_raters / R + v_prompts / P + v_rest / (k P),

where the components are the variances of a vote from rater to rater, from prompt to prompt, and of the rest. The test
is that of :mod:`seedpo.core.stats.two_way`, so its power is that of a non-central t, here in the approximation 26.7.10
of Abramowitz and Stegun (1964), with the degrees of freedom of that test for the expected sums of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.student import student_quantile
from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS
from seedpo.errors import ConfigError, DataError
from seedpo.study.analysis.vote_statistics import by_sources, columns
from seedpo.study.records import Judgement

MOST_PROMPTS = 5000
"""More prompts than this are no plan."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Variances of one vote's points, which are 1, 1/2 or 0.

    Attributes:
        raters: of raters' own rates over all prompts.
        prompts: of prompts' own rates over all raters.
        rest: within.
    """

    raters: float
    prompts: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A difference of two models and what else decides on answers, after Davidson (1970).

    Attributes:
        worth: log-odds of the better one for a usual rater and prompt, ties left out.
        ties: odds of a tie at equal worth are ties : 2.
        components: what follows for the variance of votes.
    """

    worth: float
    ties: float
    components: Components


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a study is to show.

    Attributes:
        rate: share of votes for the better model, ties as half.
        power: probability to show it.
        level: of the family of tests.
        contrasts: pairs of models that are tested; each has at least the power, by Bonferroni's bound for Holm.
    """

    rate: float
    power: float = 0.8
    level: float = 0.95
    contrasts: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study that reaches a goal.

    Attributes:
        raters: their number.
        prompts: the least number; `None` if no number is enough for so few raters.
        votes_per_rater: on average; 0 without a plan.
    """

    raters: int
    prompts: int | None
    votes_per_rater: float


def effect_of(rate: float, *, ties: float, rater_sd: float, prompt_sd: float) -> Effect:
    """The effect that gives a rate and a share of ties.

    Args:
        rate: share of votes for the better model over raters and prompts, ties as half; from 1/2 below 1.
        ties: share of ties among votes, from 0 below 1.
        rater_sd, prompt_sd: standard deviation, in logits, of the differences that raters and prompts see.

    Raises:
        ConfigError: the numbers contradict each other.
    """
    if not 0.5 <= rate <= 1.0 - ties / 2.0 - 1e-6:
        raise ConfigError(
            f"a rate of {rate:g} is impossible with a share of {ties:g} ties, which count half: lower one of them"
        )
    if not ties:
        return _effect(_worth(rate, 0.0, rater_sd, prompt_sd), 0.0, rater_sd, prompt_sd)
    # The share of ties rises with nu, whose logarithm is searched.
    place = _root(
        lambda log: (
            _shares(_worth(rate, math.exp(log), rater_sd, prompt_sd), math.exp(log), rater_sd, prompt_sd)[1] - ties
        ),
        (-25.0, 25.0),
    )
    nu = math.exp(place)
    return _effect(_worth(rate, nu, rater_sd, prompt_sd), nu, rater_sd, prompt_sd)


def components_of(votes: Sequence[Judgement]) -> Components:
    """The components that votes on pairs show, by products of pairs of votes, over all pairs of models.

    The mean product of two votes of one rater on different prompts, less that of two votes with neither in common,
    estimates the component of raters; that of prompts likewise.

    Args:
        votes: on pairs, or best and worst of several.

    Raises:
        DataError: too few votes share a rater or a prompt.
    """
    sums, amounts = np.zeros(4), np.zeros(4)
    for own in by_sources(votes).values():
        table = columns(own)
        errors = table.points - table.points.mean()
        cells = np.unique(table.raters * (int(table.prompts.max()) + 1) + table.prompts, return_inverse=True)[1]
        (of_raters, n_r), (of_prompts, n_p), (of_cells, n_c) = (
            _same(errors, codes) for codes in (table.raters, table.prompts, cells)
        )
        count = len(errors)
        sums += (of_raters - of_cells, of_prompts - of_cells, of_cells - of_raters - of_prompts, (errors**2).sum())
        amounts += (n_r - n_c, n_p - n_c, count**2 - n_r - n_p + n_c, count)
    if not amounts.all():
        raise DataError(
            "a pilot needs votes of several raters on several prompts, with two or more raters on some of them"
        )
    raters, prompts, apart, total = sums / amounts
    found = [max(0.0, float(part - apart)) for part in (raters, prompts)]
    return Components(raters=found[0], prompts=found[1], rest=max(0.0, float(total - apart) - sum(found)))


def power_of(goal: Goal, components: Components, *, raters: int, prompts: int, per_pair: int) -> float:
    """The probability that a contrast of the goal's rate is shown.

    Args:
        goal: its power is not read.
        components: of a vote.
        raters, prompts: their numbers.
        per_pair: raters who compare each pair of images; all of them if there are no more.
    """
    votes = min(per_pair, raters) * prompts
    raters = min(raters, votes)
    total = components.raters + components.prompts + components.rest
    excess = components.raters * (1.0 / raters - 1.0 / votes), components.prompts * (1.0 / prompts - 1.0 / votes)
    variance = total / votes + sum(excess)
    sides = ((total / votes + excess[0], raters), (total / votes + excess[1], prompts), (total / votes, votes))
    df = variance**2 / sum(part**2 / (count - 1.0) for part, count in sides)
    t = student_quantile(1.0 - (1.0 - goal.level) / goal.contrasts, df)
    # The test's standard error is that of the rate 1/2.
    away = (goal.rate - 0.5) * math.sqrt(4.0 * goal.rate * (1.0 - goal.rate) / variance)
    return NormalDist().cdf((away - t * (1.0 - 0.25 / df)) / math.sqrt(1.0 + t * t / (2.0 * df)))


def plan(goal: Goal, components: Components, *, raters: int, per_pair: int, models: int = 2) -> Plan:
    """The fewest prompts with which a number of raters reaches the goal.

    Args:
        goal: what the study is to show.
        components: of a vote.
        raters: their number.
        per_pair: raters who compare each pair of images.
        models: every pair of them is compared on every prompt.
    """

    def enough(prompts: int) -> bool:
        return power_of(goal, components, raters=raters, prompts=prompts, per_pair=per_pair) >= goal.power

    if raters < LEAST_RATERS or not enough(MOST_PROMPTS):
        return Plan(raters=raters, prompts=None, votes_per_rater=0.0)
    low, high = LEAST_PROMPTS - 1, MOST_PROMPTS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    votes = min(per_pair, raters) * high * math.comb(models, 2)
    return Plan(raters=raters, prompts=high, votes_per_rater=votes / raters)


def _same(errors: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[float, float]:
    """Sum of products over all ordered pairs of votes of one cluster, and the number of these pairs."""
    return float((np.bincount(codes, errors) ** 2).sum()), float((np.bincount(codes).astype(np.float64) ** 2).sum())


Grid = NDArray[np.float64]


def _grid(worth: float, nu: float, rater_sd: float, prompt_sd: float) -> tuple[Grid, Grid, Grid]:
    """Win and tie (A, A) for raters in rows and prompts in columns, and the weights (A,) of both: Gauss and Hermite."""
    nodes, weights = _nodes()
    half = (worth + rater_sd * nodes[:, None] + prompt_sd * nodes) / 2.0
    top = np.maximum(np.abs(half), math.log(nu) if nu > 0.0 else -math.inf)
    win, tie, loss = np.exp(half - top), nu * np.exp(-top), np.exp(-half - top)
    total = win + tie + loss
    return win / total, tie / total, weights


@cache
def _nodes() -> tuple[Grid, Grid]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    return nodes, weights / weights.sum()


def _shares(worth: float, nu: float, rater_sd: float, prompt_sd: float) -> tuple[float, float]:
    """The rate, and the share of ties."""
    win, tie, weights = _grid(worth, nu, rater_sd, prompt_sd)
    return float(weights @ (win + tie / 2.0) @ weights), float(weights @ tie @ weights)


def _worth(rate: float, nu: float, rater_sd: float, prompt_sd: float) -> float:
    return _root(lambda worth: _shares(worth, nu, rater_sd, prompt_sd)[0] - rate, (0.0, 200.0))


def _effect(worth: float, nu: float, rater_sd: float, prompt_sd: float) -> Effect:
    win, tie, weights = _grid(worth, nu, rater_sd, prompt_sd)
    points = win + tie / 2.0
    by_rater, by_prompt = points @ weights, weights @ points
    mean = float(weights @ by_rater)
    raters, prompts = (float(weights @ (side - mean) ** 2) for side in (by_rater, by_prompt))
    total = float(weights @ (win + tie / 4.0) @ weights) - mean**2
    return Effect(
        worth=worth, ties=nu, components=Components(raters=raters, prompts=prompts, rest=total - raters - prompts)
    )  # fmt: skip


def _root(rising: Callable[[float], float], ends: tuple[float, float]) -> float:
    """Where a rising function is 0, by bisection; the nearer end if it is nowhere."""
    low, high = ends
    for _ in range(45):
        middle = (low + high) / 2.0
        low, high = (low, middle) if rising(middle) > 0.0 else (middle, high)
    return (low + high) / 2.0

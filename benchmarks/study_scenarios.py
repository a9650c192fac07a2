"""Simulated studies as columns of votes: raters and prompts that differ, ties, skips, careless raters, checks."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.paired_comparisons import fit_strengths, tables

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Form = Literal["pair", "best-worst", "single"]

DESIGNS = 8
"""Assignments of raters to prompts that the studies of a scenario use in turn, with raters and prompts in any order."""

CHECKS, LEAST_PASSED, ATTENTIVE, GUESSED = 4, 0.75, 0.97, 1 / 3
"""Attention checks of a rater, the share that has to be passed, and the chance to pass one: attentive and careless."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """How the studies of a scenario come about.

    A rater r who compares models i and j on prompt p sees the difference d of their utilities, worth_i + a_ri + b_pi +
    c_rpi less the same of j, and answers after Davidson (1970): odds of e^(d/2) : ties : e^(-d/2).

    Attributes:
        name: in the table.
        raters, prompts: their numbers.
        per_pair: raters who compare a pair of images, all if there are no more; 0: each rater sees a prompt of his own.
        worths: of the models in logits.
        rater_sd, prompt_sd, cell_sd: standard deviation, in logits, of what raters, prompts and each rater on each
            prompt add to the difference of two models.
        ties: odds of a tie at equal utilities are ties : 2.
        skips: share of skipped pairs.
        uneven: standard deviation of the logarithm of how much raters do.
        questions: each with effects of its own, which share half of their variance with those of the others.
        careless: share of raters who answer at random.
        checked: whether raters who fail attention checks are left out.
        form: pair: which of two. best-worst: the best and the worst of all models in one view. single: like or dislike
            of one; raters also differ in how much they like at all.
    """

    name: str
    raters: int = 12
    prompts: int = 30
    per_pair: int = 3
    worths: tuple[float, ...] = (0.0, 0.0)
    rater_sd: float = 0.5
    prompt_sd: float = 0.7
    cell_sd: float = 0.0
    ties: float = 0.0
    skips: float = 0.0
    uneven: float = 0.0
    questions: int = 1
    careless: float = 0.0
    checked: bool = False
    form: Form = "pair"

    @property
    def contrasts(self) -> list[tuple[int, int]]:
        """All pairs of models."""
        return list(combinations(range(len(self.worths)), 2))


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes as columns of equal length: question, models, points of the first one, rater, prompt.

    A like has one model; its second one is -1.
    """

    questions: Index
    first: Index
    second: Index
    points: Array
    raters: Index
    prompts: Index

    def only(self, chosen: NDArray[np.bool_]) -> Votes:
        """Some of the votes."""
        return Votes(*(getattr(self, part.name)[chosen] for part in fields(self)))

    def of(self, question: int, first: int, second: int) -> Votes:
        """The votes on one question and pair of models."""
        pair = (self.first == first) & (self.second == second)
        likes = (self.second < 0) & ((self.first == first) | (self.first == second))
        return self.only((self.questions == question) & (pair | likes))

    def of_question(self, question: int) -> Votes:
        """The votes on one question."""
        return self.only(self.questions == question)


def study(scenario: Scenario, generator: np.random.Generator) -> Votes:
    """One study of the scenario."""
    views = _views(scenario, int(generator.integers(DESIGNS)))
    if scenario.skips:
        views = views[:, generator.random(views.shape[1]) >= scenario.skips]
    raters = generator.permutation(scenario.raters)[views[1]]
    prompts = generator.permutation(scenario.prompts)[views[2]]
    views = np.stack([views[0], raters, prompts])
    careless = generator.random(scenario.raters) < scenario.careless
    shared = _effects(scenario, generator, raters, prompts)
    parts = []
    for question in range(scenario.questions):
        own = _effects(scenario, generator, raters, prompts)
        utilities = np.asarray(scenario.worths) + (shared + own) / math.sqrt(2.0)
        utilities[careless[raters]] = 0.0
        first, second, points, view = _FORMS[scenario.form](scenario, generator, utilities, views)
        parts.append((np.full(len(points), question), first, second, points, raters[view], prompts[view]))
    votes = Votes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return _attentive(votes, careless, generator) if scenario.checked else votes


def rate(votes: Votes) -> tuple[float, Array]:
    """The rate of a contrast from its votes, and the influence of each vote on it (N,).

    Of likes it is 1/2 and half the difference of the two shares, as in :class:`seedpo.study.analysis.likes.Contrast`.
    """
    if votes.second[0] >= 0:
        mean = float(votes.points.mean())
        return mean, (votes.points - mean) / len(votes.points)
    left = votes.first == votes.first.min()
    here, there = votes.points[left].mean(), votes.points[~left].mean()
    influences = np.where(left, (votes.points - here) / left.sum(), (there - votes.points) / (~left).sum())
    return float(0.5 + (here - there) / 2.0), influences / 2.0


@dataclass(frozen=True, eq=False)
class Truth:
    """What is true in the population of raters and prompts.

    Attributes:
        rates: of each contrast.
        strengths: Bradley-Terry log-strengths that fit the population best (K,).
    """

    rates: dict[tuple[int, int], float]
    strengths: Array


def truth(scenario: Scenario, *, seed: int = 0, votes: int = 1_000_000) -> Truth:
    """The truth by a large simulation, in which every vote has a rater and a prompt of its own; exact if all are equal.

    Args:
        scenario: its questions have the same truth.
        seed: of the simulation.
        votes: views of it.
    """
    contrasts, models = scenario.contrasts, len(scenario.worths)
    if len(set(scenario.worths)) == 1:
        return Truth(dict.fromkeys(contrasts, 0.5), np.zeros(models))
    population = replace(scenario, raters=votes, prompts=votes, per_pair=0, questions=1, skips=0.0)
    drawn = study(population, np.random.default_rng(seed))
    rates = {contrast: rate(drawn.of(0, *contrast))[0] for contrast in contrasts}
    rates |= {(i, j): 0.5 for i, j in contrasts if scenario.worths[i] == scenario.worths[j]}
    if scenario.form == "single":
        return Truth(rates, np.zeros(models))
    return Truth(rates, fit_strengths(*tables(drawn.first, drawn.second, drawn.points, models)).values)


def _effects(scenario: Scenario, generator: np.random.Generator, raters: Index, prompts: Index) -> Array:
    """What raters, prompts and both add to each model's utility, (N, K)."""
    models = len(scenario.worths)
    by_rater, by_prompt, by_cell = (
        generator.normal(0.0, sd / math.sqrt(2.0), (count, models))
        for sd, count in (
            (scenario.rater_sd, scenario.raters),
            (scenario.prompt_sd, scenario.prompts),
            (scenario.cell_sd, len(raters)),
        )
    )
    return by_rater[raters] + by_prompt[prompts] + by_cell


Answers = tuple[Index, Index, Array, Index]
"""Models, points of the first one, and the view of each vote."""


def _compared(scenario: Scenario, generator: np.random.Generator, utilities: Array, views: Index) -> Answers:
    """One pair of models per view."""
    first, second = np.array(scenario.contrasts)[views[0]].T
    rows = np.arange(len(first))
    half = (utilities[rows, first] - utilities[rows, second]) / 2.0
    win, loss = np.exp(half), np.exp(-half)
    drawn = generator.random(len(rows)) * (win + scenario.ties + loss)
    return first, second, np.where(drawn < win, 1.0, np.where(drawn < win + scenario.ties, 0.5, 0.0)), rows


def _liked(scenario: Scenario, generator: np.random.Generator, utilities: Array, views: Index) -> Answers:
    """One model per view."""
    model, raters, _ = views
    rows = np.arange(len(model))
    kind = generator.normal(0.0, scenario.rater_sd, scenario.raters)[raters]
    points = generator.random(len(rows)) < 1.0 / (1.0 + np.exp(-utilities[rows, model] - kind))
    return model, np.full(len(rows), -1), points.astype(np.float64), rows


def _ranked(scenario: Scenario, generator: np.random.Generator, utilities: Array, views: Index) -> Answers:
    """All models in one view: the best and the worst after Gumbel's noise, as 2 k - 3 votes."""
    noisy = utilities + generator.gumbel(size=utilities.shape)
    best, worst = noisy.argmax(1), noisy.argmin(1)
    parts = []
    for first, second in scenario.contrasts:
        won = (best == first) | (worst == second)
        rows = np.flatnonzero(won | (best == second) | (worst == first))
        models = (np.full(len(rows), first), np.full(len(rows), second))
        parts.append((*models, won[rows].astype(np.float64), rows))
    first_, second_, points, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first_, second_, points, rows


_FORMS = {"pair": _compared, "best-worst": _ranked, "single": _liked}


def _attentive(votes: Votes, careless: NDArray[np.bool_], generator: np.random.Generator) -> Votes:
    """The votes of raters who pass their attention checks."""
    passed = generator.binomial(CHECKS, np.where(careless, GUESSED, ATTENTIVE))
    return votes.only((passed >= LEAST_PASSED * CHECKS)[votes.raters])


@cache
def _views(scenario: Scenario, design: int) -> Index:
    """What is shown, rater and prompt of each view, (3, N): raters with the fewest views first, ties by chance."""
    raters, prompts = scenario.raters, scenario.prompts
    pairs = {"pair": len(scenario.contrasts), "best-worst": 1, "single": len(scenario.worths)}[scenario.form]
    if not scenario.per_pair:
        return np.stack([np.arange(raters) % pairs, np.arange(raters), np.arange(prompts)])
    generator = np.random.default_rng([design, raters, prompts, scenario.per_pair])
    speed = np.exp(generator.normal(0.0, scenario.uneven, raters))
    load, views = generator.random(raters), []
    for prompt in range(prompts):
        for pair in range(pairs):
            chosen = np.argsort((load + generator.random(raters)) / speed)[: scenario.per_pair]
            load[chosen] += 1.0
            views += [(pair, rater, prompt) for rater in chosen]
    return np.array(views).T

"""One model against another: wins, ties, losses, intervals, tests, and strengths of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np

from seedpo.core.stats.bootstrap import interval_ends
from seedpo.core.stats.crossed import resampled_shares
from seedpo.core.stats.multiple import holm, sign_test
from seedpo.core.stats.paired_comparisons import is_connected, strength_intervals, tables
from seedpo.core.stats.shares import wilson_interval
from seedpo.study.analysis_votes import POINTS, by_sources, columns
from seedpo.study.records import Judgement

Ends = tuple[float, float]
Verdict = Literal["left", "right", "open"]


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made.

    Attributes:
        level: of all intervals and, as 1 - level, of the tests.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """

    level: float = 0.95
    seed: int = 0
    resamples: int = 1000

    @property
    def z(self) -> float:
        """Quantile of the normal distribution for intervals of this level."""
        return NormalDist().inv_cdf((1.0 + self.level) / 2.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on one question.

    Attributes:
        question: its key; empty: all questions together.
        category: of the prompts; empty: all of them.
        left, right: the models.
        wins, losses: votes for the left and for the right one.
        ties, bad: votes for neither: "tie" and "both bad".
        raters, prompts: that the votes are of.
        rate: share of votes for the left one, ties and "both bad" counting half.
        wilson: interval of it as if votes were independent of each other.
        interval: interval of it over raters and prompts; the bootstrap's, widened to Wilson's where that is wider.
        prompts_left, prompts_right: prompts on which the left (right) one has more votes than the other.
        p: exact sign test over these prompts; none in a table by category.
        adjusted: the same after Holm's correction for all comparisons of the analysis.
        verdict: whom a preference is shown for: needs the corrected p-value and the interval over raters and prompts.
    """

    question: str
    category: str
    left: str
    right: str
    wins: int
    ties: int
    bad: int
    losses: int
    raters: int
    prompts: int
    rate: float
    wilson: Ends
    interval: Ends
    prompts_left: int
    prompts_right: int
    p: float | None = None
    adjusted: float | None = None
    verdict: Verdict = "open"

    @property
    def votes(self) -> int:
        """Votes in all."""
        return self.wins + self.ties + self.bad + self.losses


@dataclass(frozen=True, kw_only=True)
class Strength:
    """A model's place in the model of Bradley, Terry and Davidson.

    Attributes:
        model: its name.
        value: log-strength; they add up to 0; a difference of d means odds of e^d, ties left out.
        interval: over raters and prompts; none if no resample could be fitted.
    """

    model: str
    value: float
    interval: Ends | None


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """All strengths on one question, strongest first.

    Attributes:
        models: none if the comparisons do not hang together.
        penalised: whether half a win was added in each direction of each pair, as no finite strengths fit best.
        resamples: that the intervals rest on.
        penalised_resamples: of these, those that needed the same.
    """

    models: tuple[Strength, ...]
    penalised: bool = False
    resamples: int = 0
    penalised_resamples: int = 0


def compare(
    votes: Sequence[Judgement], how: Resampling, *, question: str, category: str = "", tested: bool = True
) -> tuple[Comparison, ...]:
    """All pairs of models that were compared; p-values are not corrected yet (:func:`corrected`)."""
    found = []
    for (left, right), own in by_sources(votes).items():
        answers, table = Counter(vote.answer for vote in own), columns(own)
        total = float(table.points.sum())
        wilson = wilson_interval(total, len(own), z=how.z)
        drawn = resampled_shares(table.points, table.raters, table.prompts, seed=how.seed, resamples=how.resamples)
        low, high = interval_ends(drawn, level=how.level) if len(drawn) else wilson
        above, below = prompts_won(own)
        found.append(
            Comparison(
                question=question,
                category=category,
                left=left,
                right=right,
                wins=answers["first"],
                ties=answers["tie"],
                bad=answers["bad"],
                losses=answers["second"],
                raters=len({vote.show.rater for vote in own}),
                prompts=len({vote.prompt for vote in own}),
                rate=total / len(own),
                wilson=wilson,
                # Where all agree a resample does too: its interval would be a point.
                interval=(min(low, wilson[0]), max(high, wilson[1])),
                prompts_left=above,
                prompts_right=below,
                p=sign_test(above, below) if tested else None,
            )
        )
    return tuple(found)


def prompts_won(votes: Sequence[Judgement]) -> tuple[int, int]:
    """Prompts with more votes for the first candidate, and those with more for the second one."""
    leads: Counter[str] = Counter()
    for vote in votes:
        leads[vote.prompt] += int(2 * POINTS[vote.answer] - 1)
    return sum(lead > 0 for lead in leads.values()), sum(lead < 0 for lead in leads.values())


def corrected(comparisons: Sequence[Comparison], how: Resampling) -> tuple[Comparison, ...]:
    """The same with Holm's correction over those that were tested, and the verdicts that follow."""
    tested = [one for one in comparisons if one.p is not None]
    adjusted = iter(holm([one.p for one in tested if one.p is not None]).tolist())
    return tuple(_judged(one, next(adjusted), how) if one.p is not None else one for one in comparisons)


def _judged(one: Comparison, adjusted: float, how: Resampling) -> Comparison:
    verdict: Verdict = "open"
    if adjusted <= 1.0 - how.level + 1e-12:
        if one.interval[0] > 0.5 and one.prompts_left > one.prompts_right:
            verdict = "left"
        elif one.interval[1] < 0.5 and one.prompts_left < one.prompts_right:
            verdict = "right"
    return replace(one, adjusted=adjusted, verdict=verdict)


def strengths(votes: Sequence[Judgement], how: Resampling) -> Strengths:
    """Bradley-Terry strengths with ties and intervals over raters and prompts; empty if they mean nothing."""
    own = [vote for pair in by_sources(votes).values() for vote in pair]
    models = sorted({name for vote in own for name in (vote.first.source, vote.second.source)})
    if len(models) < 2:
        return Strengths(models=())
    place = {name: index for index, name in enumerate(models)}
    table = columns(own)
    first = np.array([place[vote.first.source] for vote in own], dtype=np.int64)
    second = np.array([place[vote.second.source] for vote in own], dtype=np.int64)
    if not is_connected(*tables(first, second, table.points, np.ones(len(own)), len(models))):
        return Strengths(models=())
    found = strength_intervals(
        first,
        second,
        table.points,
        competitors=len(models),
        raters=table.raters,
        prompts=table.prompts,
        seed=how.seed,
        resamples=how.resamples,
        level=how.level,
    )
    rows = [
        Strength(
            model=name,
            value=float(found.fit.values[index]),
            interval=(float(found.low[index]), float(found.high[index])) if found.resamples else None,
        )
        for index, name in enumerate(models)
    ]
    return Strengths(
        models=tuple(sorted(rows, key=lambda row: (-row.value, row.model))),
        penalised=found.fit.penalised,
        resamples=found.resamples,
        penalised_resamples=found.penalised,
    )

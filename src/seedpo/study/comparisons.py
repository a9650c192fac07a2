"""One model against another (wins, intervals, tests, strengths), and the ranking of the images of one prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from seedpo.core.stats.classical import holm, wilson_interval
from seedpo.core.stats.paired_comparisons import fit_strengths, is_connected, strength_intervals, tables
from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS, two_way_rate
from seedpo.study.records import Judgement
from seedpo.study.vote_statistics import POINTS, Ends, Resampling, by_sources, columns

Verdict = Literal["left", "right", "open"]

Family = Literal["primary", "explored", ""]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on one question.

    Attributes:
        question: its key; empty: all questions together.
        category: of the prompts; empty: all of them.
        left, right: the models.
        wins, losses: votes for the left and for the right model.
        ties, bad: votes for neither: "tie" and "both bad".
        raters, prompts: number of raters and prompts of the votes.
        rate: share of votes for the left model; ties and "both bad" count half.
        wilson: interval of the rate as if votes were independent.
        interval: interval of the rate over raters and prompts (:mod:`seedpo.core.stats.two_way`).
        error: standard error of the rate over raters and prompts.
        df: degrees of freedom of the interval and the test.
        prompts_left, prompts_right: prompts on which the left (right) model has more votes.
        p: of the test that the rate is 1/2, which agrees with the interval; `None` where there is no test.
        untested: why there is no test; empty if there is one.
        adjusted: p after Holm's correction over all tests of the family.
        family: of tests whose p-values are corrected together; empty: a description without a test.
        verdict: the model for which a preference is shown: the corrected p-value shows it.
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
    error: float
    df: float
    prompts_left: int
    prompts_right: int
    p: float | None = None
    untested: str = ""
    adjusted: float | None = None
    family: Family = ""
    verdict: Verdict = "open"

    @property
    def votes(self) -> int:
        """All votes."""
        return self.wins + self.ties + self.bad + self.losses

    @property
    def key(self) -> tuple[str, str, str]:
        """Question and models."""
        return self.question, self.left, self.right


@dataclass(frozen=True, kw_only=True)
class Strength:
    """A model's strength after Bradley, Terry and Davidson.

    Attributes:
        model: its name.
        value: log-strength. All values add up to 0; a difference of d means odds of e^d, ties left out.
        interval: over raters and prompts.
    """

    model: str
    value: float
    interval: Ends


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """All strengths on one question, strongest first.

    Attributes:
        models: empty if the comparisons are not connected.
        penalised: whether half a win was added in each direction of each pair, because no finite strengths fit best.
    """

    models: tuple[Strength, ...]
    penalised: bool = False


def compare(
    votes: Sequence[Judgement], resampling: Resampling, *, question: str, category: str = "", tested: bool = True
) -> tuple[Comparison, ...]:
    """All pairs of models that were compared; :func:`corrected` corrects their p-values."""
    return tuple(
        _comparison(left, right, pair_votes, resampling, question=question, category=category, tested=tested)
        for (left, right), pair_votes in by_sources(votes).items()
    )


def _comparison(
    left: str,
    right: str,
    votes: Sequence[Judgement],
    resampling: Resampling,
    *,
    question: str,
    category: str,
    tested: bool,
) -> Comparison:
    answers, table = Counter(vote.answer for vote in votes), columns(votes)
    rate = two_way_rate(table.points, table.raters, table.prompts, level=resampling.level)
    raters, prompts = (len(set(side.tolist())) for side in (table.raters, table.prompts))
    prompts_left, prompts_right = _prompts_won(votes)
    untested = _reason(raters, prompts) if tested else "a description"
    return Comparison(
        question=question,
        category=category,
        left=left,
        right=right,
        wins=answers["first"],
        ties=answers["tie"],
        bad=answers["bad"],
        losses=answers["second"],
        raters=raters,
        prompts=prompts,
        rate=rate.mean,
        wilson=wilson_interval(float(table.points.sum()), len(votes), z=resampling.z),
        interval=(rate.low, rate.high),
        error=rate.error,
        df=rate.df,
        prompts_left=prompts_left,
        prompts_right=prompts_right,
        p=None if untested else rate.p,
        untested=untested,
    )


def _reason(raters: int, prompts: int) -> str:
    """Why no verdict can be given; empty if one can."""
    if raters < LEAST_RATERS:
        return f"{raters} of at least {LEAST_RATERS} raters"
    return f"{prompts} of at least {LEAST_PROMPTS} prompts" if prompts < LEAST_PROMPTS else ""


def _prompts_won(votes: Sequence[Judgement]) -> tuple[int, int]:
    """Prompts with more votes for the first candidate, and prompts with more for the second."""
    leads: Counter[str] = Counter()
    for vote in votes:
        leads[vote.prompt] += int(2 * POINTS[vote.answer] - 1)
    return sum(lead > 0 for lead in leads.values()), sum(lead < 0 for lead in leads.values())


def corrected(comparisons: Sequence[Comparison], resampling: Resampling) -> tuple[Comparison, ...]:
    """The comparisons with Holm's correction over those that were tested, and their verdicts."""
    adjusted = iter(holm([comparison.p for comparison in comparisons if comparison.p is not None]).tolist())
    return tuple(
        comparison if comparison.p is None else _judged(comparison, next(adjusted), resampling)
        for comparison in comparisons
    )


def _judged(comparison: Comparison, adjusted: float, resampling: Resampling) -> Comparison:
    shown = adjusted <= 1.0 - resampling.level + 1e-12
    verdict: Verdict = "open" if not shown else "left" if comparison.rate > 0.5 else "right"
    return replace(comparison, adjusted=adjusted, verdict=verdict)


def strengths(votes: Sequence[Judgement], resampling: Resampling) -> Strengths:
    """Bradley-Terry strengths with ties, and intervals over raters and prompts; empty if they are not defined."""
    votes = [vote for pair_votes in by_sources(votes).values() for vote in pair_votes]
    models = sorted({name for vote in votes for name in (vote.first.source, vote.second.source)})
    if len(models) < 2:
        return Strengths(models=())
    index = {name: number for number, name in enumerate(models)}
    table = columns(votes)
    first = np.array([index[vote.first.source] for vote in votes], dtype=np.int64)
    second = np.array([index[vote.second.source] for vote in votes], dtype=np.int64)
    if not is_connected(*tables(first, second, table.points, len(models))):
        return Strengths(models=())
    result = strength_intervals(
        first,
        second,
        table.points,
        competitors=len(models),
        raters=table.raters,
        prompts=table.prompts,
        level=resampling.level,
    )
    rows = [
        Strength(
            model=name,
            value=float(result.fit.values[number]),
            interval=(float(result.low[number]), float(result.high[number])),
        )
        for name, number in index.items()
    ]
    ranked = sorted(rows, key=lambda row: (-row.value, row.model))
    return Strengths(models=tuple(ranked), penalised=result.fit.penalised)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One candidate of a ranking.

    Attributes:
        source: what it comes from.
        image: id of its first image.
        votes: in which it was compared.
        share: of these votes for it; ties and "both bad" count half.
        strength: its Bradley-Terry log-strength among the candidates of the prompt; `None` where it is not defined.
        rank: from 1, by strength, else by share; equal candidates share the better rank.
    """

    source: str
    image: str
    votes: int
    share: float
    strength: float | None
    rank: int


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The candidates of one group that were compared, best first.

    Attributes:
        question, prompt, group: of the candidates.
        votes: all votes.
        candidates: best first.
        connected: whether comparisons lead from each candidate to each other; else only shares order them.
        penalised: whether strengths needed half a win in each direction to be finite.
    """

    question: str
    prompt: str
    group: str
    votes: int
    candidates: tuple[Ranked, ...]
    connected: bool
    penalised: bool

    @property
    def decided(self) -> bool:
        """Whether one candidate alone is first."""
        return sum(candidate.rank == 1 for candidate in self.candidates) == 1


def rankings(votes: Sequence[Judgement]) -> tuple[Ranking, ...]:
    """The rankings of all groups, sorted by group id."""
    by_group: dict[str, list[Judgement]] = defaultdict(list)
    for vote in votes:
        by_group[vote.show.group].append(vote)
    return tuple(_ranking(by_group[group]) for group in sorted(by_group))


def _ranking(votes: Sequence[Judgement]) -> Ranking:
    candidates = {vote.show.first: vote.first for vote in votes} | {vote.show.second: vote.second for vote in votes}
    place = {index: row for row, index in enumerate(sorted(candidates))}
    first = np.array([place[vote.show.first] for vote in votes], dtype=np.int64)
    second = np.array([place[vote.show.second] for vote in votes], dtype=np.int64)
    points = np.array([POINTS[vote.answer] for vote in votes])
    won, tied = tables(first, second, points, len(place))
    connected = is_connected(won, tied)
    fit = fit_strengths(won, tied) if connected else None
    amounts = (won + won.T + tied).sum(1)
    shares = (won + tied / 2.0).sum(1) / amounts
    # Rounded, so that candidates with the same votes are equal.
    worth = np.round(fit.values if fit else shares, 6)
    rows = [
        Ranked(
            source=candidates[index].source,
            image=candidates[index].images[0] if candidates[index].images else "",
            votes=int(amounts[row]),
            share=float(shares[row]),
            strength=float(fit.values[row]) if fit else None,
            rank=1 + int((worth > worth[row]).sum()),
        )
        for index, row in place.items()
    ]
    return Ranking(
        question=votes[0].question,
        prompt=votes[0].prompt,
        group=votes[0].show.group,
        votes=len(votes),
        candidates=tuple(sorted(rows, key=lambda row: row.rank)),
        connected=connected,
        penalised=bool(fit and fit.penalised),
    )

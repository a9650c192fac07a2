"""One model against another (wins, intervals, tests, strengths), and the ranking of the images of one prompt."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.classical import holm, wilson_interval
from seedpo.core.stats.paired_comparisons import fit_strengths, is_connected, strength_intervals, tables
from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS, rate_of
from seedpo.study.analysis.likes import Contrast, contrasts
from seedpo.study.analysis.vote_statistics import POINTS, Columns, Ends, Resampling, by_sources, columns
from seedpo.study.records import Judgement, parts_of

Array = NDArray[np.float64]
Verdict = Literal["left", "right", "open"]

Family = Literal["primary", "explored", ""]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on one question.

    Attributes:
        question: its key; empty: all questions together.
        category: of the prompts; empty: all of them.
        left, right: the models.
        wins, losses: votes for the left and for the right model; likes of their images.
        ties, bad: votes for neither: "tie" and "both bad"; dislikes of both count as bad.
        liked: whether images were judged one by one, by like and dislike.
        raters, prompts: number of raters and prompts of the votes.
        rate: share of votes for the left model; ties and "both bad" count half. Of likes: see
            :class:`seedpo.study.analysis.likes.Contrast`.
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
    liked: bool = False
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
    """All pairs of models that were compared; :func:`corrected` corrects their p-values.

    Models whose images were judged one by one are compared by their shares of likes
    (:mod:`seedpo.study.analysis.likes`), unless the votes hold pairs too.
    """
    contests = {pair: _of_pairs(own) for pair, own in by_sources(votes).items()}
    contests = contests or {pair: _of_likes(own) for pair, own in contrasts(votes).items()}
    return tuple(
        _comparison(contest, resampling, question=question, category=category, left=left, right=right, tested=tested)
        for (left, right), contest in contests.items()
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Contest:
    """What is counted of two models, whichever way they were compared.

    Attributes:
        wins, ties, bad, losses: see :class:`Comparison`.
        liked: whether images were judged one by one.
        votes: as columns.
        rate: of the left model.
        influences: of each vote on the rate (N,).
        size: independent votes that would show the rate as sharply as these, were they independent.
        leads: of each prompt, above 0 where the left model is ahead.
    """

    wins: int
    ties: int
    bad: int
    losses: int
    liked: bool
    votes: Columns
    rate: float
    influences: Array
    size: float
    leads: Array


def _of_pairs(votes: Sequence[Judgement]) -> _Contest:
    answers, table = Counter(vote.answer for vote in votes), columns(votes)
    rate = float(table.points.mean())
    return _Contest(
        wins=answers["first"],
        ties=answers["tie"],
        bad=answers["bad"],
        losses=answers["second"],
        liked=False,
        votes=table,
        rate=rate,
        influences=(table.points - rate) / len(votes),
        size=len(votes),
        leads=_by_prompt(table, np.ones(len(votes), dtype=np.bool_)) - 0.5,
    )


def _of_likes(contrast: Contrast) -> _Contest:
    table, of_left, rate = contrast.votes, contrast.of_left, contrast.rate
    likes, likes_left = (int(table.points[chosen].sum()) for chosen in (of_left | True, of_left))
    variance = float((contrast.influences**2).sum())
    return _Contest(
        wins=likes_left,
        ties=0,
        bad=len(table.points) - likes,
        losses=likes - likes_left,
        liked=True,
        votes=table,
        rate=rate,
        influences=contrast.influences,
        size=rate * (1.0 - rate) / variance if variance > 0.0 else len(table.points) / 2.0,
        leads=_by_prompt(table, of_left) - _by_prompt(table, ~of_left),
    )


def _by_prompt(votes: Columns, chosen: NDArray[np.bool_]) -> Array:
    """Mean points of the chosen votes on each prompt; 0 without one."""
    prompts, size = votes.prompts[chosen], int(votes.prompts.max()) + 1
    points, amounts = np.bincount(prompts, votes.points[chosen], size), np.bincount(prompts, minlength=size)
    return np.asarray(points / np.maximum(amounts, 1))


def _comparison(
    contest: _Contest, resampling: Resampling, *, question: str, category: str, left: str, right: str, tested: bool
) -> Comparison:
    votes = contest.votes
    rate = rate_of(contest.rate, contest.influences, votes.raters, votes.prompts, level=resampling.level)
    raters, prompts = (len(set(side.tolist())) for side in (votes.raters, votes.prompts))
    untested = _reason(raters, prompts) if tested else "a description"
    return Comparison(
        question=question,
        category=category,
        left=left,
        right=right,
        wins=contest.wins,
        ties=contest.ties,
        bad=contest.bad,
        losses=contest.losses,
        liked=contest.liked,
        raters=raters,
        prompts=prompts,
        rate=contest.rate,
        wilson=wilson_interval(contest.rate * contest.size, contest.size, z=resampling.z),
        interval=(rate.low, rate.high),
        error=rate.error,
        df=rate.df,
        prompts_left=int((contest.leads > 0).sum()),
        prompts_right=int((contest.leads < 0).sum()),
        p=None if untested else rate.p,
        untested=untested,
    )


def _reason(raters: int, prompts: int) -> str:
    """Why no verdict can be given; empty if one can."""
    if raters < LEAST_RATERS:
        return f"{raters} of at least {LEAST_RATERS} raters"
    return f"{prompts} of at least {LEAST_PROMPTS} prompts" if prompts < LEAST_PROMPTS else ""


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
        votes: in which it was judged.
        share: of these votes for it; ties and "both bad" count half; of likes.
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
    for vote in parts_of(votes):
        by_group[vote.show.group].append(vote)
    return tuple(_ranking(by_group[group]) for group in sorted(by_group))


def _ranking(votes: Sequence[Judgement]) -> Ranking:
    candidates = {
        index: which for vote in votes for index, which in zip(vote.show.members, vote.candidates, strict=True)
    }
    place = {index: row for row, index in enumerate(sorted(candidates))}
    first = np.array([place[vote.show.members[0]] for vote in votes], dtype=np.int64)
    second = np.array([place[vote.show.members[-1]] for vote in votes], dtype=np.int64)
    points, liked = np.array([POINTS[vote.answer] for vote in votes]), len(votes[0].candidates) == 1
    fit = None
    if liked:
        amounts = np.bincount(first)
        shares, connected = np.bincount(first, weights=points) / amounts, True
    else:
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

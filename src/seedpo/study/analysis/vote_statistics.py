"""From answers to votes, and what the answers say about the raters: agreement, checks, repetitions, sides, time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seedpo.core.stats.agreement import Scale, agreement_with_others, alpha_of, coincidences
from seedpo.core.stats.bootstrap import interval_ends
from seedpo.core.stats.classical import wilson_interval
from seedpo.study.records import Answer, Judgement, Unit, parts_of

Ends = tuple[float, float]
Key = TypeVar("Key")

POINTS: Mapping[Answer, float] = {"first": 1.0, "tie": 0.5, "bad": 0.5, "second": 0.0, "like": 1.0, "dislike": 0.0}
"""What a vote is worth to the first candidate. "Both bad" counts as a tie; a skipped view is not a vote."""

VALUES = (1.0, 0.5, 0.0)
"""Points whose agreement is measured, in order."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are computed.

    Attributes:
        level: of all intervals; 1 - level is the level of the tests.
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
class SortedAnswers:
    """Answers by purpose.

    Attributes:
        votes: answers to regular shows; everything is counted from these.
        checks: answers to attention checks, undecided ones included.
        repeats: the first and second answer of a rater to the same pair, neither skipped.
        skipped: number of skipped regular shows.
    """

    votes: tuple[Judgement, ...]
    checks: tuple[Judgement, ...]
    repeats: tuple[tuple[Judgement, Judgement], ...]
    skipped: int


@dataclass(frozen=True, eq=False)
class Columns:
    """Votes as columns of equal length N.

    Attributes:
        raters, prompts: index of the rater and of the prompt of each vote.
        points: of the first candidate: 1, 0.5 or 0.
    """

    raters: NDArray[np.int64]
    prompts: NDArray[np.int64]
    points: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of cases with Wilson's interval; both are `None` without a case."""

    share: float | None = None
    interval: Ends | None = None
    cases: int


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How much raters agree on the same pair.

    Attributes:
        pairs: pairs (or single images) that two or more raters answered.
        same: how often two raters of one say the same; `None` without such a pair.
        nominal, ordinal: Krippendorff's alpha; `None` where it is not defined.
        nominal_interval, ordinal_interval: bootstrap over prompts.
    """

    pairs: int
    same: float | None = None
    nominal: float | None = None
    nominal_interval: Ends | None = None
    ordinal: float | None = None
    ordinal_interval: Ends | None = None


@dataclass(frozen=True, kw_only=True)
class RaterSummary:
    """One rater.

    Attributes:
        rater: pseudonym.
        votes: number of votes.
        skipped: number of skipped pairs.
        checks, checks_passed: answered attention checks, and those answered as expected.
        repeats, repeats_same: pairs answered twice, and those answered twice alike.
        agreement: mean share of the pair's other raters who said the same; `None` if there were none.
        left: share of left among answers for one side; `None` without such an answer.
        seconds: median time per answer; `None` if unknown.
        fast: whether that is below the limit of the analysis.
        kept: whether the votes count.
    """

    rater: str
    votes: int
    skipped: int
    checks: int
    checks_passed: int
    repeats: int
    repeats_same: int
    agreement: float | None
    left: float | None
    seconds: float | None
    fast: bool
    kept: bool


def sort_answers(judgements: Iterable[Judgement]) -> SortedAnswers:
    """Separates votes, checks, repetitions and skipped pairs."""
    judgements = list(judgements)
    by_token = {judgement.show.token: judgement for judgement in judgements}
    votes, checks, repeats, skipped = [], [], [], 0
    for judgement in judgements:
        if judgement.expected is not None:
            checks.append(judgement)
        elif judgement.show.repeat_of is not None:
            original = by_token.get(judgement.show.repeat_of)
            if original is not None and "skip" not in (judgement.answer, original.answer):
                repeats.append((original, judgement))
        elif judgement.answer == "skip":
            skipped += 1
        else:
            votes.append(judgement)
    return SortedAnswers(votes=tuple(votes), checks=tuple(checks), repeats=tuple(repeats), skipped=skipped)


def by_sources(votes: Iterable[Judgement]) -> dict[tuple[str, str], list[Judgement]]:
    """Votes of each pair of sources, turned so that the source with the smaller name is the first candidate.

    Answers count as :func:`seedpo.study.records.parts_of` says. Pairs of two images of one source say nothing about
    sources and are left out, and so are likes.
    """
    by_pair: dict[tuple[str, str], list[Judgement]] = {}
    for vote in parts_of(votes):
        if len(vote.candidates) == 2 and vote.first.source != vote.second.source:
            if vote.first.source > vote.second.source:
                vote = _exchanged(vote)
            by_pair.setdefault((vote.first.source, vote.second.source), []).append(vote)
    return dict(sorted(by_pair.items()))


def _exchanged(vote: Judgement) -> Judgement:
    """The same vote with its candidates in the other order."""
    other: dict[Answer, Answer] = {"first": "second", "second": "first"}
    return replace(vote, candidates=vote.candidates[::-1], answer=other.get(vote.answer, vote.answer))


def columns(votes: Sequence[Judgement]) -> Columns:
    """The votes as columns."""
    return Columns(
        raters=_codes([vote.show.rater for vote in votes]),
        prompts=_codes([vote.prompt for vote in votes]),
        points=np.array([POINTS[vote.answer] for vote in votes], dtype=np.float64),
    )


def _codes(names: Sequence[str]) -> NDArray[np.int64]:
    """Names as numbers from 0 in alphabetical order, so that results do not depend on the order of votes."""
    numbers = {name: index for index, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def share_of(successes: int, cases: int, resampling: Resampling) -> Share:
    """A share with Wilson's interval."""
    if not cases:
        return Share(cases=0)
    return Share(share=successes / cases, interval=wilson_interval(successes, cases, z=resampling.z), cases=cases)


def side_bias(votes: Sequence[Judgement], resampling: Resampling) -> Share:
    """Share of left among the answers for one side."""
    lefts = _lefts(votes)
    return share_of(sum(lefts), len(lefts), resampling)


def _lefts(votes: Iterable[Judgement]) -> list[bool]:
    """For each answer for one side, whether it was left."""
    sides = [vote.show.side(vote.answer) for vote in votes]
    return [side == "left" for side in sides if side in ("left", "right")]


def consistency(repeats: Sequence[tuple[Judgement, Judgement]], resampling: Resampling) -> Share:
    """Share of repeated pairs on which a rater said the same again."""
    return share_of(sum(map(_same, repeats)), len(repeats), resampling)


def _same(pair: tuple[Judgement, Judgement]) -> bool:
    first, second = ((POINTS.get(vote.answer), vote.best, vote.worst) for vote in pair)
    return first == second


def passes(checks: Iterable[Judgement]) -> list[bool]:
    """For each attention check that was answered (:attr:`seedpo.study.records.Judgement.passed`), whether rightly."""
    return [check.passed for check in checks if check.passed is not None]


def inattentive(judgements: Sequence[Judgement], least: float) -> tuple[str, ...]:
    """Raters who passed less than the share ``least`` of the attention checks that they answered.

    Who saw checks and answered none of them has passed none.
    """
    by_rater = _grouped(sort_answers(judgements).checks, lambda check: check.show.rater)
    shares = {rater: sum(passes(checks)) / max(len(passes(checks)), 1) for rater, checks in by_rater.items()}
    return tuple(sorted(rater for rater, share in shares.items() if share < least - 1e-12))


def agreement(votes: Sequence[Judgement], resampling: Resampling) -> Agreement:
    """Agreement on the same pair or single image, with intervals that resample prompts.

    Raters are not resampled: a rater drawn twice would agree with himself. Which candidate of a pair comes first is
    arbitrary, so every pair counts in both orders, and alpha does not depend on the order.
    """
    by_pair = {pair: group for pair, group in _by_unit(parts_of(votes)).items() if len(group) > 1}
    if not by_pair:
        return Agreement(pairs=0)
    points = [[POINTS[vote.answer] for vote in group] for group in by_pair.values()]
    forward = coincidences([[group.count(value) for value in VALUES] for group in points])
    ordered = np.array([len(members) == 1 for _, members in by_pair])[:, None, None]
    both = np.where(ordered, forward, (forward + forward[:, ::-1, ::-1]) / 2.0)
    prompts = _codes([group[0].prompt for group in by_pair.values()])
    size = int(prompts.max()) + 1
    per_prompt = np.zeros((size, len(VALUES), len(VALUES)))
    np.add.at(per_prompt, prompts, both)
    generator = np.random.default_rng(resampling.seed)
    draws = generator.multinomial(size, np.full(size, 1.0 / size), size=resampling.resamples)
    tables = np.tensordot(draws.astype(np.float64), per_prompt, axes=1)
    whole = per_prompt.sum(0)

    def alpha(scale: Scale) -> tuple[float | None, Ends | None]:
        value = alpha_of(whole, scale=scale)
        drawn = np.array([alpha_of(table, scale=scale) for table in tables])
        drawn = drawn[~np.isnan(drawn)]
        # With one prompt all resamples are the same.
        ends = interval_ends(drawn, level=resampling.level) if size > 1 and len(drawn) else None
        return (None, None) if math.isnan(value) else (value, ends)

    nominal, ordinal = alpha("nominal"), alpha("ordinal")
    return Agreement(
        pairs=len(by_pair),
        same=float(np.trace(whole) / whole.sum()),
        nominal=nominal[0],
        nominal_interval=nominal[1],
        ordinal=ordinal[0],
        ordinal_interval=ordinal[1],
    )


def summaries(
    judgements: Sequence[Judgement], *, left_out: Collection[str], fast_seconds: float, raters: Iterable[str] = ()
) -> tuple[RaterSummary, ...]:
    """One summary per rater.

    Args:
        judgements: all answers.
        left_out: raters whose votes do not count; agreement is with the others.
        fast_seconds: flag raters whose median time per answer is below this.
        raters: in the order of the summaries, also if they have no answer. All others follow by pseudonym.
    """
    by_rater = _grouped(judgements, lambda judgement: judgement.show.rater)
    pairs = _by_unit(parts_of(sort_answers(judgements).votes))
    names = dict.fromkeys([*raters, *sorted(by_rater)])
    return tuple(_summary(name, by_rater.get(name, ()), pairs, left_out, fast_seconds) for name in names)


def _summary(
    rater: str,
    judgements: Sequence[Judgement],
    pairs: Mapping[Unit, Sequence[Judgement]],
    left_out: Collection[str],
    fast_seconds: float,
) -> RaterSummary:
    answers = sort_answers(judgements)
    same, others = [], []
    for vote in parts_of(answers.votes):
        other_points = Counter(
            POINTS[other.answer]
            for other in pairs[vote.show.unit]
            if other.show.rater != rater and other.show.rater not in left_out
        )
        same.append(other_points[POINTS[vote.answer]])
        others.append(other_points.total())
    mean_agreement = agreement_with_others(same, others)
    lefts = _lefts(answers.votes)
    times = [judgement.seconds for judgement in judgements if judgement.seconds is not None]
    return RaterSummary(
        rater=rater,
        votes=len(answers.votes),
        skipped=answers.skipped,
        checks=len(passes(answers.checks)),
        checks_passed=sum(passes(answers.checks)),
        repeats=len(answers.repeats),
        repeats_same=sum(map(_same, answers.repeats)),
        agreement=None if math.isnan(mean_agreement) else mean_agreement,
        left=sum(lefts) / len(lefts) if lefts else None,
        seconds=median(times) if times else None,
        fast=bool(times) and median(times) < fast_seconds,
        kept=rater not in left_out,
    )


def _by_unit(votes: Iterable[Judgement]) -> dict[Unit, list[Judgement]]:
    return _grouped(votes, lambda vote: vote.show.unit)


def _grouped(judgements: Iterable[Judgement], key: Callable[[Judgement], Key]) -> dict[Key, list[Judgement]]:
    groups: dict[Key, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        groups[key(judgement)].append(judgement)
    return groups

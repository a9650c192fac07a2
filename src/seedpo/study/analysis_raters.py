"""What the answers say of the raters: agreement, attention checks, repetitions, sides, time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from seedpo.core.stats.agreement import Scale, agreement_with_others, alpha_of, coincidences
from seedpo.core.stats.bootstrap import interval_ends
from seedpo.core.stats.shares import wilson_interval
from seedpo.study.analysis_comparisons import Ends, Resampling
from seedpo.study.analysis_votes import codes, on_left, plain, sort_answers
from seedpo.study.records import Judgement

VALUES = ("first", "tie", "second")
"""Answers whose agreement is measured, in order; "both bad" is a tie."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of cases with Wilson's interval; none of both without a case."""

    share: float | None
    interval: Ends | None
    cases: int


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far raters agree on the same pair.

    Attributes:
        pairs: pairs that two or more raters answered.
        same: of two raters of one pair, how often both say the same; none without such a pair.
        nominal, ordinal: Krippendorff's alpha; none where it is not defined.
        nominal_interval, ordinal_interval: over prompts.
    """

    pairs: int
    same: float | None
    nominal: float | None
    nominal_interval: Ends | None
    ordinal: float | None
    ordinal_interval: Ends | None


@dataclass(frozen=True, kw_only=True)
class RaterSummary:
    """One rater, by pseudonym.

    Attributes:
        rater: pseudonym.
        votes: that count.
        skipped: pairs skipped.
        checks, checks_passed: attention checks answered, and answered as expected.
        repeats, repeats_same: pairs answered twice, and answered twice alike.
        agreement: mean share of other raters who said the same of a pair; none if there were none.
        left: share of left among answers for one side; none without such an answer.
        seconds: median time per answer; none if the page measured none.
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


def share_of(successes: int, cases: int, how: Resampling) -> Share:
    """A share with Wilson's interval."""
    if not cases:
        return Share(share=None, interval=None, cases=0)
    return Share(share=successes / cases, interval=wilson_interval(successes, cases, z=how.z), cases=cases)


def passed(check: Judgement) -> bool:
    """Whether an attention check was answered as expected."""
    return check.answer == check.expected


def inattentive(judgements: Sequence[Judgement], least: float) -> tuple[str, ...]:
    """Raters who passed less than the share ``least`` of the attention checks that they answered."""
    results: dict[str, list[bool]] = defaultdict(list)
    for check in sort_answers(judgements).checks:
        results[check.show.rater].append(passed(check))
    return tuple(sorted(rater for rater, own in results.items() if sum(own) / len(own) < least - 1e-12))


def agreement(votes: Sequence[Judgement], how: Resampling) -> Agreement:
    """Agreement on the same pair, with intervals that resample prompts.

    Raters are not resampled here: one drawn twice would agree with itself. Which candidate of a pair comes first is
    arbitrary, so that every pair counts in both orders: alpha cannot depend on it then.
    """
    answers = _by_pair(votes)
    units = [unit for unit, own in answers.items() if len(own) > 1]
    nothing = Agreement(pairs=0, same=None, nominal=None, nominal_interval=None, ordinal=None, ordinal_interval=None)
    if not units:
        return nothing
    counts = [[sum(plain(vote.answer) == value for vote in answers[unit]) for value in VALUES] for unit in units]
    forth = coincidences(counts)
    both = (forth + forth[:, ::-1, ::-1]) / 2.0
    prompts = codes([answers[unit][0].prompt for unit in units])
    size = int(prompts.max()) + 1
    per_prompt = np.zeros((size, len(VALUES), len(VALUES)))
    np.add.at(per_prompt, prompts, both)
    draws = np.random.default_rng(how.seed).multinomial(size, np.full(size, 1.0 / size), size=how.resamples)
    tables = np.tensordot(draws.astype(np.float64), per_prompt, axes=1)
    whole = per_prompt.sum(0)

    def alpha(scale: Scale) -> tuple[float | None, Ends | None]:
        value = alpha_of(whole, scale=scale)
        drawn = np.array([alpha_of(table, scale=scale) for table in tables])
        known = drawn[~np.isnan(drawn)]
        # A resample of one prompt is always the same one.
        ends = interval_ends(known, level=how.level) if size > 1 and len(known) else None
        return (None, None) if math.isnan(value) else (value, ends)

    nominal, ordinal = alpha("nominal"), alpha("ordinal")
    return Agreement(
        pairs=len(units),
        same=float(np.trace(whole) / whole.sum()),
        nominal=nominal[0],
        nominal_interval=nominal[1],
        ordinal=ordinal[0],
        ordinal_interval=ordinal[1],
    )


def side_bias(votes: Sequence[Judgement], how: Resampling) -> Share:
    """Share of left among the answers for one side."""
    sides = [side for vote in votes if (side := on_left(vote)) is not None]
    return share_of(sum(sides), len(sides), how)


def consistency(repeats: Sequence[tuple[Judgement, Judgement]], how: Resampling) -> Share:
    """Share of repeated pairs on which a rater said the same again."""
    return share_of(sum(_same(pair) for pair in repeats), len(repeats), how)


def summaries(
    judgements: Sequence[Judgement], *, left_out: Collection[str], fast_seconds: float
) -> tuple[RaterSummary, ...]:
    """One summary for each rater, by pseudonym; agreement is with all other raters who are not left out."""
    found: dict[str, list[Judgement]] = defaultdict(list)
    for one in judgements:
        found[one.show.rater].append(one)
    pairs = _by_pair(sort_answers(judgements).votes)
    return tuple(_summary(rater, found[rater], pairs, left_out, fast_seconds) for rater in sorted(found))


def _summary(
    rater: str,
    own: Sequence[Judgement],
    pairs: Mapping[tuple[str, int, int], Sequence[Judgement]],
    left_out: Collection[str],
    fast_seconds: float,
) -> RaterSummary:
    sorting = sort_answers(own)
    same, others = [], []
    for vote in sorting.votes:
        given = Counter(
            plain(other.answer)
            for other in pairs[_pair(vote)]
            if other.show.rater != rater and other.show.rater not in left_out
        )
        same.append(given[plain(vote.answer)])
        others.append(given.total())
    agreeing = agreement_with_others(same, others)
    sides = [side for vote in sorting.votes if (side := on_left(vote)) is not None]
    times = [one.seconds for one in own if one.seconds is not None]
    return RaterSummary(
        rater=rater,
        votes=len(sorting.votes),
        skipped=sorting.skipped,
        checks=len(sorting.checks),
        checks_passed=sum(passed(check) for check in sorting.checks),
        repeats=len(sorting.repeats),
        repeats_same=sum(_same(pair) for pair in sorting.repeats),
        agreement=None if math.isnan(agreeing) else agreeing,
        left=sum(sides) / len(sides) if sides else None,
        seconds=median(times) if times else None,
        fast=bool(times) and median(times) < fast_seconds,
        kept=rater not in left_out,
    )


def _same(pair: tuple[Judgement, Judgement]) -> bool:
    return plain(pair[0].answer) == plain(pair[1].answer)


def _pair(vote: Judgement) -> tuple[str, int, int]:
    return vote.show.group, vote.show.first, vote.show.second


def _by_pair(votes: Sequence[Judgement]) -> dict[tuple[str, int, int], list[Judgement]]:
    found: dict[tuple[str, int, int], list[Judgement]] = defaultdict(list)
    for vote in votes:
        found[_pair(vote)].append(vote)
    return found

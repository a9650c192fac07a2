"""From the votes of a study to numbers that can be trusted, and to what they do not say.

Votes by one rater, or on one prompt, depend on each other. So tests count prompts, not votes; intervals that
conclusions rest on resample raters and prompts; and all tests of an analysis are corrected together (Holm).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from seedpo.errors import DataError
from seedpo.study.analysis_comparisons import Comparison, Resampling, Strengths, compare, corrected, strengths
from seedpo.study.analysis_rankings import Ranking, rankings
from seedpo.study.analysis_raters import (
    Agreement,
    RaterSummary,
    Share,
    agreement,
    consistency,
    inattentive,
    passed,
    share_of,
    side_bias,
    summaries,
)
from seedpo.study.analysis_votes import sort_answers
from seedpo.study.folder import Study
from seedpo.study.records import Judgement

FAST_SECONDS = 1.0
"""Raters whose median time per answer is below this are flagged."""

Step = Callable[[], object]
"""Told after each part of the work."""


@dataclass(frozen=True, kw_only=True)
class QuestionResult:
    """One question.

    Attributes:
        key: its name; empty: all questions together.
        text: what raters read.
        votes, raters, prompts: what it rests on.
        comparisons: every pair of models; empty in a study without models.
        categories: the same by category, without tests; empty with fewer than two categories.
        strengths: of all models.
        agreement: of raters.
        rankings: of images of one prompt; empty in a study of models.
    """

    key: str
    text: str
    votes: int
    raters: int
    prompts: int
    comparisons: tuple[Comparison, ...]
    categories: tuple[Comparison, ...]
    strengths: Strengths
    agreement: Agreement
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was answered, and what of it counts; the parts add up to ``answers``.

    Attributes:
        answers: given in all.
        votes: that count.
        checks, repeats, skipped: of raters who count.
        excluded: answers of raters who were left out by the owner of the study.
        inattentive: answers of raters who were left out for failed attention checks.
    """

    answers: int
    votes: int
    checks: int
    repeats: int
    skipped: int
    excluded: int
    inattentive: int


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that is known of a study.

    Attributes:
        title: of the study.
        models: whether models were compared (a *study*), rather than images of one prompt (a *collection*).
        resampling: level, seed and resamples of the intervals.
        least_checks: share of attention checks that a rater had to pass; none: nobody was left out for them.
        fast_seconds: median time per answer below which a rater is flagged.
        counts: what counts and what does not.
        questions: results; the last one is all questions together, if there are several.
        everybody: comparisons with the inattentive raters counted too; empty if nobody was left out for that.
        tested: comparisons that Holm's correction is over.
        excluded, inattentive: raters who were left out, by pseudonym.
        raters: one summary each, of everybody.
        consistency: on repeated pairs.
        side: share of left.
        checks: share of attention checks passed, by raters who count.
        seconds: median time per answer; none if it was not measured.
    """

    title: str
    models: bool
    resampling: Resampling
    least_checks: float | None
    fast_seconds: float
    counts: Counts
    questions: tuple[QuestionResult, ...]
    everybody: tuple[Comparison, ...]
    tested: int
    excluded: tuple[str, ...]
    inattentive: tuple[str, ...]
    raters: tuple[RaterSummary, ...]
    consistency: Share
    side: Share
    checks: Share
    seconds: float | None


def analyze(
    study: Study,
    judgements: Iterable[Judgement],
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    least_checks: float | None = None,
    fast_seconds: float = FAST_SECONDS,
    excluded: Collection[str] = (),
    step: Step = lambda: None,
) -> Analysis:
    """All numbers of a study.

    Args:
        study: its settings say what was asked.
        judgements: all that count of the store, checks and repetitions among them.
        level: of intervals; tests are at 1 - level.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        least_checks: raters who passed less than this share of their attention checks are left out; none: nobody is.
        fast_seconds: raters whose median time per answer is below this are flagged, not left out.
        excluded: raters who are left out whatever they answered.
        step: told after each question.

    Raises:
        DataError: if there is no vote that counts.
    """
    how = Resampling(level=level, seed=seed, resamples=resamples)
    given = sorted(judgements, key=lambda one: (one.show.rater, one.show.number, one.show.token))
    allowed = [one for one in given if one.show.rater not in excluded]
    failing = inattentive(allowed, least_checks) if least_checks is not None else ()
    kept = [one for one in allowed if one.show.rater not in failing]
    sorting = sort_answers(kept)
    if not sorting.votes:
        left = f" ({len(given)} answers, all of them checks, repetitions, skipped or left out)" if given else ""
        raise DataError(f"study {study.folder} has no vote to analyse yet{left}: let raters answer first")
    models = study.settings.kind == "study"
    questions = _questions(study, sorting.votes, how, models=models, step=step)
    judged = iter(corrected([one for result in questions for one in result.comparisons], how))
    questions = tuple(
        replace(result, comparisons=tuple(next(judged) for _ in result.comparisons)) for result in questions
    )
    everybody = _comparisons(study, sort_answers(allowed).votes, how) if failing and models else ()
    gone = {*excluded, *failing}
    times = [one.seconds for one in kept if one.seconds is not None]
    repeated = sum(one.expected is None and one.show.repeat_of is not None for one in kept)
    return Analysis(
        title=study.settings.title,
        models=models,
        resampling=how,
        least_checks=least_checks,
        fast_seconds=fast_seconds,
        counts=Counts(
            answers=len(given),
            votes=len(sorting.votes),
            checks=len(sorting.checks),
            repeats=repeated,
            skipped=sorting.skipped,
            excluded=len(given) - len(allowed),
            inattentive=len(allowed) - len(kept),
        ),
        questions=questions,
        everybody=everybody,
        tested=sum(one.p is not None for result in questions for one in result.comparisons),
        excluded=tuple(sorted({one.show.rater for one in given} & set(excluded))),
        inattentive=failing,
        raters=summaries(given, left_out=gone, fast_seconds=fast_seconds),
        consistency=consistency(sorting.repeats, how),
        side=side_bias(sorting.votes, how),
        checks=share_of(sum(passed(check) for check in sorting.checks), len(sorting.checks), how),
        seconds=median(times) if times else None,
    )


def _questions(
    study: Study, votes: Sequence[Judgement], how: Resampling, *, models: bool, step: Step
) -> tuple[QuestionResult, ...]:
    asked = [(one.key, one.text) for one in study.settings.questions if any(vote.question == one.key for vote in votes)]
    found = []
    for key, text in asked if len(asked) < 2 else [*asked, ("", "All questions together")]:
        own = [vote for vote in votes if key in ("", vote.question)]
        found.append(_question(key, text, own, how, models=models))
        step()
    return tuple(found)


def _question(key: str, text: str, votes: Sequence[Judgement], how: Resampling, *, models: bool) -> QuestionResult:
    categories = sorted({vote.category for vote in votes})
    by_category = [
        compared
        for category in (categories if models and len(categories) > 1 else ())
        for compared in compare(
            [vote for vote in votes if vote.category == category],
            how,
            question=key,
            category=category or "(none)",
            tested=False,
        )
    ]
    return QuestionResult(
        key=key,
        text=text,
        votes=len(votes),
        raters=len({vote.show.rater for vote in votes}),
        prompts=len({vote.prompt for vote in votes}),
        comparisons=compare(votes, how, question=key) if models else (),
        categories=tuple(by_category),
        strengths=strengths(votes, how) if models else Strengths(models=()),
        agreement=agreement(votes, how),
        rankings=rankings(votes) if not models and key else (),
    )


def _comparisons(study: Study, votes: Sequence[Judgement], how: Resampling) -> tuple[Comparison, ...]:
    keys = [one.key for one in study.settings.questions if any(vote.question == one.key for vote in votes)]
    found = [
        compared
        for key in (keys if len(keys) < 2 else [*keys, ""])
        for compared in compare([vote for vote in votes if key in ("", vote.question)], how, question=key)
    ]
    return corrected(found, how)

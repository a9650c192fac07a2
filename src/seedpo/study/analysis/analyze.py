"""From the votes of a study to numbers that can be trusted.

Votes by one rater or on one prompt depend on each other, so intervals and tests are over raters and prompts. What the
study was made to answer is one family of tests, corrected together (Holm); everything else is explored, in a family of
its own. All questions together are described without a test: they repeat what each question says.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from seedpo.errors import DataError
from seedpo.study.analysis.comparisons import (
    Comparison,
    Family,
    Ranking,
    Strengths,
    compare,
    corrected,
    rankings,
    strengths,
)
from seedpo.study.analysis.likes import Liked, liked
from seedpo.study.analysis.vote_statistics import (
    Agreement,
    RaterSummary,
    Resampling,
    Share,
    SortedAnswers,
    agreement,
    consistency,
    inattentive,
    passes,
    share_of,
    side_bias,
    sort_answers,
    summaries,
)
from seedpo.study.folder import Study
from seedpo.study.records import UNDECIDED, Judgement
from seedpo.study.votes.registration import Aim, Registration, aim_of, split

FAST_SECONDS = 1.0
"""Raters whose median time per answer is below this are flagged."""

USUAL = Resampling()

Step = Callable[[], object]
"""Called after each question."""


@dataclass(frozen=True, kw_only=True)
class QuestionResult:
    """Results of one question.

    Attributes:
        key: its name; empty: all questions together.
        text: what raters read.
        votes, raters, prompts: how many there are.
        comparisons: every pair of models; empty in a study without models.
        categories: the same by category, without tests; empty with fewer than two categories.
        strengths: of all models.
        liked: the models by their share of likes; empty unless the question asks for likes.
        agreement: of raters.
        rankings: of the images of each prompt; empty in a study of models.
    """

    key: str
    text: str
    votes: int
    raters: int
    prompts: int
    comparisons: tuple[Comparison, ...]
    categories: tuple[Comparison, ...]
    strengths: Strengths
    liked: tuple[Liked, ...]
    agreement: Agreement
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was answered, and what of it counts; the parts add up to ``answers``.

    Attributes:
        answers: all answers.
        votes: answers that count.
        checks, repeats, skipped: answers of raters who count.
        excluded: answers of raters whom the owner of the study left out.
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
    """The results of a study.

    Attributes:
        title: of the study.
        models: whether models were compared (a *study*), rather than images of one prompt (a *collection*).
        resampling: level, seed and resamples of the intervals.
        least_checks: share of attention checks that a rater had to pass; `None`: nobody was left out for them.
        fast_seconds: median time per answer below which a rater is flagged.
        aim: what the study was made to answer when its first vote came; verdicts follow it.
        changes: of the aim after the first vote, the oldest first.
        counts: what counts and what does not.
        questions: one result each; the last one is all questions together, if there are several.
        everybody: comparisons that include the inattentive raters; empty if nobody was left out for that.
        tested: number of comparisons that the study was made for, corrected together.
        explored: number of the other tested comparisons, corrected together.
        excluded, inattentive: raters who were left out.
        usual_checks: median number of answered attention checks per rater.
        careless: chance that a rater with so many checks passes ``least_checks`` by answering at random; `None` without
            a limit or without checks.
        raters: one summary for every rater.
        consistency: on repeated pairs.
        side: share of left.
        checks: share of attention checks passed, by raters who count.
        seconds: median time per answer; `None` if unknown.
    """

    title: str
    models: bool
    resampling: Resampling
    least_checks: float | None
    fast_seconds: float
    aim: Aim
    changes: tuple[Registration, ...]
    counts: Counts
    questions: tuple[QuestionResult, ...]
    everybody: tuple[Comparison, ...]
    tested: int
    explored: int
    excluded: tuple[str, ...]
    inattentive: tuple[str, ...]
    usual_checks: int
    careless: float | None
    raters: tuple[RaterSummary, ...]
    consistency: Share
    side: Share
    checks: Share
    seconds: float | None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons of all questions."""
        return tuple(comparison for result in self.questions for comparison in result.comparisons)


def analyze(
    study: Study,
    judgements: Iterable[Judgement],
    *,
    resampling: Resampling = USUAL,
    least_checks: float | None = None,
    fast_seconds: float = FAST_SECONDS,
    excluded: Collection[str] = (),
    raters: Sequence[str] = (),
    history: Sequence[Registration] = (),
    step: Step = lambda: None,
) -> Analysis:
    """All numbers of a study.

    Args:
        study: its settings name the questions.
        judgements: all that the store counts, checks and repetitions included.
        resampling: how intervals are computed.
        least_checks: leave out raters who passed less than this share of their attention checks; `None`: nobody.
        fast_seconds: flag raters whose median time per answer is below this; they still count.
        excluded: raters who are left out.
        raters: in the order in which they are listed; those who are missing here follow by pseudonym.
        history: what the study was made to answer, as its database remembers it; empty: what its settings say.
        step: called after each question.

    Raises:
        DataError: no vote counts.
    """
    judgements = sorted(judgements, key=lambda vote: (vote.show.rater, vote.show.number, vote.show.token))
    allowed = [vote for vote in judgements if vote.show.rater not in excluded]
    failed = inattentive(allowed, least_checks) if least_checks is not None else ()
    counted = [vote for vote in allowed if vote.show.rater not in failed]
    answers = sort_answers(counted)
    if not answers.votes:
        some = f" ({len(judgements)} answers, all of them checks, repetitions, skipped or left out)"
        raise DataError(f"study {study.folder} has no vote to analyse yet{some if judgements else ''}")
    models = study.settings.kind == "study"
    now = Registration(aim=aim_of(study.settings), votes=len(judgements), at="")
    aim, changes = split(history, now)
    questions = _questions(study, answers.votes, aim, resampling, models=models, step=step)
    everybody = _everybody(study, sort_answers(allowed).votes, aim, resampling) if failed and models else ()
    families = Counter(row.family for result in questions for row in result.comparisons if row.p is not None)
    usual_checks, passed = _usual_checks(allowed), passes(answers.checks)
    answered = {vote.show.rater for vote in judgements}
    rows = summaries(
        judgements,
        left_out={*excluded, *failed},
        fast_seconds=fast_seconds,
        raters=[rater for rater in raters if rater in answered],
    )
    times = [vote.seconds for vote in counted if vote.seconds is not None]
    return Analysis(
        title=study.settings.title,
        models=models,
        resampling=resampling,
        least_checks=least_checks,
        fast_seconds=fast_seconds,
        aim=aim,
        changes=changes,
        counts=_counts(answers, judgements, allowed, counted),
        questions=questions,
        everybody=everybody,
        tested=families["primary"],
        explored=families["explored"],
        excluded=tuple(row.rater for row in rows if row.rater in excluded),
        inattentive=tuple(row.rater for row in rows if row.rater in failed),
        usual_checks=usual_checks,
        careless=_careless(study, allowed, usual_checks, least_checks) if usual_checks else None,
        raters=rows,
        consistency=consistency(answers.repeats, resampling),
        side=side_bias(answers.votes, resampling),
        checks=share_of(sum(passed), len(passed), resampling),
        seconds=median(times) if times else None,
    )


def _counts(
    answers: SortedAnswers, judgements: Sequence[Judgement], allowed: Sequence[Judgement], counted: Sequence[Judgement]
) -> Counts:
    """Counts of all judgements, of those of raters who were not excluded, and of those that count."""
    return Counts(
        answers=len(judgements),
        votes=len(answers.votes),
        checks=len(answers.checks),
        repeats=sum(vote.expected is None and vote.show.repeat_of is not None for vote in counted),
        skipped=answers.skipped,
        excluded=len(judgements) - len(allowed),
        inattentive=len(allowed) - len(counted),
    )


def passing_chance(checks: int, least: float, chance: float) -> float:
    """Probability that a rater passes at least a share of independent attention checks.

        P[X >= ceil(least n)],   X ~ Binomial(n, chance)

    Args:
        checks: their number n.
        least: share that has to be passed.
        chance: of passing one.
    """
    needed = math.ceil(least * checks - 1e-9)
    return math.fsum(
        math.comb(checks, passed) * chance**passed * (1.0 - chance) ** (checks - passed)
        for passed in range(needed, checks + 1)
    )


def _usual_checks(judgements: Iterable[Judgement]) -> int:
    """Median number of answered checks over raters who answered any; 0 if nobody did."""
    amounts = Counter(vote.show.rater for vote in judgements if vote.passed is not None)
    return int(median(amounts.values())) if amounts else 0


def _careless(study: Study, judgements: Iterable[Judgement], checks: int, least: float | None) -> float | None:
    if least is None:
        return None
    answered = [vote for vote in judgements if vote.passed is not None]
    # Whoever ranks at random calls one of the k images in view the worst.
    answers = [
        vote.candidates if vote.expected == "ranked" else {*study.question(vote.question).choices} - UNDECIDED
        for vote in answered
    ]
    return passing_chance(checks, least, math.fsum(1.0 / len(possible) for possible in answers) / len(answers))


def _by_question(study: Study, votes: Sequence[Judgement]) -> list[tuple[str, str, list[Judgement]]]:
    """Key, text and votes of each question that has votes, and of all that compare images if there are several."""
    parts = [
        (question.key, question.text, [vote for vote in votes if vote.question == question.key])
        for question in study.settings.questions
    ]
    together = [vote for vote in votes if len(vote.candidates) > 1]
    several = len({vote.question for vote in together}) > 1
    return [part for part in parts if part[2]] + ([("", "All questions together", together)] if several else [])


def _questions(
    study: Study, votes: Sequence[Judgement], aim: Aim, resampling: Resampling, *, models: bool, step: Step
) -> tuple[QuestionResult, ...]:
    """Results with verdicts."""
    results = []
    for key, text, question_votes in _by_question(study, votes):
        results.append(_question(key, text, question_votes, resampling, models=models))
        step()
    judged = iter(verdicts([comparison for result in results for comparison in result.comparisons], aim, resampling))
    return tuple(replace(result, comparisons=tuple(next(judged) for _ in result.comparisons)) for result in results)


def verdicts(comparisons: Sequence[Comparison], aim: Aim, resampling: Resampling) -> list[Comparison]:
    """The comparisons with families, corrected p-values and verdicts.

    Args:
        comparisons: of all questions.
        aim: comparisons that it asks for are one family, the others that have a test another.
        resampling: its level is that of each family.
    """
    families = [_family(comparison, aim) for comparison in comparisons]
    placed = [replace(row, family=family) for row, family in zip(comparisons, families, strict=True)]
    judged = {
        family: iter(corrected([row for row in placed if row.family == family], resampling)) for family in set(families)
    }
    return [next(judged[family]) for family in families]


def _family(comparison: Comparison, aim: Aim) -> Family:
    if not comparison.question:
        return ""
    return "primary" if aim.asks(comparison.question, (comparison.left, comparison.right)) else "explored"


def _question(
    key: str, text: str, votes: Sequence[Judgement], resampling: Resampling, *, models: bool
) -> QuestionResult:
    categories = sorted({vote.category for vote in votes})
    by_category = [
        comparison
        for category in (categories if models and len(categories) > 1 else ())
        for comparison in compare(
            [vote for vote in votes if vote.category == category],
            resampling,
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
        comparisons=compare(votes, resampling, question=key, tested=bool(key)) if models else (),
        categories=tuple(by_category),
        strengths=strengths(votes, resampling) if models else Strengths(models=()),
        liked=liked(votes, resampling) if models and key else (),
        agreement=agreement(votes, resampling),
        rankings=rankings(votes) if not models and key else (),
    )


def _everybody(study: Study, votes: Sequence[Judgement], aim: Aim, resampling: Resampling) -> tuple[Comparison, ...]:
    comparisons = [
        comparison
        for key, _, question_votes in _by_question(study, votes)
        for comparison in compare(question_votes, resampling, question=key, tested=bool(key))
    ]
    return tuple(verdicts(comparisons, aim, resampling))

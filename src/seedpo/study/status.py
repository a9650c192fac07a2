"""How far a study is: figures for its admin page and for the command line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.study.folder import Study, open_study
from seedpo.study.records import Judgement, Rater, Unit
from seedpo.study.store import Store
from seedpo.study.vote_statistics import RaterSummary, summaries


@dataclass(frozen=True, kw_only=True)
class QuestionStatus:
    """Status of one question; attention checks and repetitions do not count.

    Attributes:
        key, text: of the question.
        groups: number of groups.
        answers: number of counted answers.
        pairs: pairs with at least one answer.
        complete: pairs with as many raters as wanted.
        sides: how often each side or answer was chosen.
    """

    key: str
    text: str
    groups: int
    answers: int
    pairs: int
    complete: int
    sides: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RaterStatus:
    """Status of one rater.

    Attributes:
        rater: the rater.
        summary: counts of the rater's answers.
        answered: number of answered shows, checks and repetitions included.
        last: time of the last answer, ISO 8601, UTC; empty if there is none.
    """

    rater: Rater
    summary: RaterSummary
    answered: int
    last: str


def rater_status(raters: Sequence[Rater], judgements: Sequence[Judgement]) -> list[RaterStatus]:
    """The status of each rater, including raters without an answer.

    Args:
        raters: all raters of the study.
        judgements: all answers, also those of excluded raters.
    """
    names = [rater.id for rater in raters]
    times: dict[str, list[str]] = defaultdict(list)
    for judgement in judgements:
        times[judgement.show.rater].append(judgement.at)
    by_name = {summary.rater: summary for summary in summaries(judgements, left_out=(), fast_seconds=0.0, raters=names)}
    return [
        RaterStatus(
            rater=rater,
            summary=by_name[rater.id],
            answered=len(times[rater.id]),
            last=max(times[rater.id], default=""),
        )
        for rater in raters
    ]


def question_status(study: Study, judgements: Sequence[Judgement]) -> list[QuestionStatus]:
    """The status of each question, in the order of ``study.yaml``."""
    groups = Counter(group.question for group in study.groups if group.expected is None)
    raters: dict[str, dict[Unit, set[str]]] = defaultdict(lambda: defaultdict(set))
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        if judgement.regular:
            raters[judgement.question][judgement.show.unit].add(judgement.show.rater)
            sides[judgement.question][judgement.show.side(judgement.answer)] += 1
    return [
        QuestionStatus(
            key=question.key,
            text=question.text,
            groups=groups[question.key],
            answers=sides[question.key].total(),
            pairs=len(raters[question.key]),
            complete=sum(len(names) >= study.settings.raters_per_pair for names in raters[question.key].values()),
            sides=dict(sides[question.key]),
        )
        for question in study.settings.questions
    ]


def status_lines(folder: Path, *, url: str | None = None) -> list[str]:
    """The status of a study in words.

    Args:
        folder: of the study.
        url: of the database; `None`: the study's own.

    Raises:
        SeedpoError: the study or its database cannot be used.
    """
    study = open_study(folder, verify=False)
    with Store.open(study, url, write=False) as store:
        questions = question_status(study, store.judgements())
        raters = rater_status(store.raters(), store.judgements(excluded=True))
    lines = [f"{study.settings.title} ({study.settings.kind}, {len(study.groups)} groups)"]
    lines += [
        f"  {line.key}: {line.answers} answers; {line.complete} of {line.pairs} begun pairs are complete"
        for line in questions
    ]
    lines.append(f"{len(raters)} raters, {sum(status.answered > 0 for status in raters)} have answered")
    return lines + [f"  {_rater_line(status)}" for status in raters]


def rater_row(status: RaterStatus) -> dict[str, str | bool]:
    """A line of the admin page: texts by column, and whether the link is revoked."""
    rater, summary = status.rater, status.summary
    return {
        "id": rater.id,
        "label": rater.label,
        "answered": str(status.answered),
        "skipped": str(summary.skipped),
        "checks": f"{summary.checks_passed} of {summary.checks}" if summary.checks else "",
        "repeats": f"{summary.repeats_same} of {summary.repeats}" if summary.repeats else "",
        "seconds": "" if summary.seconds is None else f"{summary.seconds:.1f}",
        "last": status.last[:16].replace("T", " "),
        "link": ", ".join(_states(rater)) or (f"ends {rater.expires[:10]}" if rater.expires else "valid"),
        "revoked": rater.revoked,
    }


def _states(rater: Rater) -> list[str]:
    return [word for word in ("revoked", "expired", "excluded") if getattr(rater, word)]


def _rater_line(status: RaterStatus) -> str:
    rater, summary = status.rater, status.summary
    name = f"{rater.id} ({rater.label})" if rater.label else rater.id
    parts = [f"{status.answered} answers"]
    if summary.checks:
        parts.append(f"checks {summary.checks_passed}/{summary.checks}")
    if summary.repeats:
        parts.append(f"repeats {summary.repeats_same}/{summary.repeats}")
    return f"{name}: {', '.join(parts + _states(rater))}"

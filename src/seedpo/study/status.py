"""How far a study is: figures for its admin page and for the command line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.study.folder import Study, open_study
from seedpo.study.raters import Rater, RaterFigures
from seedpo.study.records import Judgement, Pair
from seedpo.study.store import Store


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


def question_status(study: Study, judgements: Sequence[Judgement]) -> list[QuestionStatus]:
    """The status of each question, in the order of ``study.yaml``."""
    groups = Counter(group.question for group in study.groups if group.expected is None)
    raters: dict[str, dict[Pair, set[str]]] = defaultdict(lambda: defaultdict(set))
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        if judgement.regular:
            raters[judgement.question][judgement.show.pair].add(judgement.show.rater)
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
    store = Store.open(study, url)
    try:
        judgements, raters = store.judgements(), store.overview()
    finally:
        store.close()
    lines = [f"{study.settings.title} ({study.settings.kind}, {len(study.groups)} groups)"]
    lines += [
        f"  {line.key}: {line.answers} answers; {line.complete} of {line.pairs} begun pairs are complete"
        for line in question_status(study, judgements)
    ]
    lines.append(f"{len(raters)} raters, {sum(figures.answered > 0 for figures in raters)} have answered")
    return lines + [f"  {_rater_line(figures)}" for figures in raters]


def rater_row(figures: RaterFigures) -> dict[str, str | bool]:
    """A line of the admin page: texts by column, and whether the link is revoked."""
    rater = figures.rater
    return {
        "id": rater.id,
        "label": rater.label,
        "answered": str(figures.answered),
        "skipped": str(figures.skipped),
        "checks": f"{figures.checks_passed} of {figures.checks}" if figures.checks else "",
        "repeats": f"{figures.repeats_agreed} of {figures.repeats}" if figures.repeats else "",
        "seconds": "" if figures.median_seconds is None else f"{figures.median_seconds:.1f}",
        "last": figures.last[:16].replace("T", " "),
        "link": ", ".join(_states(rater)) or (f"ends {rater.expires[:10]}" if rater.expires else "valid"),
        "revoked": rater.revoked,
    }


def _states(rater: Rater) -> list[str]:
    return [word for word in ("revoked", "expired", "excluded") if getattr(rater, word)]


def _rater_line(figures: RaterFigures) -> str:
    rater = figures.rater
    name = f"{rater.id} ({rater.label})" if rater.label else rater.id
    parts = [f"{figures.answered} answers"]
    if figures.checks:
        parts.append(f"checks {figures.checks_passed}/{figures.checks}")
    if figures.repeats:
        parts.append(f"repeats {figures.repeats_agreed}/{figures.repeats}")
    return f"{name}: {', '.join(parts + _states(rater))}"

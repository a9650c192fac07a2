"""How far a study is, in figures for its admin page and for the command line."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.study.folder import Study, open_study
from seedpo.study.records import Judgement
from seedpo.study.store import Store
from seedpo.study.store_records import RaterFigures


@dataclass(frozen=True, kw_only=True)
class QuestionStatus:
    """One question.

    Attributes:
        key, text: of the question.
        groups: that ask it, attention checks left out.
        answers: counted ones, without attention checks and repeats.
        pairs: pairs of candidates with at least one answer.
        complete: of these, pairs that as many raters as wanted have answered.
        sides: how often each side or answer was chosen.
    """

    key: str
    text: str
    groups: int
    answers: int
    pairs: int
    complete: int
    sides: dict[str, int]


def question_lines(study: Study, judgements: Sequence[Judgement]) -> list[QuestionStatus]:
    """The status of each question, in the order of ``study.yaml``."""
    groups = Counter(group.question for group in study.groups if group.expected is None)
    raters: dict[str, dict[tuple[str, int, int], set[str]]] = defaultdict(lambda: defaultdict(set))
    sides: dict[str, Counter[str]] = defaultdict(Counter)
    for judgement in judgements:
        show = judgement.show
        if judgement.expected is not None or show.repeat_of is not None:
            continue
        raters[judgement.question][show.group, show.first, show.second].add(show.rater)
        sides[judgement.question][_side(judgement)] += 1
    wanted = study.settings.raters_per_pair
    return [
        QuestionStatus(
            key=question.key,
            text=question.text,
            groups=groups[question.key],
            answers=sides[question.key].total(),
            pairs=len(raters[question.key]),
            complete=sum(len(who) >= wanted for who in raters[question.key].values()),
            sides=dict(sides[question.key]),
        )
        for question in study.settings.questions
    ]


def status_lines(folder: Path, *, url: str | None = None) -> list[str]:
    """The status of a study in words.

    Args:
        folder: of the study.
        url: of the database; none: what the study says.

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
        f"  {line.key}: {line.answers} answers; of {line.pairs} pairs begun {line.complete} are complete"
        for line in question_lines(study, judgements)
    ]
    lines.append(f"{len(raters)} raters, {sum(figures.answered > 0 for figures in raters)} have answered")
    return lines + [f"  {_rater_line(figures)}" for figures in raters]


def rater_row(figures: RaterFigures) -> dict[str, str | bool]:
    """A line of the admin page: texts by column, and whether the link is revoked."""
    rater = figures.rater
    states = [word for word in ("revoked", "expired", "excluded") if getattr(rater, word)]
    ends = f"ends {rater.expires[:10]}" if rater.expires else "valid"
    return {
        "id": rater.id,
        "label": rater.label,
        "answered": str(figures.answered),
        "skipped": str(figures.skipped),
        "checks": f"{figures.checks_passed} of {figures.checks}" if figures.checks else "",
        "repeats": f"{figures.repeats_agreed} of {figures.repeats}" if figures.repeats else "",
        "seconds": "" if figures.median_seconds is None else f"{figures.median_seconds:.1f}",
        "last": figures.last[:16].replace("T", " "),
        "link": ", ".join(states) or ends,
        "revoked": rater.revoked,
    }


def _rater_line(figures: RaterFigures) -> str:
    rater = figures.rater
    name = f"{rater.id} ({rater.label})" if rater.label else rater.id
    parts = [f"{figures.answered} answers"]
    if figures.checks:
        parts.append(f"checks {figures.checks_passed}/{figures.checks}")
    if figures.repeats:
        parts.append(f"repeats {figures.repeats_agreed}/{figures.repeats}")
    parts += [word for word in ("expired", "revoked", "excluded") if getattr(rater, word)]
    return f"{name}: {', '.join(parts)}"


def _side(judgement: Judgement) -> str:
    """What the rater pressed, from which a habit of one side can be seen."""
    if judgement.answer not in ("first", "second"):
        return judgement.answer
    return "right" if (judgement.answer == "second") != judgement.show.flipped else "left"

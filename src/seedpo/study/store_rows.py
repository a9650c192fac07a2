"""From rows of the database to what the rest of the package speaks of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any

from sqlalchemy import Row, Select, select

from seedpo.study.records import Answer, Group, Judgement, Show
from seedpo.study.store_records import Rater, RaterFigures
from seedpo.study.tables import raters, shows, votes


def as_text(time: datetime) -> str:
    """A time as it is stored."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def show_of(row: Row[Any]) -> Show:
    """A show from its row."""
    return Show(
        token=row.token,
        rater=row.rater,
        group=row.group,
        first=row.first,
        second=row.second,
        flipped=row.flipped,
        number=row.number,
        repeat_of=row.repeat_of,
    )


def select_judged(study: str) -> Select[Any]:
    """All answered shows of a study, each with the vote that counts, in the order of these votes."""
    return (
        select(shows, votes.c.answer, votes.c.seconds, votes.c.at)
        .join(votes, votes.c.id == shows.c.last_vote)
        .where(shows.c.study == study)
        .order_by(votes.c.id)
    )


def select_of_kept_raters(study: str) -> Select[Any]:
    """The same without the answers of excluded raters."""
    of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
    return select_judged(study).join(raters, of_rater).where(raters.c.excluded_at.is_(None))


def judgement_of(row: Row[Any], group: Group) -> Judgement:
    """An answered show from its row and its group."""
    return Judgement(
        show=show_of(row),
        question=group.question,
        prompt=group.prompt,
        category=group.category,
        first=group.candidates[row.first],
        second=group.candidates[row.second],
        answer=row.answer,
        expected=_expected(group, row.first, row.second),
        seconds=row.seconds,
        at=row.at,
    )


def judgements_of(rows: Iterable[Row[Any]], group: Callable[[str], Group]) -> list[Judgement]:
    """Answered shows from their rows."""
    return [judgement_of(row, group(row.group)) for row in rows]


def _expected(group: Group, first: int, second: int) -> Answer | None:
    if group.expected == first:
        return "first"
    return "second" if group.expected == second else None


def figures(known: Sequence[Rater], judgements: Sequence[Judgement]) -> list[RaterFigures]:
    """One line for each rater, those without an answer included."""
    by_rater: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_rater[judgement.show.rater].append(judgement)
    return [_figures(rater, by_rater[rater.id]) for rater in known]


def _figures(rater: Rater, answered: Sequence[Judgement]) -> RaterFigures:
    answers = {judgement.show.token: judgement.answer for judgement in answered}
    checks = [judgement for judgement in answered if judgement.expected is not None]
    repeats = [judgement for judgement in answered if judgement.show.repeat_of in answers]
    seconds = [judgement.seconds for judgement in answered if judgement.seconds is not None]
    return RaterFigures(
        rater=rater,
        answered=len(answered),
        skipped=sum(judgement.answer == "skip" for judgement in answered),
        checks=len(checks),
        checks_passed=sum(judgement.answer == judgement.expected for judgement in checks),
        repeats=len(repeats),
        repeats_agreed=sum(judgement.answer == answers[judgement.show.repeat_of or ""] for judgement in repeats),
        median_seconds=median(seconds) if seconds else None,
        last=max((judgement.at for judgement in answered), default=""),
    )

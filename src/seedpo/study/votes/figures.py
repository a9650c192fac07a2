"""Figures of a study that its database counts, so that a page about thousands of answers reads few of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, or_, select

from seedpo.study.votes.ledger import ANSWER, counted_vote, of_rater
from seedpo.study.votes.tables import raters, shows, votes

_NAMES = 1000
"""Names in one query; databases bound their number."""


@dataclass(frozen=True, kw_only=True)
class RaterFigures:
    """The answers of one rater, checks and repetitions included.

    Attributes:
        answered: number of answered shows.
        last: time of the last answer, ISO 8601, UTC.
        seconds: median time per answer; `None` if unknown.
    """

    answered: int
    last: str
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the database counted.

    Attributes:
        raters: the figures of each rater who has answered something.
        skips: rows of rater, group and number: what each rater skipped, repetitions apart.
        answers: rows of group, places, answer and number: how each order of each group was answered; excluded raters
            and repetitions apart.
    """

    raters: Mapping[str, RaterFigures]
    skips: Sequence[Row[Any]]
    answers: Sequence[Row[Any]]


def read_figures(connection: Connection, study: str) -> Figures:
    """The figures of the study with this id."""
    here = shows.c.study == study
    first_time = shows.c.repeat_of.is_(None)
    number = func.count().label("number")
    counts = select(shows.c.rater, number, func.max(votes.c.at)).join(votes, counted_vote).where(here)
    seconds = {row.rater: row.seconds for row in connection.execute(_medians(study))}
    skips = select(shows.c.rater, shows.c.group, number).join(votes, counted_vote).where(here, first_time)
    answers = select(shows.c.group, shows.c.places, votes.c.answer, number).join(votes, counted_vote)
    answers = answers.join(raters, of_rater).where(here, first_time, raters.c.excluded_at.is_(None))
    return Figures(
        raters={
            rater: RaterFigures(answered=answered, last=last, seconds=seconds.get(rater))
            for rater, answered, last in connection.execute(counts.group_by(shows.c.rater))
        },
        skips=connection.execute(skips.where(votes.c.answer == "skip").group_by(shows.c.rater, shows.c.group)).all(),
        answers=connection.execute(answers.group_by(shows.c.group, shows.c.places, votes.c.answer)).all(),
    )


def _medians(study: str) -> Select[Any]:
    """The median time of each rater: the mean of the one or two times in the middle."""
    timed = (
        select(
            shows.c.rater,
            votes.c.seconds,
            func.row_number().over(partition_by=shows.c.rater, order_by=votes.c.seconds).label("place"),
            func.count().over(partition_by=shows.c.rater).label("number"),
        )
        .join(votes, counted_vote)
        .where(shows.c.study == study, votes.c.seconds.is_not(None))
        .subquery()
    )
    middle = (2 * timed.c.place).in_([timed.c.number, timed.c.number + 1, timed.c.number + 2])
    return select(timed.c.rater, func.avg(timed.c.seconds).label("seconds")).where(middle).group_by(timed.c.rater)


def attention(query: Select[Any], study: str, checks: Collection[str]) -> Iterator[Select[Any]]:
    """Queries of attention checks, of repetitions, and of what these repeat; no row is in two of them.

    Args:
        query: of shows.
        study: its id.
        checks: ids of the groups that are attention checks.
    """
    repeated = select(shows.c.repeat_of).where(shows.c.study == study, shows.c.repeat_of.is_not(None))
    repeats = or_(shows.c.repeat_of.is_not(None), shows.c.token.in_(repeated))
    yield query.where(repeats)
    names = sorted(checks)
    for start in range(0, len(names), _NAMES):
        yield query.where(shows.c.group.in_(names[start : start + _NAMES]), ~repeats)


def widest_view(connection: Connection, study: str) -> int:
    """Candidates in one view at most; 0 if nothing was shown."""
    commas = func.length(shows.c.members) - func.length(func.replace(shows.c.members, ",", ""))
    most = connection.execute(select(func.max(commas)).where(shows.c.study == study)).scalar()
    return 0 if most is None else int(most) + 1


def page_of_votes(study: str, *, after: int, newest: int, number: int) -> Select[Any]:
    """A page of all shows with their answers, excluded raters apart, in the order of these answers.

    Args:
        study: its id.
        after: the vote with which the page before ended; 0: the first page.
        newest: the newest vote that counts, so that all pages show the same moment.
        number: of rows.
    """
    counted = select(func.max(votes.c.id)).where(votes.c.show == shows.c.token, votes.c.id <= newest)
    return (
        select(shows, votes.c.id.label("vote"), *ANSWER)
        .join(votes, votes.c.show == shows.c.token)
        .join(raters, of_rater)
        .where(shows.c.study == study, raters.c.excluded_at.is_(None))
        .where(votes.c.id > after, votes.c.id == counted.correlate(shows).scalar_subquery())
        .order_by(votes.c.id)
        .limit(number)
    )

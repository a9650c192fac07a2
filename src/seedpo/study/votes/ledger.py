"""What one process knows of a study's votes: it follows the database by revisions and asks for nothing twice."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, Row, literal, select, text

from seedpo.study.errors import StoreError, UnknownRater
from seedpo.study.folder import Study
from seedpo.study.records import Answer, Group, Judgement, Rater, Show, Unit, judge
from seedpo.study.unit_counts import UnitCounts
from seedpo.study.votes.tables import counts, groups, indices_of, raters, shows, votes

MOST_ANSWERS = 50_000
"""Answers of raters that are kept in memory; the raters who were away longest are read again when they come back."""

_ANSWERS = frozenset(get_args(Answer))

ANSWER = (votes.c.answer, votes.c.best, votes.c.worst, votes.c.seconds, votes.c.at)
"""What a vote says."""

of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
"""Joins shows with their raters."""

counted_vote = (votes.c.show == shows.c.token) & (votes.c.key == shows.c.last_key)
"""Joins shows with the votes that count."""


def is_rater(study: str, rater_id: str) -> ColumnElement[bool]:
    """The condition for a rater."""
    return (raters.c.study == study) & (raters.c.id == rater_id)


def shown_to(study: str, rater_id: str) -> ColumnElement[bool]:
    """The condition for all shows of a rater."""
    return (shows.c.study == study) & (shows.c.rater == rater_id)


def rater_row(connection: Connection, study: str, rater_id: str) -> Row[Any]:
    """The row of a rater.

    Raises:
        UnknownRater: the study has none of this id.
    """
    row = connection.execute(select(raters).where(is_rater(study, rater_id))).first()
    if row is None:
        raise UnknownRater(f"the study has no rater {rater_id!r}; the admin page lists them")
    return row


@dataclass
class Shown:
    """A show, and what became of it.

    Attributes:
        show: what was shown.
        held_at: since when it holds its place while it is open; `None`: it gave its place up.
        last_key: of the answer that counts; `None`: it is open.
    """

    show: Show
    held_at: str | None
    last_key: str | None


@dataclass(frozen=True)
class Own:
    """A rater, and everything that the rater saw and answered.

    Attributes:
        rater: as read; whether the link has expired depends on the time.
        turn: number of raters before this one.
        shows: by token, in the order in which they were shown.
        answers: by token, in the order of the answers that count.
    """

    rater: Rater
    turn: int
    shows: dict[str, Shown]
    answers: dict[str, Judgement]

    @property
    def last(self) -> Shown | None:
        """The latest show."""
        return next(reversed(self.shows.values()), None)

    def counted(self, unit: Unit) -> bool | None:
        """Whether the rater's answer to a unit counts: `None` if not, else whether the pair was flipped."""
        flips = [
            answer.show.flipped
            for answer in self.answers.values()
            if answer.show.group == unit[0]
            and answer.show.unit == unit
            and answer.show.repeat_of is None
            and answer.answer != "skip"
        ]
        return flips[-1] if flips else None


class Ledger:
    """Raters of each unit, and the raters who vote.

    Writers lock the study's row and raise its revision, and every row that they change gets it. A process that has seen
    a revision has therefore seen all earlier ones, and asks only for rows of later ones. Only one thread uses a ledger.

    Args:
        study: id of the study.

    Attributes:
        revision: that was seen last; -1: none.
        counts: raters of each unit who have answered it (a skip is not an answer) or hold it open.
        flips: how many of them see the second candidate of a pair on the left.
        digests: by group that was shown, what it looked like.
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self.clear()

    def clear(self) -> None:
        """Forgets everything; the next transaction reads it again."""
        self.revision = -1
        self.counts = UnitCounts()
        self.flips: Counter[Unit] = Counter()
        self.digests: dict[str, str] = {}
        self._answered: dict[Unit, tuple[int, int]] = {}
        self._places: dict[str, tuple[Unit, bool, str]] = {}
        self._ends: list[tuple[str, str]] = []
        self._own: OrderedDict[str, Own] = OrderedDict()

    def follow(self, connection: Connection, revision: int, cleared: int, *, held_after: str) -> None:
        """Takes up what others have changed; call it when the study's row is locked.

        Args:
            connection: in a transaction.
            revision: of the study.
            cleared: last revision that changed more than rows tell.
            held_after: open shows hold their places if they were taken up later than this.
        """
        if not cleared <= self.revision <= revision:
            self.clear()
        if revision != self.revision:
            self._read(connection, held_after=held_after)
            self.revision = revision
        while self._ends and self._ends[0][0] <= held_after:
            held_at, token = heapq.heappop(self._ends)
            if token in self._places and self._places[token][2] == held_at:
                self.release(token)
        answers = sum(len(own.answers) for own in self._own.values()) if len(self._own) > 100 else 0
        while answers > MOST_ANSWERS:
            answers -= len(self._own.popitem(last=False)[1].answers)

    def _read(self, connection: Connection, *, held_after: str) -> None:
        def newer(table: Any) -> Any:
            return (table.c.study == self._study) & (table.c.revision > self.revision)

        for row in connection.execute(select(groups).where(newer(groups))):
            self.digests[row.group] = row.digest
        for row in connection.execute(select(counts).where(newer(counts))):
            self.set_answered((row.group, indices_of(row.members)), row.raters, row.flipped)
        still_held = shows.c.last_key.is_(None) & (shows.c.held_at > held_after)
        everything = self.revision < 0
        changed = newer(shows) & (still_held if everything else literal(True))
        for row in connection.execute(select(shows, raters.c.excluded_at).join(raters, of_rater).where(changed)):
            self._own.pop(row.rater, None)
            self.release(row.token)
            if row.last_key is None and row.held_at is not None and row.held_at > held_after:
                self.hold(shown_of(row), excluded=row.excluded_at is not None)

    # Raters of units.

    def set_answered(self, unit: Unit, number: int, flipped: int) -> None:
        """Sets how many raters have answered a unit, and how many of them saw it flipped."""
        before = self._answered.get(unit, (0, 0))
        self._answered[unit] = (number, flipped)
        self.counts[unit] += number - before[0]
        self.flips[unit] += flipped - before[1]

    def add_answered(self, unit: Unit, before: bool | None, after: bool | None) -> None:
        """Follows one rater's answer to a unit: see :meth:`Own.counted`."""
        number, flipped = self._answered.get(unit, (0, 0))
        number += (after is not None) - (before is not None)
        self.set_answered(unit, number, flipped + bool(after) - bool(before))

    def answered(self, unit: Unit) -> tuple[int, int]:
        """How many raters have answered a unit, and how many of them saw it flipped."""
        return self._answered.get(unit, (0, 0))

    def hold(self, shown: Shown, *, excluded: bool) -> None:
        """Lets an open show hold its place; repetitions and excluded raters take none."""
        self.release(shown.show.token)
        if shown.held_at is None or shown.show.repeat_of is not None or excluded:
            return
        unit, flipped = shown.show.unit, shown.show.flipped
        self._places[shown.show.token] = (unit, flipped, shown.held_at)
        heapq.heappush(self._ends, (shown.held_at, shown.show.token))
        self.counts[unit] += 1
        self.flips[unit] += flipped

    def release(self, token: str) -> None:
        """Frees the place of a show, if it holds one."""
        place = self._places.pop(token, None)
        if place is not None:
            self.counts[place[0]] -= 1
            self.flips[place[0]] -= place[1]

    def holds(self, token: str) -> bool:
        """Whether a show holds a place."""
        return token in self._places

    # Raters.

    def own(self, connection: Connection, study: Study, rater_id: str) -> Own:
        """A rater with shows and answers.

        Raises:
            UnknownRater: the study has none of this id.
        """
        own = self._own.get(rater_id)
        if own is None:
            own = _own(connection, study, rater_id)
            if own.rater.consented or not study.settings.asks_consent:
                self._own[rater_id] = own
        else:
            self._own.move_to_end(rater_id)
        return own


def _own(connection: Connection, study: Study, rater_id: str) -> Own:
    row = rater_row(connection, study.settings.id, rater_id)
    query = select(shows, votes.c.id, *ANSWER).outerjoin(votes, counted_vote)
    query = query.where(shown_to(study.settings.id, rater_id)).order_by(shows.c.number)
    rows = connection.execute(query).all()
    answered = sorted((item for item in rows if item.last_key is not None), key=lambda item: item.id)
    return Own(
        rater=rater_of(row, now=""),
        turn=row.turn,
        shows={item.token: shown_of(item) for item in rows},
        answers={item.token: judgement_of(item, group_of(study, item.group)) for item in answered},
    )


def group_of(study: Study, name: str) -> Group:
    """A group that was shown.

    Raises:
        StoreError: the study's folder no longer has it.
    """
    if name not in study.by_id:
        raise StoreError(f"{study.folder}: group {name!r} was shown to raters and is not in groups.jsonl; put it back")
    return study.by_id[name]


def rater_of(row: Row[Any], *, now: str) -> Rater:
    """A rater from a row of the table, at a time."""
    return Rater(
        id=row.id,
        label=row.label,
        consented=row.consented_at is not None,
        expired=row.expires_at is not None and row.expires_at <= now,
        revoked=row.revoked_at is not None,
        excluded=row.excluded_at is not None,
        created=row.created_at,
        expires=row.expires_at or "",
    )


def show_of(row: Row[Any]) -> Show:
    """A show from a row of the table."""
    names = ("token", "rater", "group", "number", "repeat_of")
    return Show(order=indices_of(row.places), **{name: getattr(row, name) for name in names})


def shown_of(row: Row[Any]) -> Shown:
    """A show and what became of it, from a row of the table."""
    return Shown(show_of(row), row.held_at, row.last_key)


def judgement_of(row: Row[Any], group: Group) -> Judgement:
    """A judgement from the rows of a show and of the vote that counts.

    Raises:
        StoreError: the rows say what no seedpo has written.
    """
    show = show_of(row)
    ranked = {row.best, row.worst} if row.answer == "ranked" else set()
    if row.answer not in _ANSWERS or not ranked <= {*show.order} or max(show.order) >= len(group.candidates):
        raise StoreError(
            f"the answer to show {row.token} fits neither group {group.id!r} nor its question; put a backup in the "
            "database's place"
        )
    return judge(show, group, row.answer, best=row.best, worst=row.worst, seconds=row.seconds, at=row.at)


_RECOUNT = text(
    """
    INSERT INTO seedpo_counts (study, "group", members, raters, flipped, revision)
    SELECT s.study, s."group", s.members, count(DISTINCT s.rater),
           count(DISTINCT CASE WHEN s.places <> s.members THEN s.rater END), :revision
    FROM seedpo_shows s
    JOIN seedpo_votes v ON v.show = s.token AND v.key = s.last_key
    JOIN seedpo_raters r ON r.study = s.study AND r.id = s.rater
    WHERE s.study = :study AND s.repeat_of IS NULL AND r.excluded_at IS NULL AND v.answer <> 'skip'
    GROUP BY s.study, s."group", s.members
    """
)


def recount(connection: Connection, study: str, revision: int) -> None:
    """Counts the raters of all units again.

    Args:
        connection: in a transaction that has locked the study's row.
        study: id of the study.
        revision: that the rows get.
    """
    values: Mapping[str, object] = {"study": study, "revision": revision}
    connection.execute(counts.delete().where(counts.c.study == study))
    connection.execute(_RECOUNT, values)

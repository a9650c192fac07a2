"""How many raters each unit has: counts beside the votes, which each process follows without reading all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from seedpo.study.records import Unit
from seedpo.study.tables import counts, indices_of, raters, shows, studies, text_of, votes

of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
"""Joins shows with their raters."""


@dataclass(frozen=True)
class Tally:
    """Raters of each unit who have answered it (a skip is not an answer) or hold it open.

    Attributes:
        counts: how many.
        flips: how many of them see the second candidate of a pair on the left.
    """

    counts: Mapping[Unit, int]
    flips: Mapping[Unit, int]


class Tallies:
    """The counts of a study as one process knows them.

    Writers lock the study's row and raise its revision. A process that has seen a revision has therefore seen all
    earlier ones, and asks only for the rows of later ones.

    Args:
        study: id of the study.
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._lock = threading.Lock()
        self._revision = 0
        self._answered: Counter[Unit] = Counter()
        self._flipped: Counter[Unit] = Counter()

    def read(self, connection: Connection, *, held_after: str) -> Tally:
        """The counts now; call it before the transaction changes any of them.

        Args:
            connection: in a transaction.
            held_after: open shows hold their place if they were taken up later than this.
        """
        with self._lock:
            newer = select(counts).where(counts.c.study == self._study, counts.c.revision > self._revision)
            for row in connection.execute(newer):
                unit = (row.group, indices_of(row.members))
                self._answered[unit], self._flipped[unit] = row.raters, row.flipped
                self._revision = max(self._revision, row.revision)
            answered, flipped = self._answered.copy(), self._flipped.copy()
        held = (
            select(shows.c.group, shows.c.members, shows.c.places)
            .join(raters, of_rater)
            .where(shows.c.study == self._study, shows.c.last_vote.is_(None), shows.c.held_at > held_after)
            .where(shows.c.repeat_of.is_(None), raters.c.excluded_at.is_(None))
        )
        for row in connection.execute(held):
            unit = (row.group, indices_of(row.members))
            answered[unit] += 1
            flipped[unit] += row.places != row.members
        return Tally(counts=answered, flips=flipped)


def recount(connection: Connection, study: str, revision: int, units: Iterable[Unit]) -> None:
    """Counts the raters of some units again after their votes have changed.

    Args:
        connection: in a transaction that has locked the study's row.
        study: id of the study.
        revision: of the study, from that row.
        units: the units.
    """
    for group, members in units:
        key = {"study": study, "group": group, "members": text_of(members)}
        flips = _flips(connection, key)
        values = {"raters": len(flips), "flipped": sum(flips.values()), "revision": revision + 1}
        same_unit = [counts.c[name] == value for name, value in key.items()]
        if not connection.execute(update(counts).where(*same_unit).values(**values)).rowcount:
            connection.execute(insert(counts).values(**key, **values))
    connection.execute(update(studies).where(studies.c.id == study).values(revision=revision + 1))


def _flips(connection: Connection, key: Mapping[str, str]) -> Mapping[str, bool]:
    """Raters whose answer to a unit counts, and whether they saw it flipped."""
    answered = (
        select(shows.c.rater, shows.c.members, shows.c.places)
        .join(votes, votes.c.id == shows.c.last_vote)
        .join(raters, of_rater)
        .where(*(shows.c[name] == value for name, value in key.items()))
        .where(shows.c.repeat_of.is_(None), raters.c.excluded_at.is_(None), votes.c.answer != "skip")
    )
    return {row.rater: row.places != row.members for row in connection.execute(answered)}

"""How many raters each pair has: counts beside the votes, which each process follows without reading all of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from seedpo.study.records import Pair
from seedpo.study.tables import counts, raters, shows, studies, votes

of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
"""Joins shows with their raters."""


@dataclass(frozen=True)
class Tally:
    """Raters of each pair who have answered it (a skip is not an answer) or hold it open.

    Attributes:
        counts: how many.
        flips: how many of them see the second candidate on the left.
    """

    counts: Mapping[Pair, int]
    flips: Mapping[Pair, int]


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
        self._answered: Counter[Pair] = Counter()
        self._flipped: Counter[Pair] = Counter()

    def read(self, connection: Connection, *, held_after: str) -> Tally:
        """The counts now; call it before the transaction changes any of them.

        Args:
            connection: in a transaction.
            held_after: open shows hold their place if they were taken up later than this.
        """
        with self._lock:
            newer = select(counts).where(counts.c.study == self._study, counts.c.revision > self._revision)
            for row in connection.execute(newer):
                pair = (row.group, row.first, row.second)
                self._answered[pair], self._flipped[pair] = row.raters, row.flipped
                self._revision = max(self._revision, row.revision)
            answered, flipped = self._answered.copy(), self._flipped.copy()
        held = (
            select(shows.c.group, shows.c.first, shows.c.second, shows.c.flipped)
            .join(raters, of_rater)
            .where(shows.c.study == self._study, shows.c.last_vote.is_(None), shows.c.held_at > held_after)
            .where(shows.c.repeat_of.is_(None), raters.c.excluded_at.is_(None))
        )
        for row in connection.execute(held):
            pair = (row.group, row.first, row.second)
            answered[pair] += 1
            flipped[pair] += bool(row.flipped)
        return Tally(counts=answered, flips=flipped)


def recount(connection: Connection, study: str, revision: int, pairs: Iterable[Pair]) -> None:
    """Counts the raters of some pairs again after their votes have changed.

    Args:
        connection: in a transaction that has locked the study's row.
        study: id of the study.
        revision: of the study, from that row.
        pairs: the pairs.
    """
    for group, first, second in pairs:
        key: dict[str, str | int] = {"study": study, "group": group, "first": first, "second": second}
        flips = _flips(connection, key)
        values = {"raters": len(flips), "flipped": sum(flips.values()), "revision": revision + 1}
        same_pair = [counts.c[name] == value for name, value in key.items()]
        if not connection.execute(update(counts).where(*same_pair).values(**values)).rowcount:
            connection.execute(insert(counts).values(**key, **values))
    connection.execute(update(studies).where(studies.c.id == study).values(revision=revision + 1))


def _flips(connection: Connection, key: Mapping[str, str | int]) -> Mapping[str, bool]:
    """Raters whose answer to a pair counts, and whether they saw it flipped."""
    answered = (
        select(shows.c.rater, shows.c.flipped)
        .join(votes, votes.c.id == shows.c.last_vote)
        .join(raters, of_rater)
        .where(*(shows.c[name] == value for name, value in key.items()))
        .where(shows.c.repeat_of.is_(None), raters.c.excluded_at.is_(None), votes.c.answer != "skip")
    )
    return {row.rater: bool(row.flipped) for row in connection.execute(answered)}

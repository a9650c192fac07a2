"""How many raters each pair has: kept beside the votes, and followed by each process without reading all anew."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from seedpo.study.tables import counts, raters, shows, studies, votes

Pair = tuple[str, int, int]
"""Group and the indices of two of its candidates, the lower one first."""


@dataclass(frozen=True)
class Tally:
    """Distinct raters by pair, of those who have answered (a skip is no answer) or hold the pair open.

    Attributes:
        counts: how many.
        flips: to how many of these the second candidate was shown on the left.
    """

    counts: Mapping[Pair, int]
    flips: Mapping[Pair, int]


class Tallies:
    """The counts of a study as one process knows them.

    Writers lock the study's row and raise its revision, so that a process that has seen a revision has seen all
    before it, and asks for the rows of later ones only.

    Args:
        study: its id.
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._lock = threading.Lock()
        self._revision = 0
        self._answered: Counter[Pair] = Counter()
        self._flipped: Counter[Pair] = Counter()

    def read(self, connection: Connection, *, held_after: str) -> Tally:
        """The counts now; to be called before the transaction changes any of them.

        Args:
            connection: in a transaction.
            held_after: shows that were taken up before are no longer held.
        """
        with self._lock:
            newer = select(counts).where(counts.c.study == self._study, counts.c.revision > self._revision)
            for row in connection.execute(newer):
                pair = (row.group, row.first, row.second)
                self._answered[pair], self._flipped[pair] = row.raters, row.flipped
                self._revision = max(self._revision, row.revision)
            answered, flipped = self._answered.copy(), self._flipped.copy()
        of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
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
    """Counts the raters of some pairs anew, after their votes have changed.

    Args:
        connection: in a transaction that has locked the study's row.
        study: its id.
        revision: of the study, as that row has it.
        pairs: which.
    """
    for group, first, second in pairs:
        key: dict[str, str | int] = {"study": study, "group": group, "first": first, "second": second}
        sides = _sides(connection, key)
        values = {"raters": len(sides), "flipped": sum(sides.values()), "revision": revision + 1}
        same = [counts.c[name] == value for name, value in key.items()]
        if not connection.execute(update(counts).where(*same).values(**values)).rowcount:
            connection.execute(insert(counts).values(**key, **values))
    connection.execute(update(studies).where(studies.c.id == study).values(revision=revision + 1))


def _sides(connection: Connection, key: dict[str, str | int]) -> Mapping[str, bool]:
    """Raters whose answer to a pair counts, and whether it was flipped."""
    of_rater = (raters.c.study == shows.c.study) & (raters.c.id == shows.c.rater)
    answered = (
        select(shows.c.rater, shows.c.flipped)
        .join(votes, votes.c.id == shows.c.last_vote)
        .join(raters, of_rater)
        .where(*(shows.c[name] == value for name, value in key.items()))
        .where(shows.c.repeat_of.is_(None), raters.c.excluded_at.is_(None), votes.c.answer != "skip")
    )
    return {row.rater: bool(row.flipped) for row in connection.execute(answered)}

"""One transaction of a study: what is decided in it, first in memory, then in a few statements for all of it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Executable, delete, func, insert, select, update

from seedpo.errors import SeedpoError
from seedpo.study.assignment import Proposal, next_show, total
from seedpo.study.errors import LinkEnded, NoConsent, NotOffered, NotShown
from seedpo.study.folder import Study
from seedpo.study.records import Answer, Group, Show, Side, Unit, judge
from seedpo.study.units import is_knockout
from seedpo.study.votes.bulk_rows import Bulk
from seedpo.study.votes.ledger import Ledger, Own, Shown, group_of, is_rater, rater_row, recount, shown_to
from seedpo.study.votes.tables import (
    as_text,
    counts,
    digest,
    erasures,
    groups,
    is_storable,
    raters,
    require_unchanged,
    shows,
    studies,
    text_of,
    votes,
)

HOLD = timedelta(hours=1)
"""How long an open show keeps its place."""

LONGEST_KEY = 200

_DECISIONS: tuple[Answer, ...] = ("first", "second")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a rater is.

    Attributes:
        done: answered shows.
        total: shows that the rater will have answered at the end, as far as is known now.
    """

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a rater's page shows now.

    Attributes:
        show: to be judged; `None`: nothing is left for the rater.
        progress: how far the rater is.
        upcoming: what probably follows, so that the page can load images ahead of time. Nothing of it is stored or
            promised, and its orders are not those of the shows. In a knockout there are two possibilities.
        saved: of an answer: whether it is new, or had arrived before.
    """

    show: Show | None
    progress: Progress
    upcoming: tuple[Proposal, ...]
    saved: Literal["saved", "known"] | None = None


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was deleted.

    Attributes:
        rater, label: who was forgotten.
        shows, answers: how many.
    """

    rater: str
    label: str
    shows: int
    answers: int


_NEW_GROUPS = Bulk(groups, "study", "group", "digest", "revision")
_NEW_SHOWS = Bulk(
    shows,
    *("token", "study", "rater", "number", "group", "places", "members", "repeat_of", "shown_at", "held_at"),
    "revision",
)
_NEW_VOTES = Bulk(votes, "show", "key", "answer", "best", "worst", "seconds", "at")
_HELD = Bulk(shows, "token", "held_at", "revision", key=["token"], insert=False)
_ANSWERED = Bulk(shows, "token", "last_key", "revision", key=["token"], insert=False)
_COUNTED = Bulk(counts, "study", "group", "members", "raters", "flipped", "revision", key=["study", "group", "members"])


class Book:
    """A transaction that has locked the study's row, and what is to be written in it.

    A method that raises a :class:`SeedpoError` has changed nothing. If the transaction fails, the ledger is of no use
    any more: it knows what was never stored.

    Args:
        connection: in the transaction.
        study: as it is now.
        ledger: that follows the database.
        revision: of the study before this transaction.
        now: time of all that happens in it.
        trouble: why the study could not be read again; nothing new is shown then, and answers are stored.
    """

    def __init__(
        self,
        connection: Connection,
        study: Study,
        ledger: Ledger,
        *,
        revision: int,
        now: datetime,
        trouble: SeedpoError | None = None,
    ) -> None:
        self.connection = connection
        self.study = study
        self._ledger = ledger
        self._trouble = trouble
        self._id = study.settings.id
        self._time = now
        self._now = as_text(now)
        self._written = False
        self._revision = revision + 1
        self._groups: list[dict[str, Any]] = []
        self._shows: list[dict[str, Any]] = []
        self._votes: list[dict[str, Any]] = []
        self._answers: dict[str, str] = {}
        self._holds: dict[str, str] = {}
        self._units: set[Unit] = set()

    # Answers and shows.

    def vote(
        self,
        rater_id: str,
        token: str,
        side: Side,
        *,
        key: str,
        seconds: float | None,
        best: int | None,
        worst: int | None,
    ) -> Literal["saved", "known"]:
        """Adds an answer; see :meth:`seedpo.study.votes.store.Store.vote`."""
        _require_key(key)
        own = self._allowed(rater_id)
        shown = own.shows.get(token)
        if shown is None:
            raise NotShown("this was never shown to this rater; load the page again")
        if shown.last_key is not None and (shown.last_key == key or self._has_vote(token, key)):
            return "known"
        show, group = shown.show, group_of(self.study, shown.show.group)
        choices = self.study.question(group.question).choices
        if side not in choices:
            raise NotOffered(f"question {group.question!r} offers {', '.join(choices)}, not {side!r}")
        if not show.fits(side, () if best is None and worst is None else (best, worst)):
            raise NotOffered(f"'ranked' alone comes with two different places below {len(show.order)}: best, worst")
        values = {
            "answer": show.answer(side),
            "best": show.candidate(best),
            "worst": show.candidate(worst),
            "seconds": seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None,
            "at": self._now,
        }
        counts_in = show.repeat_of is None and group.expected is None and not own.rater.excluded
        before = own.counted(show.unit) if counts_in else None
        shown.last_key = self._answers[token] = key
        own.answers.pop(token, None)
        own.answers[token] = judge(show, group, **values)  # type: ignore[arg-type]
        self._votes.append({"show": token, "key": key, **values})
        self._ledger.release(token)
        if counts_in:
            self._ledger.add_answered(show.unit, before, own.counted(show.unit))
            self._units.add(show.unit)
        return "saved"

    def turn(self, rater_id: str) -> Turn:
        """What a rater judges next; see :meth:`seedpo.study.votes.store.Store.turn`."""
        own = self._allowed(rater_id)
        if self._trouble is not None:
            raise self._trouble
        shown = own.last
        if shown is None or shown.last_key is not None or not self._keeps_place(shown):
            shown = self._new_show(own)
        elif not self._is_held(shown, HOLD / 2):
            shown.held_at = self._holds[shown.show.token] = self._now
            self._ledger.hold(shown, excluded=own.rater.excluded)
        return Turn(
            show=None if shown is None else shown.show,
            progress=self._progress(own, shown),
            upcoming=() if shown is None else self._upcoming(own, shown.show),
        )

    def _allowed(self, rater_id: str) -> Own:
        own = self._ledger.own(self.connection, self.study, rater_id)
        rater = own.rater
        if rater.revoked or (rater.expires and rater.expires <= self._now):
            raise LinkEnded("this link has ended; ask whoever sent it for a new one")
        if self.study.settings.asks_consent and not rater.consented:
            raise NoConsent("the study asks for consent first; load the page again")
        return own

    def _has_vote(self, token: str, key: str) -> bool:
        self.flush()
        same_answer = (votes.c.show == token) & (votes.c.key == key)
        return self.connection.execute(select(votes.c.id).where(same_answer)).first() is not None

    def _is_held(self, shown: Shown, span: timedelta) -> bool:
        return shown.held_at is not None and shown.held_at > as_text(self._time - span)

    def _keeps_place(self, shown: Shown) -> bool:
        """Whether an open show still belongs to the rater: it is held, or its place is still free."""
        show = shown.show
        if self._is_held(shown, HOLD) or show.repeat_of is not None:
            return True
        if group_of(self.study, show.group).expected is not None:
            return True
        return self._ledger.counts[show.unit] < self.study.settings.raters_per_pair

    def _new_show(self, own: Own) -> Shown | None:
        token = secrets.token_urlsafe(18)
        proposal = self._proposal(own, list(own.answers.values()), token)
        if proposal is None:
            return None
        self._record(group_of(self.study, proposal.group))
        number = 0 if own.last is None else own.last.show.number + 1
        show = Show(token=token, rater=own.rater.id, number=number, **vars(proposal))
        shown = own.shows[token] = Shown(show, self._now, None)
        self._ledger.hold(shown, excluded=own.rater.excluded)
        self._shows.append(_row_of(show) | {"study": self._id, "shown_at": self._now, "held_at": self._now})
        return shown

    def _record(self, group: Group) -> None:
        """Records what a group looks like when it is shown for the first time."""
        recorded = self._ledger.digests.get(group.id)
        if recorded is None:
            recorded = self._ledger.digests[group.id] = digest(group)
            self._groups.append({"study": self._id, "group": group.id, "digest": recorded})
        else:
            require_unchanged(self.study, group, recorded)

    def _proposal(self, own: Own, answers: Sequence[Any], token: str) -> Proposal | None:
        ledger, rater = self._ledger, own.rater.id
        return next_show(self.study, answers, ledger.counts, ledger.flips, rater=rater, turn=own.turn, token=token)

    def _upcoming(self, own: Own, show: Show) -> tuple[Proposal, ...]:
        group, answers = group_of(self.study, show.group), list(own.answers.values())
        played = is_knockout(group, self.study.question(group.question), self.study.settings)
        decisions = _DECISIONS if played else _DECISIONS[:1]
        proposals = [self._proposal(own, [*answers, judge(show, group, answer)], "") for answer in decisions]
        return tuple(dict.fromkeys(proposal for proposal in proposals if proposal is not None))

    def _progress(self, own: Own, shown: Shown | None) -> Progress:
        number, answers = self._ledger.counts, list(own.answers.values())
        held = shown.show.unit if shown is not None and self._ledger.holds(shown.show.token) else None
        if held is not None:
            number[held] -= 1
        try:
            return Progress(done=len(answers), total=total(self.study, answers, number, rater=own.rater.id))
        finally:
            if held is not None:
                number[held] += 1

    # Raters.

    def add_raters(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows of raters; each gets its turn."""
        latest = select(func.max(raters.c.turn)).where(raters.c.study == self._id)
        last = self.connection.execute(latest).scalar()
        turn = 0 if last is None else last + 1
        self.execute(insert(raters), [{**row, "turn": turn + place} for place, row in enumerate(rows)])

    def consent(self, rater_id: str) -> None:
        """Stores that a rater agreed to the study's text."""
        self._mark(rater_id, consented_at=self._now)

    def revoke(self, rater_id: str) -> None:
        """Ends a rater's link, and frees the place of an open show."""
        if self._mark(rater_id, revoked_at=self._now):
            open_shows = shown_to(self._id, rater_id) & shows.c.last_key.is_(None)
            self.execute(update(shows).where(open_shows).values(held_at=None))
            self.read_again()

    def exclude(self, rater_id: str, excluded: bool) -> None:
        """Leaves a rater's answers out of the counts, or includes them again."""
        if self._mark(rater_id, excluded_at=self._now if excluded else None):
            recount(self.connection, self._id, self._revision)
            self.read_again()

    def forget(self, rater_id: str) -> Forgotten:
        """Deletes a rater and everything that the rater saw and answered."""
        self.flush()
        row = rater_row(self.connection, self._id, rater_id)
        own = shown_to(self._id, rater_id)
        self.execute(insert(erasures), [{"study": self._id, "rater": rater_id}])
        tokens = select(shows.c.token).where(own)
        answers = self.connection.execute(delete(votes).where(votes.c.show.in_(tokens))).rowcount
        seen = self.connection.execute(delete(shows).where(own)).rowcount
        self.connection.execute(delete(raters).where(is_rater(self._id, rater_id)))
        self.connection.execute(delete(erasures))
        recount(self.connection, self._id, self._revision)
        self.read_again()
        return Forgotten(rater=rater_id, label=row.label, shows=seen, answers=answers)

    def _mark(self, rater_id: str, **times: str | None) -> bool:
        """Sets or clears times of a rater, and says whether that changed anything; a time that is set stays."""
        row = rater_row(self.connection, self._id, rater_id)
        changes = {name: time for name, time in times.items() if (row._mapping[name] is None) != (time is None)}
        if changes:
            self.execute(update(raters).where(is_rater(self._id, rater_id)).values(**changes))
        return bool(changes)

    # Writing.

    def execute(self, statement: Executable, rows: Sequence[Mapping[str, Any]] | None = None) -> None:
        """Executes a statement that writes, after everything that was decided before it."""
        self.flush()
        self._written = True
        self.connection.execute(statement, rows)

    def read_again(self) -> None:
        """Lets this process and all others read everything again: more has changed than rows tell."""
        self.flush()
        of_study = studies.c.id == self._id
        self.connection.execute(update(studies).where(of_study).values(cleared=self._revision))
        self._written = True
        self._ledger.clear()
        self._ledger.follow(self.connection, self._revision, 0, held_after=as_text(self._time - HOLD))

    def flush(self) -> None:
        """Writes what was decided."""
        revision: dict[str, Any] = {"revision": self._revision}
        counted: list[dict[str, Any]] = []
        for unit in self._units:
            number, flipped = self._ledger.answered(unit)
            key = {"study": self._id, "group": unit[0], "members": text_of(unit[1])}
            counted.append(key | {"raters": number, "flipped": flipped} | revision)
        for bulk, rows in (
            (_NEW_GROUPS, [row | revision for row in self._groups]),
            (_NEW_SHOWS, [row | revision for row in self._shows]),
            (_NEW_VOTES, self._votes),
            (_HELD, [{"token": token, "held_at": time} | revision for token, time in self._holds.items()]),
            (_ANSWERED, [{"token": token, "last_key": key} | revision for token, key in self._answers.items()]),
            (_COUNTED, counted),
        ):
            bulk.execute(self.connection, rows)
            self._written = self._written or bool(rows)
        self._groups, self._shows, self._votes = [], [], []
        self._answers, self._holds, self._units = {}, {}, set()

    def finish(self) -> int:
        """Writes what was decided, and the study's revision if there was anything.

        Returns:
            The revision that holds from the commit on.
        """
        self.flush()
        if not self._written:
            return self._revision - 1
        of_study = studies.c.id == self._id
        self.connection.execute(update(studies).where(of_study).values(revision=self._revision))
        return self._revision


def _require_key(key: str) -> None:
    if not 0 < len(key) <= LONGEST_KEY:
        raise NotOffered(f"the key of an answer has 1 to {LONGEST_KEY} characters, not {len(key)}")
    if not is_storable(key):
        raise NotOffered("the key of an answer has characters that cannot be stored")


def _row_of(show: Show) -> dict[str, Any]:
    values = dict(vars(show))
    order = values.pop("order")
    return {**values, "places": text_of(order), "members": text_of(show.members)}

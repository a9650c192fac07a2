"""What raters were shown and what they answered, stored so that no acknowledged answer is lost.

Every change is one transaction, which is on the disk before the call returns (SQLite: write-ahead log, synchronous
FULL, BEGIN IMMEDIATE; PostgreSQL: synchronous commit and a lock on the study's row). Two tabs, threads or processes
that ask at the same time get the same show, and no pair gets more raters than it should have.

A show that stays open for an hour frees its place for somebody else. An answer that arrives later still counts: only
this, or going back to a skipped pair, can give a pair one rater too many.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, insert, or_, select, update

from seedpo.study.assignment import Proposal, next_show, total
from seedpo.study.database import Database
from seedpo.study.errors import LinkEnded, NoConsent, NotOffered, NotShown, StoreError, UnknownRater
from seedpo.study.folder import Study, refreshed
from seedpo.study.records import Answer, Group, Judgement, Rater, Show, Side, judge
from seedpo.study.registration import Registration, read_registrations, record_aim
from seedpo.study.tables import (
    as_text,
    have_tables,
    indices_of,
    lock_study,
    no_tables,
    prepare_tables,
    raters,
    recognized,
    record_group,
    register,
    shows,
    text_of,
    votes,
)
from seedpo.study.tally import Tallies, Tally, of_rater, recount

__all__ = ["LinkEnded", "NoConsent", "NotOffered", "NotShown", "Progress", "Store", "StoreError"]

HOLD = timedelta(hours=1)
"""How long an open show keeps its place."""

LONGEST_KEY = 200

logger = logging.getLogger(__name__)

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


def _utc() -> datetime:
    return datetime.now(UTC)


class Store:
    """The votes of one study. Any number of threads may use it, and several studies may share a database.

    ``study`` always includes the groups that were appended to the folder meanwhile. Methods raise
    :class:`~seedpo.study.errors.StoreError` if the database cannot be used or there is no such rater.
    """

    def __init__(self, study: Study, database: Database, clock: Callable[[], datetime]) -> None:
        self._study = study
        self._id = study.settings.id
        self._database = database
        self._clock = clock
        self._tallies = Tallies(self._id)
        self._refreshing = threading.Lock()

    @classmethod
    def open(
        cls, study: Study, url: str | None = None, *, write: bool = True, clock: Callable[[], datetime] = _utc
    ) -> Store:
        """Opens the votes of a study.

        Args:
            study: whose votes.
            url: of the database, in SQLAlchemy's form; `None`: the study's own.
            write: make the tables if they do not exist. Otherwise nothing is created or changed, whatever happens, and
                a study without a database has no votes. A warning names a database of ``study.yaml`` that is outside
                the study's folder: the folder may be somebody else's.
            clock: gives the time in UTC.

        Raises:
            StoreError: the database cannot be used, has another version, or holds another study of the same id; or a
                group changed after it was shown.
        """
        database = Database(study.database_url if url is None else url, write=write)
        store = cls(study, database, clock)
        try:
            if write:
                with database.writing() as connection:
                    prepare_tables(connection)
                    store._study = register(connection, study)
                    record_aim(connection, study, clock())
            else:
                if url is None and database.is_outside(study.folder):
                    logger.warning("%s: its votes are read from %s, as study.yaml says", study.folder, database.name)
                with store._reading() as connection:
                    store._study = recognized(connection, study)
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Closes the connections; leaving a ``with`` block does the same."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def study(self) -> Study:
        """The study with all groups that its folder has now.

        Raises:
            DataError: groups were edited, or new ones are not valid.
        """
        with self._refreshing:
            self._study = refreshed(self._study)
        return self._study

    @property
    def known_study(self) -> Study:
        """The study as it was read last, without a look at its folder."""
        return self._study

    # Raters.

    def add_rater(self, label: str = "", *, days: float | None = None) -> tuple[str, str]:
        """Adds a rater.

        Args:
            label: a note of the study's owner; raters never see it.
            days: after which the link ends; `None`: never.

        Returns:
            The pseudonymous id, and the token of the personal link. Only a hash of the token is stored.

        Raises:
            StoreError: a link cannot last so long, or the database cannot be used.
        """
        return self.add_raters([label], days=days)[0]

    def add_raters(self, labels: Sequence[str], *, days: float | None = None) -> list[tuple[str, str]]:
        """Adds several raters, all or none; see :meth:`add_rater`."""
        now = self._clock()
        try:
            end = None if days is None else as_text(now + timedelta(days=days))
        except (OverflowError, ValueError) as error:
            raise StoreError(f"a link cannot last {days} days; without days it never ends") from error
        pairs = [(f"r{secrets.token_hex(8)}", secrets.token_urlsafe(32)) for _ in labels]
        common = {"study": self._id, "created_at": as_text(now), "expires_at": end}
        rows = [
            {"id": name, "token_hash": _token_hash(token), "label": label, **common}
            for (name, token), label in zip(pairs, labels, strict=True)
        ]
        if rows:
            with self._database.writing() as connection:
                connection.execute(insert(raters), rows)
        return pairs

    def rater(self, token: str) -> Rater | None:
        """The rater with this personal link; `None` if this study has none."""
        query = select(raters).where(raters.c.study == self._id, raters.c.token_hash == _token_hash(token))
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else _rater_of(row, now=self._now())

    def raters(self) -> list[Rater]:
        """All raters in the order in which they were made."""
        query = select(raters).where(raters.c.study == self._id).order_by(raters.c.created_at, raters.c.id)
        with self._reading() as connection:
            return [_rater_of(row, now=self._now()) for row in connection.execute(query)]

    def consent(self, rater_id: str) -> None:
        """Stores that a rater agreed to the study's text."""
        with self._database.writing() as connection:
            self._mark(connection, rater_id, consented_at=self._now())

    def revoke(self, rater_id: str) -> None:
        """Ends a rater's link. Answers stay; an open show frees its place."""
        with self._database.writing() as connection:
            lock_study(connection, self._study)
            self._mark(connection, rater_id, revoked_at=self._now())
            open_shows = update(shows).where(self._of(rater_id), shows.c.last_vote.is_(None))
            connection.execute(open_shows.values(held_at=None))

    def exclude(self, rater_id: str, excluded: bool = True) -> None:
        """Leaves a rater's answers out of counts, analyses and exports, or includes them again; they stay stored."""
        with self._database.writing() as connection:
            revision = lock_study(connection, self._study)
            if self._mark(connection, rater_id, excluded_at=self._now() if excluded else None):
                seen = select(shows.c.group, shows.c.members).where(self._of(rater_id)).distinct()
                units = [(row.group, indices_of(row.members)) for row in connection.execute(seen)]
                recount(connection, self._id, revision, units)

    # Shows and votes.

    def next(self, rater_id: str) -> Show | None:
        """What a rater judges next: the open show, or else a new one, which is stored before this returns.

        Returns:
            The show; `None` if nothing is left for the rater.

        Raises:
            LinkEnded, NoConsent: the rater may not continue.
            StoreError: the database cannot be used.
        """
        study = self.study
        with self._reading() as connection:
            self._require_allowed(connection, rater_id)
            last = self._last_show(connection, rater_id)
            if last is not None and last.last_vote is None and self._held(last, HOLD / 2):
                return _show_of(last)
        with self._database.writing() as connection:
            lock_study(connection, self._study)
            self._require_allowed(connection, rater_id)
            last = self._last_show(connection, rater_id)  # another tab may have been faster
            tally = self._tally(connection)
            if last is not None and last.last_vote is None and self._keeps_place(last, tally):
                if not self._held(last, HOLD / 2):
                    same_show = update(shows).where(shows.c.token == last.token)
                    connection.execute(same_show.values(held_at=self._now()))
                return _show_of(last)
            own, turn = self._own(connection, rater_id), self._turn(connection, rater_id)
            token = secrets.token_urlsafe(18)
            proposal = next_show(study, own, tally.counts, tally.flips, rater=rater_id, turn=turn, token=token)
            if proposal is None:
                return None
            show = Show(
                token=token,
                rater=rater_id,
                number=0 if last is None else last.number + 1,
                **vars(proposal),
            )
            record_group(connection, self._study, self._group(show.group))
            now = self._now()
            connection.execute(insert(shows).values(study=self._id, shown_at=now, held_at=now, **_row_of(show)))
            return show

    def upcoming(self, rater_id: str) -> list[Proposal]:
        """What :meth:`next` will probably give after the open show, so that the page can load images ahead of time.

        Nothing is stored or promised: others may answer meanwhile. In a knockout there are two possibilities.
        """
        study = self.study
        with self._reading() as connection:
            last = self._last_show(connection, rater_id)
            if last is None or last.last_vote is not None:
                return []
            own, tally = self._own(connection, rater_id), self._tally(connection)
            turn = self._turn(connection, rater_id)
        group = self._group(last.group)
        futures = ([*own, judge(_show_of(last), group, answer)] for answer in _DECISIONS)
        proposals = [
            next_show(study, future, tally.counts, tally.flips, rater=rater_id, turn=turn, token="")
            for future in futures
        ]
        return list(dict.fromkeys(proposal for proposal in proposals if proposal is not None))

    def vote(
        self,
        rater_id: str,
        token: str,
        side: Side,
        *,
        key: str,
        seconds: float | None = None,
        best: int | None = None,
        worst: int | None = None,
    ) -> Literal["saved", "known"]:
        """Adds an answer; it is on the disk when this returns. All answers to a show stay, the last one counts.

        Args:
            rater_id: who answers.
            token: of the show.
            side: the answer.
            key: the page makes one for each answer: an answer counts once, however often it arrives.
            seconds: between display and answer; negative or infinite values are not stored.
            best, worst: places on the screen from 0, with the answer ``ranked``; `None` with all others.

        Returns:
            ``"saved"``, or ``"known"`` if this answer had arrived before.

        Raises:
            NotShown: this rater never saw such a show.
            NotOffered: the question does not offer that answer, or the key does not have 1 to 200 characters.
            LinkEnded, NoConsent: the rater may not vote.
            StoreError: the answer is not stored; it is safe to send it again with the same key.
        """
        if not 0 < len(key) <= LONGEST_KEY:
            raise NotOffered(f"the key of an answer has 1 to {LONGEST_KEY} characters, not {len(key)}")
        with self._database.writing() as connection:
            revision = lock_study(connection, self._study)
            self._require_allowed(connection, rater_id)
            row = self._shown(connection, rater_id, token)
            same_answer = (votes.c.show == token) & (votes.c.key == key)
            if connection.execute(select(votes.c.id).where(same_answer)).first() is not None:
                return "known"
            group, show = self._group(row.group), _show_of(row)
            choices = self._study.question(group.question).choices
            if side not in choices:
                raise NotOffered(f"question {group.question!r} offers {', '.join(choices)}, not {side!r}")
            places = () if best is None and worst is None else (best, worst)
            if not show.fits(side, places):
                raise NotOffered(f"'ranked' alone comes with two different places below {len(show.order)}: best, worst")
            values = {
                "show": token,
                "key": key,
                "answer": show.answer(side),
                "best": show.candidate(best),
                "worst": show.candidate(worst),
                "seconds": seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None,
                "at": self._now(),
            }
            number = connection.execute(insert(votes).values(**values).returning(votes.c.id)).scalar_one()
            connection.execute(update(shows).where(shows.c.token == token).values(last_vote=number))
            if show.repeat_of is None and group.expected is None:
                recount(connection, self._id, revision, [show.unit])
        return "saved"

    def shows(self, rater_id: str) -> list[Show]:
        """All shows of a rater, the latest first."""
        query = select(shows).where(self._of(rater_id)).order_by(shows.c.number.desc())
        with self._reading() as connection:
            return [_show_of(row) for row in connection.execute(query)]

    def previous(self, rater_id: str, before: str | None = None) -> Show | None:
        """The answered show before another one, or the last one; for going back.

        Raises:
            NotShown: this rater never saw the show ``before``.
        """
        with self._reading() as connection:
            answered = select(shows).where(self._of(rater_id), shows.c.last_vote.is_not(None))
            if before is not None:
                answered = answered.where(shows.c.number < self._shown(connection, rater_id, before).number)
            row = connection.execute(answered.order_by(shows.c.number.desc()).limit(1)).first()
        return None if row is None else _show_of(row)

    # Figures.

    def judgements(self, *, excluded: bool = False) -> list[Judgement]:
        """All answered shows with the answers that count, in the order of these answers.

        Args:
            excluded: include the answers of excluded raters.
        """
        query = self._judged()
        if not excluded:
            query = query.join(raters, of_rater).where(raters.c.excluded_at.is_(None))
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return self._judgements(rows)

    def registrations(self) -> list[Registration]:
        """What the study was made to answer, and each later change, the oldest first."""
        with self._reading() as connection:
            return read_registrations(connection, self._id)

    def progress(self, rater_id: str) -> Progress:
        """How far a rater is."""
        study = self.study
        with self._reading() as connection:
            own, tally = self._own(connection, rater_id), self._tally(connection)
            last = self._last_show(connection, rater_id)
        counts = dict(tally.counts)
        if last is not None and last.last_vote is None and self._held(last, HOLD) and last.repeat_of is None:
            counts[last.group, indices_of(last.members)] -= 1  # the rater's own open show is still to do
        return Progress(done=len(own), total=total(study, own, counts, rater=rater_id))

    # Parts of transactions.

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.reading() as connection:
            if self._database.write or have_tables(connection):
                yield connection
            else:
                with no_tables() as empty:
                    yield empty

    def _group(self, name: str) -> Group:
        if name not in self._study.by_id and name not in self.study.by_id:
            raise StoreError(f"{self._study.folder}: group {name!r} was shown to raters and is not in groups.jsonl")
        return self._study.by_id[name]

    def _rater_row(self, connection: Connection, rater_id: str) -> Row[Any]:
        row = connection.execute(select(raters).where(self._is(rater_id))).first()
        if row is None:
            raise UnknownRater(f"the study has no rater {rater_id!r}; the admin page lists them")
        return row

    def _mark(self, connection: Connection, rater_id: str, **times: str | None) -> bool:
        """Sets or clears times of a rater, and says whether that changed anything; a time that is set stays."""
        row = self._rater_row(connection, rater_id)._mapping
        changes = {column: time for column, time in times.items() if (row[column] is None) != (time is None)}
        if changes:
            connection.execute(update(raters).where(self._is(rater_id)).values(**changes))
        return bool(changes)

    def _turn(self, connection: Connection, rater_id: str) -> int:
        """How many raters precede this one in :meth:`raters`; 0 without a query if no order of blocks needs it."""
        if self._study.settings.order == "mixed":
            return 0
        row = self._rater_row(connection, rater_id)
        same_time = and_(raters.c.created_at == row.created_at, raters.c.id < rater_id)
        earlier = or_(raters.c.created_at < row.created_at, same_time)
        query = select(func.count()).where(raters.c.study == self._id, earlier)
        return connection.execute(query).scalar_one()

    def _is(self, rater_id: str) -> ColumnElement[bool]:
        """The condition for the row of a rater."""
        return (raters.c.study == self._id) & (raters.c.id == rater_id)

    def _of(self, rater_id: str) -> ColumnElement[bool]:
        """The condition for all shows of a rater."""
        return (shows.c.study == self._id) & (shows.c.rater == rater_id)

    def _judged(self) -> Select[Any]:
        """All answered shows, each with the vote that counts, in the order of these votes."""
        return (
            select(shows, votes.c.answer, votes.c.best, votes.c.worst, votes.c.seconds, votes.c.at)
            .join(votes, votes.c.id == shows.c.last_vote)
            .where(shows.c.study == self._id)
            .order_by(votes.c.id)
        )

    def _judgements(self, rows: Iterable[Row[Any]]) -> list[Judgement]:
        return [
            judge(
                _show_of(row),
                self._group(row.group),
                row.answer,
                best=row.best,
                worst=row.worst,
                seconds=row.seconds,
                at=row.at,
            )
            for row in rows
        ]

    def _own(self, connection: Connection, rater_id: str) -> list[Judgement]:
        return self._judgements(connection.execute(self._judged().where(shows.c.rater == rater_id)))

    def _tally(self, connection: Connection) -> Tally:
        return self._tallies.read(connection, held_after=as_text(self._clock() - HOLD))

    def _keeps_place(self, last: Row[Any], tally: Tally) -> bool:
        """Whether an open show still belongs to the rater: it is held, or its place is still free."""
        if self._held(last, HOLD) or last.repeat_of is not None or self._group(last.group).expected is not None:
            return True
        count = tally.counts.get((last.group, indices_of(last.members)), 0)
        return count < self._study.settings.raters_per_pair

    def _held(self, row: Row[Any], span: timedelta) -> bool:
        return row.held_at is not None and row.held_at > as_text(self._clock() - span)

    def _last_show(self, connection: Connection, rater_id: str) -> Row[Any] | None:
        query = select(shows).where(self._of(rater_id)).order_by(shows.c.number.desc()).limit(1)
        return connection.execute(query).first()

    def _shown(self, connection: Connection, rater_id: str, token: str) -> Row[Any]:
        row = connection.execute(select(shows).where(self._of(rater_id), shows.c.token == token)).first()
        if row is None:
            raise NotShown("this pair was never shown to this rater; load the page again")
        return row

    def _require_allowed(self, connection: Connection, rater_id: str) -> None:
        rater = _rater_of(self._rater_row(connection, rater_id), now=self._now())
        if rater.revoked or rater.expired:
            raise LinkEnded("this link has ended; ask whoever sent it for a new one")
        if self._study.settings.asks_consent and not rater.consented:
            raise NoConsent("the study asks for consent first; load the page again")

    def _now(self) -> str:
        return as_text(self._clock())


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _rater_of(row: Row[Any], *, now: str) -> Rater:
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


def _show_of(row: Row[Any]) -> Show:
    names = ("token", "rater", "group", "number", "repeat_of")
    return Show(order=indices_of(row.places), **{name: getattr(row, name) for name in names})


def _row_of(show: Show) -> dict[str, Any]:
    values = dict(vars(show))
    order = values.pop("order")
    return {**values, "places": text_of(order), "members": text_of(show.members)}

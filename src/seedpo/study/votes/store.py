"""What raters were shown and what they answered, stored so that no acknowledged answer is lost.

Every change is on the disk before the call returns (SQLite: write-ahead log, synchronous FULL, BEGIN IMMEDIATE;
PostgreSQL: synchronous commit and a lock on the study's row). What several threads ask for at the same time becomes one
transaction. Two tabs, threads or processes that ask at the same time get the same show, and no pair gets more raters
than it should have.

A show that stays open for an hour frees its place for somebody else. An answer that arrives later still counts: only
this, or going back to a skipped pair, can give a pair one rater too many.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select

from seedpo.errors import SeedpoError
from seedpo.study.errors import NotShown, StoreError
from seedpo.study.folder import Study, refreshed
from seedpo.study.records import Judgement, Rater, Show, Side
from seedpo.study.votes.book import HOLD, Book, Forgotten, Turn
from seedpo.study.votes.commits import Commits
from seedpo.study.votes.database import ERRORS, Database
from seedpo.study.votes.figures import Figures, attention, page_of_votes, read_figures, widest_view
from seedpo.study.votes.ledger import (
    ANSWER,
    Ledger,
    counted_vote,
    group_of,
    judgement_of,
    of_rater,
    rater_of,
    show_of,
    shown_to,
)
from seedpo.study.votes.registration import Registration, read_registrations, record_aim
from seedpo.study.votes.tables import (
    as_text,
    have_tables,
    is_storable,
    lock_study,
    no_tables,
    prepare_tables,
    raters,
    recognized,
    register,
    shows,
    votes,
)

logger = logging.getLogger(__name__)


def _utc() -> datetime:
    return datetime.now(UTC)


class Store:
    """The votes of one study. Any number of threads may use it, and several studies may share a database.

    ``study`` always includes the groups that were appended to the folder meanwhile. Methods raise
    :class:`~seedpo.study.errors.StoreError` if the database cannot be used, and
    :class:`~seedpo.study.errors.UnknownRater` if there is no such rater. Methods whose names end in ``_soon`` give a
    future at once; it is done when the change is on the disk.
    """

    def __init__(self, study: Study, database: Database, clock: Callable[[], datetime]) -> None:
        self._study = study
        self._id = study.settings.id
        self._database = database
        self._clock = clock
        self._ledger = Ledger(self._id)
        self._commits = Commits(self._transaction, fatal=ERRORS)
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
                    _warn_of_elsewhere(study.folder, database.name)
                with store._reading() as connection:
                    store._study = recognized(connection, study)
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Finishes what was asked for and closes the connections; leaving a ``with`` block does the same."""
        self._commits.close()
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
        if not all(map(is_storable, labels)):
            raise StoreError("a label has characters that cannot be stored; use letters, digits and signs")
        if rows:
            self._commits.submit(lambda book: book.add_raters(rows)).result()
        return pairs

    def rater(self, token: str) -> Rater | None:
        """The rater with this personal link; `None` if this study has none."""
        query = select(raters).where(raters.c.study == self._id, raters.c.token_hash == _token_hash(token))
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else rater_of(row, now=self._now())

    def raters(self) -> list[Rater]:
        """All raters in the order in which they were made."""
        query = select(raters).where(raters.c.study == self._id).order_by(raters.c.turn)
        with self._reading() as connection:
            return [rater_of(row, now=self._now()) for row in connection.execute(query)]

    def consent(self, rater_id: str) -> None:
        """Stores that a rater agreed to the study's text."""
        self.consent_soon(rater_id).result()

    def consent_soon(self, rater_id: str) -> Future[None]:
        """See :meth:`consent`."""
        return self._commits.submit(lambda book: book.consent(rater_id))

    def revoke(self, rater_id: str) -> None:
        """Ends a rater's link. Answers stay; an open show frees its place."""
        self._commits.submit(lambda book: book.revoke(rater_id)).result()

    def exclude(self, rater_id: str, excluded: bool = True) -> None:
        """Leaves a rater's answers out of counts, analyses and exports, or includes them again; they stay stored."""
        self._commits.submit(lambda book: book.exclude(rater_id, excluded)).result()

    def forget(self, rater_id: str) -> Forgotten:
        """Deletes a rater with the label, the link, all shows and all answers; nothing else deletes answers.

        Copies that were made before (backups, exports, analyses) still hold them. Call :meth:`wipe` afterwards.
        """
        return self._commits.submit(lambda book: book.forget(rater_id)).result()

    def wipe(self) -> bool:
        """Overwrites what was deleted in the database's files; see :meth:`Database.wipe`."""
        return self._database.wipe([table.name for table in (votes, shows, raters)])

    # Shows and votes.

    def turn(self, rater_id: str) -> Turn:
        """What a rater's page shows now: the open show, or else a new one, which is stored before this returns.

        Raises:
            LinkEnded, NoConsent: the rater may not continue.
            StoreError: the database cannot be used.
        """
        return self.turn_soon(rater_id).result()

    def turn_soon(self, rater_id: str) -> Future[Turn]:
        """See :meth:`turn`."""
        return self._commits.submit(lambda book: book.turn(rater_id))

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
    ) -> Turn:
        """Adds an answer, and gives what comes next. All answers to a show stay, the last one counts.

        Args:
            rater_id: who answers.
            token: of the show.
            side: the answer.
            key: the page makes one for each answer: an answer counts once, however often it arrives.
            seconds: between display and answer; negative or infinite values are not stored.
            best, worst: places on the screen from 0, with the answer ``ranked``; `None` with all others.

        Raises:
            NotShown: this rater never saw such a show.
            NotOffered: the question does not offer that answer, or the key does not have 1 to 200 characters.
            LinkEnded, NoConsent: the rater may not vote.
            StoreError: whether the answer is stored is not known; it is safe to send it again with the same key.
        """
        return self.vote_soon(rater_id, token, side, key=key, seconds=seconds, best=best, worst=worst).result()

    def vote_soon(
        self,
        rater_id: str,
        token: str,
        side: Side,
        *,
        key: str,
        seconds: float | None = None,
        best: int | None = None,
        worst: int | None = None,
    ) -> Future[Turn]:
        """See :meth:`vote`."""

        def work(book: Book) -> Turn:
            saved = book.vote(rater_id, token, side, key=key, seconds=seconds, best=best, worst=worst)
            # Where nothing can be shown next, this refuses: the answer is stored all the same.
            return replace(book.turn(rater_id), saved=saved)

        return self._commits.submit(work)

    def shows(self, rater_id: str) -> list[Show]:
        """All shows of a rater, the latest first."""
        query = select(shows).where(shown_to(self._id, rater_id)).order_by(shows.c.number.desc())
        with self._reading() as connection:
            return [show_of(row) for row in connection.execute(query)]

    def previous(self, rater_id: str, before: str | None = None) -> Show | None:
        """The answered show before another one, or the last one; for going back.

        Raises:
            NotShown: this rater never saw the show ``before``.
        """
        own = shown_to(self._id, rater_id)
        answered = select(shows).where(own, shows.c.last_key.is_not(None))
        with self._reading() as connection:
            if before is not None:
                number = connection.execute(select(shows.c.number).where(own, shows.c.token == before)).scalar()
                if number is None:
                    raise NotShown("this was never shown to this rater; load the page again")
                answered = answered.where(shows.c.number < number)
            row = connection.execute(answered.order_by(shows.c.number.desc()).limit(1)).first()
        return None if row is None else show_of(row)

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

    def pages(self, *, number: int = 2000) -> Iterator[list[Judgement]]:
        """The judgements of now, in pages that are read when they are asked for. Answers that come later are left out.

        Args:
            number: of judgements on a page.
        """
        with self._reading() as connection:
            newest = connection.execute(select(func.max(votes.c.id))).scalar() or 0
        last = 0
        while True:
            with self._reading() as connection:
                query = page_of_votes(self._id, after=last, newest=newest, number=number)
                rows = connection.execute(query).all()
            if not rows:
                return
            last = rows[-1].vote
            yield self._judgements(rows)

    def widest_view(self) -> int:
        """Candidates in one view at most; 0 if nothing was shown."""
        with self._reading() as connection:
            return widest_view(connection, self._id)

    def figures(self) -> Figures:
        """What the database counts about all answers."""
        with self._reading() as connection:
            return read_figures(connection, self._id)

    def attention(self) -> list[Judgement]:
        """Answers to attention checks and repetitions, and those that are repeated; of excluded raters too."""
        checks = [group.id for group in self.study.groups if group.expected is not None]
        with self._reading() as connection:
            rows = [row for query in attention(self._judged(), self._id, checks) for row in connection.execute(query)]
        return self._judgements(rows)

    def registrations(self) -> list[Registration]:
        """What the study was made to answer, and each later change, the oldest first."""
        with self._reading() as connection:
            return read_registrations(connection, self._id)

    # Parts of transactions.

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._database.reading() as connection:
            if self._database.write or have_tables(connection):
                yield connection
            else:
                with no_tables() as empty:
                    yield empty

    @contextmanager
    def _transaction(self) -> Iterator[Book]:
        """A transaction that has locked the study's row; what is decided in it is on the disk when the block ends."""
        trouble: SeedpoError | None = None
        try:
            study = self.study
        except SeedpoError as error:
            study, trouble = self._study, error
        try:
            with self._database.writing() as connection:
                revision, cleared = lock_study(connection, study)
                now = self._clock()
                self._ledger.follow(connection, revision, cleared, held_after=as_text(now - HOLD))
                book = Book(connection, study, self._ledger, revision=revision, now=now, trouble=trouble)
                yield book
                revision = book.finish()
            self._ledger.revision = revision
        except BaseException:
            self._ledger.clear()
            raise

    def _judged(self) -> Select[Any]:
        """All answered shows, each with the vote that counts, in the order of these votes."""
        return select(shows, *ANSWER).join(votes, counted_vote).where(shows.c.study == self._id).order_by(votes.c.id)

    def _judgements(self, rows: Iterable[Row[Any]]) -> list[Judgement]:
        return [judgement_of(row, group_of(self._with_group(row.group), row.group)) for row in rows]

    def _with_group(self, name: str) -> Study:
        """The study; read again if it lacks a group."""
        return self._study if name in self._study.by_id else self.study

    def _now(self) -> str:
        return as_text(self._clock())


@lru_cache(maxsize=1000)  # once: training opens the votes again and again
def _warn_of_elsewhere(folder: Path, name: str) -> None:
    logger.warning("%s: its votes are read from %s, as study.yaml says", folder, name)


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()

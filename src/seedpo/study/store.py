"""What raters were shown and what they answered, kept so that nothing acknowledged is ever lost.

Every change is one transaction, which is on the disk before the call returns (SQLite: write-ahead log, synchronous
FULL, BEGIN IMMEDIATE; PostgreSQL: synchronous commit and a lock on the study's row), so that two tabs, threads or
processes that ask at the same time are given the same show, and no pair more raters than it shall have.

A show that stays open for an hour frees its place for somebody else. An answer that comes later still counts: only so,
or by going back to a skipped pair, can a pair get one rater more than it shall have.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update

from seedpo.study.assignment import Proposal, next_show, total
from seedpo.study.claims import claim, keep_group, register
from seedpo.study.database import Database
from seedpo.study.enrolment import add_raters, all_raters, find_rater, mark, require_allowed, turn_of
from seedpo.study.folder import Study, refreshed
from seedpo.study.records import Answer, Group, Judgement, Show, Side
from seedpo.study.store_errors import LinkEnded, NoConsent, NotOffered, NotShown, StoreError
from seedpo.study.store_records import Progress, Rater, RaterFigures
from seedpo.study.store_rows import as_text, figures, judgements_of, select_judged, select_of_kept_raters, show_of
from seedpo.study.tables import prepare_tables, shows, votes
from seedpo.study.tally import Tallies, Tally, recount

__all__ = [
    "LinkEnded",
    "NoConsent",
    "NotOffered",
    "NotShown",
    "Progress",
    "Rater",
    "RaterFigures",
    "Store",
    "StoreError",
]

HOLD = timedelta(hours=1)
"""How long an open show keeps its place."""

LONGEST_KEY = 200

_DECISIONS: tuple[Answer, ...] = ("first", "second")


def _utc() -> datetime:
    return datetime.now(UTC)


class Store:
    """The votes of one study; any number of threads may use it. Several studies may share a database.

    Groups that are appended to the folder meanwhile are noticed: ``study`` is the study as it is now.
    """

    def __init__(self, study: Study, database: Database, clock: Callable[[], datetime]) -> None:
        self._study = study
        self._id = study.settings.id
        self._database = database
        self._clock = clock
        self._tallies = Tallies(self._id)
        self._refreshing = threading.Lock()

    @classmethod
    def open(cls, study: Study, url: str | None = None, *, clock: Callable[[], datetime] = _utc) -> Store:
        """Opens the votes of a study; makes the tables where there are none.

        Args:
            study: whose votes.
            url: of the database, as SQLAlchemy writes it; none: what the study says.
            clock: says what time it is, in UTC.

        Raises:
            StoreError: the database cannot be used, is of another version, or holds another study of the same id, or
                a group was changed after it had been shown.
        """
        database = Database(study.database_url if url is None else url)
        store = cls(study, database, clock)
        try:
            with database.writing() as connection:
                prepare_tables(connection)
                store._study = register(connection, study)
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Gives the connections back."""
        self._database.close()

    @property
    def study(self) -> Study:
        """The study with all groups that its folder has now.

        Raises:
            DataError: if groups were edited or new ones cannot be used.
        """
        with self._refreshing:
            self._study = refreshed(self._study)
        return self._study

    # Raters.

    def add_rater(self, label: str = "", *, days: float | None = None) -> tuple[str, str]:
        """A new rater.

        Args:
            label: a note of the study's owner; raters never see it.
            days: after which the link ends; none: never.

        Returns:
            The pseudonymous id, and the token of the personal link, of which only a hash is kept.
        """
        return self.add_raters([label], days=days)[0]

    def add_raters(self, labels: Sequence[str], *, days: float | None = None) -> list[tuple[str, str]]:
        """New raters, all or none, as :meth:`add_rater` makes one."""
        with self._database.writing() as connection:
            return add_raters(connection, self._id, labels, now=self._clock(), days=days)

    def rater(self, token: str) -> Rater | None:
        """Whose personal link this is; none: nobody's of this study."""
        with self._database.reading() as connection:
            return find_rater(connection, self._id, token, now=self._now())

    def raters(self) -> list[Rater]:
        """All raters in the order in which they were made."""
        with self._database.reading() as connection:
            return all_raters(connection, self._id, now=self._now())

    def consent(self, rater_id: str) -> None:
        """Keeps that a rater agreed to the study's text.

        Raises:
            StoreError: there is no such rater.
        """
        with self._database.writing() as connection:
            mark(connection, self._id, rater_id, {"consented_at": self._now()})

    def revoke(self, rater_id: str) -> None:
        """Ends a rater's link; answers stay, an open show frees its place.

        Raises:
            StoreError: there is no such rater.
        """
        theirs = (shows.c.study == self._id) & (shows.c.rater == rater_id)
        with self._database.writing() as connection:
            claim(connection, self._study)
            mark(connection, self._id, rater_id, {"revoked_at": self._now()})
            connection.execute(update(shows).where(theirs, shows.c.last_vote.is_(None)).values(held_at=None))

    def exclude(self, rater_id: str, excluded: bool = True) -> None:
        """Leaves a rater's answers out of counts, analyses and exports, or takes them in again; they stay stored.

        Raises:
            StoreError: there is no such rater.
        """
        theirs = (shows.c.study == self._id) & (shows.c.rater == rater_id)
        with self._database.writing() as connection:
            revision = claim(connection, self._study)
            if mark(connection, self._id, rater_id, {"excluded_at": self._now() if excluded else None}):
                touched = select(shows.c.group, shows.c.first, shows.c.second).where(theirs).distinct()
                pairs = [(row.group, row.first, row.second) for row in connection.execute(touched)]
                recount(connection, self._id, revision, pairs)

    # Shows and votes.

    def next(self, rater_id: str) -> Show | None:
        """What a rater has to judge: the open show if there is one, else a new one, which is kept before this returns.

        Returns:
            The show; none if the rater is through.

        Raises:
            LinkEnded, NoConsent: the rater may not go on.
            StoreError: the database cannot be used.
        """
        study = self.study
        with self._database.reading() as connection:
            self._require_allowed(connection, rater_id)
            last = self._last_show(connection, rater_id)
            if last is not None and last.last_vote is None and self._held(last, HOLD / 2):
                return show_of(last)
        with self._database.writing() as connection:
            claim(connection, self._study)
            self._require_allowed(connection, rater_id)
            last = self._last_show(connection, rater_id)  # another tab may have been faster
            tally = self._tally(connection)
            if last is not None and last.last_vote is None and self._keeps(last, tally):
                if not self._held(last, HOLD / 2):
                    kept = update(shows).where(shows.c.token == last.token)
                    connection.execute(kept.values(held_at=self._now()))
                return show_of(last)
            own, turn = self._own(connection, rater_id), turn_of(connection, study, rater_id)
            proposal = next_show(study, own, tally.counts, rater=rater_id, turn=turn, flips=tally.flips)
            if proposal is None:
                return None
            show = Show(
                token=secrets.token_urlsafe(18),
                rater=rater_id,
                group=proposal.group,
                first=proposal.first,
                second=proposal.second,
                flipped=proposal.flipped,
                number=0 if last is None else last.number + 1,
                repeat_of=proposal.repeat_of,
            )
            self._keep(connection, show)
            return show

    def upcoming(self, rater_id: str) -> list[Proposal]:
        """What :meth:`next` is likely to give after the open show was answered, for loading images ahead of time.

        Nothing is kept or promised: others may answer meanwhile. Two where it depends on the answer (in a knockout).
        """
        study = self.study
        with self._database.reading() as connection:
            last = self._last_show(connection, rater_id)
            if last is None or last.last_vote is not None:
                return []
            own, tally = self._own(connection, rater_id), self._tally(connection)
            turn = turn_of(connection, study, rater_id)
        row, group = show_of(last), self._group(last.group)
        supposed = Judgement(
            show=row,
            question=group.question,
            prompt=group.prompt,
            category=group.category,
            first=group.candidates[row.first],
            second=group.candidates[row.second],
            answer="first",
        )
        after = ([*own, replace(supposed, answer=answer)] for answer in _DECISIONS)
        likely = (next_show(study, a, tally.counts, rater=rater_id, turn=turn, flips=tally.flips) for a in after)
        return list(dict.fromkeys(proposal for proposal in likely if proposal is not None))

    def vote(
        self, rater_id: str, token: str, side: Side, *, key: str, seconds: float | None = None
    ) -> Literal["saved", "known"]:
        """Adds an answer; when this returns it is on the disk.

        The last answer to a show counts; all of them stay.

        Args:
            rater_id: who answers.
            token: of the show.
            side: the answer.
            key: made by the page for each answer: the same answer counts once however often it arrives.
            seconds: between the display and the answer; what is no time (negative, not finite) is not kept.

        Returns:
            ``"saved"``, or ``"known"`` if this answer had arrived before.

        Raises:
            NotShown: this rater never had such a show.
            NotOffered: the question does not offer that answer, or the key is empty or longer than 200 characters.
            LinkEnded, NoConsent: the rater may not vote.
            StoreError: it could not be stored; sending it again with the same key is safe.
        """
        if not 0 < len(key) <= LONGEST_KEY:
            raise NotOffered(f"the key of an answer has 1 to {LONGEST_KEY} characters, not {len(key)}")
        with self._database.writing() as connection:
            revision = claim(connection, self._study)
            self._require_allowed(connection, rater_id)
            row = self._shown(connection, rater_id, token)
            same = (votes.c.show == token) & (votes.c.key == key)
            if connection.execute(select(votes.c.id).where(same)).first() is not None:
                return "known"
            group, show = self._group(row.group), show_of(row)
            offered = self._study.question(group.question).choices
            if side not in offered:
                raise NotOffered(f"question {group.question!r} offers {', '.join(offered)}, not {side!r}")
            values = {
                "show": token,
                "key": key,
                "answer": show.answer(side),
                "seconds": seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None,
                "at": self._now(),
            }
            number = connection.execute(insert(votes).values(**values).returning(votes.c.id)).scalar_one()
            connection.execute(update(shows).where(shows.c.token == token).values(last_vote=number))
            if show.repeat_of is None and group.expected is None:
                recount(connection, self._id, revision, [(show.group, show.first, show.second)])
        return "saved"

    def show(self, rater_id: str, token: str) -> Show:
        """A show of this rater.

        Raises:
            NotShown: this rater never had it.
        """
        with self._database.reading() as connection:
            return show_of(self._shown(connection, rater_id, token))

    def previous(self, rater_id: str, before: str | None = None) -> Show | None:
        """The answered show before another one, or the last one, for going back.

        Raises:
            NotShown: this rater never had the show ``before``.
        """
        with self._database.reading() as connection:
            answered = (shows.c.study == self._id) & (shows.c.rater == rater_id) & shows.c.last_vote.is_not(None)
            query = select(shows).where(answered).order_by(shows.c.number.desc()).limit(1)
            if before is not None:
                query = query.where(shows.c.number < self._shown(connection, rater_id, before).number)
            row = connection.execute(query).first()
        return None if row is None else show_of(row)

    # Figures.

    def judgements(self, *, excluded: bool = False) -> list[Judgement]:
        """All answered shows with the answer that counts, in the order of these answers.

        Args:
            excluded: whether answers of excluded raters are among them.
        """
        query = select_judged(self._id) if excluded else select_of_kept_raters(self._id)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return judgements_of(rows, self._group)

    def progress(self, rater_id: str) -> Progress:
        """How far a rater is."""
        study = self.study
        with self._database.reading() as connection:
            own, tally = self._own(connection, rater_id), self._tally(connection)
            last = self._last_show(connection, rater_id)
        counted = dict(tally.counts)
        if last is not None and last.last_vote is None and self._held(last, HOLD) and last.repeat_of is None:
            # The rater's own open show is still to be done.
            counted[last.group, last.first, last.second] -= 1
        return Progress(done=len(own), total=total(study, own, counted, rater=rater_id))

    def overview(self) -> list[RaterFigures]:
        """Figures of each rater, in the order in which they were made."""
        with self._database.reading() as connection:
            known = all_raters(connection, self._id, now=self._now())
            rows = connection.execute(select_judged(self._id)).all()
        return figures(known, judgements_of(rows, self._group))

    # Within transactions.

    def _keep(self, connection: Connection, show: Show) -> None:
        """Stores a new show."""
        keep_group(connection, self._study, self._group(show.group))
        values = {name: getattr(show, name) for name in show.__dataclass_fields__}
        now = self._now()
        connection.execute(insert(shows).values(study=self._id, shown_at=now, held_at=now, **values))

    def _group(self, name: str) -> Group:
        if name not in self._study.by_id and name not in self.study.by_id:
            raise StoreError(f"{self._study.folder}: group {name!r} was shown to raters and is not in groups.jsonl")
        return self._study.by_id[name]

    def _own(self, connection: Connection, rater_id: str) -> list[Judgement]:
        mine = select_judged(self._id).where(shows.c.rater == rater_id)
        return judgements_of(connection.execute(mine), self._group)

    def _tally(self, connection: Connection) -> Tally:
        return self._tallies.read(connection, held_after=as_text(self._clock() - HOLD))

    def _keeps(self, last: Row[Any], tally: Tally) -> bool:
        """Whether an open show is still the rater's: held, or its place is still free."""
        if self._held(last, HOLD) or last.repeat_of is not None or self._group(last.group).expected is not None:
            return True
        taken = tally.counts.get((last.group, last.first, last.second), 0)
        return taken < self._study.settings.raters_per_pair

    def _held(self, row: Row[Any], span: timedelta) -> bool:
        return row.held_at is not None and row.held_at > as_text(self._clock() - span)

    def _last_show(self, connection: Connection, rater_id: str) -> Row[Any] | None:
        mine = (shows.c.study == self._id) & (shows.c.rater == rater_id)
        return connection.execute(select(shows).where(mine).order_by(shows.c.number.desc()).limit(1)).first()

    def _shown(self, connection: Connection, rater_id: str, token: str) -> Row[Any]:
        mine = (shows.c.token == token) & (shows.c.study == self._id) & (shows.c.rater == rater_id)
        row = connection.execute(select(shows).where(mine)).first()
        if row is None:
            raise NotShown("this pair was never shown to this rater; load the page again")
        return row

    def _require_allowed(self, connection: Connection, rater_id: str) -> None:
        asked = bool(self._study.settings.consent.strip())
        require_allowed(connection, self._id, rater_id, consent=asked, now=self._now())

    def _now(self) -> str:
        return as_text(self._clock())

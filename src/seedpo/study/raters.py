"""Raters in the database: made, found by their links, marked, and what each has answered."""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from seedpo.study.errors import LinkEnded, NoConsent, StoreError
from seedpo.study.folder import Study
from seedpo.study.records import Judgement
from seedpo.study.tables import as_text, raters


@dataclass(frozen=True, kw_only=True)
class Rater:
    """A rater; nothing here says who the person is, unless the label does.

    Attributes:
        id: pseudonymous.
        label: the owner's note beside the link.
        consented: whether the rater agreed to the consent text.
        expired: whether the link's days are over.
        revoked: whether the owner ended the link.
        excluded: whether the answers are left out of counts, analyses and exports.
        created, expires: ISO 8601, UTC; ``expires`` is empty if the link never ends.
    """

    id: str
    label: str
    consented: bool
    expired: bool
    revoked: bool
    excluded: bool
    created: str
    expires: str


@dataclass(frozen=True, kw_only=True)
class RaterFigures:
    """One rater's line of the overview.

    Attributes:
        rater: the rater.
        answered: answered shows, checks and repetitions included.
        skipped: how many of them were answered with "skip".
        checks, checks_passed: answered attention checks, and those answered as expected.
        repeats, repeats_agreed: answered repetitions, and those answered as the first time.
        median_seconds: per answer; `None` if the page measured none.
        last: time of the last answer, ISO 8601, UTC; empty if there is none.
    """

    rater: Rater
    answered: int
    skipped: int
    checks: int
    checks_passed: int
    repeats: int
    repeats_agreed: int
    median_seconds: float | None
    last: str


def add_raters(
    connection: Connection, study: str, labels: Sequence[str], *, now: datetime, days: float | None
) -> list[tuple[str, str]]:
    """Adds one rater per label.

    Returns:
        The id of each, and the token of its link. The database holds only a hash of the token.

    Raises:
        StoreError: a link cannot last so long.
    """
    pairs = [(f"r{secrets.token_hex(8)}", secrets.token_urlsafe(32)) for _ in labels]
    common = {"study": study, "created_at": as_text(now), "expires_at": _end(now, days)}
    rows = [
        {"id": name, "token_hash": token_hash(token), "label": label, **common}
        for (name, token), label in zip(pairs, labels, strict=True)
    ]
    if rows:
        connection.execute(insert(raters), rows)
    return pairs


def find_rater(connection: Connection, study: str, token: str, *, now: str) -> Rater | None:
    """The rater with this link; `None` if the study has none."""
    by_token = (raters.c.study == study) & (raters.c.token_hash == token_hash(token))
    row = connection.execute(select(raters).where(by_token)).first()
    return None if row is None else rater_of(row, now=now)


def all_raters(connection: Connection, study: str, *, now: str) -> list[Rater]:
    """All raters of a study in the order in which they were made."""
    query = select(raters).where(raters.c.study == study).order_by(raters.c.created_at, raters.c.id)
    return [rater_of(row, now=now) for row in connection.execute(query)]


def turn_of(connection: Connection, study: Study, name: str) -> int:
    """How many raters precede this one in :func:`all_raters`; 0 without a query if no order of blocks needs it.

    Raises:
        StoreError: there is no such rater.
    """
    if study.settings.order == "mixed":
        return 0
    row = _row(connection, study.settings.id, name)
    same_time = and_(raters.c.created_at == row.created_at, raters.c.id < name)
    earlier = or_(raters.c.created_at < row.created_at, same_time)
    return connection.execute(select(func.count()).where(raters.c.study == row.study, earlier)).scalar_one()


def require_allowed(connection: Connection, study: Study, name: str, *, now: str) -> None:
    """Checks that a rater may continue.

    Raises:
        LinkEnded, NoConsent: the rater may not.
        StoreError: there is no such rater.
    """
    rater = rater_of(_row(connection, study.settings.id, name), now=now)
    if rater.revoked or rater.expired:
        raise LinkEnded("this link has ended; ask whoever sent it for a new one")
    if study.settings.asks_consent and not rater.consented:
        raise NoConsent("the study asks for consent first; load the page again")


def mark(connection: Connection, study: str, name: str, values: Mapping[str, str | None]) -> bool:
    """Sets or clears times of a rater; a time that is set stays as it is.

    Returns:
        Whether anything changed.

    Raises:
        StoreError: there is no such rater.
    """
    row = _row(connection, study, name)._mapping
    changes = {column: value for column, value in values.items() if (row[column] is None) != (value is None)}
    if changes:
        connection.execute(update(raters).where(raters.c.study == study, raters.c.id == name).values(**changes))
    return bool(changes)


def rater_of(row: Row[Any], *, now: str) -> Rater:
    """A rater from its row."""
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


def token_hash(token: str) -> str:
    """What the database holds of a link."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def figures(known: Sequence[Rater], judgements: Sequence[Judgement]) -> list[RaterFigures]:
    """One line per rater, including raters without an answer."""
    by_rater: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_rater[judgement.show.rater].append(judgement)
    return [_figures(rater, by_rater[rater.id]) for rater in known]


def _figures(rater: Rater, judgements: Sequence[Judgement]) -> RaterFigures:
    answers = {judgement.show.token: judgement.answer for judgement in judgements}
    checks = [judgement for judgement in judgements if judgement.expected is not None]
    repeats = [judgement for judgement in judgements if judgement.show.repeat_of in answers]
    seconds = [judgement.seconds for judgement in judgements if judgement.seconds is not None]
    return RaterFigures(
        rater=rater,
        answered=len(judgements),
        skipped=sum(judgement.answer == "skip" for judgement in judgements),
        checks=len(checks),
        checks_passed=sum(judgement.passed for judgement in checks),
        repeats=len(repeats),
        repeats_agreed=sum(judgement.answer == answers[judgement.show.repeat_of or ""] for judgement in repeats),
        median_seconds=median(seconds) if seconds else None,
        last=max((judgement.at for judgement in judgements), default=""),
    )


def _row(connection: Connection, study: str, name: str) -> Row[Any]:
    row = connection.execute(select(raters).where(raters.c.study == study, raters.c.id == name)).first()
    if row is None:
        raise StoreError(f"the study has no rater {name!r}; the admin page lists them")
    return row


def _end(now: datetime, days: float | None) -> str | None:
    try:
        return None if days is None else as_text(now + timedelta(days=days))
    except (OverflowError, ValueError) as error:
        raise StoreError(f"a link cannot last {days} days; without days it never ends") from error

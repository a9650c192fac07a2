"""Raters in the database: made, found by their links, marked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from seedpo.study.folder import Study
from seedpo.study.store_errors import LinkEnded, NoConsent, StoreError
from seedpo.study.store_records import Rater
from seedpo.study.store_rows import as_text
from seedpo.study.tables import raters


def add_raters(
    connection: Connection, study: str, labels: Sequence[str], *, now: datetime, days: float | None
) -> list[tuple[str, str]]:
    """Adds a rater for each label; gives ids and the tokens of their links, of which only hashes are kept.

    Raises:
        StoreError: a link cannot last so long.
    """
    made = [(f"r{secrets.token_hex(8)}", secrets.token_urlsafe(32)) for _ in labels]
    common = {"study": study, "created_at": as_text(now), "expires_at": _end(now, days)}
    rows = [
        {"id": name, "token_hash": token_hash(token), "label": label, **common}
        for (name, token), label in zip(made, labels, strict=True)
    ]
    if rows:
        connection.execute(insert(raters), rows)
    return made


def find_rater(connection: Connection, study: str, token: str, *, now: str) -> Rater | None:
    """Whose link a token is."""
    mine = (raters.c.study == study) & (raters.c.token_hash == token_hash(token))
    row = connection.execute(select(raters).where(mine)).first()
    return None if row is None else rater_of(row, now=now)


def all_raters(connection: Connection, study: str, *, now: str) -> list[Rater]:
    """All raters of a study in the order in which they were made."""
    known = select(raters).where(raters.c.study == study).order_by(raters.c.created_at, raters.c.id)
    return [rater_of(row, now=now) for row in connection.execute(known)]


def turn_of(connection: Connection, study: Study, name: str) -> int:
    """How many raters stand before this one in :func:`all_raters`; 0, unasked, where no order of blocks rests on it.

    Raises:
        StoreError: there is no such rater.
    """
    if study.settings.order == "mixed":
        return 0
    row = _row(connection, study.settings.id, name)
    same = and_(raters.c.created_at == row.created_at, raters.c.id < name)
    before = select(func.count()).where(raters.c.study == row.study, or_(raters.c.created_at < row.created_at, same))
    return connection.execute(before).scalar_one()


def require_allowed(connection: Connection, study: str, name: str, *, consent: bool, now: str) -> None:
    """Sees that a rater may go on.

    Args:
        connection: in a transaction.
        study, name: the rater.
        consent: whether the study asks for it.
        now: the time.

    Raises:
        LinkEnded, NoConsent: the rater may not.
        StoreError: there is no such rater.
    """
    rater = rater_of(_row(connection, study, name), now=now)
    if rater.revoked or rater.expired:
        raise LinkEnded("this link has ended; ask whoever sent it for a new one")
    if consent and not rater.consented:
        raise NoConsent("the study asks for consent first; load the page again")


def mark(connection: Connection, study: str, name: str, values: Mapping[str, str | None]) -> bool:
    """Sets times of a rater, or takes them away; says whether that changed anything: a time that is set stays.

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
    """What is kept of a link."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _row(connection: Connection, study: str, name: str) -> Row[Any]:
    row = connection.execute(select(raters).where(raters.c.study == study, raters.c.id == name)).first()
    if row is None:
        raise StoreError(f"the study has no rater {name!r}; the admin page lists them")
    return row


def _end(now: datetime, days: float | None) -> str | None:
    try:
        return None if days is None else as_text(now + timedelta(days=days))
    except (OverflowError, ValueError) as error:
        raise StoreError(f"a link cannot last {days} days; leave the days out and it never ends") from error

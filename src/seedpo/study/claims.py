"""Whose votes a database holds: sees that a study is the one it was, and locks it for whoever writes."""

from __future__ import annotations

import hashlib
import json

from sqlalchemy import Connection, insert, select, update

from seedpo.study.folder import Study, refreshed
from seedpo.study.records import Group
from seedpo.study.store_errors import StoreError
from seedpo.study.tables import groups, shows, studies


def digest(group: Group) -> str:
    """SHA-256 of all that answers to a group rest on; its category may be changed at any time."""
    candidates = [[candidate.source, list(candidate.images)] for candidate in group.candidates]
    content = [group.id, group.question, group.prompt, candidates, group.expected]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def origin(study: Study) -> str:
    """What tells a study from another one of its id: its first group, which stays while groups are appended."""
    return digest(study.groups[0]) if study.groups else ""


def register(connection: Connection, study: Study) -> Study:
    """Gives a study its row; in the transaction that made or found the tables.

    Returns:
        The study with the groups that were appended and shown since it was read.

    Raises:
        StoreError: the database holds another study of its id, or a group was changed after it had been shown.
    """
    name = study.settings.id
    if connection.execute(select(studies.c.id).where(studies.c.id == name)).first() is None:
        connection.execute(insert(studies).values(id=name, origin=origin(study), revision=0))
    claim(connection, study)
    study = refreshed(study)  # only now: while the row is locked, nobody is shown a group that is not read here
    for row in connection.execute(select(groups).where(groups.c.study == name)):
        if row.group not in study.by_id:
            raise StoreError(
                f"{study.folder}: group {row.group!r} was shown to raters and is not in groups.jsonl; put it back, or "
                "give this study another id in study.yaml if it is another study"
            )
        _require_same(study, study.by_id[row.group], row.digest)
    return study


def claim(connection: Connection, study: Study) -> int:
    """Locks the study's row until the transaction ends.

    Returns:
        The revision of its counts.

    Raises:
        StoreError: the row is another study's, or is gone.
    """
    mine = studies.c.id == study.settings.id
    row = connection.execute(select(studies).where(mine).with_for_update()).first()
    if row is None:
        raise StoreError(f"{study.folder}: the database no longer knows this study; start again to register it")
    wanted = origin(study)
    if wanted not in ("", row.origin):
        shown = select(shows.c.token).where(shows.c.study == study.settings.id).limit(1)
        if row.origin and connection.execute(shown).first() is not None:
            raise StoreError(
                f"{study.folder}: its first group {study.groups[0].id!r} is not the first group of the study of this "
                "id whose votes are in the database: groups.jsonl was edited, or it is another study; undo the edit, "
                "or give one study another id in study.yaml"
            )
        connection.execute(update(studies).where(mine).values(origin=wanted))
    return int(row.revision)


def keep_group(connection: Connection, study: Study, group: Group) -> None:
    """Keeps what a group is like when it is shown for the first time.

    Raises:
        StoreError: it was shown already, and was another one then.
    """
    key = {"study": study.settings.id, "group": group.id}
    same = [groups.c[name] == value for name, value in key.items()]
    kept = connection.execute(select(groups.c.digest).where(*same)).scalar()
    if kept is None:
        connection.execute(insert(groups).values(**key, digest=digest(group)))
    else:
        _require_same(study, group, kept)


def _require_same(study: Study, group: Group, kept: str) -> None:
    if digest(group) != kept:
        raise StoreError(
            f"{study.folder}: group {group.id!r} was changed after it had been shown to raters; undo the change and "
            "append a new group instead"
        )

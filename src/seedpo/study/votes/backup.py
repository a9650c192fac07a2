"""Copies of a study with all its votes, made while raters vote; and votes put into another database.

A backup is a study of its own: the folder with a SQLite file, whichever database the original has.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from seedpo.errors import ConfigError, DataError
from seedpo.files import aside_of, flush_below
from seedpo.study.errors import StoreError
from seedpo.study.folder import GROUPS, KEY_FILE, VOTES, Study, open_study
from seedpo.study.settings import NAME, settings_text
from seedpo.study.votes.database import Database
from seedpo.study.votes.tables import have_tables, metadata, prepare_tables, raters, schema, shows, studies, votes

_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What was copied.

    Attributes:
        raters, shows, votes: numbers of rows.
    """

    raters: int
    shows: int
    votes: int


def back_up(folder: Path, out: Path, *, url: str | None = None) -> Copied:
    """Copies a study and its votes as they are at one moment; raters may vote meanwhile.

    Args:
        folder: of the study.
        out: folder to make; must not exist.
        url: of the database; `None`: the study's own.

    Raises:
        ConfigError: ``out`` exists.
        SeedpoError: the study or its database cannot be read, or the copy cannot be written.
    """
    if out.exists():
        raise ConfigError(f"{out} exists; a backup is never written over another, name a new folder")
    study = open_study(folder, verify=False)
    aside = aside_of(out)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        copied = _copy_votes(study, study.database_url if url is None else url, f"sqlite:///{aside.resolve() / VOTES}")
        # After the votes: groups are only appended, so every group that has votes is copied.
        _copy_folder(study, aside)
        flush_below(aside)
        aside.replace(out)
    except OSError as error:
        raise DataError(f"the backup {out} cannot be written ({error.strerror}); nothing of it is kept") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    open_study(out)
    return copied


def restore(backup: Path, url: str) -> Copied:
    """Puts the votes of a backup, or of any study, into another database.

    Args:
        backup: folder of a study whose votes are in its own database.
        url: of a database without votes of this study.

    Raises:
        SeedpoError: the backup cannot be read, or the database cannot be used or has votes of this study.
    """
    study = open_study(backup)
    return _copy_votes(study, study.database_url, url)


def _copy_folder(study: Study, out: Path) -> None:
    shutil.copytree(study.folder / "images", out / "images")
    shutil.copyfile(study.folder / GROUPS, out / GROUPS)
    settings = study.settings.model_copy(update={"database": None})
    (out / NAME).write_text(settings_text(settings), encoding="utf-8")
    if (study.folder / KEY_FILE).exists():
        shutil.copy2(study.folder / KEY_FILE, out / KEY_FILE)  # with its permissions


def _copy_votes(study: Study, source_url: str, target_url: str) -> Copied:
    """All rows of a study, in one transaction on each side."""
    source, target = Database(source_url, write=False), Database(target_url)
    try:
        with source.reading(snapshot=True) as old, target.writing() as new:
            prepare_tables(new)
            if not have_tables(old):
                return Copied(raters=0, shows=0, votes=0)
            return _copy_rows(study.settings.id, old, new, target.name)
    finally:
        source.close()
        target.close()


def _copy_rows(study: str, old: sa.Connection, new: sa.Connection, target: str) -> Copied:
    if new.execute(sa.select(studies.c.id).where(studies.c.id == study)).first() is not None:
        raise StoreError(f"the database {target} holds this study already; restore into another one")
    counts: dict[str, int] = {}
    for table in metadata.sorted_tables:  # parents first
        if table is votes:
            # Answers get numbers of their own in the other database.
            columns = [column for column in votes.c if column is not votes.c.id]
            query = sa.select(*columns).join(shows, shows.c.token == votes.c.show).order_by(votes.c.id)
            query = query.where(shows.c.study == study)
        elif table is not schema:
            query = sa.select(table).where((studies.c.id if table is studies else table.c.study) == study)
        else:
            continue
        counts[table.name] = _insert(new, table, (dict(row._mapping) for row in old.execute(query)))
    return Copied(raters=counts[raters.name], shows=counts[shows.name], votes=counts[votes.name])


def _insert(connection: sa.Connection, table: sa.Table, rows: Iterator[Mapping[str, Any]]) -> int:
    number = 0
    while batch := list(islice(rows, _BATCH)):
        connection.execute(sa.insert(table), batch)
        number += len(batch)
    return number

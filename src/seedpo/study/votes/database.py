"""A database behind a URL: durable transactions that wait for each other, and errors of one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from seedpo.study.errors import StoreError
from seedpo.study.votes.engines import WRITES, engine_of

_DRIVERS = {
    "sqlite": ("sqlite", "pysqlite"),
    "postgresql": ("postgresql", "psycopg"),
    "postgres": ("postgresql", "psycopg"),
}
"""By the kind that a URL names: kind and driver that are used."""
_EXPECTED = "write sqlite:////folder/votes.db or postgresql://user:password@host/name"

ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, sqlite3.Error)
"""What a database raises; :class:`Database` makes one line of it at the end of a transaction."""

_LOCAL = ("", "localhost", "127.0.0.1")

_CAUSES = (
    (("disk is full", "no space left", "disk quota", "diskfull"), "the disk is full; free some space, nothing is lost"),
    (("disk i/o error",), "the disk cannot be written (full, a quota, or a fault); nothing is lost"),
    (
        ("not a database", "malformed", "encrypted"),
        "it is not a SQLite database, or it is damaged; put a backup in its place, or name another file",
    ),
    (
        ("readonly database", "read-only", "unable to open database file", "attempt to write"),
        "it cannot be opened; check that the folder exists, and is writable if votes are to be stored",
    ),
    (("interrupted",), "a query took too long; is it a database of seedpo?"),
    (("locked", "lock timeout", "statement timeout", "queuepool limit"), "it is busy with other requests; try again"),
)
"""Phrases in the drivers' messages, and what a person can do."""


class Database:
    """Connections to one database.

    Args:
        url: in SQLAlchemy's form; ``postgresql://`` and ``postgres://`` use the driver psycopg.
        write: whether transactions may write; otherwise nothing is created or changed, and a SQLite file that is
            missing counts as empty.

    Raises:
        StoreError: the URL cannot be used, or its driver is not installed.
    """

    def __init__(self, url: str, *, write: bool = True) -> None:
        self.url = _checked(url)
        self.write = write
        self.name = _name(self.url)
        """The file, or the URL without its password."""
        self._engine = engine_of(self.url, write=write)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; it is on the disk when the block ends. SQLite runs one at a time.

        Raises:
            StoreError: the database failed, or was opened only for reading; nothing of the block is stored.
        """
        if not self.write:
            raise StoreError(f"the database {self.name} was opened only for reading")
        with self.one_line_errors(), self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITES: True})
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[Connection]:
        """A transaction that only reads and never waits.

        Args:
            snapshot: whether all its queries see the database as it is at the first one.

        Raises:
            StoreError: the database cannot be read.
        """
        with self.one_line_errors(), self._engine.connect() as connection:
            if snapshot and self.url.get_backend_name() == "postgresql":  # in SQLite every transaction does
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turns errors of the database into one line without the password."""
        try:
            yield
        except ERRORS as error:
            raise StoreError(f"the database {self.name}: {self._cause(error)}") from None

    def wipe(self, tables: Sequence[str]) -> bool:
        """Writes the database's files anew, so that no bytes of deleted rows are left in them.

        A server's own log and backups keep what was deleted for as long as they are kept.

        Args:
            tables: that held the rows.

        Returns:
            Whether it was done; not while others read or write all the time. It can be repeated.
        """
        on_file = self.url.get_backend_name() == "sqlite"
        commands = ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] if on_file else [f"VACUUM FULL {', '.join(tables)}"]
        try:
            with closing(self._engine.raw_connection()) as pooled:
                connection: Any = pooled.driver_connection
                if not on_file:
                    connection.rollback()
                    connection.autocommit = True
                try:
                    last = [connection.execute(command) for command in commands][-1]
                    return not on_file or last.fetchone()[0] == 0
                finally:
                    pooled.invalidate()
        except Exception as error:
            if not isinstance(error, ERRORS) and not hasattr(error, "sqlstate"):
                raise
            return False

    def is_outside(self, folder: Path) -> bool:
        """Whether this is a file outside a folder, or a server on another host."""
        if self.url.get_backend_name() == "sqlite":
            return not Path(str(self.url.database)).resolve().is_relative_to(folder.resolve())
        hosts = {
            self.url.host or "",
            *_texts(self.url.query.get("host", ())),
            *_texts(self.url.query.get("hostaddr", ())),
        }
        return any(not host.startswith("/") and host.split(":")[0] not in _LOCAL for host in hosts)

    def _cause(self, error: Exception) -> str:
        original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        words = " ".join(str(original).split()) or type(original).__name__
        if self.url.password is not None:
            words = words.replace(str(self.url.password), "***")
        for phrases, cause in _CAUSES:
            if any(phrase in words.lower() for phrase in phrases):
                return f"{cause} ({words[:200]})"
        if self.url.get_backend_name() == "postgresql" and getattr(original, "sqlstate", None) is None:
            return f"the server cannot be reached; check that it runs and that the URL is right ({words[:300]})"
        return words[:300]

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        # The message does not repeat the URL: it may hold a password.
        raise StoreError(f"the URL of the database cannot be read; {_EXPECTED}") from None
    named, _, own_driver = parsed.drivername.partition("+")
    if named not in _DRIVERS:
        raise StoreError(f"databases of kind {named} are not supported; {_EXPECTED}")
    backend, driver = _DRIVERS[named]
    if own_driver not in ("", driver):
        raise StoreError(f"the driver of {parsed.drivername} is not supported, only {driver}; {_EXPECTED}")
    if backend == "sqlite" and (not parsed.database or parsed.database == ":memory:" or parsed.query):
        raise StoreError(f"votes need a file on disk, without further settings; {_EXPECTED}")
    return parsed.set(drivername=f"{backend}+{driver}")


def _texts(values: str | tuple[str, ...]) -> Iterable[str]:
    return values.split(",") if isinstance(values, str) else values


def _name(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)

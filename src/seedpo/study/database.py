"""A database behind a URL: durable transactions that wait for each other, and errors of one line."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from seedpo.study.errors import StoreError

WAIT = 30
"""Seconds that a transaction waits for other transactions, or for a free connection."""
CONNECT = 10
"""Seconds until a server that does not answer counts as unreachable."""

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_EXPECTED = "write sqlite:////folder/votes.db or postgresql://user:password@host/name"

_WRITES = "seedpo_writes"

_CAUSES = (
    (("disk is full", "no space left", "disk quota", "diskfull"), "the disk is full; free some space, nothing is lost"),
    (("disk i/o error",), "the disk cannot be written (full, a quota, or a fault); nothing is lost"),
    (
        ("not a database", "malformed", "encrypted"),
        "it is not a SQLite database, or it is damaged; put a backup in its place, or name another file",
    ),
    (
        ("readonly database", "read-only", "unable to open database file", "attempt to write"),
        "it cannot be opened for writing; check that the folder exists and is writable",
    ),
    (("locked", "lock timeout", "statement timeout", "queuepool limit"), "it is busy with other requests; try again"),
)
"""Phrases in the drivers' messages, and what a person can do."""


class Database:
    """Connections to one database.

    Args:
        url: in SQLAlchemy's form; ``postgresql://`` and ``postgres://`` use the driver psycopg.

    Raises:
        StoreError: the URL cannot be used, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.name = _name(self.url)
        """The file, or the URL without its password."""
        self._turn = threading.Lock()
        self._engine = _engine(self.url)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; it is on the disk when the block ends. SQLite runs one at a time.

        Raises:
            StoreError: the database failed; nothing of the block is stored.
        """
        # Threads of one process queue here: SQLite itself waits by sleeping, which can starve a thread.
        if not self._turn.acquire(timeout=WAIT):
            raise StoreError(f"the database {self.name}: it is busy with other requests; try again")
        try:
            with self.one_line_errors(), self._engine.connect() as connection:
                connection = connection.execution_options(**{_WRITES: True})
                with connection.begin():
                    yield connection
        finally:
            self._turn.release()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads and never waits.

        Raises:
            StoreError: the database cannot be read.
        """
        with self.one_line_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turns errors of the database into one line without the password."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StoreError(f"the database {self.name}: {self._cause(error)}") from None

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
    backend, _, driver = parsed.drivername.partition("+")
    if backend not in _DRIVERS:
        raise StoreError(f"databases of kind {backend} are not supported; {_EXPECTED}")
    if backend == "sqlite" and (not parsed.database or parsed.database == ":memory:" or "mode" in parsed.query):
        raise StoreError(f"votes need a file on disk; {_EXPECTED}")
    return parsed if driver else parsed.set(drivername=_DRIVERS[backend])


def _name(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.set(drivername="postgresql", query={}).render_as_string(hide_password=True)


def _engine(url: URL) -> Engine:
    pool: dict[str, Any] = {"pool_size": 8, "max_overflow": 56, "pool_timeout": WAIT}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False}, **pool)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    settings = {"synchronous_commit": "on", "lock_timeout": f"{WAIT}s", "statement_timeout": f"{2 * WAIT}s"}
    options = " ".join(f"-c {key}={value}" for key, value in settings.items())
    given = url.query.get("options", ())
    own_options = " ".join((given,) if isinstance(given, str) else given)
    arguments = {"connect_timeout": CONNECT, "options": f"{own_options} {options}".strip()}
    url = url.difference_update_query(["options"])
    try:
        return create_engine(url, connect_args=arguments, pool_pre_ping=True, **pool)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"PostgreSQL needs the driver {error.name}, which is not installed: pip install 'seedpo[postgres]'"
        ) from error
    except SQLAlchemyError:
        raise StoreError(f"the driver of {url.drivername} is unknown; {_EXPECTED}") from None


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin in `_begin_sqlite`
    connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS only
    connection.execute("PRAGMA foreign_keys = ON")
    _write_ahead(connection)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switches to write-ahead logging; repeats while others hold the file, since this ignores the busy timeout."""
    end = time.monotonic() + WAIT
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and then writes fails if another one wrote in between.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

"""Engines of SQLite and PostgreSQL: every change is durable, and every wait ends by itself."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from seedpo.study.errors import StoreError

WAIT = 8
"""Seconds that a transaction waits for other transactions, or for a free connection."""
PATIENCE = 10
"""Seconds without an answer after which a connection to a server is given up."""
READER_PATIENCE = 120
"""The same for commands that only read: a large study takes its time, and nobody waits in a browser."""
CONNECT = 5
"""Seconds until a server that does not answer counts as unreachable."""

WRITES = "seedpo_writes"
"""Execution option of a connection whose next transaction writes."""

_END = "seedpo_end"
"""Key of the time at which a query of a reader is interrupted."""

_POOL = {"pool_size": 8, "max_overflow": 24, "pool_timeout": WAIT}


_BEGIN = b"SQLite format 3\0"
"""First bytes of every SQLite file."""


def engine_of(url: URL, *, write: bool) -> Engine:
    """The engine of a checked URL.

    Args:
        url: with the driver pysqlite or psycopg.
        write: whether it may write; otherwise it creates and changes nothing.

    Raises:
        StoreError: the driver is not installed.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url) if write else _still_sqlite(Path(str(url.database)))
    return _postgresql(url, write=write)


# SQLite.


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False}, **_POOL)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    _own_transactions(connection, _)
    connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS only
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted on request leaves no bytes behind
    _write_ahead(connection)


def _own_transactions(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin in `_begin_sqlite`


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
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _still_sqlite(file: Path) -> Engine:
    """An engine that reads a file and leaves it and its folder as they are; a file that is missing is empty."""
    engine = create_engine("sqlite://", creator=lambda: _opened(file), poolclass=NullPool)
    event.listen(engine, "connect", _own_transactions)
    event.listen(engine, "connect", _distrust)
    event.listen(engine, "before_cursor_execute", _limit_query)
    event.listen(engine, "begin", _begin_sqlite)  # all queries of a transaction see one moment
    return engine


def _distrust(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
    """The file may be somebody else's: no function of its schema is trusted, and no query goes on for ever."""
    connection.execute("PRAGMA trusted_schema = OFF")
    record.info[_END] = math.inf
    connection.set_progress_handler(lambda: int(time.monotonic() > record.info[_END]), 100_000)


def _limit_query(connection: Connection, *_: object) -> None:
    connection.info[_END] = time.monotonic() + READER_PATIENCE


def _opened(file: Path) -> sqlite3.Connection:
    """A connection that only reads: to the file if somebody else has it open, and otherwise to a copy in memory.

    SQLite itself would make the files -wal and -shm if they are not there, and fail where it cannot.
    """
    if not file.exists():
        return sqlite3.connect(":memory:", check_same_thread=False)
    _require_sqlite(file)
    if _beside(file, "-wal").exists() and _beside(file, "-shm").exists():
        try:
            address = f"file:{quote(str(file.absolute()))}?mode=ro"
            connection = sqlite3.connect(address, uri=True, timeout=WAIT, check_same_thread=False)
            connection.execute("SELECT count(*) FROM sqlite_master")
            return connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
    return _copied(file)


def _require_sqlite(file: Path) -> None:
    """Checks that a file is one and begins like a database: the study may be somebody else's, and name a device."""
    try:
        with (file if file.is_file() else Path(os.devnull)).open("rb") as stream:
            begin = stream.read(len(_BEGIN))
    except OSError as error:
        raise StoreError(f"the database {file} cannot be read ({error.strerror})") from error
    if not file.is_file() or begin not in (b"", _BEGIN):
        raise StoreError(f"the database {file}: it is not a SQLite database; put a backup in its place")


def _copied(file: Path) -> sqlite3.Connection:
    """The content of a file and of its write-ahead log, which nobody has open, in memory."""
    parts = [file, _beside(file, "-wal")]
    with tempfile.TemporaryDirectory(prefix="seedpo-votes-") as folder:
        for _ in range(5):
            before = [_stamp(part) for part in parts]
            for part in parts:
                copy = Path(folder) / part.name
                copy.unlink(missing_ok=True)
                try:
                    shutil.copyfile(part, copy)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise StoreError(f"the database {part} cannot be read ({error.strerror})") from error
            if before == [_stamp(part) for part in parts]:
                break
        memory = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(Path(folder) / file.name)) as source:
            source.backup(memory)
    return memory


def _beside(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


# PostgreSQL.


def _postgresql(url: URL, *, write: bool) -> Engine:
    try:
        from seedpo.study.votes.postgres_waits import PatientConnection
    except ModuleNotFoundError:
        raise StoreError("PostgreSQL needs psycopg, which is not installed: pip install 'seedpo[postgres]'") from None
    patience = PATIENCE if write else READER_PATIENCE
    settings = {
        "synchronous_commit": "on",
        "lock_timeout": f"{WAIT}s",
        # The server answers before this side gives up, if it is there.
        "statement_timeout": f"{patience - 1}s",
        # A transaction whose process vanished lets go of its locks before others give up. A reader may think for long.
        "idle_in_transaction_session_timeout": f"{WAIT * 3 // 4 if write else 10 * READER_PATIENCE}s",
        # The server notices that this host has died.
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "default_transaction_read_only": "off" if write else "on",
    }
    options = " ".join(f"-c {key}={value}" for key, value in settings.items())
    given = url.query.get("options", ())
    own_options = " ".join((given,) if isinstance(given, str) else given)
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": PATIENCE * 1000,
        "options": f"{own_options} {options}".strip(),
    }
    engine = create_engine(
        url.difference_update_query(["options"]), connect_args=arguments, pool_pre_ping=True, **_POOL
    )

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, positional: list[Any], named: dict[str, Any]) -> Any:
        connection = PatientConnection.connect(*positional, **named)
        connection.patience = patience
        return connection

    return engine

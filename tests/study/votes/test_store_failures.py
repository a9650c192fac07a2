"""Databases that cannot be used: one line each, nothing half-written, and no password."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event

from seedpo.study.errors import StoreError
from seedpo.study.folder import Study
from seedpo.study.records import Show
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

Opened = Callable[[Study, str], Store]

ROOT = Path(__file__).resolve().parents[3]

URLS = {
    "no url at all": "cannot be read",
    "mysql://me:s3cret-word@host/db": "mysql",
    "sqlite://": "on disk",
    "sqlite:///:memory:": "on disk",
    "sqlite:////nowhere/at/all/votes.db": "folder exists",
    "postgresql://me:s3cret-word@127.0.0.1:1/db": "cannot be reached",
    "postgres://me:s3cret-word@127.0.0.1:1/db": "cannot be reached",
    "postgresql+psycopg://me:s3cret-word@127.0.0.1:1/db": "cannot be reached",
    "postgresql://me:s3cret-word@no.such.host.invalid/db": "cannot be reached",
    "postgresql+nodriver://me:s3cret-word@host/db": "postgresql.nodriver",
    "postgresql+psycopg2://me:s3cret-word@127.0.0.1:1/db": "only psycopg",
    "postgresql+asyncpg://me:s3cret-word@127.0.0.1:1/db": "only psycopg",
    "sqlite+pysqlcipher:": "cannot be read",
    "sqlite+pysqlcipher:///votes.db": "only pysqlite",
    "sqlite+aiosqlite:///votes.db": "only pysqlite",
    "sqlite:////tmp/votes.db?cache=shared": "without further settings",
    "sqlite:///file:votes.db?mode=memory&uri=true": "without further settings",
    "postgresql://me:s3cret-word@host:port/db": "cannot be read",
}


def test_urls_that_lead_nowhere_are_one_line_without_the_password(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s")
    for url, message in URLS.items():
        with pytest.raises(StoreError, match=message) as caught:
            Store.open(study, url)
        assert "s3cret-word" not in str(caught.value), url
        assert "\n" not in str(caught.value), url
        assert caught.value.__cause__ is None or "s3cret-word" not in str(caught.value.__cause__), url


def test_a_file_that_is_not_a_database_is_named_and_left_alone(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s")
    file = tmp_path / "s" / "votes.db"
    for content in (b"this is not a database, whatever its name says" * 100, b"SQLite format 3\x00" + b"\xff" * 4000):
        file.write_bytes(content)
        with pytest.raises(StoreError, match=r"votes.db"):
            Store.open(study)
        assert file.read_bytes() == content


def test_a_full_disk_keeps_what_was_acknowledged_and_nothing_of_what_was_not(tmp_path: Path, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(40))
    store = opened(study, study.database_url)
    rater, _ = store.add_rater()
    limit = 0

    def limited(connection: object, _record: object, _proxy: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit or 1 << 30}")  # type: ignore[attr-defined]

    event.listen(store._database._engine, "checkout", limited)
    saved = []
    show = store.turn(rater).show
    while show is not None and not limit:
        store.vote(rater, show.token, "left", key="k" * 150)
        saved.append(show.token)
        show = store.turn(rater).show
        limit = 1 if len(saved) == 3 else 0  # SQLite takes the pages that are in use already as the least
    assert show is not None

    def go_on(show: Show | None) -> None:
        while show is not None:
            store.vote(rater, show.token, "left", key="k" * 150)
            saved.append(show.token)
            show = store.turn(rater).show

    with pytest.raises(StoreError, match="the disk is full"):
        go_on(show)
    kept = [judgement.show.token for judgement in opened(study, study.database_url).judgements()]
    assert kept == saved
    limit = 0
    show = store.turn(rater).show
    assert show is not None
    assert store.vote(rater, show.token, "left", key="later").saved == "saved"
    assert len(store.judgements()) == len(saved) + 1


CHILD = """
import resource, sys
from pathlib import Path
from seedpo.study.folder import open_study
from seedpo.study.errors import StoreError
from seedpo.study.votes.store import Store
study = open_study(Path(sys.argv[1]))
store = Store.open(study)
rater, _ = store.add_rater()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    while (show := store.turn(rater).show) is not None:
        store.vote(rater, show.token, "left", key="k" * 100)
        print(show.token, flush=True)
except StoreError as error:
    print("ERROR", error)
"""


def test_a_limit_on_the_size_of_files(tmp_path: Path, opened: Opened) -> None:
    study = small_study(tmp_path / "s", pairs_of(60))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "s"), "400000"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    *saved, error = result.stdout.splitlines()
    assert saved, result.stderr
    assert error.startswith("ERROR"), result.stdout
    assert "nothing is lost" in error
    assert [judgement.show.token for judgement in opened(study, study.database_url).judgements()] == saved


def test_a_folder_that_cannot_be_written() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        studies = [small_study(folder / "new"), small_study(folder / "old")]
        Store.open(studies[1]).close()
        account = os.geteuid()
        try:
            for study in studies:
                study.folder.chmod(0o555)
            if account == 0:
                os.seteuid(65534)  # root may write everywhere
            for study in studies:
                with pytest.raises(StoreError, match="writable"):
                    Store.open(study)
        finally:
            os.seteuid(account)
            for study in studies:
                study.folder.chmod(0o755)


def test_every_connection_is_durable(database: str) -> None:
    opened_ = Database(database)
    with opened_.writing() as connection:
        if opened_.url.get_backend_name() == "sqlite":
            settings = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in settings]
            assert values == ["wal", 2, 1, 8_000]
        else:
            settings = ("synchronous_commit", "lock_timeout", "statement_timeout")
            values = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in settings]
            assert values == ["on", "8s", "9s"]
    opened_.close()

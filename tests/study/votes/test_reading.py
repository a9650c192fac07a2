"""Commands that only read: they create and change nothing, whatever they are pointed at."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
import yaml
from typer.testing import CliRunner

from seedpo.cli import app
from seedpo.study.errors import StoreError
from seedpo.study.folder import Study, open_study
from seedpo.study.votes import engines
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, small_study

Opened = Callable[[Study, str], Store]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its bytes and the time of its last change."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def with_votes(folder: Path, count: int = 3) -> Store:
    """A study with one rater's votes, open."""
    store = Store.open(small_study(folder, pairs_of(count + 1)))
    rater, _ = store.add_rater("anna")
    for number in range(count):
        show = store.turn(rater).show
        assert show is not None
        store.vote(rater, show.token, "left", key=f"k{number}")
    return store


@contextmanager
def readable_only(folder: Path) -> Iterator[None]:
    """A folder as on a medium that cannot be written, for an account that is not root."""
    account = os.geteuid()
    paths = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        if account == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(account)
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


def read(study: Study, url: str | None = None) -> int:
    with Store.open(study, url, write=False) as store:
        return len(store.judgements()) + 100 * len(store.raters())


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every account may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_study_without_a_database_has_no_votes_and_gets_none(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s")
    before = contents(tmp_path)
    assert read(study) == 0
    assert contents(tmp_path) == before


def test_votes_are_read_beside_a_server_and_after_it(tmp_path: Path) -> None:
    store = with_votes(tmp_path / "s")
    before = contents(tmp_path)
    assert {"s/votes.db-wal", "s/votes.db-shm"} <= before.keys()
    assert read(store.study) == 103
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert [after[name] for name in after if "shm" not in name] == [before[name] for name in after if "shm" not in name]
    store.close()
    before = contents(tmp_path)
    assert not any("-wal" in name for name in before)
    assert read(store.study) == 103
    assert contents(tmp_path) == before


def test_votes_that_a_killed_server_left_in_the_log_are_read(tmp_path: Path, public: Path) -> None:
    store = with_votes(tmp_path / "s")
    for name, left_out in (("both", "none"), ("log alone", "*-shm")):
        copy = public / name
        shutil.copytree(tmp_path / "s", copy, ignore=shutil.ignore_patterns(left_out))
        for still in (True, False):
            before = contents(copy)
            with readable_only(copy) if still else tempfile.TemporaryDirectory():
                assert read(open_study(copy, verify=False)) == 103
            after = contents(copy)
            assert after.keys() == before.keys()
            assert all(after[name] == before[name] for name in after if "shm" not in name)
    store.close()


def test_a_medium_that_cannot_be_written_is_read(public: Path) -> None:
    with_votes(public / "s").close()
    with readable_only(public / "s"):
        assert read(open_study(public / "s", verify=False)) == 103


def test_a_reader_sees_votes_that_arrive_later(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(3))
    reader = Store.open(study, write=False)
    assert reader.judgements() == []
    for _ in range(2):
        with Store.open(study) as writer:
            count = len(reader.judgements())
            rater, _ = writer.add_rater()
            show = writer.turn(rater).show
            assert show is not None
            writer.vote(rater, show.token, "left", key="k")
            assert len(reader.judgements()) == count + 1
        assert len(reader.judgements()) == count + 1
    reader.close()


def test_a_reader_cannot_write(tmp_path: Path, database: str, opened: Opened) -> None:
    study = small_study(tmp_path / "s")
    opened(study, database).add_rater()
    reader = Store.open(study, database, write=False)
    with pytest.raises(StoreError):
        reader.add_rater()
    reader.close()
    raw = Database(database, write=False)
    for statement in ("DELETE FROM seedpo_raters", "CREATE TABLE t (a INTEGER)"):
        with pytest.raises(StoreError), raw.reading() as connection:
            connection.execute(sqlalchemy.text(statement))
    raw.close()
    assert len(opened(study, database).raters()) == 1


def test_an_empty_database_of_a_server_stays_empty(tmp_path: Path, database: str) -> None:
    study = small_study(tmp_path / "s")
    assert read(study, database) == 0
    engine = sqlalchemy.create_engine(Database(database, write=False).url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


def test_an_edited_study_is_refused_by_readers_too(tmp_path: Path) -> None:
    with_votes(tmp_path / "s").close()
    file = tmp_path / "s" / "groups.jsonl"
    file.write_text(file.read_text().replace("prompt 0", "another 0"))
    with pytest.raises(StoreError, match="undo"):
        read(open_study(tmp_path / "s"))


COMMANDS = (
    ("study", "status", "STUDY"),
    ("study", "analyze", "STUDY", "--out", "OUT"),
    ("study", "export", "STUDY", "--out", "OUT/pairs.parquet"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[1])
def test_a_database_that_somebody_elses_study_names_is_left_alone_and_named(
    command: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = small_study(tmp_path / "s").folder
    victim = tmp_path / "elsewhere" / "victim.sqlite"
    victim.parent.mkdir()
    with sqlite3.connect(victim) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")
    connection.close()
    settings = yaml.safe_load((folder / "study.yaml").read_text())
    for database, name in ((f"sqlite:///{victim}", "victim.sqlite"), (f"sqlite:///{victim.parent}/new.db", "new.db")):
        caplog.clear()
        (folder / "study.yaml").write_text(yaml.safe_dump(settings | {"database": database}))
        before = contents(folder), contents(victim.parent)
        words = [word.replace("STUDY", str(folder)).replace("OUT", str(tmp_path / "out")) for word in command]
        with caplog.at_level(logging.WARNING):
            CliRunner().invoke(app, words)
        assert (contents(folder), contents(victim.parent)) == before
        assert [name in record.getMessage() for record in caplog.records].count(True) == 1


def test_no_warning_where_the_votes_are_in_the_study_or_the_command_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = small_study(tmp_path / "s")
    read(study)
    read(study, f"sqlite:///{tmp_path / 'other.db'}")
    assert caplog.records == []


OUTSIDE = {
    "sqlite:////a/study/votes.db": False,
    "sqlite:////a/study/../votes.db": True,
    "sqlite:////a/studies/votes.db": True,
    "postgresql://me@/votes": False,
    "postgresql://me@localhost/votes": False,
    "postgresql://me@/votes?host=/run/postgresql": False,
    "postgresql://me@/votes?host=db.example.org": True,
    "postgresql://me@/votes?host=localhost,db.example.org": True,
    "postgresql://me@/votes?host=db.example.org:5433": True,
    "postgresql://me@localhost/votes?hostaddr=203.0.113.7": True,
    "postgresql://me@localhost.example.org/votes": True,
    "postgresql://me@db/votes": True,
}


def test_what_is_outside_a_folder() -> None:
    for url, expected in OUTSIDE.items():
        if url.startswith("postgresql"):
            pytest.importorskip("psycopg")
        database = Database(url, write=False)
        assert database.is_outside(Path("/a/study")) is expected, url
        database.close()


def test_what_is_no_file_or_no_database_is_refused_at_once(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_bytes(b"SQLite format 2")
    (tmp_path / "empty").touch()
    for name in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "text"):
        with pytest.raises(StoreError, match="not a SQLite database"):
            read(study, f"sqlite:///{name}")
    assert read(study, f"sqlite:///{tmp_path / 'empty'}") == 0
    os.mkfifo(tmp_path / "empty-wal")
    (tmp_path / "empty").write_bytes(b"SQLite format 3\0")
    with pytest.raises(StoreError, match="cannot be read"):
        read(study, f"sqlite:///{tmp_path / 'empty'}")


ODD_ROWS = (
    "UPDATE seedpo_shows SET places = 'x'",
    "UPDATE seedpo_shows SET places = ''",
    "UPDATE seedpo_shows SET places = '0,-1'",
    "UPDATE seedpo_shows SET places = '0,7'",
    "UPDATE seedpo_votes SET answer = 'banana'",
    "UPDATE seedpo_votes SET answer = 'ranked', best = 0, worst = 5",
    "UPDATE seedpo_votes SET answer = 'ranked'",
)


@pytest.mark.parametrize("statement", ODD_ROWS)
def test_rows_that_no_seedpo_has_written_are_one_line(statement: str, tmp_path: Path) -> None:
    with_votes(tmp_path / "s").close()
    with sqlite3.connect(tmp_path / "s" / "votes.db") as connection:
        connection.execute("DROP TRIGGER seedpo_votes_no_update")
        connection.execute(statement)
    connection.close()
    with pytest.raises(StoreError):
        read(open_study(tmp_path / "s"))


def test_a_query_without_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_votes(tmp_path / "s").close()
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) AS version FROM n"
    with sqlite3.connect(tmp_path / "s" / "votes.db") as connection:
        connection.execute("DROP TABLE seedpo_schema")
        connection.execute(f"CREATE VIEW seedpo_schema AS {endless}")
    connection.close()
    monkeypatch.setattr(engines, "READER_PATIENCE", 0.5)
    with pytest.raises(StoreError, match="too long"):
        read(open_study(tmp_path / "s"))

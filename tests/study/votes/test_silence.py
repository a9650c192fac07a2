"""Databases that do not answer: every wait ends by itself, and nothing that was acknowledged is lost."""

from __future__ import annotations

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sized
from itertools import pairwise
from pathlib import Path

import pytest

from seedpo.study.errors import StoreError
from seedpo.study.records import Side
from seedpo.study.votes import engines
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.postgres_server import PASSWORD, USER, Server
from tests.study.silent_proxy import SilentProxy
from tests.study.small_study import pairs_of, small_study

SIDES: tuple[Side, ...] = ("left", "right", "tie")


@pytest.fixture
def proxy(postgres: Server) -> Iterator[SilentProxy]:
    def connect() -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(str(postgres.folder / ".s.PGSQL.5432"))
        return far

    with SilentProxy(connect) as silent:
        yield silent


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of a server, divided by four."""
    monkeypatch.setattr(engines, "WAIT", 2)
    monkeypatch.setattr(engines, "PATIENCE", 3)


def through(proxy: SilentProxy, postgres: Server) -> str:
    postgres.new_database()
    name = f"votes_{postgres.made}"
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/{name}"


@pytest.mark.usefixtures("short_waits")
def test_votes_go_on_after_all_connections_fell_silent(proxy: SilentProxy, postgres: Server, tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(400), raters_per_pair=8)
    store = Store.open(study, through(proxy, postgres))
    names = [name for name, _ in store.add_raters([""] * 8)]
    saved: dict[str, str] = {}
    times: list[float] = []
    end = threading.Event()

    def work(rater: str) -> None:
        while not end.is_set():
            try:
                show = store.turn(rater).show
                assert show is not None
                store.vote(rater, show.token, SIDES[show.number % 3], key=f"key-{show.number}")
            except StoreError:
                time.sleep(0.05)
                continue
            saved[show.token] = show.answer(SIDES[show.number % 3])
            times.append(time.monotonic())

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    gaps = []
    for _ in range(2):
        _until_more(saved)
        silent_at = time.monotonic()
        proxy.go_silent()
        _until_more(saved)
        gaps.append(max(later - earlier for earlier, later in pairwise(times) if later > silent_at))
    end.set()
    for thread in threads:
        thread.join(60)
    assert max(gaps) < 4 * engines.PATIENCE
    assert {judgement.show.token: judgement.answer for judgement in store.judgements()}.items() >= saved.items()
    store.close()


@pytest.mark.usefixtures("short_waits")
def test_a_silent_connection_is_given_up_and_all_others_with_it(proxy: SilentProxy, postgres: Server) -> None:
    database = Database(through(proxy, postgres))
    with database.reading() as first, database.reading() as second:
        assert first.exec_driver_sql("SELECT 1").scalar() == second.exec_driver_sql("SELECT 1").scalar() == 1
    proxy.go_silent()

    def read() -> None:
        with database.reading() as connection:
            proxy.go_silent()  # also those that the check of the pool has just made
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StoreError, match="not answered"):
        read()
    made = proxy.accepted
    for _ in range(3):
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    assert proxy.accepted <= made + 2
    database.close()


@pytest.mark.usefixtures("short_waits")
def test_a_file_that_another_program_holds_is_refused_and_then_gone_on_with(sqlite: str, tmp_path: Path) -> None:
    store = Store.open(small_study(tmp_path / "s"), sqlite)
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    other = sqlite3.connect(sqlite.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    with pytest.raises(StoreError, match="busy"):
        store.vote(rater, show.token, "left", key="k")
    assert time.monotonic() - begun < 5 * engines.WAIT
    assert store.shows(rater) == [show]  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    store.vote(rater, show.token, "left", key="k")
    assert len(store.judgements()) == 1
    store.close()


def _until_more(saved: Sized, *, limit: float = 60.0) -> None:
    count, end = len(saved), time.monotonic() + limit
    while len(saved) < count + 16:
        assert time.monotonic() < end, "votes do not go on"
        time.sleep(0.02)

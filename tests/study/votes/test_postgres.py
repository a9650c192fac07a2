"""What only a server can do: refuse a password, and go away."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.study.errors import StoreError
from seedpo.study.votes.database import Database
from seedpo.study.votes.store import Store
from tests.study.postgres_server import PASSWORD, Server
from tests.study.small_study import pairs_of, small_study


def test_a_wrong_password_is_not_repeated(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new_database().replace(PASSWORD, "wr0ng-word")
    with pytest.raises(StoreError, match="authentication failed") as caught:
        Store.open(small_study(tmp_path / "s"), url)
    assert "wr0ng-word" not in str(caught.value)


def test_a_database_that_is_not_there(postgres: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist") as caught:
        Store.open(small_study(tmp_path / "s"), postgres.url("nowhere"))
    assert PASSWORD not in str(caught.value)


def test_options_of_the_url_are_kept(postgres: Server) -> None:
    database = Database(postgres.new_database() + "&options=-c%20work_mem%3D123kB")
    with database.reading() as connection:
        assert connection.exec_driver_sql("SHOW work_mem").scalar() == "123kB"
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    database.close()


def test_a_server_that_stops_and_comes_back_is_gone_on_with(postgres: Server, tmp_path: Path) -> None:
    store = Store.open(small_study(tmp_path / "s", pairs_of(3)), postgres.new_database())
    rater, _ = store.add_rater()
    show = store.turn(rater).show
    assert show is not None
    store.vote(rater, show.token, "left", key="k")
    postgres.stop()
    try:
        with pytest.raises(StoreError) as caught:
            store.vote(rater, show.token, "right", key="again")
        assert PASSWORD not in str(caught.value)
    finally:
        postgres.start()
    assert store.vote(rater, show.token, "left", key="k").saved == "known"
    assert store.turn(rater).show is not None
    assert len(store.judgements()) == 1
    store.close()

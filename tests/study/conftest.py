"""Databases for the tests of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from benchmarks.study_servers import postgres_binaries
from seedpo.study.folder import Study
from seedpo.study.votes.store import Store
from tests.study.postgres_server import Server, running_server
from tests.study.small_study import Clock


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    if postgres_binaries() is None:
        pytest.skip("PostgreSQL is not installed here")
    pytest.importorskip("psycopg")
    with running_server() as server:
        yield server


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """URL of an empty SQLite database."""
    return f"sqlite:///{tmp_path / 'votes.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, sqlite: str) -> str:
    """URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return sqlite
    server: Server = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(clock: Clock) -> Iterator[Callable[[Study, str], Store]]:
    """Opens stores, and closes them after the test."""
    stores: list[Store] = []

    def open_(study: Study, url: str) -> Store:
        stores.append(Store.open(study, url, clock=clock))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()

"""What is served while the database does not answer: no request waits for another one's transaction."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from seedpo.study.errors import Refusal, StoreError
from seedpo.study.web import threads as threads_module
from seedpo.study.web.gallery import Gallery
from seedpo.study.web.threads import Threads
from seedpo.study.web.visitors import FRESH
from tests.study.web_studies import ADDRESS, ADMIN, make_app, make_study, new_link, png

PATIENT = 20.0
"""Seconds after which a test gives up. The database is held longer than that, so an answer did not wait for it."""


@asynccontextmanager
async def asking(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client,
        asyncio.timeout(3 * PATIENT),
    ):
        yield client


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes to a SQLite file and does not end."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


@contextmanager
def silent(app: Starlette) -> Iterator[None]:
    """A database that takes every question and answers none."""
    end, store = threading.Event(), app.state.site.store
    reading, writing = store._database.reading, store._database.writing

    @contextmanager
    def hung() -> Iterator[Any]:
        end.wait()
        raise StoreError("the database gave up")
        yield

    store._database.reading = store._database.writing = hung
    try:
        yield
    finally:
        store._database.reading, store._database.writing = reading, writing
        end.set()


async def has_rest(client: httpx.AsyncClient, waiting: list[asyncio.Task[Any]], images: list[str]) -> None:
    """Checks that all that needs no database is served while the others still wait."""
    async with asyncio.timeout(PATIENT):
        for path in ("/healthz", "/", "/static/study.js", "/static/study.css", "/admin", *images):
            answer = await client.get(path)
            assert answer.status_code == (401 if path == "/admin" else 200), path
        assert (await client.post("/admin/login", data={"token": ADMIN})).status_code == 303
    client.cookies.clear()
    assert not any(task.done() for task in waiting)


async def voting(client: httpx.AsyncClient, links: list[str]) -> tuple[list[Callable[[], Any]], list[str]]:
    """Votes that can be sent, one of each rater, and the images of all tasks."""
    sends, images = [], []
    for number, link in enumerate(links):
        state = (await client.get(f"{link}/task")).json()
        images += [address for item in state["task"]["items"] for address in item]
        body = {"show": state["task"]["show"], "side": "left", "key": f"key-{number:08}", "seconds": 1.0}
        head = {"x-csrf-token": state["csrf"]}
        sends.append(lambda link=link, body=body, head=head: client.post(f"{link}/vote", json=body, headers=head))
    return sends, images


@pytest.mark.parametrize("how", ["locked", "silent"])
def test_pages_and_images_are_served_while_votes_wait(tmp_path: Path, how: str) -> None:
    make_study(tmp_path / "s", raters_per_pair=100, enrolment="open")
    app = make_app(tmp_path / "s")
    links = [new_link(app) for _ in range(45)]

    async def scenario() -> list[int]:
        async with asking(app) as client:
            sends, images = await voting(client, links)
            with locked(tmp_path / "s" / "votes.db") if how == "locked" else silent(app):
                waiting = [asyncio.create_task(send()) for send in sends]
                waiting += [asyncio.create_task(client.get(f"{link}/task")) for link in links]
                waiting += [asyncio.create_task(client.post("/join")) for _ in range(8)]
                await asyncio.sleep(0.5)
                await has_rest(client, waiting, images)
            return [task.status_code for task in await asyncio.gather(*waiting)]

    statuses = asyncio.run(scenario())
    assert set(statuses) <= {200, 303, 503}
    if how == "locked":
        assert statuses == [200] * 90 + [303] * 8
        assert len(app.state.site.store.judgements()) == 45


def test_images_outlast_the_memory_of_raters(tmp_path: Path) -> None:
    """A rater who was seen long ago gets images while the database is silent, and an unknown one gets none."""
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link, stranger = new_link(app), new_link(app)

    async def scenario() -> None:
        async with asking(app) as client:
            _, images = await voting(client, [link])
            app.state.site.visitors.clock = lambda: 1e9
            with silent(app):
                waiting = asyncio.create_task(client.get(images[0].replace(link, stranger)))
                for _ in range(3):
                    await has_rest(client, [waiting], images)
            assert (await waiting).status_code == 503

    asyncio.run(scenario())


def test_a_revoked_link_gets_no_images_from_any_process(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app, other = make_app(tmp_path / "s"), make_app(tmp_path / "s")
    link, second = new_link(app), new_link(app)

    async def scenario() -> None:
        async with asking(app) as client, asking(other) as elsewhere:
            _, images = await voting(client, [link, second])
            assert (await elsewhere.get(images[0])).status_code == 200
            now = other.state.site.visitors.clock()
            bearer = {"authorization": f"Bearer {ADMIN}"}
            data = {"rater": app.state.site.store.rater(link.removeprefix("/r/")).id}
            assert (await client.post("/admin/revoke", data=data, headers=bearer)).status_code == 303
            assert (await client.get(images[0])).status_code == 410
            other.state.site.visitors.clock = lambda: now + FRESH
            assert (await elsewhere.get(images[0])).status_code == 410
            assert (await elsewhere.get(f"{link}/task")).status_code == 410
            assert (await elsewhere.get(images[-1])).status_code == 200

    asyncio.run(scenario())


def test_who_has_just_agreed_gets_images_from_any_process(tmp_path: Path) -> None:
    make_study(tmp_path / "s", consent="We store answers.")
    app, other = make_app(tmp_path / "s"), make_app(tmp_path / "s")
    link = new_link(app)
    token = link.removeprefix("/r/")

    async def scenario() -> None:
        async with asking(app) as client, asking(other) as elsewhere:
            rater = await other.state.site.visitors.lately(token)
            study = app.state.site.store.study
            address = f"{link}/image/{app.state.site.secret.image_name(rater.id, min(study.images))}"
            assert (await elsewhere.get(address)).status_code == 404
            form_token = re.findall(r'name="form_token" value="([^"]+)"', (await client.get(link)).text)[0]
            await client.post(f"{link}/consent", data={"form_token": form_token})
            assert (await elsewhere.get(address)).status_code == 200

    asyncio.run(scenario())


def test_a_known_rater_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    store, reads = app.state.site.store, []
    real = store.rater
    monkeypatch.setattr(store, "rater", lambda token: reads.append(token) or real(token))

    async def scenario() -> None:
        async with asking(app) as client:
            (send,), images = await voting(client, [link])
            await asyncio.gather(*(client.get(address) for address in images * 3))
            await send()
            await client.get(f"{link}/task")

    asyncio.run(scenario())
    assert len(reads) == 1


def test_an_outage_is_one_line_when_it_begins_and_one_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    store = app.state.site.store
    real = store.turn_soon

    def broken(_: str) -> Any:
        raise StoreError("the database host is gone")

    async def scenario() -> None:
        async with asking(app) as client:
            for _ in range(2):
                store.turn_soon = broken
                for _ in range(30):
                    assert (await client.get(f"{link}/task")).status_code == 503
                store.turn_soon = real
                for _ in range(3):
                    assert (await client.get(f"{link}/task")).status_code == 200

    with caplog.at_level(logging.INFO, logger=threads_module.__name__):
        asyncio.run(scenario())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2
    assert "the database host is gone" in caplog.messages[0]
    assert "30 requests" in caplog.messages[1]


def test_threads_send_away_who_comes_too_late() -> None:
    end = threading.Event()

    async def scenario() -> None:
        threads = Threads("test", number=2, queue=3)
        waiting = [asyncio.create_task(threads.run(end.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(Refusal) as refusal:
                await threads.run(int, "7")
            assert refusal.value.status == 503
        end.set()
        await asyncio.gather(*waiting)
        assert await threads.run(int, "7") == 7
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 1, 0)
        threads.close()
        with pytest.raises(Refusal):
            await threads.run(int, "7")

    asyncio.run(scenario())


def test_images_in_memory_are_bounded_and_read_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(png(number, size=(30, 10)))
    size = max(path.stat().st_size for path in paths)

    async def scenario() -> None:
        threads = Threads("test", number=1, queue=1)
        gallery = Gallery(threads, memory=2 * size)
        assert await gallery.ratio(paths[0]) == 3.0
        for path in paths[1:]:
            assert await gallery.file(path) == path.read_bytes()
        assert len(gallery._files) == 2
        assert gallery._size == sum(map(len, gallery._files.values())) <= 2 * size
        for path in paths:
            path.unlink()
        assert await gallery.file(paths[3])
        assert await gallery.ratio(paths[0]) == 3.0
        with pytest.raises(OSError, match=r"0\.png"):
            await gallery.file(paths[0])
        assert await gallery.ratio(tmp_path / "none.png") == 1.0
        threads.close()

    asyncio.run(scenario())

"""The owner's way in: strangers do not keep the owner out, guesses are slowed down, and a session ends when it ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from seedpo.study.export import votes_csv
from seedpo.study.web.security import Limits
from seedpo.study.web.site import SLOWED
from tests.study.web_studies import ADDRESS, ADMIN, FAST, browsing, make_app, make_study, new_link, vote

BEARER = {"authorization": f"Bearer {ADMIN}"}
SLOW = replace(FAST, guesses=1e-6, guesses_burst=3, all_guesses=1e-6, all_guesses_burst=5, guess_seconds=0.0)


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    make_study(tmp_path / "s")
    return make_app(tmp_path / "s", limits=SLOW)


def log_in(client: TestClient) -> str:
    """Logs in; gives the form token of the admin page."""
    assert client.post("/admin/login", data={"token": ADMIN}).status_code == 303
    return form_token_of(client.get("/admin").text)


def form_token_of(page: str) -> str:
    return re.findall(r'name="form_token" value="([^"]+)"', page)[0]


def test_views_without_a_token_cost_the_owner_nothing(app: Starlette) -> None:
    with browsing(app) as client:
        for _ in range(20):
            assert client.get("/admin/votes.csv").status_code == 401
            assert client.get("/admin").status_code == 401
            assert client.post("/admin/revoke", data={"rater": "r"}).status_code == 401
        assert client.post("/admin/login", data={"token": "wrong"}).status_code == 401
        assert log_in(client)


@pytest.mark.parametrize("kind", ["study", "collect"])
def test_only_the_owner_reads_what_a_study_is_made_to_answer(tmp_path: Path, kind: str) -> None:
    settings = {"primary": "frage-zwei"} if kind == "study" else {}
    make_study(tmp_path / "s", kind=kind, **settings)
    app = make_app(tmp_path / "s")
    with browsing(app) as client:
        assert log_in(client)
        aim = re.findall(r'<p id="aim"[^>]*>(.*?)</p>', client.get("/admin").text)
        assert [("frage-zwei" in line, "frage-eins" in line) for line in aim] == [(True, False)] * (kind == "study")
        assert 'id="aim"' not in client.get(new_link(app)).text


GUESSES: dict[str, Callable[[TestClient], Any]] = {
    "log-in": lambda client: client.post("/admin/login", data={"token": "wrong"}),
    "bearer": lambda client: client.get("/admin", headers={"authorization": "Bearer wrong"}),
    "bearer of a download": lambda client: client.get("/admin/votes.csv", headers={"authorization": "Bearer wrong"}),
    "bearer of a form": lambda client: client.post("/admin/links", headers={"authorization": "bearer x"}),
    "cookie": lambda client: client.get("/admin", headers={"cookie": "seedpo_admin=wrong"}),
    "cookie of a form": lambda client: client.post("/admin/revoke", headers={"cookie": "seedpo_admin=wrong"}),
}


@pytest.mark.parametrize("kind", GUESSES)
def test_guesses_are_slowed_down_and_never_the_owner(app: Starlette, kind: str) -> None:
    with browsing(app) as client:
        answers = [GUESSES[kind](client) for _ in range(30)]
        assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 27
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/admin").status_code == 401, "who sends no token is not slowed down"
        assert client.get("/admin", headers=BEARER).status_code == 200
        assert log_in(client)
        assert client.get("/admin").status_code == 200


def test_guesses_from_many_networks_are_slowed_down_together(app: Starlette) -> None:
    def at(address: str) -> TestClient:
        return TestClient(app, base_url=ADDRESS, follow_redirects=False, client=(address, 1))

    def tries(address: str, number: int) -> list[int]:
        return [GUESSES["log-in"](at(address)).status_code for _ in range(number)]

    assert tries("192.0.2.1", 2) == [401, 401]
    assert tries("192.0.2.200", 2) == [401, 429], "the same network"
    assert tries("2001:db8::1", 2) == [401, 401], "another one"
    assert tries("198.51.100.1", 1) == [429], "too many from all networks together"
    for address in ("192.0.2.1", "198.51.100.1", "203.0.113.1"):
        assert log_in(at(address))


def test_a_wrong_token_waits_and_a_right_one_does_not(tmp_path: Path) -> None:
    """Wrong tokens wait for their answers; the right one is accepted while all of them still wait."""
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s", limits=replace(SLOW, guess_seconds=30.0))

    async def scenario() -> None:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client, asyncio.timeout(20):
            wrong = [asyncio.create_task(client.post("/admin/login", data={"token": "x"})) for _ in range(90)]
            await asyncio.sleep(1)
            assert [task.result().status_code for task in wrong if task.done()].count(429) == 90 - 3 - SLOWED
            assert (await client.post("/admin/login", data={"token": ADMIN})).status_code == 303
            assert (await client.get("/admin", headers=BEARER)).status_code == 200
            assert sum(not task.done() for task in wrong) == SLOWED
            for task in wrong:
                task.cancel()

    asyncio.run(scenario())


def test_who_is_slowed_down_still_gets_the_log_in_page(app: Starlette) -> None:
    """A browser keeps the cookie of a session that has ended, and its owner must be able to log in again."""
    with browsing(app) as client:
        for _ in range(9):
            page = client.get("/admin", headers={"cookie": "seedpo_admin=old"})
        assert page.status_code == 429
        assert 'action="/admin/login"' in page.text
        assert "max-age=0" in page.headers["set-cookie"].lower()


def test_the_usual_limits_leave_few_guesses() -> None:
    limits = Limits()
    assert limits.guesses * 86_400 + limits.guesses_burst < 10_000
    assert limits.all_guesses * 86_400 + limits.all_guesses_burst < 100_000


def test_a_session_ends_with_the_log_out_in_every_process(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    with browsing(make_app(tmp_path / "s")) as client, browsing(make_app(tmp_path / "s")) as other:
        form_token = log_in(client)
        cookie = {"cookie": f"seedpo_admin={client.cookies['seedpo_admin']}"}
        assert other.get("/admin", headers=cookie).status_code == 200
        assert other.post("/admin/logout", data={"form_token": form_token}, headers=cookie).status_code == 303
        for browser in (client, other):
            assert browser.get("/admin", headers=cookie).status_code == 401
            assert browser.get("/admin/votes.csv", headers=cookie).status_code == 401
            form = {"form_token": form_token, "number": "1"}
            assert browser.post("/admin/links", data=form, headers=cookie).status_code == 401
    with browsing(make_app(tmp_path / "s")) as restarted:
        assert restarted.get("/admin", headers=cookie).status_code == 401


def test_one_log_out_leaves_other_sessions_and_a_restart_leaves_all(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    with browsing(make_app(tmp_path / "s")) as phone, browsing(make_app(tmp_path / "s")) as desk:
        form_token = log_in(phone)
        log_in(desk)
        phone.post("/admin/logout", data={"form_token": form_token})
        cookie = {"cookie": f"seedpo_admin={desk.cookies['seedpo_admin']}"}
    with browsing(make_app(tmp_path / "s")) as restarted:
        assert restarted.get("/admin", headers=cookie).status_code == 200
    with browsing(make_app(tmp_path / "s", admin_token="another-token-of-the-owner")) as restarted:
        assert restarted.get("/admin", headers=cookie).status_code == 401


@pytest.mark.parametrize("authorization", ["Basic x", "Bearer", "Bearer wrong", f"Basic {ADMIN}", "x", ADMIN])
def test_only_the_right_bearer_token_stands_in_for_a_form_token(app: Starlette, authorization: str) -> None:
    with browsing(app) as client:
        form_token = log_in(client)
        head = {"authorization": authorization}
        assert client.post("/admin/links", headers=head).status_code == 403
        assert client.post("/admin/links", data={"form_token": "x"}, headers=head).status_code == 403
        assert app.state.site.store.raters() == []
        assert client.post("/admin/links", data={"form_token": form_token}, headers=head).status_code == 200
        assert client.post("/admin/links", headers=BEARER).status_code == 200


@pytest.mark.parametrize("action", ["revoke", "exclude", "include"])
@pytest.mark.parametrize("rater", ["", "nobody", "r0123456789abcdef", "ä", "%"])
def test_an_unknown_rater_is_not_found(app: Starlette, action: str, rater: str) -> None:
    new_link(app)
    with browsing(app) as client:
        answer = client.post(f"/admin/{action}", data={"rater": rater}, headers=BEARER)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]
        assert not app.state.site.store.raters()[0].revoked


def test_a_rater_is_excluded_and_included_again(app: Starlette) -> None:
    link = new_link(app)
    (rater,) = app.state.site.store.raters()
    with browsing(app) as client:
        form_token = log_in(client)
        for action, excluded in (("exclude", True), ("include", False)):
            data = {"rater": rater.id}
            assert client.post(f"/admin/{action}", data=data).status_code == 403
            assert client.post(f"/admin/{action}", data=data | {"form_token": form_token}).status_code == 303
            assert app.state.site.store.raters()[0].excluded is excluded
            assert client.get(link).status_code == 200


def test_many_raters_are_listed_in_pages(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seedpo.study.web.admin_pages.RATERS", 4)
    names = [name for name, _ in app.state.site.store.add_raters([f"rater {number}" for number in range(10)])]
    order = [rater.id for rater in app.state.site.store.raters()]
    with browsing(app) as client:
        pages = [client.get("/admin", params={"page": page}, headers=BEARER).text for page in (1, 2, 3)]
        listed = [re.findall(r'<th scope="row">(r[0-9a-f]{16})</th>', page) for page in pages]
        assert [len(page) for page in listed] == [4, 4, 2]
        assert [name for page in listed for name in page] == order
        assert sorted(order) == sorted(names)
        assert client.get("/admin", params={"page": 99}, headers=BEARER).text == pages[2]
        for page in ("0", "-1", "x", "1e3", "9" * 400):
            assert client.get("/admin", params={"page": page}, headers=BEARER).status_code == 422, page
        assert 'href="/admin?page=2"' in pages[0]
        assert "?page=0" not in pages[0]
        assert "?page=4" not in pages[2]


def test_a_large_table_of_votes_comes_in_pages(app: Starlette, monkeypatch: pytest.MonkeyPatch) -> None:
    links = [new_link(app) for _ in range(3)]
    with browsing(app) as client:
        for number in range(18):
            link = links[number % 3]
            state = client.get(f"{link}/task").json()
            vote(client, link, state, "left", key=f"key-{number:08}")
        store = app.state.site.store
        whole = client.get("/admin/votes.csv", headers=BEARER)
        monkeypatch.setattr(store, "pages", partial(store.pages, number=4))
        paged = client.get("/admin/votes.csv", headers=BEARER)
    assert whole.text == paged.text == votes_csv(store.judgements())
    assert whole.text.count("\r\n") == 19


def test_a_rater_is_deleted_after_a_question(app: Starlette) -> None:
    link, other = new_link(app, label="<anna>"), new_link(app)
    store = app.state.site.store
    rater = store.rater(link.removeprefix("/r/")).id
    with browsing(app) as client:
        for number, path in enumerate((link, link, other)):
            vote(client, path, client.get(f"{path}/task").json(), "left", key=f"key-{number:08}")
        address = client.get(f"{link}/task").json()["task"]["items"][0][0]
        assert client.get("/admin/forget", params={"rater": rater}).status_code == 401
        form_token = log_in(client)
        assert f'href="/admin/forget?rater={rater}"' in client.get("/admin").text
        question = client.get("/admin/forget", params={"rater": rater}).text
        assert "&lt;anna&gt;" in question
        assert "2 answers" in question
        assert len(store.judgements()) == 3, "the question deletes nothing"
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', question))
        for missing in fields:
            wrong = {name: value for name, value in fields.items() if name != missing}
            assert client.post("/admin/forget", data=wrong).status_code in (403, 422), missing
        assert len(store.judgements()) == 3
        page = client.post("/admin/forget", data=fields, headers={"accept": "text/html"})
        assert page.status_code == 200
        assert f"{rater} is deleted, with 2 answers to 3 tasks." in page.text
        assert form_token_of(page.text) == form_token
        assert [judgement.show.rater for judgement in store.judgements()] == [store.raters()[0].id]
        for path in (link, f"{link}/task", f"{link}/previous", address):
            assert client.get(path).status_code == 404, path
        assert client.get(f"{other}/task").status_code == 200
        assert client.post("/admin/forget", data=fields).status_code == 404
        assert client.get("/admin/forget", params={"rater": rater}).status_code == 404

"""The application as a rater's browser and its owner's meet it."""

from __future__ import annotations

import csv
import io
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from seedpo.study import folder as folder_module
from seedpo.study.errors import StoreError
from seedpo.study.folder import append_groups
from seedpo.study.records import Candidate, Group
from tests.study.web_studies import ADMIN, CATEGORY, MODELS, browsing, make_app, make_study, new_link, png, vote

HTML = {"accept": "text/html"}
BEARER = {"authorization": f"Bearer {ADMIN}"}


def answer_all(client: TestClient, link: str, sides: tuple[str, ...] = ("left",)) -> list[dict[str, Any]]:
    """Judges until nothing is left; gives the tasks."""
    state, tasks = client.get(f"{link}/task").json(), []
    while state["task"] is not None:
        tasks.append(state["task"])
        side = sides[len(tasks) % len(sides)]
        response = vote(client, link, state, side, key=f"key-{len(tasks):08}")
        assert response.status_code == 200, response.text
        state = response.json()
    return tasks


def test_a_rater_agrees_judges_everything_and_is_thanked(tmp_path: Path) -> None:
    make_study(tmp_path / "s", consent="We keep\nyour answers.", instructions="Look\n<closely>.\n\n- <b>\n- now")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        page = client.get(link).text
        assert "We keep your answers." in page
        assert "study.js" not in page
        assert client.get(f"{link}/task").status_code == 403
        form_token = re.search(r'name="form_token" value="([^"]+)"', page)
        assert form_token is not None
        assert client.post(f"{link}/consent", data={"form_token": "wrong"}).status_code == 403
        answer = client.post(f"{link}/consent", data={"form_token": form_token[1]})
        assert (answer.status_code, answer.headers["location"]) == (303, link)
        page = client.get(link).text
        assert "<p>Look &lt;closely&gt;.</p>" in page, "the ends of lines within a paragraph join"
        assert "<ul><li>&lt;b&gt;</li><li>now</li></ul>" in page
        assert all(
            f'id="{name}"' in page for name in ("start", "task", "prompt", "question", "progress", "done", "back")
        )
        tasks = answer_all(client, link)
        state = client.get(f"{link}/task").json()
    assert len(tasks) == 6
    assert state["task"] is None
    assert state["progress"] == {"done": 6, "total": 6}
    assert {task["layout"]: len(task["items"][0]) for task in tasks} == {"image": 1, "set": 4}
    assert {task["ratio"] for task in tasks} == {1.5}
    assert len(app.state.site.store.judgements()) == 6


def test_what_is_voted_for_is_what_was_on_that_side(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    chosen: dict[str, bytes] = {}
    with browsing(app) as client:
        state = client.get(f"{link}/task").json()
        while state["task"] is not None:
            side = "right" if len(chosen) % 2 else "left"
            chosen[state["task"]["show"]] = client.get(state["task"]["items"][side == "right"][0]).content
            state = vote(client, link, state, side, key=f"key-{len(chosen):08}").json()
        judgements = app.state.site.store.judgements()
    assert len(judgements) == 6
    for judgement in judgements:
        winner = judgement.first if judgement.answer == "first" else judgement.second
        assert study.image(winner.images[0]).read_bytes() == chosen[judgement.show.token]


def test_images_are_bare_and_only_for_the_rater_they_were_shown_to(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link, other = new_link(app), new_link(app)
    with browsing(app) as client:
        address = client.get(f"{link}/task").json()["task"]["items"][0][0]
        key = address.rsplit("/", 1)[1]
        answer = client.get(address)
        assert Image.open(io.BytesIO(answer.content)).size == (12, 8)
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["cache-control"].startswith("private")
        assert not {"last-modified", "etag", "content-disposition"} & set(answer.headers)
        image = next(iter(study.images))
        wrong = [
            f"{other}/image/{key}",
            f"{link}/image/{image}",
            f"{link}/image/{image}.png",
            f"{link}/image/{key[:-1]}{'0' if key[-1] != '0' else '1'}",
            f"{link}/image/..%2f..%2fstudy.yaml",
            f"{link}/image/%2e%2e/groups.jsonl",
            "/static/..%2fapp.py",
            "/static/../secret.py",
            f"{link}/images/{image}.png",
        ]
        for path in wrong:
            assert client.get(path).status_code == 404, path


def test_a_vote_counts_once_and_can_be_corrected(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        first = client.get(f"{link}/task").json()
        answers = [vote(client, link, first, "left", key="same-key-1").json() for _ in range(3)]
        assert [answer["progress"]["done"] for answer in answers] == [1, 1, 1]
        assert len({answer["task"]["show"] for answer in answers}) == 1
        before = client.get(f"{link}/previous", params={"before": answers[0]["task"]["show"]}).json()
        assert before["task"] == first["task"]
        assert client.get(f"{link}/previous", params={"before": first["task"]["show"]}).json()["task"] is None
        corrected = vote(client, link, first, "right", key="other-key-2").json()
        assert corrected["task"] == answers[0]["task"]
        (judgement,) = app.state.site.store.judgements()
    assert judgement.answer == judgement.show.answer("right")
    assert judgement.seconds == 1.5


def test_a_vote_that_cannot_be_counted_is_refused_in_one_sentence(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    wrong: list[tuple[dict[str, Any], int]] = [
        ({"show": "never-shown"}, 409),
        ({"side": "up"}, 422),
        ({"key": "short"}, 422),
        ({"key": "a key with spaces"}, 422),
        ({"seconds": -1.0}, 422),
        ({"seconds": 1e9}, 422),
        ({"model": "zebra"}, 422),
    ]
    with browsing(app) as client:
        state = client.get(f"{link}/task").json()
        for change, status in wrong:
            answer = vote(client, link, state, **{"side": "left", "key": "key-00000001"} | change)
            assert answer.status_code == status, change
            assert set(answer.json()) == {"error"}
        while state["task"]["layout"] != "set":
            state = vote(client, link, state, "left", key=f"key-{state['progress']['done']:08}").json()
        assert "tie" not in state["task"]["choices"]
        assert vote(client, link, state, "tie", key="key-of-the-tie").status_code == 422
        assert len(app.state.site.store.judgements()) == state["progress"]["done"]


def test_a_vote_for_another_raters_pair_or_without_the_pages_token_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link, other = new_link(app), new_link(app)
    with browsing(app) as client:
        state = client.get(f"{link}/task").json()
        client.get(f"{other}/task")
        assert vote(client, other, state, "left", key="key-00000001").status_code == 409
        body = {"show": state["task"]["show"], "side": "left", "key": "key-00000001", "seconds": 1.0}
        assert client.post(f"{link}/vote", json=body).status_code == 403
        foreign = client.get(f"{other}/task").json()["csrf"]
        assert client.post(f"{link}/vote", json=body, headers={"X-CSRF-Token": foreign}).status_code == 403
        assert app.state.site.store.judgements() == []


def test_links_that_do_not_hold_are_explained(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    revoked, expired = new_link(app), new_link(app, days=-1.0)
    store = app.state.site.store
    store.revoke(store.raters()[0].id)
    with browsing(app) as client:
        for link, status in ((revoked, 410), (expired, 410), ("/r/nobody", 404), (f"/r/{'x' * 5000}", 404)):
            page = client.get(link, headers=HTML)
            assert page.status_code == status
            assert 'id="message"' in page.text
            answer = client.get(f"{link}/task")
            assert answer.status_code == status
            assert list(answer.json()) == ["error"]


def test_joining_is_for_studies_that_are_open(tmp_path: Path) -> None:
    make_study(tmp_path / "open", enrolment="open", link_days=3.0)
    make_study(tmp_path / "closed")
    with browsing(make_app(tmp_path / "open")) as client:
        assert 'action="/join"' in client.get("/").text
        answer = client.post("/join")
        assert answer.status_code == 303
        assert client.get(answer.headers["location"]).status_code == 200
    with browsing(make_app(tmp_path / "closed")) as client:
        assert 'action="/join"' not in client.get("/").text
        assert client.post("/join").status_code == 403


def test_nothing_that_tells_the_sides_apart_reaches_a_rater(tmp_path: Path) -> None:
    study = make_study(tmp_path / "s", enrolment="open", consent="Agreed?")
    app = make_app(tmp_path / "s")
    responses: list[bytes] = []
    with browsing(app, raise_server_exceptions=False) as client:

        def keep(response: Any) -> Any:
            head = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
            responses.append(head.encode() + response.content)
            return response

        client.event_hooks["response"] = [lambda response: keep((response.read(), response)[1]) and None]
        link = client.post("/join").headers["location"]
        page = client.get(link).text
        client.post(f"{link}/consent", data={"form_token": re.findall(r'value="([^"]+)"', page)[0]})
        client.get(link)
        tasks = answer_all(client, link, sides=("left", "right", "skip"))
        for address in [*tasks[0]["items"][0], *tasks[-1]["items"][1], f"{link}/previous"]:
            assert client.get(address).status_code == 200
        for path in ("/", f"{link}/image/none", "/nowhere", "/r/none", "/healthz", "/static/study.js", "/admin"):
            client.get(path)
            client.get(path, headers=HTML)
        client.post(f"{link}/vote", json={"show": "none"})
        client.post(f"{link}/vote", content=b"{")
        vote(client, link, {"task": {"show": "none"}}, "left", key="key-00000009")
        group = study.groups[0]
        store = app.state.site.store
        for error, status in (
            (StoreError(f"group {group.id} of {MODELS[0]}"), 503),
            (RuntimeError(f"{group} {tmp_path}"), 500),
        ):
            store.turn_soon = lambda rater, error=error: (_ for _ in ()).throw(error)
            assert client.get(f"{link}/task").status_code == status
    assert len(responses) > 30
    secrets = [*MODELS, CATEGORY, "gruppe-", "frage-", *study.images, str(tmp_path), "flipped", "expected", ".png"]
    for secret in secrets:
        assert not [response for response in responses if secret.encode() in response], secret


def test_groups_that_are_added_while_it_runs_are_shown(tmp_path: Path) -> None:
    make_study(tmp_path / "s", prompts=("a fox",))
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        assert len(answer_all(client, link)) == 2
        pair = tuple(Candidate(source=model, images=(model,)) for model in MODELS)
        new = Group(id="new", question="frage-eins", prompt="a new one", candidates=pair)
        append_groups(tmp_path / "s", [new], {model: png(900 + index) for index, model in enumerate(MODELS)})
        state = client.get(f"{link}/task").json()
        assert state["task"]["prompt"] == "a new one"
        assert client.get(state["task"]["items"][0][0]).status_code == 200


def test_a_restart_keeps_links_pairs_images_and_form_tokens(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        before = client.get(f"{link}/task").json()
    with browsing(make_app(tmp_path / "s")) as client:
        assert client.get(f"{link}/task").json() == before
        assert client.get(before["task"]["items"][0][0]).status_code == 200


def test_the_next_pair_is_named_ahead(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    hits = 0
    with browsing(app) as client:
        state = client.get(f"{link}/task").json()
        for number in range(5):
            ahead = state["preload"]
            assert ahead == sorted(ahead), "their order comes from random names, and says nothing about sides"
            with browsing(make_app(tmp_path / "s")) as other:  # another process of the server
                assert all(browser.get(address).status_code == 200 for browser in (client, other) for address in ahead)
            state = vote(client, link, state, "left", key=f"key-{number:08}").json()
            hits += set(ahead) == set(chain(*state["task"]["items"]))
        assert state["preload"] == []
    assert hits == 5


def test_the_admin_page_is_closed_without_its_token(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    with browsing(app) as client:
        assert client.get("/admin").status_code == 401
        for method, path in (("GET", "votes.csv"), ("POST", "links"), ("POST", "revoke"), ("POST", "logout")):
            answer = client.request(method, f"/admin/{path}", data={"rater": "r"} if method == "POST" else None)
            assert answer.status_code == 401, path
        assert client.post("/admin/login", data={"token": "wrong"}).status_code == 401
        assert client.get("/admin", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert app.state.site.store.raters() == []


def test_the_admin_page_makes_links_once_shows_progress_and_revokes(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    with browsing(app) as client:
        answer = client.post("/admin/login", data={"token": ADMIN})
        cookie = answer.headers["set-cookie"]
        assert ADMIN not in cookie
        assert all(part in cookie.lower() for part in ("httponly", "samesite=strict", "path=/admin"))
        page = client.get("/admin").text
        form_token = re.findall(r'name="form_token" value="([^"]+)"', page)[0]
        assert client.post("/admin/links", data={"number": 2}, headers=HTML).status_code == 403
        fields = {"number": 2, "label": "<b>team</b>", "form_token": form_token}
        made = client.post("/admin/links", data=fields, headers=HTML).text
        links = re.findall(r"http://127\.0\.0\.1:8000(/r/[\w-]+)", made)
        assert len(links) == 2
        answer_all(client, links[0])
        page = client.get("/admin").text
        assert "&lt;b&gt;team&lt;/b&gt; 1" in page
        assert not any(link in page for link in links)
        rater = re.findall(r'name="rater" value="(\w+)"', page)[0]
        assert client.post("/admin/revoke", data={"rater": rater}).status_code == 403
        assert client.post("/admin/revoke", data={"rater": rater, "form_token": form_token}).status_code == 303
        assert sorted(client.get(link).status_code for link in links) == [200, 410]
        client.post("/admin/logout", data={"form_token": form_token})
        assert client.get("/admin").status_code == 401


def test_scripts_use_the_admin_token_and_get_json(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    with browsing(app) as client:
        links = client.post("/admin/links", data={"number": 3}, headers=BEARER).json()["links"]
        assert len(set(links)) == 3
        assert client.get(links[0]).status_code == 200
        assert client.post("/admin/links", data={"number": 10**6}, headers=BEARER).status_code == 422


def test_votes_as_csv_name_the_models_and_run_no_formula(tmp_path: Path) -> None:
    make_study(tmp_path / "s", prompts=('=cmd|"calc"', "+a"))
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        answer_all(client, link)
        answer = client.get("/admin/votes.csv", headers=BEARER)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == 4
    assert {row["prompt"] for row in rows} == {'\'=cmd|"calc"', "'+a"}
    assert {row["first"] for row in rows} | {row["second"] for row in rows} == set(MODELS)
    # Everything was answered "left": the answer is what stood there.
    assert all(row["answer"] == row["order"].split()[0] for row in rows)


def test_a_worker_does_not_read_all_images_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study(tmp_path / "s")
    read: list[bytes] = []
    whole = folder_module.image_id
    monkeypatch.setattr(folder_module, "image_id", lambda content: read.append(content) or whole(content))
    make_app(tmp_path / "s", verify=False).state.site.close()
    assert not read
    make_app(tmp_path / "s").state.site.close()
    assert read

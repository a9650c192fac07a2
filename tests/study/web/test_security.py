"""What precedes every request, and what is derived from the server's key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from seedpo.errors import DataError
from seedpo.servers.guard import HEADERS
from seedpo.study.web.security import Limits, Pace, Secret, read_secret
from tests.study.web_studies import browsing, make_app, make_study, new_link

IMAGE = "0123456789abcdef" * 2


def test_names_of_images_differ_between_raters_and_keys_and_say_nothing() -> None:
    secret = Secret(b"k" * 32)
    name = secret.image_name("r1", IMAGE)
    assert len(name) == 64
    assert secret.image_name("r1", IMAGE) == name
    others = {
        secret.image_name("r2", IMAGE),
        secret.image_name("r1", IMAGE[::-1]),
        Secret(b"l" * 32).image_name("r1", IMAGE),
    }
    assert len({name, *others}) == 4
    assert not any(IMAGE[start : start + 8] in text for text in (name, *others) for start in range(24))
    assert secret.mac("a", "bc") != secret.mac("ab", "c")


def test_a_name_of_an_image_is_read_for_its_rater_only() -> None:
    secret = Secret(b"k" * 32)
    name = secret.image_name("r1", IMAGE)
    assert secret.image_of("r1", name) == IMAGE
    assert secret.image_of("r2", name) is None
    assert Secret(b"l" * 32).image_of("r1", name) is None
    changed = [name[:at] + ("0" if name[at] != "0" else "1") + name[at + 1 :] for at in range(64)]
    for forged in ("", IMAGE, name[:-1], name.upper(), name + "\n", "é" * 64, "\ud800" * 64, *changed):
        assert secret.image_of("r1", forged) is None, forged


def test_form_tokens_are_for_one_holder() -> None:
    secret = Secret(b"k" * 32)
    token = secret.form_token("a")
    assert secret.is_form_token("a", token)
    assert not secret.is_form_token("b", token)
    assert not Secret(b"l" * 32).is_form_token("a", token)
    for forged in ("", "ä", ".", token[:-1], secret.admin_token(), "\ud800"):
        assert not secret.is_form_token("a", forged), forged


def test_the_key_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    secret = read_secret(tmp_path)
    assert read_secret(tmp_path) == secret
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("not a key\n")
    with pytest.raises(DataError, match="delete it"):
        read_secret(tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        read_secret(tmp_path / "nowhere")


def test_a_pace_allows_a_burst_and_then_its_rate() -> None:
    now = [0.0]
    pace = Pace(rate=2.0, burst=3.0, clock=lambda: now[0], keys=2)
    assert [pace.wait("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert pace.wait("b") == 0.0
    now[0] = 0.5
    assert pace.wait("a") == 0.0
    assert pace.wait("a") > 0.0
    now[0] = 1e6
    assert [pace.wait("a") for _ in range(4)][3] > 0.0  # a long rest saves up no more than the burst
    pace.wait("b"), pace.wait("c")
    assert set(pace._buckets) == {"b", "c"}


def test_another_site_and_a_large_body_are_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "s", enrolment="open")
    app = make_app(tmp_path / "s", limits=Limits(body=300))
    link = new_link(app)
    with browsing(app) as client:
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303), ("none", 303)):
            assert client.post("/join", headers={"sec-fetch-site": site}).status_code == status
        assert client.post(f"{link}/vote", content=b"x" * 301).status_code == 413
        # In pieces, without a length.
        assert client.post(f"{link}/vote", content=iter([b"x" * 200] * 2)).status_code == 413
        csrf = {"x-csrf-token": client.get(f"{link}/task").json()["csrf"], "content-type": "application/json"}
        assert client.post(f"{link}/vote", content=iter([b"x" * 200]), headers=csrf).status_code == 422
        assert len(app.state.site.store.raters()) == 3


def test_every_answer_carries_the_headers(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    app = make_app(tmp_path / "s")
    link = new_link(app)
    with browsing(app) as client:
        for path in ("/", link, f"{link}/task", "/r/none", "/static/study.js", "/static/none", "/admin", "/healthz"):
            headers = client.get(path).headers
            assert {name: headers.get(name) for name in HEADERS} == HEADERS, path
            assert ("no-store" in headers["cache-control"]) is (path != "/static/study.js")
        assert "unsafe" not in HEADERS["content-security-policy"]
        for path in ("/", link, "/admin"):
            page = client.get(path).text
            assert "<script>" not in page
            assert " style=" not in page
            assert " onclick=" not in page


def test_who_is_too_fast_waits_and_others_do_not(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    slow = Limits(requests=0.01, requests_burst=3, strangers=0.01, strangers_burst=2)
    app = make_app(tmp_path / "s", limits=slow)
    link, other = new_link(app), new_link(app)
    with browsing(app) as client:
        answers = [client.get(f"{link}/task") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[3].headers["retry-after"]) >= 1
        assert set(answers[3].json()) == {"error"}
        assert client.get(f"{other}/task").status_code == 200
        assert [client.get(f"/r/guess-{number}").status_code for number in range(3)] == [404, 404, 429]
        assert client.get(f"{other}/task").status_code == 200


def test_what_people_write_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'"
    make_study(tmp_path / "s", title=evil, instructions=evil, consent=evil, enrolment="open")
    app = make_app(tmp_path / "s")
    link = new_link(app, label=evil)
    agreed = new_link(app)
    app.state.site.store.consent(app.state.site.store.raters()[1].id)
    with browsing(app) as client:
        admin = {"authorization": f"Bearer {app.state.site.admin_token}"}
        for path in ("/", link, agreed, "/admin"):
            page = client.get(path, headers=admin).text
            assert "<script>alert" not in page
            assert "&lt;script&gt;alert" in page

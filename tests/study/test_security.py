"""What stands before every request, and what is derived from the server's key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from seedpo.errors import DataError
from seedpo.study.secret import Secret, read_secret
from seedpo.study.security import HEADERS, Limits, Pace, is_known_host
from tests.study.web_studies import browsing, make_app, make_study, new_link

IMAGE = "0123456789abcdef" * 2


def test_an_image_key_opens_its_image_for_its_rater_only() -> None:
    secret = Secret(b"k" * 32)
    key = secret.image_key("r1", IMAGE)
    assert IMAGE not in key
    assert secret.image_of("r1", key) == IMAGE
    assert secret.image_key("r1", IMAGE) == key
    assert secret.image_key("r2", IMAGE) != key
    assert secret.image_of("r2", key) is None
    assert Secret(b"l" * 32).image_of("r1", key) is None


@pytest.mark.parametrize("key", ["", "zz", "00" * 32, "0" * 63, "00" * 33, "../" * 20, "é" * 64, IMAGE])
def test_what_is_no_image_key_opens_nothing(key: str) -> None:
    assert Secret(b"k" * 32).image_of("r1", key) is None


def test_every_changed_digit_spoils_an_image_key() -> None:
    secret = Secret(b"k" * 32)
    key = secret.image_key("r1", IMAGE)
    for place in range(len(key)):
        digit = "0" if key[place] != "0" else "1"
        assert secret.image_of("r1", key[:place] + digit + key[place + 1 :]) is None


def test_tokens_are_for_one_holder_and_sessions_end() -> None:
    secret = Secret(b"k" * 32)
    assert secret.is_form_token("a", secret.form_token("a"))
    assert not secret.is_form_token("b", secret.form_token("a"))
    assert not secret.is_form_token("a", "ä")
    session = secret.session("admin", now=1000.0)
    assert secret.is_session("admin", session, now=1000.0 + 11 * 3600)
    assert not secret.is_session("admin", session, now=1000.0 + 13 * 3600)
    assert not secret.is_session("other", session, now=1000.0)
    later = f"{int(session.partition('.')[0]) + 1}.{session.partition('.')[2]}"
    for forged in (later, "", ".", "x.y", "9" * 5000 + ".z"):
        assert not secret.is_session("admin", forged, now=1000.0)
    assert secret.mac("a", "bc") != secret.mac("ab", "c")


def test_the_key_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    secret = read_secret(tmp_path)
    assert read_secret(tmp_path) == secret
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("not a key\n")
    with pytest.raises(DataError, match="delete it"):
        read_secret(tmp_path)
    with pytest.raises(DataError, match="the server keeps its key there"):
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


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("[::1]:8000", True),
        ("192.0.2.7:8000", True),
        ("study.example.org", True),
        ("study.example.org.:443", True),
        ("evil.example.org", False),
        ("study.example.org.evil.com", False),
        ("", False),
        ("127.0.0.1.evil.com", False),
    ],
)
def test_only_own_names_are_answered_to(host: str, known: bool) -> None:
    assert is_known_host(host, ["Study.example.org"]) is known


def test_a_foreign_host_another_site_and_a_large_body_are_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "s", enrolment="open")
    app = make_app(tmp_path / "s", limits=Limits(body=300), hosts=["study.example.org"])
    link = new_link(app)
    with browsing(app) as client:
        assert client.get("/", headers={"host": "evil.example.org"}).status_code == 400
        assert client.get("/", headers={"host": "study.example.org"}).status_code == 200
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303), ("none", 303)):
            assert client.post("/join", headers={"sec-fetch-site": site}).status_code == status
        assert client.post(f"{link}/vote", content=b"x" * 301).status_code == 413
        # In pieces, without a length.
        assert client.post(f"{link}/vote", content=iter([b"x" * 200] * 2)).status_code == 413
        assert client.post(f"{link}/vote", content=iter([b"x" * 200])).status_code == 422
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
        refused = client.get("/", headers={"host": "evil"})
        assert refused.headers["x-content-type-options"] == "nosniff"


def test_who_is_too_fast_waits_and_others_do_not(tmp_path: Path) -> None:
    make_study(tmp_path / "s")
    slow = Limits(requests=0.01, requests_burst=3, strangers=0.01, strangers_burst=2, logins=0.01, logins_burst=2)
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
        tries = [client.post("/admin/login", data={"token": "x"}).status_code for _ in range(3)]
        assert tries == [401, 401, 429]


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

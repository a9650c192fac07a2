"""Requests that no browser sends: each is refused with one sentence, at once, and leaves no traceback in the log."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from seedpo.servers.guard import HEADERS, host_of, is_address
from seedpo.study.web.security import network
from seedpo.study.web.serving import serving_aside
from tests.study.web_studies import ADMIN, browsing, make_app, make_study, new_link

BEARER = {"authorization": f"Bearer {ADMIN}"}
FORM = {"content-type": "application/x-www-form-urlencoded"}

KNOWN = (
    "127.0.0.1:8000", "127.0.0.1", "localhost", "LOCALHOST:80", "localhost.", "[::1]", "[::1]:8000", "[2001:DB8::7]",
    "192.0.2.7:8000", "study.example.org", "Study.Example.org:443", "study.example.org.:443",
)  # fmt: skip
FOREIGN = (
    "", " ", ":", ":8000", "evil.example.org", "study.example.org.evil.com", "www.study.example.org", "[x]", "[]",
    "[::1]evil.com", "[::1].evil.com", "[::1]:8000evil", "[::1", "::1", "::1]", "[[::1]]", "[::1%25eth0]", "[127.0.0.1",
    "127.0.0.1.evil.com", "127.0.0.1:8000.evil.com", "127.0.0.1:evil.com", "127.0.0.1:", "127.0.0.1:65536",
    "127.0.0.1:123456", "127.0.0.1:-1", "127.0.0.1:8000:8000", "127.0.0.1/", "127.0.0.1?x", "127.0.0.1#x",
    "127.0.0.1\\evil.com", "user@127.0.0.1", "user:password@127.0.0.1:8000", "localhost:evil.com", "localhost@evil.com",
    "localhost,evil.com", "evil.com, localhost", "localhost evil.com", "0x7f.1", "2130706433", "127.1", "0127.0.0.1",
    "localhost\x00", "*", "*.example.org",
)  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    folder: Path = tmp_path_factory.mktemp("hostile") / "s"
    make_study(folder, enrolment="open", raters_per_pair=1000)
    return make_app(folder, hosts=["Study.example.org"])


@pytest.fixture(scope="module")
def client(app: Starlette) -> Iterator[TestClient]:
    with browsing(app) as client:
        yield client


def answer_to(app: Starlette, **scope: Any) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request as a server hands it on."""
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    usual = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "scheme": "http"}
    asyncio.run(app({**usual, **scope}, receive, send))
    start = messages[0]
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}


def test_only_own_names_and_addresses_are_answered(app: Starlette) -> None:
    for host in [*KNOWN, *FOREIGN]:
        status, headers = answer_to(app, headers=[(b"host", host.encode())])
        assert status == (200 if host in KNOWN else 400), host
        assert {name: headers.get(name) for name in HEADERS} == HEADERS


def test_no_host_two_hosts_and_targets_with_a_host_of_their_own_are_refused(app: Starlette) -> None:
    host = (b"host", b"localhost")
    assert answer_to(app, headers=[host])[0] == 200
    assert answer_to(app, headers=[])[0] == 400
    assert answer_to(app, headers=[host, host])[0] == 400
    assert answer_to(app, headers=[host, (b"host", b"evil.com")])[0] == 400
    for path in ("http://evil.com/", "http://localhost/", "*", "", "evil.com:80", "user@localhost"):
        assert answer_to(app, headers=[host], path=path)[0] == 400, path


def test_a_server_refuses_what_is_not_for_it(tmp_path: Path) -> None:
    """Through a real socket: what the server's parser makes of a request is what the application judges."""
    make_study(tmp_path / "s")
    good = "Host: 127.0.0.1\r\n"
    requests = {
        f"GET / HTTP/1.1\r\n{good}": 200,
        f"GET http://evil.com/ HTTP/1.1\r\n{good}": 400,
        f"GET http://127.0.0.1/ HTTP/1.1\r\n{good}": 400,
        f"GET //evil.com/ HTTP/1.1\r\n{good}": 404,
        f"GET * HTTP/1.1\r\n{good}": 400,
        f"OPTIONS * HTTP/1.1\r\n{good}": 400,
        f"CONNECT evil.com:443 HTTP/1.1\r\n{good}": 400,
        f"GET / HTTP/1.1\r\n{good}{good}": 400,
        f"GET / HTTP/1.1\r\n{good}host: evil.com\r\n": 400,
        f"GET / HTTP/1.1\r\nHost: evil.com\r\n{good}": 400,
        "GET / HTTP/1.1\r\n": 400,
        "GET / HTTP/1.0\r\n": 400,
        "GET / HTTP/1.1\r\nHost:\r\n": 400,
        "GET / HTTP/1.1\r\nHost: [::1]evil.com\r\n": 400,
        "GET / HTTP/1.1\r\nHost: user@127.0.0.1\r\n": 400,
        f"GET / HTTP/1.1\r\n{good}X-Forwarded-Host: evil.com\r\n": 200,
    }
    with serving_aside(tmp_path / "s") as address:
        for text, status in requests.items():
            with socket.create_connection(("127.0.0.1", int(address.rsplit(":", 1)[1])), timeout=30) as connection:
                connection.sendall(f"{text}Connection: close\r\n\r\n".encode())
                answer = connection.makefile("rb").read()
            assert answer.split()[1] == str(status).encode(), text
            assert b"evil" not in answer


def test_hosts_and_networks_are_read_strictly() -> None:
    assert host_of("[2001:DB8::1]:80") == "2001:db8::1"
    assert host_of("a.B:1") == "a.b"
    assert is_address("192.0.2.1")
    assert not is_address("192.0.2")
    assert network("192.0.2.77") == network("192.0.2.1") == network("::ffff:192.0.2.9") == "192.0.2.0/24"
    assert network("2001:db8:0:1::1") == network("2001:db8:0:ff::2") != network("2001:db8:0:100::1")
    assert network("testclient") == network("") == ""


def vote_bodies() -> dict[str, bytes]:
    good = {"show": "x" * 24, "side": "left", "key": "key-00000001", "seconds": 1.5}
    changes: dict[str, Any] = {
        "a number as text": {"seconds": "1.5"},
        "true": {"seconds": True},
        "a list": {"seconds": [1]},
        "text as a list": {"show": ["x"]},
        "an object": {"side": {"left": 1}},
        "null": {"side": None},
        "NUL": {"show": "x\0y"},
        "NUL in the key": {"key": "key-0000\0001"},
        "a surrogate": {"show": "\ud800"},
        "a surrogate as side": {"side": "\udfff"},
        "a line break": {"show": "x\n"},
        "a line break in the key": {"key": "key-00000001\n"},
        "a huge place": {"best": 10**300},
        "a fraction as place": {"best": 0.5},
        "a negative place": {"worst": -1},
        "a field too many": {"rater": "r1"},
    }
    bodies = {name: json.dumps(good | change).encode() for name, change in changes.items()}
    text = json.dumps(good)[:-1]
    return bodies | {
        "nothing": b"",
        "white space": b"   ",
        "half": text.encode(),
        "a list of votes": b"[" + text.encode() + b"}]",
        "text": b'"left"',
        "a number": b"1e999",
        "deep lists": b"[" * 8000 + b"]" * 8000,
        "open lists": b"[" * 16000,
        "deep objects": b'{"a":' * 2500 + b"1" + b"}" * 2500,
        "a deep field": text.encode() + b',"best":' + b"[" * 7000 + b"]" * 7000 + b"}",
        "many digits": text.encode() + b',"best":' + b"9" * 10_000 + b"}",
        "infinite seconds": text.replace("1.5", "1e999").encode() + b"}",
        "NaN": text.replace("1.5", "NaN").encode() + b"}",
        "a field twice": text.encode() + b',"side":"right"}',
        "many fields": ("{" + ",".join(f'"{number}":1' for number in range(1500)) + "}").encode(),
        "not UTF-8": b'{"show":"\xff\xfe"}',
        "UTF-16": text.encode("utf-16")[:100],
        "a mark of byte order": b"\xef\xbb\xbf" + text.encode() + b"}",
        "two values": text.encode() + b"}{}",
        "a comment": b"//" + text.encode() + b"}",
    }


@pytest.mark.parametrize("name", vote_bodies())
def test_a_vote_that_is_none_is_refused(
    app: Starlette, client: TestClient, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = new_link(app)
    head = {"x-csrf-token": client.get(f"{link}/task").json()["csrf"], "content-type": "application/json"}
    with caplog.at_level(logging.WARNING):
        answer = client.post(f"{link}/vote", content=vote_bodies()[name], headers=head)
    assert answer.status_code == 422
    assert set(answer.json()) == {"error"}
    assert not [record for record in caplog.records if record.name.startswith(("seedpo", "uvicorn", "asyncio"))]
    assert app.state.site.store.judgements() == []


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "é/x"])
def test_a_vote_of_another_type_is_refused(app: Starlette, client: TestClient, kind: str) -> None:
    link = new_link(app)
    state = client.get(f"{link}/task").json()
    body = {"show": state["task"]["show"], "side": "left", "key": "key-00000001"}
    head = {"x-csrf-token": state["csrf"].encode(), "content-type": kind.encode("latin-1")}
    assert client.post(f"{link}/vote", content=json.dumps(body), headers=head).status_code == 415
    head["content-type"] = b"application/json; charset=utf-8"
    assert client.post(f"{link}/vote", content=json.dumps(body), headers=head).status_code == 200


FORMS = {
    "many fields": b"&".join(b"f%d=1" % number for number in range(1000)),
    "many empty fields": b"&" * 10_000,
    "many names": b"token=x&" * 1000,
    "a field twice": b"rater=r1&rater=r2",
    "a field too many": b"rater=r1&number=1&model=x&side=left",
    "NUL": b"rater=r%001&number=%00&label=%00",
    "not UTF-8": b"rater=%ff%fe&number=%ff&label=%ff",
    "half a surrogate": b"rater=%ed%a0%80&number=1",
    "a long text": b"rater=" + b"r" * 5000 + b"&label=" + b"x" * 5000,
    "a huge number": b"rater=&number=" + b"9" * 5000,
    "JSON": b'{"rater":"r1"}',
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("path", ["links", "revoke", "exclude", "include", "login", "logout"])
def test_a_form_that_is_none_is_refused(
    app: Starlette, client: TestClient, name: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    raters = app.state.site.store.raters()
    with caplog.at_level(logging.WARNING):
        answer = client.post(f"/admin/{path}", content=FORMS[name], headers=BEARER | FORM)
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.text
    assert not [record for record in caplog.records if record.name.startswith(("seedpo", "uvicorn", "asyncio"))]
    assert app.state.site.store.raters() == raters


def test_hostile_addresses_are_refused(app: Starlette, client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    link = new_link(app)
    paths = [
        "/r/%00", "/r/%ed%a0%80", "/r/" + "a" * 43, "/r/" + "a" * 5000, "/r/..%2f..", f"{link}/image/%00",
        f"{link}/image/{'f' * 64}", f"{link}/image/{'f' * 5000}", f"{link}/previous?before=%00",
        f"{link}/previous?before=x&before=y", f"{link}/previous?" + "a&" * 2000, f"{link}/previous?before=%ff",
        "/static/%00", "/static/..%2f..%2fapp.py", "/admin/..%2f", f"{link}/vote", "/r//task",
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        for path in paths:
            answer = client.get(path)
            assert 400 <= answer.status_code < 500, path
            assert len(answer.text) < 200
            assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, path
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL"):
            assert client.request(method, f"{link}/task").status_code == 405, method
    assert not [record for record in caplog.records if record.name.startswith(("seedpo", "uvicorn", "asyncio"))]

from __future__ import annotations

import logging
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError, RewardServerError
from seedpo.rewards.remote import transport
from seedpo.rewards.remote.transport import Transport
from seedpo.rewards.settings import HttpSettings
from tests.rewards.remote.stand_in import Answer, as_json, served, slowly


def transport_to(url: str, **settings: Any) -> Transport:
    return Transport("far", HttpSettings(url=url, reward="size", **settings), first_wait=0.01)


def test_answers_come_in_order_and_no_more_requests_run_at_once_than_allowed() -> None:
    def answer(_method: str, _path: str, body: Any) -> Answer:
        time.sleep(0.05 if body["number"] % 2 else 0.01)
        return as_json({"number": body["number"]})

    seen: list[int] = []
    with served(answer) as server:
        bodies = [{"number": number} for number in range(12)]
        answers = transport_to(server.url, concurrency=3).post_all(
            "/score", bodies, on_answer=lambda row, _: seen.append(row)
        )
    assert [answer["number"] for answer in answers] == list(range(12))
    assert sorted(seen) == list(range(12))
    assert server.busiest == 3
    assert all(path == "/score" for _, path, _, _ in server.asked)


def test_nothing_is_asked_for_nothing() -> None:
    assert transport_to("http://127.0.0.1:9").post_all("/score", []) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int) -> None:
    answers = iter([as_json({"error": "busy"}, status), as_json({"error": "busy"}, status), as_json({"ok": 1})])
    with served(lambda *_: next(answers)) as server:
        assert transport_to(server.url).get("/rewards") == {"ok": 1}
    assert len(server.asked) == 3


def test_waits_double_within_a_bound_and_a_server_may_ask_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(transport.asyncio, "sleep", sleep)
    answers = iter([as_json({}, 503)] * 4 + [as_json({}, 429, **{"retry-after": "9"})] + [as_json({}, 503)] * 7)
    with served(lambda *_: next(answers)) as server, pytest.raises(RewardServerError, match=r"503: \{\} \(12 tries\)"):
        Transport("far", HttpSettings(url=server.url, reward="size", retries=11), first_wait=1.0).get("/rewards")
    doubling = [1.0, 2.0, 4.0, 8.0, 9.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0]
    assert len(waits) == 11
    assert all(limit / 2 <= wait <= max(limit, 16.0) for wait, limit in zip(waits, doubling, strict=True))
    assert waits[4] >= 9.0
    assert max(waits) <= 60.0


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (as_json({"error": "no such reward"}, 404), r"answered 404: no such reward; check the address"),
        (as_json({"error": {"message": "bad\nkey"}}, 401), r"answered 401: bad key; name the environment variable"),
        ((302, {"location": "http://169.254.169.254/"}, b""), r"redirects to 'http://169.254.169.254/', which is not"),
        ((200, {"content-type": "text/html"}, b"<html>hello"), r"no JSON object \(text/html, <html>hello\)"),
        ((200, {"content-type": "application/json"}, b'{"scores": [1, 2'), r"no JSON object \(application/json, "),
        ((200, {"content-type": "application/json"}, b"[" * 100_000), r"no JSON object"),
        ((200, {"content-type": "application/json"}, b'{"a": "\xff"}'), r"no JSON object"),
        ((200, {"content-type": "application/json"}, b"[1]"), r"no JSON object"),
        (as_json({}, 200, **{"content-encoding": "gzip"}), r"encoding 'gzip', which was not asked for"),
        ((204, {}, b""), r"no JSON object"),
        ((418, {}, b"\x1b[31m tea"), r"answered 418: \\x1b\[31m tea"),
    ],
)
def test_lies_are_one_line_and_not_asked_again(answer: Answer, message: str) -> None:
    with served(lambda *_: answer) as server, pytest.raises(RewardServerError, match=message) as caught:
        transport_to(server.url).get("/rewards")
    assert len(server.asked) == 1
    assert str(caught.value).startswith(f"reward far at {server.url}: ")
    assert "\n" not in str(caught.value)


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_BYTES", 100_000)
    sent: list[int] = []

    def flood(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10000000000\r\n\r\n")
        with suppress(OSError):  # the client had enough
            while True:
                sent.append(connection.send(b" " * 1_000_000))

    with served(lambda *_: flood) as server, pytest.raises(RewardServerError, match="larger than 100,000 bytes"):
        transport_to(server.url).get("/rewards")
    assert sum(sent) < 100_000_000


def test_a_server_that_trickles_is_left_in_time() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n"
    start = time.monotonic()
    with served(lambda *_: slowly([head, *[b" "] * 400], 0.05)) as server:
        with pytest.raises(RewardServerError, match=r"no whole answer within 0.3 s \(1 try\); start it again"):
            transport_to(server.url, timeout=0.3, retries=0).get("/rewards")
        assert time.monotonic() - start < 10.0


def test_headers_that_never_end_are_left_in_time() -> None:
    start = time.monotonic()
    with served(lambda *_: slowly([b"HTTP/1.1 200 OK\r\n", *[b"a: b\r\n"] * 400], 0.05)) as server:
        with pytest.raises(RewardServerError, match=r"no whole answer within 0.3 s"):
            transport_to(server.url, timeout=0.3, retries=0).get("/rewards")
        assert time.monotonic() - start < 10.0


@pytest.mark.parametrize("parts", [[], [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"], [b"\x00\x01 hello\r\n\r\n"]])
def test_a_server_that_hangs_up_is_asked_again(parts: list[bytes]) -> None:
    answers: Any = iter([slowly(parts, 0.0), as_json({"ok": 1})])
    with served(lambda *_: next(answers)) as server:
        assert transport_to(server.url).get("/rewards") == {"ok": 1}


def test_a_connection_that_is_reset_says_so() -> None:
    def reset(connection: Any) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with served(lambda *_: reset) as server, pytest.raises(RewardServerError, match=r"does not answer \(\w+.*\) \(1"):
        transport_to(server.url, retries=0).get("/rewards")


def test_no_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(RewardServerError, match=r"does not answer \(.*\) \(3 tries\); start it again, then repeat"):
            transport_to(f"http://127.0.0.1:{port}", retries=2).get("/rewards")


def test_one_failure_ends_the_others() -> None:
    def answer(_method: str, _path: str, body: Any) -> Answer:
        if body["number"] == 1:
            return as_json({"error": "no"}, 400)
        time.sleep(0.1)
        return as_json({})

    with served(answer) as server:
        with pytest.raises(RewardServerError, match="answered 400: no"):
            transport_to(server.url, concurrency=2).post_all("/score", [{"number": number} for number in range(50)])
        assert len(server.asked) < 10


def test_an_error_of_the_reader_ends_all() -> None:
    def refuse(_row: int, _answer: Any) -> None:
        raise RewardServerError("not this")

    with served(lambda *_: as_json({})) as server, pytest.raises(RewardServerError, match="not this"):
        transport_to(server.url, concurrency=1).post_all("/score", [{}] * 20, on_answer=refuse)
    assert len(server.asked) < 5


class TestKey:
    def test_it_is_sent_and_never_shown(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MY_KEY", "s3cret-key")
        answer = as_json({"error": "the token s3cret-key is wrong"}, 403)
        with caplog.at_level(logging.DEBUG, logger="seedpo"), served(lambda *_: answer) as server:
            with pytest.raises(
                RewardServerError, match=r"the token \*\*\* is wrong; .* MY_KEY holds another"
            ) as caught:
                transport_to(server.url, key_env="MY_KEY").get("/rewards")
        assert server.asked[0][2]["authorization"] == "Bearer s3cret-key"
        assert "s3cret" not in str(caught.value) + caplog.text

    def test_nor_where_it_is_asked_again_or_cut_short(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MY_KEY", "s3cret-key")
        answer = as_json({"error": f"{'.' * 295}s3cret-key"}, 503)
        with caplog.at_level(logging.DEBUG, logger="seedpo"), served(lambda *_: answer) as server:
            with pytest.raises(RewardServerError) as caught:
                transport_to(server.url, key_env="MY_KEY", retries=1).get("/rewards")
        assert "asked again in" in caplog.text
        assert "s3cr" not in str(caught.value) + caplog.text

    def test_it_must_be_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MY_KEY", raising=False)
        with pytest.raises(ConfigError, match=r"reward far: the environment variable MY_KEY \(key_env\) is not set"):
            transport_to("http://127.0.0.1:9", key_env="MY_KEY")
        monkeypatch.setenv("MY_KEY", "two\nlines")
        with pytest.raises(ConfigError, match="MY_KEY holds no key"):
            transport_to("http://127.0.0.1:9", key_env="MY_KEY")

    def test_a_warning_where_it_travels_unencrypted(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MY_KEY", "s3cret-key")
        for url, warned in [
            ("http://127.0.0.1:9", False),
            ("https://gpu.example", False),
            ("http://gpu.example:80/v1", True),
        ]:
            caplog.clear()
            transport_to(url, key_env="MY_KEY")
            assert ("travels unencrypted" in caplog.text) is warned


def test_no_proxy_stands_between_this_machine_and_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with served(lambda *_: as_json({"ok": 1})) as server:
        assert transport_to(server.url, retries=0).get("/rewards") == {"ok": 1}


def test_it_works_inside_of_a_running_loop() -> None:
    import asyncio

    async def notebook(url: str) -> Any:
        return transport_to(url).get("/rewards")

    with served(lambda *_: as_json({"ok": 1})) as server:
        assert asyncio.run(notebook(server.url)) == {"ok": 1}


def test_what_cannot_be_an_address() -> None:
    for url in ("127.0.0.1:8077", "ftp://a/b", "http://user:pw@a/", "http://a/?q=1", "http://", "http://a b/"):
        with pytest.raises(ValueError, match="write the address of a server"):
            HttpSettings(url=url, reward="size")
    assert HttpSettings(url="https://a.example/rewards/", reward="size").url == "https://a.example/rewards"
    assert Path(HttpSettings(url="http://a", reward="size", cache="x.db").cache or "") == Path("x.db")

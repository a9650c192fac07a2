"""Idle, slow and hostile clients against the server, by raw sockets."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from seedpo.servers import connections
from seedpo.servers.addresses import listen
from seedpo.servers.connections import SPARE_FILES, BoundedServer, allowed_connections
from tests.study.web_studies import make_study

GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
LARGE = b"x" * 20_000_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, after the whole body, or never, as the path says."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/busy":
        await receive()  # until the client goes
    body = LARGE if scope["path"] == "/large" else b"ok\n"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limit: int = 100) -> Iterator[int]:
    """The port of a server in a thread."""
    listener = listen("127.0.0.1", 0)
    server = BoundedServer(app, limit=limit)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUEST_SECONDS", "ANSWER_SECONDS", "IDLE_SECONDS"):
        monkeypatch.setattr(connections, name, 1.0)


def opened(stack: ExitStack, port: int, *parts: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20.0))
    for part in parts:
        connection.sendall(part)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that the server sends until it closes; a reset counts as closed."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def status(port: int, request: bytes = GET) -> bytes:
    with ExitStack() as stack:
        return opened(stack, port, request).recv(12)


def trickle(connection: socket.socket) -> None:
    """Sends less than the body, for far longer than a request may take."""
    for _ in range(90):
        connection.sendall(b"x")
        time.sleep(0.1)


SLOW = {
    "nothing at all": [],
    "half a line": [b"GET /he"],
    "half a header": [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Half: "],
    "no body": [POST],
    "half a body": [POST, b"x" * 50],
    "half a chunk": [b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n20\r\nxxx"],
    "half a header after a request": [GET, GET[:20]],
}


@pytest.mark.usefixtures("hasty")
def test_connections_that_send_no_whole_request_are_closed() -> None:
    with serving() as port, ExitStack() as stack:
        slow = {kind: opened(stack, port, *parts) for kind, parts in SLOW.items()}
        ends = {kind: answer(connection) for kind, connection in slow.items()}
        assert {kind for kind, end in ends.items() if b"200" in end} == {"half a header after a request"}
        assert status(port) == b"HTTP/1.1 200"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("start", [b"GET /healthz HTTP/1.1\r\nX-Slow: ", POST])
def test_trickled_bytes_do_not_prolong_a_request(start: bytes) -> None:
    with serving() as port, ExitStack() as stack:
        connection = opened(stack, port, start)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            trickle(connection)


@pytest.mark.usefixtures("hasty")
def test_an_idle_connection_ends_and_a_busy_one_does_not() -> None:
    with serving() as port, ExitStack() as stack:
        busy = opened(stack, port, GET.replace(b"/healthz", b"/busy"))
        idle = opened(stack, port, GET)
        assert answer(idle).endswith(b"ok\n")
        busy.settimeout(2.0)
        with pytest.raises(TimeoutError):
            busy.recv(1)


@pytest.mark.usefixtures("hasty")
def test_an_answer_that_nobody_takes_ends() -> None:
    with serving() as port, ExitStack() as stack:
        stalled = opened(stack, port, GET.replace(b"/healthz", b"/large"))
        time.sleep(3.5)
        assert len(answer(stalled)) < len(LARGE)


def test_head_and_body_of_an_answer_come_together() -> None:
    with serving() as port, ExitStack() as stack:
        connection = opened(stack, port)
        for _ in range(20):
            connection.sendall(GET)
            assert connection.recv(65536).endswith(b"ok\n")


def test_a_new_connection_takes_the_place_of_the_longest_wait() -> None:
    with serving(limit=10) as port, ExitStack() as stack:
        busy = [opened(stack, port, GET.replace(b"/healthz", b"/busy")) for _ in range(4)]
        assert status(port) == b"HTTP/1.1 200"
        waiting = [opened(stack, port, GET[:20]) for _ in range(50)]
        assert status(port) == b"HTTP/1.1 200"
        assert answer(waiting[0]) == b""
        waiting[-1].sendall(GET[20:])
        assert waiting[-1].recv(12) == b"HTTP/1.1 200"
        for connection in busy:
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)


def test_if_all_are_busy_a_new_connection_is_closed() -> None:
    with serving(limit=4) as port, ExitStack() as stack:
        busy = [opened(stack, port, GET.replace(b"/healthz", b"/busy")) for _ in range(4)]
        time.sleep(0.3)
        assert answer(opened(stack, port)) == b""
        busy[0].close()
        time.sleep(0.3)
        assert status(port) == b"HTTP/1.1 200"


HOSTILE = {
    "many headers": GET[:-2] + b"a: b\r\n" * 20_000 + b"\r\n",
    "a long header": GET[:-2] + b"a: " + b"b" * 200_000 + b"\r\n\r\n",
    "a long line": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "no colon": GET[:-2] + b"broken\r\n\r\n",
    "a space before the colon": GET[:-2] + b"Content-Length : 3\r\n\r\n",
    "NUL": GET[:-2] + b"a: \x00\r\n\r\n",
    "two hosts": GET[:-2] + b"Host: other\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
    "a length that is no number": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    "a broken chunk": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nabc\r\n0\r\n\r\n",
}


def test_hostile_requests_are_refused_in_one_line() -> None:
    with serving() as port, ExitStack() as stack:
        for kind, request in HOSTILE.items():
            connection = opened(stack, port)
            with suppress(OSError):  # closed before all was sent
                connection.sendall(request + GET)  # the second request must not be read from the rest of the first
            end = answer(connection)
            assert not end or end[9:12] in (b"400", b"431"), (kind, end)
            assert end.count(b"HTTP/1.1") <= 1, kind
            assert len(end) < 300, kind
            assert status(port) == b"HTTP/1.1 200", kind


SERVE = (
    "import resource, sys; from pathlib import Path; from seedpo.study.web.serving import serve; "
    "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); serve(Path(sys.argv[1]), port=0)"
)


def test_health_under_idle_connections_with_few_files(tmp_path: Path) -> None:
    """300 half headers against 256 open files: the server answers, and its log stays small."""
    study = make_study(tmp_path / "s", prompts=("a fox",))
    log = tmp_path / "log"
    command = [sys.executable, "-u", "-c", SERVE, str(study.folder)]
    with log.open("wb") as errors, ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors))
        stack.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline().split()[1].rstrip(b"/").rpartition(b":")[2])
        while server.stdout.readline().partition(b":")[0] != b"stop":
            pass
        idle = [opened(stack, port, GET[:-20]) for _ in range(300)]
        assert [status(port) for _ in range(5)] == [b"HTTP/1.1 200"] * 5
        assert len(idle) == 300
    assert log.stat().st_size < 10_000


def test_the_limit_leaves_files_for_the_database() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert allowed_connections(500) == 500
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 500 + SPARE_FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

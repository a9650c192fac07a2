"""A web server that idle, slow and hostile connections cannot stop.

uvicorn bounds neither the number of connections nor the time in which a request arrives. Here

* a process keeps at most so many connections. A new one takes the place of the one that has waited longest for its
  request; connections whose request is being answered keep theirs;
* a request arrives within :data:`REQUEST_SECONDS`, however slowly it trickles; a client takes an answer within
  :data:`ANSWER_SECONDS`; an idle connection ends after :data:`IDLE_SECONDS`;
* a request with too many headers, or with two statements of its length, is refused;
* there are always files left for the database and images: connections never use up what the system allows.
"""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, cast

import h11
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

CONNECTIONS = 4096
"""Connections of one process, if the system lets it open so many files."""

SPARE_FILES = 128
"""Open files of a process that are kept for the database, images and libraries."""

REQUEST_SECONDS = 10.0
"""In which a request arrives, from its first byte (a new connection: from its beginning) to its last."""

ANSWER_SECONDS = 120.0
"""In which a client takes an answer."""

IDLE_SECONDS = 75
"""After which a connection without a request is closed; longer than a rater looks at two images."""

HEADER_BYTES = 16_384
"""Of a request's line and headers together."""

HEADERS = 100
"""Of a request; browsers and proxies send about 20."""

QUEUE = 512
"""Connections that the system holds until the server takes them."""


class Connections(ServerState):
    """The connections of a server.

    Attributes:
        limit: most connections at a time.
        request_seconds: in which a request arrives.
        waiting: those whose request is not complete, the longest wait first (the values mean nothing).
    """

    def __init__(self, limit: int, request_seconds: float) -> None:
        super().__init__()
        self.limit = limit
        self.request_seconds = request_seconds
        self.waiting: dict[BoundedProtocol, None] = {}


class JoinedWrites(asyncio.Transport):
    """A transport that sends the head and the body of an answer together.

    Sent one after the other, they wake the client twice; that doubles the processor time of a small answer.

    Args:
        transport: of the connection.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._parts: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, data: Any) -> None:
        """Sends at the end of this turn of the loop."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Sends what is left, then closes."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Closes at once."""
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closing or closed."""
        return self._transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not taken."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Leaves what arrives to the system."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The opposite."""
        self._transport.resume_reading()


class BoundedProtocol(H11Protocol):
    """A connection that knows since when it has been waiting."""

    server_state: Connections

    def connection_made(self, transport: Any) -> None:
        """Makes room for itself if all places are taken."""
        super().connection_made(transport)
        self.transport = JoinedWrites(transport)
        self.has_asked = False
        self._wait()
        if len(self.connections) > self.server_state.limit:
            # All others may be busy with a request: then the oldest wait is this one's.
            next(iter(self.server_state.waiting)).end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self.server_state.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Reads a part of a request. Only the first part moves the time at which it has to be complete."""
        if self.is_idle:
            self._wait()
        super().data_received(data)
        if self.is_answering:
            self.has_asked = True
            self.server_state.waiting.pop(self, None)

    def on_response_complete(self) -> None:
        """Waits for the next request."""
        self._wait()
        super().on_response_complete()
        if self.is_answering:  # the next request had arrived already
            self.server_state.waiting.pop(self, None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the next request has arrived."""
        return self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived whole and its answer is not complete."""
        return self.conn.their_state not in (h11.IDLE, h11.SEND_BODY)

    def is_overdue(self, now: float) -> bool:
        """Whether the client has kept the connection waiting for too long."""
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            patience = ANSWER_SECONDS
        elif self.is_answering:
            return False
        else:
            patience = IDLE_SECONDS if self.has_asked and self.is_idle else self.server_state.request_seconds
        return now - self.since > patience

    def end(self) -> None:
        """Closes the connection at once; what was not sent is dropped."""
        self.server_state.waiting.pop(self, None)
        self.transport.abort()

    def _wait(self) -> None:
        self.since = time.monotonic()
        self.server_state.waiting.pop(self, None)
        self.server_state.waiting[self] = None


class StrictHeaders:
    """ASGI middleware: refuses what h11 accepts, and ends the connection.

    h11 bounds only headers that arrive in parts. Of a length and chunks together it believes the chunks; a proxy that
    believes the length would take the rest of one request for the next.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        answer = self.app
        headers = scope.get("headers", ())
        names = [name for name, _ in headers]
        if len(names) > HEADERS or sum(map(len, names)) + sum(len(value) for _, value in headers) > HEADER_BYTES:
            answer = PlainTextResponse("The headers are too large.\n", 431, headers={"connection": "close"})
        elif b"transfer-encoding" in names and b"content-length" in names:
            answer = PlainTextResponse("The length is stated twice.\n", 400, headers={"connection": "close"})
        await answer(scope, receive, send)


class BoundedServer(uvicorn.Server):
    """A server of HTTP/1.1 with bounded connections, which logs no visits.

    Args:
        app: the application.
        limit: most connections at a time.
        request_seconds: in which a request arrives; `None`: :data:`REQUEST_SECONDS`.
    """

    def __init__(self, app: ASGIApp, *, limit: int, request_seconds: float | None = None) -> None:
        config = uvicorn.Config(
            StrictHeaders(app),
            http=BoundedProtocol,
            ws="none",
            access_log=False,
            log_config=None,
            log_level="warning",
            server_header=False,
            # The loop takes so many connections before it looks at anything else, and several processes share them.
            backlog=1,
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)
        self.server_state: Connections = Connections(limit, request_seconds or REQUEST_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUE)

    async def on_tick(self, counter: int) -> bool:
        """Closes connections that wait for too long, about once a second."""
        if counter % 10 == 0:
            now = time.monotonic()
            connections = cast("set[BoundedProtocol]", self.server_state.connections)
            for connection in [connection for connection in connections if connection.is_overdue(now)]:
                connection.end()
        return await super().on_tick(counter)


def allowed_connections(wanted: int = CONNECTIONS) -> int:
    """How many connections this process can hold; lets it open more files if the system permits that."""
    try:
        import resource
    except ModuleNotFoundError:  # pragma: no cover - Windows
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(soft - SPARE_FILES, soft // 4)
    return wanted

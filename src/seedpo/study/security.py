"""What stands before every request: host, size of the body, pace; and the headers of every answer."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}
"""Of every answer. Addresses hold the raters' tokens, hence no referrer and no index."""

LOCAL_NAMES = ("localhost",)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one rater, or all strangers together, may ask for.

    Attributes:
        requests, requests_burst: of pages, tasks and votes per second and rater, and at once.
        images, images_burst: of images.
        strangers, strangers_burst: of all requests together that bring no valid link: joining, wrong tokens.
        logins, logins_burst: of attempts to open the admin page, all together.
        body: bytes of a request's body.
    """

    requests: float = 20.0
    requests_burst: float = 60.0
    images: float = 60.0
    images_burst: float = 240.0
    strangers: float = 20.0
    strangers_burst: float = 400.0
    logins: float = 0.2
    logins_burst: float = 10.0
    body: int = 16_384


@dataclass
class Pace:
    """Token buckets in memory, one for each key; the least recently used are forgotten.

    Attributes:
        rate: requests per second in the long run.
        burst: requests at once.
        clock: seconds, monotonic.
        keys: at most so many are remembered.
    """

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    keys: int = 10_000
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait(self, key: str) -> float:
        """Takes one request from the key's bucket: 0.0, or the seconds until there is one (and nothing is taken)."""
        with self._lock:
            now = self.clock()
            level, then = self._buckets.pop(key, (self.burst, now))
            level = min(self.burst, level + (now - then) * self.rate)
            allowed = level >= 1.0
            self._buckets[key] = (level - 1.0 if allowed else level, now)
            while len(self._buckets) > self.keys:
                self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / self.rate


def is_known_host(header: str, names: Iterable[str]) -> bool:
    """Whether a ``Host`` header names this server: an address, this machine, or one of the names that it was told.

    An address cannot be rebound to another machine by whoever owns a domain; a foreign name can (DNS rebinding), so
    that foreign names are refused.
    """
    host = header.strip().lower()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.rstrip(".") in {*LOCAL_NAMES, *(name.lower() for name in names)}
    return True


class Guard:
    """ASGI middleware: refuses foreign hosts, posts from other sites and large bodies, and sets the headers.

    Args:
        app: what it guards.
        hosts: names, besides addresses and localhost, under which the server is reached.
        body: bytes that a request may bring.
    """

    def __init__(self, app: Application, *, hosts: Iterable[str] = (), body: int = Limits.body) -> None:
        self.app = app
        self.hosts = tuple(hosts)
        self.body = body

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with_headers(message.get("headers", []))
            await send(message)

        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await _refuse(guarded, *refusal)
            return
        body = await _read(receive, self.body) if scope["method"] not in ("GET", "HEAD") else b""
        if body is None:
            await _refuse(guarded, 413, "This request is too large.")
            return
        await self.app(scope, _replay(body, receive), guarded)

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        if not is_known_host(headers.get("host", ""), self.hosts):
            return 400, "This server does not answer to that name; start it with --name to allow it."
        if method in ("GET", "HEAD"):
            return None
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "This request comes from another site."
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return 400, "This request does not say how long it is."
        return (413, "This request is too large.") if int(length) > self.body else None


def _with_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() not in (b"last-modified", b"server")]
    named = {name.lower() for name, _ in kept}
    added = {**HEADERS} if b"cache-control" in named else {**HEADERS, "cache-control": "no-store"}
    return kept + [(name.encode(), value.encode()) for name, value in added.items() if name.encode() not in named]


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or none if it is longer than allowed, whatever its header said."""
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = ('{"error":"' + sentence + '"}').encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})

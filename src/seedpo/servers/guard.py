"""What stands before every application: host, origin and size of requests; the headers of every answer."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 20.0
"""How long a browser may take to send the body of a request."""

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
"""Headers of every answer. Addresses contain the raters' tokens, hence no referrer and no index."""

SEALED = {**HEADERS, "cache-control": "no-store"}
"""Headers of an answer that says nothing else about its storage."""

_SEALED = [(name.encode(), value.encode()) for name, value in SEALED.items()]


_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


def host_of(header: str) -> str:
    """The name or address in a ``Host`` header, without its port and in lower case; empty if the header is none."""
    match = _HOST.fullmatch(header.lower())
    if match is None or int(match["port"] or 0) > 65_535:
        return ""
    if match["name"]:
        return match["name"]
    return match["v6"] if is_address(match["v6"]) else ""


def is_address(host: str) -> bool:
    """Whether a host is an IP address.

    The owner of a domain can point a foreign name at this machine (DNS rebinding), but not an address.
    """
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: refuses foreign host names, posts from other sites and large bodies, and sets the headers.

    Args:
        app: the application.
        hosts: names under which the server is reached, besides addresses and localhost.
        body: bytes that a request may bring.
        seconds: in which they arrive.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], body: int, seconds: float = BODY_SECONDS) -> None:
        self.names = frozenset(name.lower() + dot for name in ("localhost", *hosts) for dot in ("", "."))
        self.app = app
        self.body = body
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [pair for pair in message["headers"] if pair[0] not in (b"last-modified", b"server")]
                names = {name for name, _ in own}
                message["headers"] = own + [pair for pair in _SEALED if pair[0] not in names]
            await send(message)

        if self._is_here(scope):
            await self._checked(scope, receive, send_with_headers)
        else:
            refused = JSONResponse({"error": "This server has another name."}, 400)
            await refused(scope, receive, send_with_headers)

    def _is_here(self, scope: Scope) -> bool:
        """Whether a request names this server, once. A target with a host of its own could name another one."""
        hosts = Headers(scope=scope).getlist("host")
        host = host_of(hosts[0]) if len(hosts) == 1 and scope["path"].startswith("/") else ""
        return host in self.names or is_address(host)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to a known host."""
        if scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        body: bytes | None = None
        status, sentence = 413, "This request is too large."
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            status, sentence = 403, "This request comes from another site."
        elif not re.fullmatch("[0-9]+", length):
            status, sentence = 400, "This request does not say how long it is."
        elif len(length) < 12 and int(length) <= self.body:
            try:
                async with asyncio.timeout(self.seconds):
                    body = await _read(scope, receive, self.body)
            except TimeoutError:
                status, sentence = 408, "This request took too long."
        if body is None:
            await JSONResponse({"error": sentence}, status)(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replayed() -> Message:
            message = next(messages, None)
            return await receive() if message is None else message

        await self.app(scope, replayed, send)


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The body of a request; `None` if it is longer than allowed, whatever its header says."""
    body = bytearray()
    try:
        async for part in Request(scope, receive).stream():
            body += part
            if len(body) > limit:
                return None
    except ClientDisconnect:
        pass
    return bytes(body)

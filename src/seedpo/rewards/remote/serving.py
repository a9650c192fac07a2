"""A server that scores images by rewards of this package, for others to ask over HTTP; docs/remote-rewards.md.

    GET  /health     {"status": "ok", "waiting": 0}
    GET  /rewards    {"protocol": 1, "rewards": [{"name", "version", "step_aware", "max_images"}, ...]}
    POST /score      {"reward", "images": [PNG in base64, ...], "prompts": [...], "timesteps": [...]}
                     {"version", "scores": [{"image": SHA-256, "prompt", "timestep", "score"}, ...]}

Requests come in JSON and answers go out in JSON; nothing else is ever read. One thread scores, a request after the
other; what waits is bounded in number and size, and what its client has given up is not scored.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from seedpo.errors import ConfigError, one_line
from seedpo.rewards.remote.http_reward import PROTOCOL
from seedpo.rewards.remote.offers import Limits, Offer, Refusal, answer, read_question
from seedpo.servers.addresses import base_address, check_names, is_loopback, listen, running_aside
from seedpo.servers.connections import BoundedServer, allowed_connections
from seedpo.servers.guard import Guard

LEAST_TOKEN = 24
"""Characters of a token at least, so that it cannot be guessed."""

WAITING = 32
"""Requests that are read, wait or are scored, at most; who comes later is asked to come again."""

CONNECTIONS = 256
"""At a time."""

RETRY_SECONDS = 10
"""After which a client that was sent away may come again."""

GIVEN_UP = 499
"""Status of a request whose client hung up, which nobody receives."""

REQUEST_SECONDS = 120.0
"""In which a request arrives."""


class _Door:
    """ASGI middleware: asks for the token before anything is read, and bounds how many requests are inside.

    Args:
        app: the application.
        token: that clients send; `None`: none is asked for.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self.app = app
        self.expected = None if token is None else f"Bearer {token}".encode()
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        if scope["type"] != "http" or scope["path"] == "/health":
            scope["waiting"] = self.inside
            await self.app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if self.expected is not None and not hmac.compare_digest(b"".join(given), self.expected):
            headers = {"www-authenticate": "Bearer", "connection": "close"}
            await JSONResponse({"error": "the token is missing or wrong"}, 401, headers)(scope, receive, send)
            return
        if scope["method"] == "POST" and self.inside >= WAITING:
            headers = {"retry-after": str(RETRY_SECONDS), "connection": "close"}
            await JSONResponse({"error": f"{WAITING} requests wait already"}, 503, headers)(scope, receive, send)
            return
        self.inside += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.inside -= 1


def _listed(offers: Mapping[str, Offer], limits: Limits) -> list[dict[str, object]]:
    """What clients are told of each reward."""
    return [
        {
            "name": name,
            "version": offer.version,
            "step_aware": offer.reward.step_aware,
            "max_images": limits.images,
        }
        for name, offer in offers.items()
    ]


def build_app(
    offers: Mapping[str, Offer], *, token: str | None = None, hosts: Sequence[str] = (), limits: Limits | None = None
) -> Starlette:
    """The application that serves rewards.

    Args:
        offers: the rewards by their names.
        token: that clients must send; `None`: none is asked for.
        hosts: names under which the server is reached, besides localhost and addresses.
        limits: on requests.
    """
    bounds = limits or Limits()
    worker, turn = ThreadPoolExecutor(1, thread_name_prefix="scores"), asyncio.Lock()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        worker.shutdown(wait=False, cancel_futures=True)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": request.scope["waiting"]})

    async def rewards(_: Request) -> Response:
        return JSONResponse({"protocol": PROTOCOL, "rewards": _listed(offers, bounds)})

    async def score(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "send JSON, with the content type application/json")
        body = await request.body()

        def work() -> bytes:
            return json.dumps(answer(read_question(body), offers, limits=bounds), allow_nan=False).encode()

        async with turn:
            if await request.is_disconnected():  # a client that asks again must not wait behind what it gave up
                return Response(status_code=GIVEN_UP)
            content = await asyncio.get_running_loop().run_in_executor(worker, work)
        return Response(content, media_type="application/json")

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return JSONResponse({"error": one_line(str(error))}, error.status)

    async def no_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": "there are GET /health, GET /rewards and POST /score"}, error.status_code)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/rewards", rewards),
            Route("/score", score, methods=["POST"]),
        ],
        middleware=[
            Middleware(_Door, token=token),
            Middleware(Guard, hosts=tuple(hosts), body=bounds.megabytes << 20, seconds=REQUEST_SECONDS),
        ],
        exception_handlers={Refusal: refused, HTTPException: no_route},
        lifespan=lifespan,
    )


def check_serving(token: str | None, names: Sequence[str]) -> None:
    """Checks what a server can be started with, before anything is loaded.

    Raises:
        ConfigError: if the token can be guessed, or a name is none.
    """
    if token is not None and (len(token) < LEAST_TOKEN or not re.fullmatch(r"[!-~]+", token)):
        raise ConfigError(
            f"the token must have at least {LEAST_TOKEN} visible characters; `openssl rand -hex 24` makes one"
        )
    check_names(names)


def serve(
    offers: Mapping[str, Offer],
    *,
    host: str = "127.0.0.1",
    port: int = 8077,
    token: str | None = None,
    names: Sequence[str] = (),
    limits: Limits | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serves rewards until it is interrupted.

    Args:
        offers: the rewards by their names.
        host: address to listen on; the default is reached only from this machine.
        port: to listen on; 0: a free one.
        token: that clients must send; `None`: none on this machine alone, else a random one, which is said.
        names: under which the server is reached, besides addresses.
        limits: on requests.
        say: called with each line for the user.

    Raises:
        ConfigError: as :func:`check_serving`, or if the address cannot be used.
    """
    check_serving(token, names)
    local = is_loopback(host)
    made = secrets.token_urlsafe(32) if token is None and not local else None
    listener = listen(host, port)
    try:
        address = base_address(host, listener.getsockname()[1], names)
        app = build_app(offers, token=token or made, hosts=[*names, *([] if local else [host])], limits=limits)
        for name, offer in offers.items():
            aware = ", step-aware" if offer.reward.step_aware else ""
            say(f"reward: {address}/{name}   version {offer.version[:12]}{aware}")
        if made is not None:
            say(f"token:  {made}   (clients name the environment variable that holds it with key_env)")
        if not local:
            say(f"note:   whoever reaches {host} and has the token can use it, unencrypted: it needs HTTPS before it")
        say("stop:   Ctrl-C")
        _server(app).run(sockets=[listener])
    finally:
        listener.close()


def serving_aside(
    offers: Mapping[str, Offer], *, token: str | None = None, limits: Limits | None = None
) -> AbstractContextManager[str]:
    """Serves rewards in a thread of this process and yields the server's address.

    Args:
        offers: the rewards by their names.
        token: that clients must send; `None`: none.
        limits: on requests.
    """
    return app_aside(build_app(offers, token=token, limits=limits))


def app_aside(app: Starlette) -> AbstractContextManager[str]:
    """Runs an application on a free port of this machine, in a thread, and yields its address."""
    return running_aside(partial(_server, app), name="rewards")


def _server(app: Starlette) -> BoundedServer:
    return BoundedServer(app, limit=allowed_connections(CONNECTIONS), request_seconds=REQUEST_SECONDS)

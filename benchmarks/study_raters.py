"""Many raters with little processor time, as a process of its own: ``python -m benchmarks.study_raters``.

`benchmarks.study_load` starts it. Each rater has one connection that stays open and does what a browser does: it opens
the personal link, agrees, loads the page's files, fetches the task and each image once, loads the images that come
next while its person looks, and sends a vote with the same key until the server has acknowledged it. The next task
comes with the acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FIRST_WAIT, LONGEST_WAIT = 0.1, 3.0
"""Seconds until a request is repeated: the first time, and at most."""

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept-Language: en-GB,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "Sec-Fetch-Dest: empty\r\n"
    "Sec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How raters come and go.

    Attributes:
        votes: of each rater, at most.
        seconds: after which raters stop looking; infinite: never.
        every: mean seconds between a task on the screen and its vote, exponentially distributed; 0: at once.
        spread: seconds over which the raters begin, at random.
        patience: seconds for which a request is repeated.
        seed: of all draws.
    """

    votes: int
    seconds: float = float("inf")
    every: float = 0.0
    spread: float = 0.0
    patience: float = 120.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """A vote that the server says it has saved.

    Attributes:
        show: token of what was shown.
        key: of the answer.
        side: the answer.
        attempts: requests until the acknowledgement.
        at: seconds since the run began.
    """

    show: str
    key: str
    side: str
    attempts: int
    at: float


@dataclass
class Run:
    """What the raters of a run have seen.

    Attributes:
        votes: acknowledged ones.
        waits: kind of request (page, file, task, image, vote) and seconds, repetitions included.
        failures: messages of raters that gave up.
        begun: monotonic time of the beginning.
    """

    votes: list[Acknowledged] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)


class Unavailable(Exception):
    """The server cannot be reached, or asks to come again later."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection on which one request waits at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable("connection lost"))

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None or self._answer.done():
            return
        head = bytes(received[:end]).lower()
        _, _, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if rest else 0
        if len(received) >= end + 4 + length:
            body = bytes(received[end + 4 : end + 4 + length])
            received.clear()
            self._answer.set_result((int(head[9:12]), head, body))

    async def request(self, content: bytes) -> tuple[int, bytes, bytes]:
        """Status, header in lower case, and body."""
        if self.transport is None:
            raise Unavailable("connection lost")
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(content)
        return await self._answer


class Browser:
    """A rater's browser: the personal link, a connection, and the images that it has loaded.

    Args:
        url: of the server.
        token: of the personal link.
        pace: of the run.
        run: where waits and votes are noted.
        draws: of this rater.
    """

    def __init__(self, url: str, token: str, pace: Pace, run: Run, draws: random.Random) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self.headers = f"Host: {self.host}:{self.port}\r\n{BROWSER}".encode()
        self.home = f"/r/{token}"
        self.pace, self.run, self.draws = pace, run, draws
        self.csrf = ""
        self.loaded: set[str] = set()
        self.connection: Connection | None = None

    async def rate(self) -> None:
        """Opens the link and answers until enough votes are given or nothing is left."""
        await asyncio.sleep(self.draws.uniform(0.0, self.pace.spread))
        await self.open_page()
        _, body = await self.get("task", f"{self.home}/task")
        state = json.loads(body)
        self.csrf = state["csrf"]
        for _ in range(self.pace.votes):
            task = state["task"]
            if task is None:
                return
            await self.load(address for item in task["items"] for address in item)
            shown = time.monotonic()
            await self.load(state["preload"])
            if self.pace.every:
                look = self.draws.expovariate(1.0 / self.pace.every)
                end = self.run.begun + self.pace.seconds
                await asyncio.sleep(max(0.0, min(shown + look, end) - time.monotonic()))
                if time.monotonic() >= end:
                    return
            state = await self.vote(task, time.monotonic() - shown)

    async def open_page(self) -> None:
        """The page behind the link, the consent if it asks for it, and the files that the page names."""
        _, body = await self.get("page", self.home)
        form_token = re.search(rb'name="form_token" value="([^"]*)"', body)
        if form_token is not None:
            form = b"form_token=" + form_token[1]
            await self.post("page", f"{self.home}/consent", form, "application/x-www-form-urlencoded")
            _, body = await self.get("page", self.home)
        for address in re.findall(rb'(?:src|href)="(/static/[^"]*)"', body):
            await self.get("file", address.decode())

    async def load(self, addresses: Any) -> None:
        """Fetches images that are not in the browser's cache."""
        for address in addresses:
            if address not in self.loaded:
                await self.get("image", address)
                self.loaded.add(address)

    async def vote(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Sends an answer until it is acknowledged; gives the next state of the page."""
        side = self.draws.choice(task["choices"])
        key = f"{self.draws.getrandbits(128):032x}"
        body = json.dumps({"show": task["show"], "side": side, "key": key, "seconds": seconds}).encode()
        attempts, answer = await self.post("vote", f"{self.home}/vote", body, "application/json")
        state: dict[str, Any] = json.loads(answer)
        if state["saved"] is not True:
            raise ValueError(f"a vote was not saved: {answer[:200]!r}")
        at = time.monotonic() - self.run.begun
        self.run.votes.append(Acknowledged(show=task["show"], key=key, side=side, attempts=attempts, at=at))
        return state

    async def get(self, kind: str, address: str) -> tuple[int, bytes]:
        """A page, file or image."""
        return await self.ask(kind, b"GET %s HTTP/1.1\r\nAccept: */*\r\n%s\r\n" % (address.encode(), self.headers))

    async def post(self, kind: str, address: str, body: bytes, form: str) -> tuple[int, bytes]:
        """A form or an answer."""
        more = f"Content-Type: {form}\r\nContent-Length: {len(body)}\r\nX-CSRF-Token: {self.csrf}\r\n".encode()
        start = b"POST %s HTTP/1.1\r\nAccept: */*\r\n" % address.encode()
        return await self.ask(kind, start + self.headers + more + b"\r\n" + body)

    async def ask(self, kind: str, request: bytes) -> tuple[int, bytes]:
        """Sends a request until it succeeds: number of attempts, and the body of the answer."""
        begun = time.monotonic()
        wait, attempts = FIRST_WAIT, 0
        while True:
            attempts += 1
            try:
                status, head, body = await self.once(request)
                if status < 400:
                    self.run.waits.append((kind, time.monotonic() - begun))
                    return attempts, body
                if status != 429 and status < 500:
                    raise ValueError(f"{kind}: {status} {body[:200]!r}")
                trouble = f"{status} {body[:200]!r}"
                asked = re.search(rb"\r\nretry-after: *(\d+)", head)
                wait = min(float(asked[1]), LONGEST_WAIT) if asked else wait
            except (Unavailable, OSError, TimeoutError) as error:
                trouble = str(error) or type(error).__name__
            if time.monotonic() + wait > begun + self.pace.patience:
                raise ValueError(f"{kind}: {trouble}, for {self.pace.patience:.0f} s")
            await asyncio.sleep(wait * self.draws.uniform(0.5, 1.0))
            wait = min(2.0 * wait, LONGEST_WAIT)

    async def once(self, request: bytes) -> tuple[int, bytes, bytes]:
        """One attempt, on the open connection if there is one."""
        async with asyncio.timeout(self.pace.patience):
            try:
                if self.connection is None or self.connection.transport is None:
                    loop = asyncio.get_running_loop()
                    _, self.connection = await loop.create_connection(Connection, self.host, self.port)
                answer = await self.connection.request(request)
            except BaseException:
                self.close()
                raise
        if b"\r\nconnection: close" in answer[1]:
            self.close()
        return answer

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        if self.connection is not None and self.connection.transport is not None:
            self.connection.transport.abort()
        self.connection = None


async def rate(url: str, tokens: Sequence[str], pace: Pace) -> Run:
    """Lets one rater per token answer, all at the same time; says the number of votes on stdout while they do."""
    run = Run()

    async def visit(number: int, token: str) -> None:
        browser = Browser(url, token, pace, run, random.Random(f"{pace.seed}:{number}"))
        try:
            await browser.rate()
        except (ValueError, KeyError) as error:
            run.failures.append(f"rater {number}: {error}")
        finally:
            browser.close()

    raters = asyncio.gather(*(visit(number, token) for number, token in enumerate(tokens)))
    while not raters.done():
        print(len(run.votes), flush=True)
        await asyncio.wait([raters], timeout=0.1)
    await raters
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_raters", description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("url", help="of the server")
    parser.add_argument("tokens", type=Path, help="file with a rater's token on each line")
    parser.add_argument("out", type=Path, help="JSON file to write votes and waits to")
    parser.add_argument("--votes", type=int, required=True, help="of each rater, at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the run (default: until all is done)")
    parser.add_argument("--every", type=float, default=0.0, help="mean seconds per vote of a rater (default: at once)")
    parser.add_argument("--spread", type=float, default=0.0, help="seconds over which raters begin (default: 0)")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds of repeated requests (default: 120)")
    options = parser.parse_args(arguments)
    tokens = options.tokens.read_text().split()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, len(tokens) + 100), hard), hard))
    pace = Pace(
        votes=options.votes,
        seconds=options.seconds,
        every=options.every,
        spread=options.spread,
        patience=options.patience,
    )
    run = asyncio.run(rate(options.url, tokens, pace))
    used = resource.getrusage(resource.RUSAGE_SELF)
    content = {
        "votes": [asdict(vote) for vote in run.votes],
        "waits": run.waits,
        "failures": run.failures,
        "processor_seconds": used.ru_utime + used.ru_stime,
    }
    options.out.write_text(json.dumps(content), "utf-8")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())

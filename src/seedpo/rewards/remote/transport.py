"""Questions to servers of rewards: several at once, within bounds of time and size, repeated where that helps.

Nothing of an answer is believed here but that it is JSON. Redirects are not followed, and answers are never unpacked:
a small one could stand for any size.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from seedpo.documents import parse_json
from seedpo.errors import ConfigError, RewardServerError
from seedpo.rewards.settings import Remote
from seedpo.servers.addresses import is_loopback

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

ANSWER_BYTES = 1 << 24
"""Bytes of an answer at most."""

LONGEST_WAIT = 60.0
"""Seconds between two tries of a request at most, also if the server asks for more."""

QUOTED = 300
"""Characters of a server's own words that an error repeats."""

Answer = Mapping[str, Any]
"""A JSON object."""

_AGAIN = "start it again, then repeat the command, a training run with --resume latest"


class _TryLater(Exception):
    """A request that may succeed if it is repeated.

    Args:
        reason: in words.
        wait: seconds that the server asks for.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Transport:
    """Asks one server for one reward.

    Args:
        name: of the reward, for errors.
        remote: how the server is asked.
        seed: of the waits between tries, which differ so that several processes do not ask in step.
        first_wait: seconds before the second try; each wait is about twice the one before.

    Raises:
        ConfigError: if httpx is not installed, or the key's environment variable is not set.
    """

    def __init__(self, name: str, remote: Remote, *, seed: int = 0, first_wait: float = 0.5) -> None:
        self.name = name
        self.remote = remote
        self.first_wait = first_wait
        self._random = random.Random(seed)
        self._key = _key_of(name, remote)
        try:
            import httpx  # noqa: F401
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"reward {name} is on a server, which needs httpx: pip install 'seedpo[remote]'"
            ) from error
        if self._key is not None and remote.url.startswith("http:") and not _is_here(remote.url):
            logger.warning("reward %s: the key of %s travels unencrypted; use https", name, remote.url)

    def get(self, path: str) -> Answer:
        """The answer to ``GET path``.

        Raises:
            RewardServerError: as :meth:`post_all`.
        """
        return self._ask("GET", path, [None], lambda _row, _answer: None)[0]

    def post_all(
        self,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        *,
        on_answer: Callable[[int, Answer], None] = lambda _row, _answer: None,
    ) -> list[Answer]:
        """The answers to ``POST path`` with each of some JSON bodies, in their order.

        Args:
            path: follows the address, ``/score``.
            bodies: JSON objects.
            on_answer: called with the row of a body and its answer as soon as it is there, in any order and in another
                thread, one call at a time; an error that it raises ends all requests.

        Raises:
            RewardServerError: if a request fails in the end; the others are then given up.
        """
        return self._ask("POST", path, bodies, on_answer)

    def error(self, fault: str) -> RewardServerError:
        """The error that says what is wrong with the server, without the key.

        Args:
            fault: what happened, and what helps.
        """
        return RewardServerError(self._without_key(f"reward {self.name} at {self.remote.url}: {fault}"))

    def _without_key(self, text: str) -> str:
        return text if self._key is None else text.replace(self._key, "***")

    def _ask(
        self,
        method: str,
        path: str,
        bodies: Sequence[Mapping[str, Any] | None],
        on_answer: Callable[[int, Answer], None],
    ) -> list[Answer]:
        if not bodies:
            return []
        from anyio.from_thread import start_blocking_portal

        # A loop of its own in a thread of its own: the caller may be a notebook, which runs one already.
        with start_blocking_portal() as portal:
            future = portal.start_task_soon(self._all, method, path, bodies, on_answer)
            try:
                answers: list[Answer] = future.result()
                return answers
            except BaseException:
                future.cancel()
                raise

    async def _all(
        self,
        method: str,
        path: str,
        bodies: Sequence[Mapping[str, Any] | None],
        on_answer: Callable[[int, Answer], None],
    ) -> list[Answer]:
        import httpx

        places = asyncio.Semaphore(self.remote.concurrency)
        headers = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "seedpo"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"

        async def one(client: httpx.AsyncClient, row: int, body: Mapping[str, Any] | None) -> Answer:
            async with places:
                answer = await self._until_answered(client, method, path, body)
            on_answer(row, answer)
            return answer

        async with httpx.AsyncClient(
            headers=headers,
            timeout=self.remote.timeout,
            limits=httpx.Limits(max_connections=self.remote.concurrency),
            trust_env=not _is_here(self.remote.url),  # no proxy between this machine and itself
            follow_redirects=False,
        ) as client:
            tasks = [asyncio.ensure_future(one(client, row, body)) for row, body in enumerate(bodies)]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_answered(
        self, client: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Answer:
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        for tried in range(self.remote.retries + 1):
            try:
                return await self._once(client, method, path, content)
            except _TryLater as reason:
                if tried == self.remote.retries:
                    tries = "1 try" if tried == 0 else f"{tried + 1} tries"
                    raise self.error(f"{reason} ({tries}); {_AGAIN}") from reason
                wait = self.first_wait * 2.0**tried * self._random.uniform(0.5, 1.0)
                wait = min(max(wait, reason.wait), LONGEST_WAIT)
                logger.info("%s", self.error(f"{reason}; asked again in {wait:.1f} s"))
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _once(self, client: httpx.AsyncClient, method: str, path: str, content: bytes | None) -> Answer:
        import httpx

        headers = {} if content is None else {"content-type": "application/json"}
        request = client.build_request(method, f"{self.remote.url}{path}", content=content, headers=headers)
        try:
            async with asyncio.timeout(self.remote.timeout):
                response = await client.send(request, stream=True)
                try:
                    text = await self._read(response)
                finally:
                    await response.aclose()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _TryLater(f"it gave no whole answer within {self.remote.timeout:g} s") from error
        except httpx.TransportError as error:
            raise _TryLater(f"it does not answer ({str(error) or type(error).__name__})") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self.error(f"it cannot be asked ({error}); check the address") from error
        return self._checked(response, text)

    async def _read(self, response: httpx.Response) -> bytes:
        """The body of an answer as it arrives, within bounds."""
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            raise self.error(
                f"it answers in the encoding {encoding[:QUOTED]!r}, which was not asked for; check the server"
            )
        text = bytearray()
        async for part in response.aiter_raw():
            text += part
            if len(text) > ANSWER_BYTES:
                raise self.error(f"its answer is larger than {ANSWER_BYTES:,} bytes; check that it is the right server")
        return bytes(text)

    def _checked(self, response: httpx.Response, text: bytes) -> Answer:
        status = response.status_code
        if response.is_redirect:
            place = str(response.headers.get("location", ""))[:QUOTED]
            raise self.error(f"it redirects to {place!r}, which is not followed; write the address that is meant")
        answer = _object(response, text)
        own = f": {self._words(answer, text)}" if status >= 400 else ""
        if status == 429 or status >= 500:
            raise _TryLater(f"it answered {status}{own}", _asked_wait(response))
        if status in (401, 403):
            mend = (
                "name the environment variable that holds its token with key_env"
                if self.remote.key_env is None
                else f"the environment variable {self.remote.key_env} holds another token than the server expects"
            )
            raise self.error(f"it answered {status}{own}; {mend}")
        if status >= 400:
            raise self.error(f"it answered {status}{own}; check the address and the settings of the reward")
        if not 200 <= status < 300:
            raise self.error(f"it answered {status}; check that it is the right server")
        if answer is None:
            kind = str(response.headers.get("content-type", "no type"))[:QUOTED]
            raise self.error(
                f"its answer is no JSON object ({kind}, {self._words(None, text)}); check that it is the right server"
            )
        return answer

    def _words(self, answer: Answer | None, text: bytes) -> str:
        """What a server says of itself, without the key: the text under ``error``, or the beginning of its answer."""
        said = answer.get("error") if answer is not None else None
        said = said.get("message") if isinstance(said, dict) else said  # as OpenAI's servers write it
        words = said if isinstance(said, str) else text[: 4 * QUOTED].decode("utf-8", "replace")
        words = self._without_key(" ".join(words.split()))
        return words if len(words) <= QUOTED else f"{words[:QUOTED]} ..."


def _object(response: httpx.Response, text: bytes) -> Answer | None:
    """The JSON object that an answer is; `None` if it is anything else."""
    if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return None
    try:
        content = parse_json(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _asked_wait(response: httpx.Response) -> float:
    """Seconds that ``Retry-After`` asks for; 0 without."""
    value = response.headers.get("retry-after", "")
    try:
        return (
            max(0.0, float(value))
            if value.isdigit()
            else email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _key_of(name: str, remote: Remote) -> str | None:
    if remote.key_env is None:
        return None
    key = os.environ.get(remote.key_env, "").strip()
    if not key:
        raise ConfigError(
            f"reward {name}: the environment variable {remote.key_env} (key_env) is not set; set it first"
        )
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"reward {name}: the environment variable {remote.key_env} holds no key; set it again")
    return key


def _is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    return is_loopback(urlsplit(url).hostname or "")

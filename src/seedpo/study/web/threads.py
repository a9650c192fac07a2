"""Calls that may wait for a database or a disk, aside from the loop that answers requests."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from seedpo.study.errors import NOT_STORED, Refusal

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class Threads:
    """A few threads, and a bounded queue before them: who comes later is sent away at once.

    Args:
        name: of the threads.
        number: of threads.
        queue: calls that may wait for a thread.
    """

    def __init__(self, name: str, *, number: int, queue: int) -> None:
        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(number + queue)

    async def run(self, call: Callable[..., Result], *arguments: object) -> Result:
        """What a call returns.

        Raises:
            Refusal: 503, if too many calls wait.
        """
        if not self._places.acquire(blocking=False):
            raise Refusal(503, NOT_STORED, wait=3.0)
        try:
            future = self._pool.submit(call, *arguments)
        except RuntimeError:  # the server is stopping
            self._places.release()
            raise Refusal(503, NOT_STORED, wait=3.0) from None
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[Result]) -> None:
        self._places.release()

    def close(self) -> None:
        """Ends the threads when they have done what they do now."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@dataclass
class Outage:
    """Whether the study's votes are out of reach. The log gets a line when that begins, and one when it ends.

    Attributes:
        failures: requests that failed since it began.
    """

    failures: int = 0
    _since: float | None = None

    def failed(self, error: Exception) -> None:
        """A request failed."""
        self.failures += 1
        if self._since is None:
            self._since = time.monotonic()
            _log.error("error: %s", error)

    def succeeded(self) -> None:
        """A request did not."""
        if self._since is not None:
            seconds = time.monotonic() - self._since
            _log.warning("the study works again; %d requests failed in %.0f s", self.failures, seconds)
            self._since, self.failures = None, 0

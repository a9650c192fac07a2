"""One thread that carries out what waits, in one transaction, and commits once for all of it."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from seedpo.errors import SeedpoError
from seedpo.study.errors import StoreError

Book = TypeVar("Book")
Result = TypeVar("Result")

MOST_WAITING = 4000
"""Requests that may wait; further ones are refused at once."""
MOST_TOGETHER = 200
"""Requests that are committed together."""
LONGEST = 20.0
"""Seconds after which a commit that has not come back counts as stuck: all others are refused at once."""

_BUSY = "the database takes no more at the moment; try again"


@dataclass(frozen=True)
class _Request(Generic[Book]):
    work: Callable[[Book], Any]
    future: Future[Any]

    def refuse(self, error: Exception) -> None:
        # Each waiting thread raises an error of its own: threads would write into one traceback.
        self.future.set_exception(copy.copy(error))


class _Broken(Exception):
    """A request failed in an unforeseen way: what it changed is unknown, so the whole transaction is undone."""

    def __init__(self, request: _Request[Any], error: Exception) -> None:
        super().__init__()
        self.request = request
        self.error = error


class Commits(Generic[Book]):
    """Group commit.

    A request that is refused (a :class:`SeedpoError`; what it wrote before is kept) or fails does not spoil those
    beside it. If the database fails, all that wait are refused, and nothing of them is stored.

    Args:
        transaction: is entered for each group of requests, and gives what they work on; its end is the commit.
        fatal: errors that end the transaction, whichever request met them.
    """

    def __init__(
        self,
        transaction: Callable[[], AbstractContextManager[Book]],
        *,
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        self._transaction = transaction
        self._fatal = fatal
        self._waiting: deque[_Request[Book]] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._begun: float | None = None
        self._closed = False

    def submit(self, work: Callable[[Book], Result]) -> Future[Result]:
        """Lets something be done in the next transaction.

        Returns:
            The result, as soon as it is on the disk.

        Raises:
            StoreError: too much waits, the last commit is stuck, or all is closed.
        """
        future: Future[Result] = Future()
        with self._news:
            stuck = self._begun is not None and time.monotonic() - self._begun > LONGEST
            late = self._drained() if stuck else []
            refused = self._closed or stuck or len(self._waiting) >= MOST_WAITING
            if not refused:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="commits", daemon=True)
                    self._thread.start()
                self._waiting.append(_Request(work, future))
                self._news.notify()
        for request in late:
            request.refuse(StoreError(_BUSY))
        if refused:
            raise StoreError("the votes are closed" if self._closed else _BUSY)
        return future

    def close(self) -> None:
        """Carries out what waits, and ends; later requests are refused."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(LONGEST)

    def _run(self) -> None:
        while requests := self._next():
            self._settle([request for request in requests if request.future.set_running_or_notify_cancel()])
            self._begun = None

    def _next(self) -> list[_Request[Book]]:
        """The requests that wait, as soon as there are some; none: closed."""
        with self._news:
            while not self._waiting and not self._closed:
                self._news.wait()
            self._begun = time.monotonic()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_TOGETHER))]

    def _settle(self, requests: list[_Request[Book]]) -> None:
        while requests:
            try:
                outcomes = self._attempt(requests)
            except _Broken as broken:
                requests.remove(broken.request)
                broken.request.refuse(broken.error)
            except Exception as error:
                self._refuse_all(requests, error)
                return
            else:
                for request, outcome in zip(requests, outcomes, strict=True):
                    if isinstance(outcome, SeedpoError):
                        request.refuse(outcome)
                    else:
                        request.future.set_result(outcome)
                return

    def _attempt(self, requests: Sequence[_Request[Book]]) -> list[Any]:
        """Results and refusals, committed."""
        outcomes: list[Any] = []
        with self._transaction() as book:
            for request in requests:
                try:
                    outcomes.append(request.work(book))
                except SeedpoError as refusal:
                    outcomes.append(refusal)
                except self._fatal:
                    raise
                except Exception as error:
                    raise _Broken(request, error) from error
        return outcomes

    def _refuse_all(self, requests: Sequence[_Request[Book]], error: Exception) -> None:
        """Those that came meanwhile have waited as long: they are refused too, instead of waiting once more."""
        with self._news:
            late = self._drained()
        for request in [*requests, *late]:
            request.refuse(error)

    def _drained(self) -> list[_Request[Book]]:
        """All requests that wait; none of them waits any more."""
        late = [request for request in self._waiting if request.future.set_running_or_notify_cancel()]
        self._waiting.clear()
        return late

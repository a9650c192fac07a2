"""Raters whom this process has seen lately, so that not every request asks the database who somebody is."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from seedpo.errors import SeedpoError
from seedpo.study.errors import Refusal
from seedpo.study.records import Rater
from seedpo.study.votes.store import Store
from seedpo.study.web.threads import Threads

FRESH = 5.0
"""Seconds until a rater is looked up again: how long a link that was revoked in another process still gets images."""

PATIENCE = 0.3
"""Seconds that a known rater's image waits for the database."""

VISITORS = 20_000
"""Raters in memory at most."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class _Visit:
    rater: Rater
    at: float


@dataclass
class Visitors:
    """The raters of a study by the tokens of their links.

    Attributes:
        store: where they are looked up.
        threads: that do so.
        clock: seconds, monotonic.
    """

    store: Store
    threads: Threads
    clock: Callable[[], float] = time.monotonic
    _visits: OrderedDict[str, _Visit] = field(default_factory=OrderedDict)
    _lookups: dict[str, asyncio.Task[Rater | None]] = field(default_factory=dict)

    async def id(self, token: str) -> str | None:
        """The rater's id, which never changes; `None` if there is no such link."""
        visit = self._visits.get(token)
        rater = visit.rater if visit else await self.look_up(token)
        return None if rater is None else rater.id

    async def lately(self, token: str) -> Rater | None:
        """The rater as of some seconds ago, or longer ago while the database does not answer."""
        visit = self._visits.get(token)
        if visit is None:
            return await self.look_up(token)
        if self.clock() - visit.at < FRESH or token in self._lookups:  # one image waits, the others follow
            return visit.rater
        try:
            return await asyncio.wait_for(asyncio.shield(self._lookup(token)), PATIENCE)
        except (TimeoutError, SeedpoError, Refusal):
            return visit.rater

    async def look_up(self, token: str) -> Rater | None:
        """The rater as of now; `None` if there is no such link."""
        return await asyncio.shield(self._lookup(token)) if _TOKEN.fullmatch(token) else None

    def forget(self, rater_id: str) -> None:
        """Looks a rater up again at the next request."""
        for token in [token for token, visit in self._visits.items() if visit.rater.id == rater_id]:
            del self._visits[token]

    def _lookup(self, token: str) -> asyncio.Task[Rater | None]:
        """One look-up of a rater at a time, however many requests wait for it."""
        task = self._lookups.get(token)
        if task is None:
            task = self._lookups[token] = asyncio.create_task(self._ask(token))
            task.add_done_callback(lambda done: self._done(token, done))
        return task

    async def _ask(self, token: str) -> Rater | None:
        start = self.clock()
        rater = await self.threads.run(self.store.rater, token)
        self._visits.pop(token, None)
        if rater is not None:
            self._visits[token] = _Visit(rater, start)
            if len(self._visits) > VISITORS:
                self._visits.popitem(last=False)
        return rater

    def _done(self, token: str, task: asyncio.Task[Rater | None]) -> None:
        del self._lookups[token]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody may

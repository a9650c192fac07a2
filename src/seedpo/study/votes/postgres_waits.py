"""Connections to PostgreSQL that give a silent server up.

A server that vanishes (its host died, a firewall forgot the connection) leaves connections on which nothing ever
arrives, although the network may go on to acknowledge what is sent. Neither the server's time limits nor keepalives
help then: this side has to end the wait.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

Waiting = Generator[Any, Any, Any]
"""What psycopg waits for: it yields what it needs, and gets nothing (false) whenever nothing came for a moment."""


class PatientConnection(psycopg.Connection[Any]):
    """A connection that is closed when nothing has come for some time.

    Attributes:
        patience: seconds.
    """

    patience: float = 10.0

    def wait(self, gen: Waiting, *arguments: Any, **named: Any) -> Any:
        """Waits as psycopg does, and no longer than :attr:`patience` for each sign of life.

        Raises:
            psycopg.OperationalError: there was none; the connection is closed.
        """
        return super().wait(self._while_alive(gen), *arguments, **named)

    def _while_alive(self, waiting: Waiting) -> Waiting:
        ready, last = None, time.monotonic()
        while True:
            try:
                needed = waiting.send(ready)
            except StopIteration as end:
                return end.value
            ready = yield needed
            if ready:
                last = time.monotonic()
            elif time.monotonic() - last > self.patience:
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the server has not answered for {self.patience:.0f} s")

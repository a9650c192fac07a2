"""Several processes that serve one study on one listening socket."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from seedpo.errors import SeedpoError

START_AGAIN = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Seconds until a process that ended is started again, by how often it ended within :data:`STEADY` in a row."""

STEADY = 60.0
"""Seconds after which a process counts as sound."""

LAST_ANSWERS = 15.0
"""Seconds in which a process answers what it has begun, before it is killed."""

_log = logging.getLogger(__name__)


class Worker:
    """A place of a process, which is filled again whenever its process ends.

    Args:
        number: from 0.
        start: starts a process.
    """

    def __init__(self, number: int, start: Callable[[], SpawnProcess]) -> None:
        self.number = number
        self._start = start
        self._failures = 0
        self._again: float | None = None
        self._begin()

    def replace(self) -> None:
        """Starts another process if this one has ended; one that ends at once again and again is given time."""
        if self.process.is_alive():
            return
        if self._again is None:
            sound = time.monotonic() - self._started > STEADY
            self._failures = 0 if sound else min(self._failures + 1, len(START_AGAIN))
            pause = START_AGAIN[max(self._failures - 1, 0)]
            self._again = time.monotonic() + pause
            reason = describe(self.process.exitcode)
            _log.error("error: server process %d ended (%s); it is started again", self.number + 1, reason)
        if time.monotonic() >= self._again:
            self._begin()

    def _begin(self) -> None:
        self.process = self._start()
        self._started = time.monotonic()
        self._again = None


def describe(exit_code: int | None) -> str:
    """How a process ended."""
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit status {exit_code}"


def run_workers(target: Callable[[socket.socket], None], listener: socket.socket, *, number: int) -> None:
    """Runs ``target(listener)`` in several processes until this one gets SIGINT or SIGTERM, and ends them all.

    Args:
        target: can be pickled; it ends after SIGTERM.
        listener: listening socket that the processes share.
        number: of processes.

    Raises:
        KeyboardInterrupt: after SIGINT.
        SystemExit: after SIGTERM.
    """
    context = multiprocessing.get_context("spawn")

    def start() -> SpawnProcess:
        process = context.Process(target=_work, args=(target, listener), daemon=True)
        # Ctrl-C reaches every process of a terminal, but only this one acts: a new process inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process

    with _signals() as received:
        workers = [Worker(place, start) for place in range(number)]
        try:
            while not received:
                # Dead processes are in the list as well: then this is a pause.
                alive = [worker.process.sentinel for worker in workers if worker.process.is_alive()]
                if wait(alive, timeout=0.2) or len(alive) < number:
                    time.sleep(0.05)
                if not received:
                    for worker in workers:
                        worker.replace()
        finally:
            _end([worker.process for worker in workers])
    if received[0] == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + received[0])


def _work(target: Callable[[socket.socket], None], listener: socket.socket) -> None:
    """What a process does; it ends with the one that started it, however that ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), name="end with parent", daemon=True).start()
    try:
        target(listener)
    except SeedpoError as error:
        _log.error("error: %s", error)
        raise SystemExit(error.exit_status) from None


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    signal.raise_signal(signal.SIGTERM)


def _end(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + LAST_ANSWERS
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The list of signals that asked this process to end; a second one does not interrupt the end."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

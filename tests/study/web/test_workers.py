"""The places of server processes; real ones are tested with the command."""

from __future__ import annotations

from typing import Any

import pytest

from seedpo.study.web import workers
from seedpo.study.web.workers import START_AGAIN, STEADY, Worker, describe


class Process:
    """A process that ends when it is told to."""

    def __init__(self) -> None:
        self.alive = True
        self.exitcode = 1

    def is_alive(self) -> bool:
        return self.alive


def test_a_process_that_ends_again_and_again_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(workers.time, "monotonic", lambda: now)
    begun: list[Any] = []

    def start() -> Any:
        begun.append(Process())
        return begun[-1]

    worker = Worker(0, start)
    worker.replace()
    assert len(begun) == 1
    pauses = []
    for _ in range(len(START_AGAIN) + 2):
        begun[-1].alive = False
        ended, number = now, len(begun)
        while len(begun) == number:
            worker.replace()
            now += 0.5
        pauses.append(now - 0.5 - ended)
    assert pauses == [*START_AGAIN, START_AGAIN[-1], START_AGAIN[-1]]
    now += STEADY + 1.0
    begun[-1].alive = False
    worker.replace()
    assert len(begun) == len(START_AGAIN) + 4


def test_how_a_process_ended() -> None:
    assert describe(-9) == "SIGKILL"
    assert describe(3) == "exit status 3"

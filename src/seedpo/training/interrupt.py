"""Stopping at a step's end when the user or the cluster asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from seedpo.errors import SeedpoError
from seedpo.peers import has_elastic_launcher

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(SeedpoError):
    """The run was asked to stop; it wrote a checkpoint from which it can continue."""


@dataclass(eq=False)
class StopRequest:
    """Whether a stop was requested."""

    requested: bool = False


_noted: list[StopRequest] = []
"""Requests of the contexts that are entered, from the outermost on."""


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM only sets ``requested``; a second one acts as it does outside.

    Under ``torchrun`` this holds for SIGINT: a cluster sends SIGTERM to all processes, and the launcher passes it on to
    them once more.

    Within another such context, what was requested there is requested from the beginning. Outside the main thread no
    handler can be installed, and nothing changes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.requested = True
        if number == signal.SIGINT or not has_elastic_launcher():
            signal.signal(number, previous[signal.Signals(number)])

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    # Only now, since a signal could come in between.
    request.requested |= any(outer.requested for outer in _noted)
    _noted.append(request)
    try:
        yield request
    finally:
        _noted.remove(request)
        for number, handler in previous.items():
            signal.signal(number, handler)

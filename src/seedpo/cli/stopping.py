"""Signals that end a command where it does not handle them: one line and the usual exit status, at any time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came; no handler of errors takes it for one.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_in_one_line(tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the process with one line and status 128 + n; who ignores them still does.

    Args:
        tell: takes the line instead of the terminal.

    Raises:
        SystemExit: after a signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def say(number: int) -> None:
        line = f"ended by {signal.Signals(number).name}; run the command again to continue (training: --resume latest)"
        if tell is None:
            print(f"error: {line}", file=sys.stderr, flush=True)  # noqa: T201
        else:
            tell(line)

    def end(number: int, frame: FrameType | None) -> None:
        if _imports(frame):  # modules swallow what is raised there, or stay half imported; nothing is to be cleared up
            say(number)
            os._exit(128 + number)
        raise Interrupted(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    previous = {number: signal.signal(number, end) for number in SIGNALS if signal.getsignal(number) in usual}
    try:
        yield
    except Interrupted as interrupted:
        say(interrupted.number)
        raise SystemExit(128 + interrupted.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether a frame runs while a module is imported."""
    while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None

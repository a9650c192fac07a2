"""Signals that end a command where it does not handle them: one line and the usual exit status, at any time."""

from __future__ import annotations

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

    def end(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    usual = (signal.SIG_DFL, signal.default_int_handler)
    previous = {number: signal.signal(number, end) for number in SIGNALS if signal.getsignal(number) in usual}
    try:
        yield
    except Interrupted as interrupted:
        name = signal.Signals(interrupted.number).name
        line = f"ended by {name}; run the command again to continue (training: with --resume latest)"
        if tell is None:
            print(f"error: {line}", file=sys.stderr)  # noqa: T201
        else:
            tell(line)
        raise SystemExit(128 + interrupted.number) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

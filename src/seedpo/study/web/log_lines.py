"""A log that repeated faults and hostile requests cannot fill."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class LineLimit:
    """A filter of log records: the same line once in a period, and few different ones.

    The next record that passes tells how many lines were left out.

    Attributes:
        period: seconds.
        lines: different lines of one period.
        length: characters of a line; more are cut off.
        clock: seconds, monotonic.
    """

    period: float = 60.0
    lines: int = 100
    length: int = 2000
    clock: Callable[[], float] = time.monotonic
    _end: float = field(default=float("-inf"), init=False)
    _seen: set[str] = field(default_factory=set, init=False)
    _left_out: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; its text may get a count."""
        text = self._text(record)
        with self._lock:
            left_out = self._begin_period() if self.clock() >= self._end else 0
            if text in self._seen or len(self._seen) == self.lines:
                self._left_out += 1
                return False
            self._seen.add(text)
        if left_out:
            text = f"{text} (before it, {left_out} lines were left out: repetitions, or too many)"
        record.msg, record.args, record.exc_info, record.exc_text = text, None, None, None
        return True

    def _begin_period(self) -> int:
        left_out, self._left_out = self._left_out, 0
        self._end = self.clock() + self.period
        self._seen.clear()
        return left_out

    def _text(self, record: logging.LogRecord) -> str:
        text = record.getMessage().strip()
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        return text if len(text) <= self.length else f"{text[: self.length // 2]} ... {text[-self.length // 2 :]}"


@contextmanager
def limited_log() -> Iterator[None]:
    """Limits what this process logs, on every handler of the root; without any, lines go to stderr."""
    root = logging.getLogger()
    added: list[logging.Handler] = [] if root.handlers else [logging.StreamHandler()]
    for handler in added:
        root.addHandler(handler)
    limits = [(handler, LineLimit()) for handler in root.handlers]
    for handler, limit in limits:
        handler.addFilter(limit)
    try:
        yield
    finally:
        for handler, limit in limits:
            handler.removeFilter(limit)
        for handler in added:
            root.removeHandler(handler)

"""A log under repeated and hostile lines."""

from __future__ import annotations

import logging

import pytest

from seedpo.study.web.log_lines import LineLimit, limited_log


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(message: str, *arguments: object, exc_info: bool = False) -> logging.LogRecord:
    error = ValueError("no") if exc_info else None
    information = (ValueError, error, None) if error else None
    return logging.LogRecord("name", logging.ERROR, "file", 1, message, arguments, information)


def test_a_line_comes_once_in_a_period_and_the_next_tells_how_many_were_left_out() -> None:
    clock = Clock()
    limit = LineLimit(period=60.0, clock=clock)
    assert [limit(record("down: %s", "db")) for _ in range(1000)] == [True] + [False] * 999
    assert limit(record("down: %s", "other"))
    clock.now = 61.0
    later = record("up")
    assert limit(later)
    assert later.getMessage().startswith("up (")
    assert "999" in later.getMessage()
    last = record("down: %s", "db")
    assert limit(last)
    assert last.getMessage() == "down: db"


def test_different_lines_are_few_and_short() -> None:
    clock = Clock()
    limit = LineLimit(lines=100, length=50, clock=clock)
    records = [record(f"{number} " + "x" * 10_000, exc_info=True) for number in range(5000)]
    passed = [one for one in records if limit(one)]
    assert len(passed) == 100
    assert max(len(one.getMessage()) for one in passed) < 60


def test_the_limit_is_on_the_root_and_goes_with_its_block(capsys: pytest.CaptureFixture[str]) -> None:
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    try:
        root.handlers = []
        with limited_log():
            for _ in range(10):
                logging.getLogger("asyncio").error("Too many open files")
        assert root.handlers == []
    finally:
        root.handlers = before
    assert capsys.readouterr().err.count("Too many open files") == 1

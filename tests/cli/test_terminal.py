"""No name, prompt or value makes a terminal obey it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from seedpo.cli import main
from seedpo.cli.shared import PlainFormatter, say

HOSTILE = "a\x1b[2J\x07\x9b31m\u202e.png"
"""Clears the screen, rings, colours and turns the direction of writing."""


def test_what_is_printed_keeps_its_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"one\n\t{HOSTILE}")
    say(HOSTILE, err=True)
    out, err = capsys.readouterr()
    assert out.startswith("one\n\ta\\x1b[2J")
    assert all(part.isprintable() for part in (out + err).replace("\t", "\n").split("\n"))


@pytest.mark.parametrize(("name", "lines"), [("seedpo.data", 1), ("elsewhere", 2)])
def test_a_name_begins_no_line_of_the_log(name: str, lines: int) -> None:
    record = logging.LogRecord(name, logging.INFO, "", 0, "%s is read", (f"{HOSTILE}\nerror: forged",), None)
    text = PlainFormatter().format(record)
    assert "\x1b" not in text
    assert len(text.split("\n")) == lines


def test_an_error_names_a_file_in_signs_that_can_be_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(HOSTILE).write_bytes(b"")
    with pytest.raises(SystemExit):
        main(["score", HOSTILE, "--reward", "jpeg-size", "--prompt", "a", "--out", f"{HOSTILE}.csv"])
    out, err = capsys.readouterr()
    assert err
    assert all(line.isprintable() for line in (out + err).splitlines())

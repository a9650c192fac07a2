"""What a message may hold, whatever it quotes."""

from __future__ import annotations

import pickle

import pytest

from seedpo.errors import LONGEST, DataError, SeedpoError


def test_a_plain_message_stays_as_it_is():
    message = "däta 集 🦀/a  b.png row 3: chosen is missing; remove the row"
    assert str(SeedpoError(message)) == message


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("two\n  lines\r\n", "two lines"),
        ("half an emoji \ud83d", "half an emoji \\ud83d"),
        ("clear\x1b[2J\0", "clear\\x1b[2J\\x00"),
        ("turned \u202egnp", "turned \\u202egnp"),
        ("name \udcff.png", "name \\udcff.png"),
        ("line\u2028separator", "line\\u2028separator"),
    ],
)
def test_a_message_is_one_line_that_any_file_can_hold(message, shown):
    assert str(DataError(message)) == shown
    shown.encode()


def test_of_a_long_message_begin_and_end_are_left():
    message = str(DataError("pairs.csv row 7: " + "x" * 5_253_703 + "; remove the row"))
    assert len(message) <= LONGEST
    assert message.startswith("pairs.csv row 7: xxx")
    assert "5,253,736 characters" in message
    assert message.endswith("xxx; remove the row")


def test_a_message_survives_another_process_and_another_error():
    error = DataError("a\x00b" * 2000)
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == str(DataError(str(error)))

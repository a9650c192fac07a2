"""Errors that a user can fix: the command line prints them as one line, without a traceback."""

from __future__ import annotations

import re

LONGEST = 2000
"""Characters of a message at most."""


def escaped(text: str, *, keep: str = "") -> str:
    """A text without signs that a terminal would obey, which become escapes.

    Args:
        text: may quote names and values of any hand.
        keep: signs that stay as they are, such as line ends.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else sign.encode("unicode_escape").decode() for sign in text
    )


def one_line(text: str) -> str:
    """A text as one bounded line that every terminal and file can show, whatever names and values it quotes.

    Breaks of lines become blanks. Control characters and halves of characters are written as escapes, and of a text
    that is too long the middle is left out.
    """
    line = escaped(re.sub(r"\s*[\r\n]+\s*", " ", text.strip()))
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} ... ({len(line):,} characters) ... {line[-LONGEST // 4 :]}"


class SeedpoError(Exception):
    """A problem that the user can fix; the message says how, on one line.

    Attributes:
        on_every_process: whether all processes of the run raise it, so that one of them is enough to print it.
        exit_status: of the command that it ends.
    """

    on_every_process: bool = False
    exit_status: int = 1

    def __init__(self, message: object = "") -> None:
        super().__init__(one_line(str(message)))


class ConfigError(SeedpoError, ValueError):
    """A configuration that cannot be run."""


class DataError(SeedpoError, ValueError):
    """An input file, row or image that cannot be used."""


class CacheError(SeedpoError):
    """A cache folder that cannot be used."""


class StreamError(SeedpoError):
    """A stream of data that broke off; unlike a row that cannot be read, it is not passed over."""


class RewardServerError(SeedpoError):
    """A server that computes a reward, and that did not answer as it should."""


class RunFolderError(SeedpoError):
    """A run folder that does not fit the command."""


class TrainingDiverged(SeedpoError):
    """A loss or gradient that is not finite."""


class StoppedByAlarm(SeedpoError):
    """An alarm whose action is `stop` ended the run; it wrote a checkpoint from which it can continue."""

    exit_status = 3

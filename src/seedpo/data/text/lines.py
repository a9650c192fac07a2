"""The text of a file, and one record of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedpo.errors import DataError
from seedpo.files import read_bytes

_WIDE = (b"\xff\xfe", b"\xfe\xff")
"""Byte order marks of UTF-16 and UTF-32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One record of a text file.

    Attributes:
        path: the file.
        number: of its line, or of the entry in an array, from 1.
        values: by key; empty if the record cannot be read.
        fault: what is wrong with the record, in words that follow its place; `None` if nothing is.
        unit: what is counted, ``line`` or ``entry``.
    """

    path: Path
    number: int
    values: Mapping[str, Any]
    fault: str | None = None
    unit: str = "line"

    @property
    def place(self) -> str:
        """File and number, for messages."""
        return f"{self.path} {self.unit} {self.number}"


def read_text(path: Path, *, damaged: bool = False) -> str:
    r"""A file of UTF-8 text, with or without a byte order mark; its lines end in ``\n``.

    Args:
        path: the file.
        damaged: whether single bytes that are no UTF-8 are allowed. They become lone surrogates, which
            :func:`seedpo.data.text.values.value_fault` finds in their rows.

    Raises:
        DataError: if it is missing or is not such a file.
    """
    try:
        content = read_bytes(path, largest=None, text=True)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # a folder, no right to read it; NUL in its name
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if content.startswith(_WIDE):
        raise DataError(f"{path} cannot be read as UTF-8 text: it is UTF-16; save it as UTF-8")
    lenient = damaged and b"\0" not in content[:4096]
    try:
        text = content.decode("utf-8-sig", "surrogateescape" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def some(lines: list[Line], expected: str) -> list[Line]:
    """The records of a file of which at least one can be read.

    Args:
        lines: all of them.
        expected: what the file should be.

    Raises:
        DataError: if all are faulty.
    """
    if lines and all(line.fault for line in lines):
        first = lines[0]
        raise DataError(f"{first.path} is not {expected}: {first.unit} {first.number} {first.fault}")
    return lines

"""Values of rows: how messages quote them, and what no row may hold."""

from __future__ import annotations

import math
import re
import reprlib
import sys
from collections.abc import Mapping

DEPTH = 100
"""Levels of lists and objects within each other that a row may have."""

_ENCODED = re.compile(r"[A-Za-z0-9+/_=\n-]{200,}")
_HEAD = 4096
_LARGEST = int(sys.float_info.max)
_BYTES = range(0xDC80, 0xDD00)
"""Code points by which Python keeps bytes that are no UTF-8."""


class _Bounded(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 4, 80, 80, 40
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 20


_BOUNDED = _Bounded()


def shown(value: object, limit: int = 80) -> str:
    """A value of the user's data as messages quote it: escaped, on one line, of bounded length.

    Data URIs and base64 are named as such and not printed.

    Args:
        value: anything.
        limit: characters of the value, or bytes, that are printed at most.
    """
    if isinstance(value, str):
        return _shown_text(value, limit)
    if isinstance(value, bytes | bytearray):
        head = repr(bytes(value[:limit]))
        return head if len(value) <= limit else f"{head}... ({len(value):,} bytes)"
    try:
        text = _BOUNDED.repr(value)
    except Exception:  # an integer of more digits than Python prints, or a repr of somebody else's
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."


def _shown_text(value: str, limit: int) -> str:
    count = f"({len(value):,} characters)"
    if value[:5].lower() == "data:" and len(value) > limit:
        return f"a data URI {count}"
    if len(value) > limit and _ENCODED.fullmatch(value[:_HEAD]):
        return f"base64 {count}"
    return repr(value) if len(value) <= limit else f"{value[:limit]!r}... {count}"


def value_fault(value: object) -> str | None:
    r"""What a row may not hold anywhere in its values, in words that follow the row's place; `None` if it is sound.

    These are half a surrogate pair (``"\ud83d"``), a byte that is no UTF-8, NUL, a number that is infinite or beyond
    a float's range, and more than :data:`DEPTH` levels within each other. NaN is allowed: tables have it for a missing
    value, and a column that is used as a number refuses it.
    """
    if isinstance(value, dict) and all(map(_is_plain, value.values())) and all(map(_is_plain, value)):
        return None  # as nearly all rows are, and there may be a million of them
    level: list[tuple[str | None, object]] = [(None, value)]
    for _ in range(DEPTH + 1):
        below: list[tuple[str | None, object]] = []
        for name, item in level:
            fault = _fault(item)
            if isinstance(item, Mapping):
                fault = fault or next((fault for key in item if (fault := _fault(key))), None)
                below += [(str(key) if name is None else name, inner) for key, inner in item.items()]
            elif isinstance(item, list | tuple):
                below += [(name, inner) for inner in item]
            if fault:
                return fault if name is None else f"{fault} in {shown(name)}"
        if not below:
            return None
        level = below
    return f"is nested deeper than {DEPTH} levels"


def _is_plain(item: object) -> bool:
    return (type(item) is str and item.isascii() and "\0" not in item) or item is None or type(item) is bool


def _fault(item: object) -> str | None:
    if isinstance(item, str):
        return _text_fault(item)
    if isinstance(item, int):
        return "holds an integer beyond the range of numbers" if abs(item) > _LARGEST else None
    return "holds an infinite number" if isinstance(item, float) and math.isinf(item) else None


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds a NUL character"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if code in _BYTES:
            return f"holds the byte 0x{code - 0xDC00:02x}, which is no UTF-8: save the file as UTF-8"
        return f"holds half a surrogate pair (\\u{code:04x})"
    return None

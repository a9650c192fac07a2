"""Records in JSON: one object on each line, an array, an object that holds one, or objects one after another."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seedpo.data.text.lines import Line, read_text, some
from seedpo.data.text.values import DEPTH, shown, value_fault
from seedpo.errors import DataError

logger = logging.getLogger(__name__)

ROWS = frozenset({"data", "entries", "examples", "items", "pairs", "prompts", "records", "rows", "samples"})
"""Keys of an object that holds several lists, of which one is the rows."""

PROMPTS = frozenset({"prompt", "caption"})
"""Keys that an object has if it is a row itself."""

_BETWEEN = re.compile(r"[\s,]*")
WRAPPED = re.compile(r'\s*\{\s*"[^"\n]*"\s*:\s*(?=\[\s*\{)')
"""The beginning of an object whose first value is a list of objects."""
_KEY = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:')


def json_value(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: if it is not JSON, gives a key two values, or is nested too deeply; the message is short.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEPTH} levels") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = {sys.intern(key): value for key, value in pairs}  # a million rows share their keys
    if len(values) < len(pairs):
        for key, value in pairs:
            if value != values[key]:
                raise ValueError(f"it gives {shown(key)} two values")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def json_lines(path: Path) -> list[Line]:
    """The records of a file with one JSON object on each line; empty lines are left out.

    Raises:
        DataError: if no line of the file can be read.
    """
    return lines_of_objects(path, read_text(path, damaged=True))


def lines_of_objects(path: Path, text: str) -> list[Line]:
    """The records of a text with one JSON object on each line; see :func:`json_lines`."""
    lines = [_line(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return some(lines, "JSON lines, one {...} on each line")


def _line(path: Path, number: int, text: str) -> Line:
    try:
        values = json_value(text)
    except ValueError as error:
        return Line(path=path, number=number, values={}, fault=f"is not JSON ({error})")
    return record(path, number, values, unit="line")


def record(path: Path, number: int, values: object, *, unit: str = "entry") -> Line:
    """A record of values that were read; a faulty one if they are no object, or hold what no row may hold."""
    fault = value_fault(values) if isinstance(values, dict) else "is not a JSON object {...}"
    return Line(
        path=path,
        number=number,
        values=values if isinstance(values, dict) and not fault else {},
        fault=fault,
        unit=unit,
    )


def entries(path: Path, text: str) -> list[Line]:
    """The records of a JSON array, of an object that holds one, or of objects one after another.

    A record that cannot be read costs itself alone: the search goes on where the next one begins.

    Raises:
        DataError: if no record can be read, or it is not clear which list holds the rows.
    """
    try:
        content = json_value(text)
    except ValueError:
        lines = [
            record(path, number, values)
            if fault is None
            else Line(path=path, number=number, values={}, fault=fault, unit="entry")
            for number, (values, fault) in enumerate(_scanned(text), start=1)
        ]
    else:
        lines = [record(path, number, values) for number, values in enumerate(rows_of(path, content), start=1)]
    return some(lines, "a JSON array of objects [{...}, {...}]")


def rows_of(path: Path, content: object) -> list[Any]:
    """The list that a JSON value is or holds; an object that holds none is a list of itself.

    Raises:
        DataError: if it holds several, and none is named as rows are.
    """
    if not isinstance(content, dict):
        return content if isinstance(content, list) else [content]
    lists = row_lists(content)
    if not lists:
        return [content]
    keys = list(lists) if len(lists) == 1 else [key for key in lists if key.lower() in ROWS]
    if len(keys) != 1:
        names = ", ".join(shown(key) for key in (keys or lists))
        raise DataError(f"{path} holds several lists ({names}); write the list of the rows into a file of its own")
    logger.info("%s: the rows are the list %s", path, shown(keys[0]))
    return lists[keys[0]]


def row_lists(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of an object that may be its rows; none if it is a row itself."""
    if PROMPTS & {key.lower() for key in content} or any(isinstance(value, dict) for value in content.values()):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, list) and _holds_rows(value)}


def _holds_rows(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, dict) for value in values)


def _scanned(text: str) -> Iterator[tuple[object, str | None]]:
    """The objects of a damaged text in their order, each with its fault; the next one begins like the first."""
    place = _after(WRAPPED if WRAPPED.match(text) else _BETWEEN, text, 0)
    array = text[place : place + 1] == "["
    place = _after(_BETWEEN, text, place + array)
    beginning = _beginning(text, place)
    line, counted = 1, 0
    while place < len(text) and not (array and text[place] == "]"):
        try:
            values, end = _decoded(text, place)
            yield values, None
        except ValueError as error:
            line, counted = line + text.count("\n", counted, place), place
            yield None, f"is not JSON ({_reason(error, line)})"
            following = beginning.search(text, place + 1)
            if following is None:
                return
            end = following.start()
        place = _after(_BETWEEN, text, end)
    if array and place == len(text):
        yield None, "is missing: the file is cut off before the end ] of its array"


def _decoded(text: str, place: int) -> tuple[object, int]:
    """The value at a place and where it ends.

    An error of Python's decoder counts all lines before it, so that many in a long text would take forever: it gets no
    more of the text than it needs.

    Raises:
        ValueError: if there is none.
    """
    size = 4096
    while True:
        part = text[place : place + size]
        try:
            values, end = _DECODER.raw_decode(part)
            return values, place + end
        except RecursionError as error:
            raise ValueError(f"it is nested deeper than {DEPTH} levels") from error
        except json.JSONDecodeError as error:
            cut = error.pos > len(part) - 16 or error.msg.startswith("Unterminated")
            if place + size >= len(text) or not cut:
                raise
            size *= 4


def _reason(error: ValueError, line: int) -> str:
    return f"{error.msg}: line {line + error.lineno - 1}" if isinstance(error, json.JSONDecodeError) else str(error)


def _after(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return match.end() if match else place


def _beginning(text: str, place: int) -> re.Pattern[str]:
    """How each object begins: with the first key of the first one, and on its own line, if so, behind equal blanks."""
    key = _KEY.match(text, place)
    opening = re.escape(key[0]) if key else r"\{"
    blanks = text[text.rfind("\n", 0, place) + 1 : place]
    own_line = "\n" in text[:place] and not blanks.strip()
    return re.compile(rf"(?<=\n{re.escape(blanks)}){opening}" if own_line else rf"(?<![:\w])(?<!: ){opening}")


def is_open_list(text: str) -> bool:
    """Whether a text begins with a list that has no end, of which one entry can be read and another was to follow."""
    start = _after(_BETWEEN, text, 0)
    if text[start : start + 1] != "[" or _end(text, start) is not None:
        return False
    end = _end(text, _after(_BETWEEN, text, start + 1))
    return end is not None and text[end : end + 80].lstrip()[:1] in ("", ",", '"', "{")


def _end(text: str, start: int) -> int | None:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None

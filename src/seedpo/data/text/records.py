"""Which format a file of records has, by its content; an ending that says something else is not believed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seedpo.data.text.delimited import delimited, delimiter_of
from seedpo.data.text.lines import Line, read_text
from seedpo.data.text.objects import WRAPPED, entries, json_value, lines_of_objects, row_lists

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A format of records.

    Attributes:
        name: in words.
        endings: of the names of its files.
        read: gives the records of a text; the path is for messages.
    """

    name: str
    endings: frozenset[str]
    read: Callable[[Path, str], list[Line]]


LINES = Kind(name="JSON lines", endings=frozenset({".jsonl", ".ndjson", ".json"}), read=lines_of_objects)
ARRAY = Kind(name="JSON", endings=frozenset({".json"}), read=entries)
TABLE = Kind(name="a table with names of columns", endings=frozenset({".csv", ".tsv", ".tab"}), read=delimited)

KINDS: Mapping[str, Kind] = {
    ".jsonl": LINES,
    ".ndjson": LINES,
    ".json": ARRAY,
    ".csv": TABLE,
    ".tsv": TABLE,
    ".tab": TABLE,
}
"""What the ending of a name promises."""

_ARRAY = re.compile(r'\s*\[\s*[{\["\]\d-]')
_OBJECT = re.compile(r'\s*\{\s*["}]')


def records(path: Path) -> list[Line]:
    """The records of a text file: JSON lines, a JSON array or an object that holds one, CSV or TSV.

    The content decides which. A bad record is a line with a fault; what no row may hold is such a fault as well.

    Raises:
        DataError: if the file cannot be read, or none of its records can.
    """
    text = read_text(path, damaged=True)
    promised = KINDS.get(path.suffix.lower())
    kind = json_kind(text) or (TABLE if delimiter_of(text) or promised is TABLE else LINES)
    if promised is not None and path.suffix.lower() not in kind.endings and text.strip():
        logger.warning("%s holds %s, whatever its ending says; it is read as such", path, kind.name)
    return kind.read(path, text)


def json_kind(text: str) -> Kind | None:
    """Which of the formats of JSON a text is, damaged or not; `None` if it is none."""
    if _ARRAY.match(text):
        first, _, others = text.strip().partition("\n")
        return LINES if others and isinstance(_value(first), list) and has_object_line(others) else ARRAY
    if not _OBJECT.match(text):
        return LINES if has_object_line(text) else None
    first, _, others = text.strip().partition("\n")
    content = _value(first)
    if isinstance(content, dict):
        return LINES if others or not row_lists(content) else ARRAY
    if others and first.strip() != "{" and not WRAPPED.match(text) and has_object_line(others):
        return LINES  # of which the first is damaged
    return ARRAY if others or WRAPPED.match(text) else LINES


def has_object_line(text: str) -> bool:
    """Whether at least one line of a text is a JSON object."""
    return any(isinstance(_value(line), dict) for line in text.split("\n") if line.lstrip().startswith("{"))


def _value(text: str) -> object:
    try:
        return json_value(text)
    except ValueError:
        return None

"""Text files of records: JSON lines and CSV, in which lines that cannot be read keep their place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from seedpo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Line:
    """One record of a text file.

    Attributes:
        path: the file.
        number: of its line, from 1.
        values: by key; empty if the line cannot be read.
        fault: what is wrong with the line; `None` if nothing is.
    """

    path: Path
    number: int
    values: Mapping[str, Any]
    fault: str | None = None


def read_text(path: Path) -> str:
    """A file of UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: if it is missing or is not such a file.
    """
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors put a mark before the first line
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error


def json_lines(path: Path) -> list[Line]:
    """The records of a file with one JSON object on each line; empty lines are left out.

    Raises:
        DataError: if no line of the file can be read.
    """
    texts = read_text(path).split("\n")
    lines = [_json_line(path, number, text) for number, text in enumerate(texts, start=1) if text.strip()]
    return _some(path, lines, "JSON lines, one {...} on each line")


def _json_line(path: Path, number: int, text: str) -> Line:
    try:
        values = json.loads(text)
    except ValueError as error:
        return Line(path=path, number=number, values={}, fault=f"is not JSON ({error})")
    if not isinstance(values, dict):
        return Line(path=path, number=number, values={}, fault="is not a JSON object {...}")
    return Line(path=path, number=number, values=values)


def csv_lines(path: Path) -> list[Line]:
    """The records of a comma-separated file whose first line names the columns.

    Raises:
        DataError: if no line of the file can be read.
    """
    return _some(path, list(_csv_lines(path)), "CSV with the names of the columns on the first line")


def _csv_lines(path: Path) -> Iterator[Line]:
    """A record may take several lines, if its text is quoted; its number is that of the first."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    names: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Line(path=path, number=number, values={}, fault=f"is not CSV ({error})")
            continue
        if not fields:
            continue
        if names is None:
            names = [name.strip() for name in fields]
        elif len(fields) > len(names):
            fault = f"has more fields than the {len(names)} columns; quote commas"
            yield Line(path=path, number=number, values={}, fault=fault)
        else:
            yield Line(path=path, number=number, values=dict(zip_longest(names, fields)))


def spreadsheet_text(cell: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula: such a cell gets an apostrophe in front."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _some(path: Path, lines: list[Line], expected: str) -> list[Line]:
    if lines and all(line.fault for line in lines):
        raise DataError(f"{path} is not {expected}: line {lines[0].number} {lines[0].fault}")
    return lines


RECORDS: Mapping[str, Callable[[Path], list[Line]]] = {".jsonl": json_lines, ".csv": csv_lines}
"""How files of records are read, by the ending of their names; any other file is plain text."""

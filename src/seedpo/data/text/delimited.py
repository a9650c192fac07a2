"""Records in CSV and TSV: the first line names the columns, and a damaged record costs itself alone.

Python's ``csv`` reads an unclosed quote as one field up to the next quote, over any number of records. Here a quoted
field may run over line ends only if the lines in it do not look like records themselves.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TextIO

from seedpo.data.text.lines import Line, read_text, some
from seedpo.data.text.values import shown, value_fault
from seedpo.errors import DataError

logger = logging.getLogger(__name__)

EXPECTED = "CSV with the names of the columns on the first line"

_QUOTED = re.compile(r'"[^"\n]*"')
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_Kind = tuple[bool, str]
_NUMBER = re.compile(r"[-+]?[\d.]+(?:[eE][-+]?\d+)?")
_NAME = re.compile(r"\S*[/\\.]\S*|.*\.\w{2,5}")


def csv_lines(path: Path) -> list[Line]:
    """The records of a file whose first line names the columns, with commas, tabs or semicolons between them.

    Blanks around a value are left out, but for those within quotes.

    Raises:
        DataError: if no record of the file can be read, or two columns have one name.
    """
    return delimited(path, read_text(path, damaged=True))


def delimiter_of(text: str) -> str | None:
    """What stands between the names of the columns in the first line: a tab, a comma or a semicolon, or nothing."""
    names = _QUOTED.sub("", first_line(text))
    return next((sign for sign in "\t,;" if sign in names), None)


def first_line(text: str) -> str:
    """The first line of a text that is not blank."""
    return text.lstrip("\n").partition("\n")[0] if text[:1] == "\n" else text.partition("\n")[0]


def delimited(path: Path, text: str) -> list[Line]:
    """The records of a text; see :func:`csv_lines`."""
    delimiter = delimiter_of(text) or ","
    raw = delimiter == "\t" and _holds_bare_quotes(text)
    records = _split(text, delimiter) if raw else _Parser(text, delimiter).records()
    header = next(records, None)
    if header is None:
        return []
    if header.fault:
        raise DataError(f"{path} is not {EXPECTED}: line {header.number} {header.fault}")
    names = list(map(_cell_text, header.fields))
    if fault := value_fault(names) or _name_fault(names):
        raise DataError(f"{path} line {header.number} {fault}; name each column once, on the first line")
    lines = some([_line(path, names, record) for record in records], EXPECTED)
    if len(names) == 1 and (long := next((line for line in lines if "\n" in str(line.values.get(names[0]))), None)):
        logger.warning("%s is a record of several lines; close its quote on that line if they are several", long.place)
    return lines


def write_csv(
    file: TextIO, rows: Iterable[Iterable[object]], *, line_end: str = "\n", quotes_texts: bool = False
) -> None:
    """Writes rows as CSV of which no spreadsheet takes a text for a formula: the only writer of CSV in the package.

    A text that begins like a formula gets an apostrophe in front, which :func:`csv_lines` takes away again. So a text
    that looks like one of these already gets a further one. `None` becomes an empty cell.

    Args:
        file: opened with ``newline=""``.
        rows: the names of the columns first.
        line_end: of each row.
        quotes_texts: whether each text is quoted, so that readers keep the blanks at its ends.
    """
    writer = csv.writer(
        file, lineterminator=line_end, quoting=csv.QUOTE_NONNUMERIC if quotes_texts else csv.QUOTE_MINIMAL
    )
    writer.writerows([_spreadsheet_text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def csv_text(rows: Iterable[Iterable[object]], *, line_end: str = "\n") -> str:
    """Rows as the text of a CSV file; see :func:`write_csv`."""
    text = io.StringIO(newline="")
    write_csv(text, rows, line_end=line_end)
    return text.getvalue()


def _spreadsheet_text(cell: str) -> str:
    return f"'{cell}" if _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and _NUMBER.fullmatch(cell) is None


def _cell_text(cell: str) -> str:
    """What :func:`_spreadsheet_text` was given."""
    return cell[1:] if cell[:1] == "'" and _is_formula(cell) else cell


@dataclass
class _Record:
    """A record: the number of its first line, its fields, and what is wrong with it."""

    number: int
    fields: list[str] = field(default_factory=list)
    fault: str | None = None


def _line(path: Path, names: Sequence[str], record: _Record) -> Line:
    fields, fault = record.fields, record.fault
    while len(fields) > len(names) and not fields[-1]:
        fields.pop()
    if not fault and len(fields) > len(names):
        fault = f"has more fields than the {len(names)} columns; quote commas"
    values = dict(zip_longest(names, map(_cell_text, fields))) if not fault else {}
    fault = fault or value_fault(values)
    return Line(path=path, number=record.number, values={} if fault else values, fault=fault)


def _name_fault(names: Sequence[str]) -> str | None:
    if any("\n" in name for name in names):
        return "holds a quote that is not closed"
    double = next((name for row, name in enumerate(names) if name and name in names[:row]), None)
    return None if double is None else f"names the column {shown(double)} twice"


def _split(text: str, delimiter: str) -> Iterator[_Record]:
    """The records of a text in which quotation marks mean nothing."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _Record(number, [value.strip() for value in line.split(delimiter)])


def _holds_bare_quotes(text: str) -> bool:
    """Whether the writer of a table with tabs quoted nothing, so that quotation marks belong to the text.

    Whoever quotes does so where a value holds a mark, and doubles it; PartiPrompts.tsv, for example, does not.
    """
    bare = doubled = 0
    for value in (value.strip() for line in text.split("\n") if '"' in line for value in line.split("\t")):
        if '"' in value and not value.startswith('"') and (value.count('"') % 2 == 0 or not value.endswith('"')):
            bare += 1
        elif value.startswith('"') and '""' in value[1:-1]:
            doubled += 1
    return bare > doubled


class _Parser:
    r"""The records of a text in which a value may be quoted, one after another.

    Args:
        text: with line ends ``\n``.
        delimiter: one character between two values.
    """

    def __init__(self, text: str, delimiter: str) -> None:
        self._text = text
        self._delimiter = delimiter
        blank = " " if delimiter == "\t" else r"[ \t]"
        self._value = re.compile(
            rf'{blank}*"((?:[^"]++|"")*+)"{blank}*(?={re.escape(delimiter)}|\n|\Z)|([^{re.escape(delimiter)}\n]*)'
        )

    def records(self) -> Iterator[_Record]:
        """All records; lines without any character but blanks are left out."""
        place, number, columns = 0, 1, 0
        while place < len(self._text):
            end = self._text.find("\n", place)
            end = len(self._text) if end < 0 else end
            line = self._text[place:end]
            if '"' in line:
                record, end = self._quoted(number, place, end, columns)
                yield record
            elif line.strip():
                record = _Record(number, [value.strip() for value in line.split(self._delimiter)])
                yield record
            else:
                record = None
            columns = columns or (len(record.fields) if record else 0)
            number += self._text.count("\n", place, end) + 1
            place = end + 1

    def _quoted(self, number: int, start: int, line_end: int, columns: int) -> tuple[_Record, int]:
        """A record with quotation marks, and where it ends: if it is damaged, at the end of its first line."""
        fields, pieces, place = [], [], start
        while True:
            match = self._value.match(self._text, place)
            assert match is not None  # the second alternative matches anything, and nothing
            quoted, bare = match.groups()
            if quoted is None and bare.lstrip().startswith('"'):
                return _Record(number, fault="is not CSV (a quote is not closed, or text follows it)"), line_end
            fields.append(bare.strip() if quoted is None else quoted.replace('""', '"'))
            pieces.append(match[0])
            place = match.end()
            if place == len(self._text) or self._text[place] == "\n":
                break
            place += 1
        if place > line_end and columns and self._is_damaged(self._text[start:place].split("\n"), pieces, columns):
            return _Record(number, fault="is not CSV (its quote is not closed on this line)"), line_end
        return _Record(number, fields), place

    def _is_damaged(self, lines: Sequence[str], pieces: Sequence[str], columns: int) -> bool:
        """Whether a record of several lines has another number of values, or one of its lines looks like a record.

        Such a line begins and ends with values like those that stand before and behind the long one. The first line
        always begins so, and the last one always ends so, which tells nothing; nor do empty values.
        """
        if len(pieces) != columns:
            return True
        long = [column for column, piece in enumerate(pieces) if "\n" in piece]
        before = [_kind(piece) for piece in pieces[: long[0]]]
        behind = [_kind(piece) for piece in reversed(pieces[long[-1] + 1 :])]
        for row, line in enumerate(lines):
            kinds = [_kind(piece) for piece in line.split(self._delimiter)]
            begins, ends = list(zip(kinds, before, strict=False)), list(zip(reversed(kinds), behind, strict=False))
            telling = (begins if row > 0 else []) + (ends if row < len(lines) - 1 else [])
            if len(kinds) >= columns and all(map(_are_alike, begins + ends)) and any(map(_are_equal, telling)):
                return True
        return False


def _kind(piece: str) -> _Kind:
    """Whether a value begins with a blank, and what it looks like."""
    value = piece.strip().strip('"')
    if not value:
        return False, "nothing"
    if _NUMBER.fullmatch(value):
        kind = "number"
    elif _NAME.fullmatch(value):
        kind = "name"
    else:
        kind = "text" if " " in value else "word"
    return piece[0] == " ", kind


def _are_alike(kinds: tuple[_Kind, _Kind]) -> bool:
    return kinds[0] == kinds[1] or "nothing" in (kinds[0][1], kinds[1][1])


def _are_equal(kinds: tuple[_Kind, _Kind]) -> bool:
    return kinds[0] == kinds[1] and kinds[0][1] != "nothing"

"""Tables of a page: cells with small print and verdicts, as HTML by the template or as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

DASH = "\N{EN DASH}"

Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A verdict in a few words; the tone chooses its colour."""

    text: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        text: what it says.
        small: lines below it.
        best: whether it is the best of its column.
        role: chooses colour and shape of a mark before the text; empty: no mark.
        badge: a verdict beside the text.
    """

    text: str = ""
    small: tuple[str, ...] = ()
    best: bool = False
    role: str = ""
    badge: Badge | None = None

    @property
    def words(self) -> str:
        """Everything in one line."""
        head = " ".join(part for part in (self.text, self.badge.text if self.badge else "") if part)
        return ", ".join(part for part in (head, *self.small) if part).replace(", [", " [")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        header: of each column.
        rows: cells of each row.
        summaries: rows that sum up those above them.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    summaries: frozenset[int] = frozenset()

    @classmethod
    def of(cls, header: Sequence[str], rows: Iterable[Iterable[Cell | str]]) -> Table:
        """A table of cells and texts."""
        return cls(
            header=tuple(header),
            rows=tuple(tuple(Cell(text=part) if isinstance(part, str) else part for part in row) for row in rows),
        )

    @property
    def markdown(self) -> str:
        """The table as Markdown."""
        return markdown_table(self.header, [[cell.words for cell in row] for row in self.rows])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown; a bar within a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def text_table(rows: Sequence[Sequence[str]], *, align: Literal["<", ">"] = "<", rule: bool = False) -> str:
    """A table as plain text in columns, the first one flush left.

    Args:
        rows: of cells; the first row is the header.
        align: of the other columns: ``<`` left, ``>`` right.
        rule: whether a line stands below the header.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]] if rule else rows
    sides = ["<", *[align] * (len(widths) - 1)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True)).rstrip()
        for line in lines
    )

"""What the names of files in an archive say: which sample a file belongs to, and which column of it is.

WebDataset's rule is that a key ends at the first dot: ``v1.5_01.chosen.png`` is ``5_01.chosen.png`` of the sample
``v1``. Where that gives no samples but the last dots do, the key ends there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Literal

from seedpo.data.files.search import is_passed_over
from seedpo.data.images.signatures import ENDINGS
from seedpo.data.layouts import IMAGE_COLUMNS, LAYOUTS, PROMPT_COLUMNS
from seedpo.data.text import shown

HEAD = 300
"""Files at the beginning of an archive whose names show how all are made."""

TEXT_ENDINGS = frozenset({"caption", "cls", "text", "txt"})
KNOWN_COLUMNS = frozenset(name for layout in LAYOUTS for name in layout.known_names)


@dataclass(frozen=True)
class Part:
    """A file of an archive by its name.

    Attributes:
        key: of its sample.
        column: what it holds; empty if it holds nothing that is used.
        kind: how it is stored; ``unknown``: its ending does not tell.
    """

    key: str
    column: str
    kind: Literal["image", "text", "json", "unknown"]


NameRule = Callable[[str], Part | None]
"""What a name says; `None` for a hidden file."""


def by_first_dot(name: str) -> Part | None:
    """The key ends at the first dot, as WebDataset has it."""
    return _part(name, lambda words: 1)


def by_last_dots(name: str) -> Part | None:
    """The key ends before the ending, or before the name of a known column and the ending."""
    return _part(name, lambda words: len(words) - (2 if len(words) > 2 and words[-2].lower() in KNOWN_COLUMNS else 1))


def _part(name: str, length: Callable[[Sequence[str]], int]) -> Part | None:
    path = PurePosixPath(name)
    if any(map(is_passed_over, path.parts)):
        return None
    words = path.name.split(".")
    count = length(words)
    column, kind = _column([word.lower() for word in words[count:]])
    return Part(str(path.parent / ".".join(words[:count])), column, kind)


def _column(words: Sequence[str]) -> tuple[str, Literal["image", "text", "json", "unknown"]]:
    """Column and kind of what follows the key."""
    if not words:
        return "", "unknown"
    *before, ending = words
    column = ".".join(before) or ending
    if f".{ending}" in ENDINGS:
        return column, "image"
    if ending == "json":
        return ("json", "json") if not before else ("", "unknown")
    if ending in TEXT_ENDINGS and column not in IMAGE_COLUMNS:
        return ("prompt" if column in (*PROMPT_COLUMNS, "text", "txt") else column), "text"
    return (column if column in IMAGE_COLUMNS and ending not in TEXT_ENDINGS else ""), "unknown"


def rule_of(names: Sequence[str]) -> NameRule:
    """How names are made, by the first ones of an archive: at the first dot, unless only the last give samples.

    Args:
        names: of at most :data:`HEAD` files in their order.
    """
    first, last = _whole(names, by_first_dot), _whole(names, by_last_dots)
    return by_last_dots if last and all(last) and not any(first) else by_first_dot


def _whole(names: Sequence[str], rule: NameRule) -> list[bool]:
    """Whether each sample has two known images, of different columns; a last one that may go on does not count."""
    parts = [part for part in map(rule, names) if part is not None]
    samples = [
        [part.column for part in group if part.column in IMAGE_COLUMNS]
        for _, group in groupby(parts, key=lambda part: part.key)
    ]
    if len(names) >= HEAD and len(samples) > 1:
        del samples[-1]
    return [2 <= len(columns) == len(set(columns)) for columns in samples if columns]


def misread_image(part: Part) -> bool:
    """Whether a name is that of a known image but for dots in its key."""
    return part.kind == "image" and part.column not in IMAGE_COLUMNS and part.column.split(".")[-1] in IMAGE_COLUMNS


def example(names: Sequence[str]) -> str:
    """A name and what was made of it."""
    rule = rule_of(names)
    for name in names:
        part = rule(name)
        if part is not None and part.column:
            return f"{shown(name)} is {shown(part.column)} of the sample {shown(part.key)}"
    return f"there is no file with a column in its name, such as {shown(names[0])}" if names else "there is no file"

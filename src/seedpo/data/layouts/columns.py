"""Columns by name, also within structures: ``data.image1`` is the value ``image1`` of the column ``data``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What kinds of values a table's columns hold.

    Attributes:
        lists: columns that hold lists; a list of bytes as numbers is a file, and no list.
        keys: of columns that hold structures, the names in them.
    """

    lists: Collection[str] = ()
    keys: Mapping[str, Collection[str]] = field(default_factory=dict)


PLAIN = Shape()
"""No lists and no structures."""


@dataclass(frozen=True, kw_only=True)
class Columns(Collection[str]):
    """Names of a table's columns; those of values within structures are in it, though they are not listed.

    Attributes:
        names: of the columns.
        shape: kinds of their values.
    """

    names: Sequence[str]
    shape: Shape = PLAIN

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        if name in self.names:
            return True
        root = column_root(name, self.names) if isinstance(name, str) else None
        key = str(name)[len(root) + 1 :].split(".")[0] if root else ""
        return root is not None and key in self.shape.keys.get(root, ())

    def holds_lists(self, name: str) -> bool:
        """Whether a column holds lists of images."""
        return name in self.shape.lists


def column_root(name: str, columns: Collection[str]) -> str | None:
    """The column of a table in which a value lies; ``None`` if there is none."""
    parts = name.split(".")
    starts = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((start for start in starts if start in columns), None)


def value_at(values: Mapping[str, Any], name: str) -> Any:
    """A value of a row, whose columns are given; ``None`` if it is not there."""
    root = column_root(name, values)
    if root is None:
        return None
    value = values[root]
    for key in name[len(root) + 1 :].split(".") if root != name else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    return value

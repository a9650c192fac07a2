"""Columns by name, also within structures: ``data.image1`` is the value ``image1`` of the column ``data``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


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

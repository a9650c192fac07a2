"""One cell of a grid of runs, and what a name for it may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seedpo.errors import ConfigError

LONGEST_NAME = 120
"""Longer names of folders would be hard to read, and some file systems refuse them."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a grid.

    Attributes:
        name: its folder.
        config: what differs from the method's preset, the method among it.
        steps: optimiser steps that it takes; for the progress bar.
        changes: the values that set it apart from the other cells, by dotted key.
        label: what the user calls it, without its seed; empty where it is named by its values.
    """

    name: str
    config: Mapping[str, Any]
    steps: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


def name_of(changes: Mapping[str, Any]) -> str:
    """A readable folder name: ``gamma=1_beta=10_seed=0``.

    Of a dotted key the last part is written, as long as it is the only one that ends so.
    """
    ends = [key.rsplit(".", 1)[-1] for key in changes]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(changes, ends, strict=True)}
    return "_".join(f"{short[key]}={written(value)}" for key, value in changes.items())


def written(value: Any) -> str:
    """A value as it can stand in a file name: no spaces, no slashes."""
    if isinstance(value, bool | None):
        return str(value).lower()  # none is what --set takes, too
    if isinstance(value, int | float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{written(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "+".join(written(part) for part in value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-.") or "empty"


def check_name(name: str) -> str:
    """The name, if a folder can have it.

    Raises:
        ConfigError: if it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.=_+-]*", name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"cell {name!r}: a cell is a folder; name it with at most {LONGEST_NAME} letters, digits and . = _ + -"
        )
    return name


def shard_of(cells: Sequence[Cell], shard: str | None) -> list[Cell]:
    """The cells of one shard: every n-th one, from the i-th on.

    Args:
        cells: all cells of the sweep, in their order.
        shard: ``i/n`` with 1 <= i <= n; none: all of them.

    Raises:
        ConfigError: if the shard is not of that form.
    """
    if shard is None:
        return list(cells)
    found = re.fullmatch(r"(\d+)/(\d+)", shard.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"--shard {shard} is not of the form i/n with i from 1 to n; the first of four is --shard 1/4"
        )
    return list(cells[int(found[1]) - 1 :: int(found[2])])

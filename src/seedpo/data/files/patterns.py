"""Patterns of paths: ``*``, ``?`` and ``[...]`` in a name, ``**`` for folders at any depth, numbers as ``{00..12}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import translate
from glob import has_magic
from pathlib import Path

from seedpo.errors import DataError
from seedpo.files import exists

MOST_NUMBERS = 100_000
"""Names that the numbers in braces stand for at most."""

_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}", re.ASCII)


def matches(pattern: str) -> list[Path]:
    """The files and folders that a pattern stands for, sorted, each once; a name without signs stands for itself.

    As in a shell ``*`` and ``**`` leave out names that begin with a dot. ``**`` goes through linked folders too, but
    not back into one that it came through.
    """
    if not has_magic(pattern):
        return [Path(pattern)]
    path = Path(pattern)
    paths = [Path(path.anchor)]
    parts = path.parts[1:] if path.anchor else path.parts
    for number, part in enumerate(parts, start=1):
        if part == "**":
            paths = [below for folder in paths for below in _below(folder, frozenset(), files=number == len(parts))]
        elif has_magic(part):
            is_match, dotted = re.compile(translate(part)).match, part.startswith(".")
            paths = [
                child
                for folder in paths
                for child in _children(folder)
                if is_match(child.name) and (dotted or not child.name.startswith("."))
            ]
        else:
            paths = [folder / part for folder in paths if exists(folder / part)]
    return sorted(set(paths) - {Path()})


def numbered(pattern: str) -> list[str]:
    """``a{00..02}b`` as three names.

    Raises:
        DataError: if they would be too many.
    """
    match = _NUMBERS.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = range(int(first), int(last) + 1)
    rests = numbered(pattern[match.end() :])
    if len(numbers) * len(rests) > MOST_NUMBERS:
        raise DataError(f"{pattern} stands for more than {MOST_NUMBERS:,} names; write * for the number")
    return [f"{pattern[: match.start()]}{str(number).zfill(len(first))}{rest}" for number in numbers for rest in rests]


def _below(folder: Path, above: frozenset[tuple[int, int]], *, files: bool) -> Iterator[Path]:
    """A folder and all folders below it, and their files."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in above:
        return
    yield folder
    for child in _children(folder):
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from _below(child, above | {(status.st_dev, status.st_ino)}, files=files)
        elif files:
            yield child


def _children(folder: Path) -> list[Path]:
    """What lies in a folder; nothing, if it is none or must not be read."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []

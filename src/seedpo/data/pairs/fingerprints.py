"""What identifies the data of a run, so that it is not resumed on other data unnoticed. No image is read for it.

A fingerprint holds the number of rows and one digest for each thing that can change on its own: prompts, labels,
images. An image is known by its path and its size in bytes. The paths begin at the data's folder, and times of files
are not looked at, so that a copy in another folder is the same data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from seedpo.data.images.places import located
from seedpo.errors import DataError
from seedpo.protocols import Fingerprint, PreferencePairs

SIZES = 10_000
"""Pairs of a set, evenly spaced in it, whose image files are asked for their size."""

PART = 10_000
"""Values of a list that are written as text at a time."""

_JSON = json.JSONEncoder(default=str)

_SHOWN = ("rows", "origin", "files", "bytes", "weights")
"""Facts that are shown with their values; the others are digests."""


@runtime_checkable
class Fingerprinted(Protocol):
    """A set of pairs that can be told from others."""

    def fingerprint(self) -> Fingerprint:
        """The number of rows, and what else tells the set from others."""


def fingerprint_of(pairs: PreferencePairs) -> Fingerprint:
    """The fingerprint of a set of pairs; of one that has none, its number of rows."""
    return pairs.fingerprint() if isinstance(pairs, Fingerprinted) else {"rows": len(pairs)}


def rows_fingerprint(columns: Mapping[str, Sequence[object]]) -> Fingerprint:
    """The fingerprint of rows.

    Args:
        columns: what each row holds, as JSON values, by the name of the fact; all of one length.

    Returns:
        ``rows``, a digest of each column by its name, and ``content``, which does not depend on the rows' order.
    """
    count = len(next(iter(columns.values())))
    total = sum(int(_digest(row), 16) for row in zip(*columns.values(), strict=True))
    digests = {name: _list_digest(values) for name, values in columns.items()}
    return {"rows": count, **digests, "content": f"{total % 2**256:064x}"}


def prompts_fingerprint(prompts: Sequence[str]) -> Fingerprint:
    """The fingerprint of a list of prompts."""
    return rows_fingerprint({"prompts": prompts})


def joined_fingerprint(parts: Sequence[Fingerprint], weights: Sequence[int]) -> Fingerprint:
    """The fingerprint of several sets that are read as one, each with its weight."""
    names = list(dict.fromkeys(name for part in parts for name in part if name != "rows"))
    facts: Fingerprint = {name: _digest([part.get(name) for part in parts]) for name in names}
    return {"rows": sum(int(part["rows"]) for part in parts), "weights": json.dumps(list(weights)), **facts}


def image_names(paths: Sequence[object], folders: Sequence[Path | None]) -> list[str]:
    """What identifies images of which the table holds the paths: path from the folder on, and size of some files."""
    spacing = -(-len(paths) // SIZES)
    return [
        _image_name(path, folder, sized=row % spacing == 0)
        for row, (path, folder) in enumerate(zip(paths, folders, strict=True))
    ]


def _image_name(path: object, folder: Path | None, *, sized: bool) -> str:
    if folder is None or not isinstance(path, str | Path):
        return str(path)
    place = os.path.abspath(folder / path)  # noqa: PTH100
    name = Path(os.path.relpath(place, folder)).as_posix()
    return f"{name} {_size(place, path, folder)}" if sized else name


def _size(place: str, path: str | Path, folder: Path) -> int:
    """Bytes of a file, also if the table writes its path in another form; -1 of one that is not there."""
    try:
        return Path(place).stat().st_size
    except (OSError, ValueError):
        pass
    try:
        return located(path, folder).stat().st_size
    except (OSError, DataError):
        return -1


def changes_between(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What changed, in words; nothing if the data are the same."""
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    shown = [f"{name} {before.get(name)} -> {now.get(name)}" for name in _SHOWN if name in changed]
    if "rows" in changed:  # every digest differs then
        return shown
    digests = [name for name in changed if name not in (*_SHOWN, "content")]
    same_rows = "content" in before and "content" not in changed
    return shown + (["order of rows"] if digests and same_rows else digests)


def _digest(value: object) -> str:
    return hashlib.sha256(_JSON.encode(value).encode(errors="surrogatepass")).hexdigest()


def _list_digest(values: Sequence[object]) -> str:
    """:func:`_digest` of a list, a part at a time: the text of a long one would take more memory than the list."""
    hasher = hashlib.sha256(b"[")
    for start in range(0, len(values), PART):
        text = _JSON.encode(list(values[start : start + PART]))[1:-1]
        hasher.update((", " * (start > 0) + text).encode(errors="surrogatepass"))
    hasher.update(b"]")
    return hasher.hexdigest()

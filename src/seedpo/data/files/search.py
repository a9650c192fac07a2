"""The files below a folder that belong to a set, and a count of all that a search passes over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from seedpo.errors import DataError

HIDDEN_FILES, HIDDEN_FOLDERS = "hidden files", "hidden folders"
SYSTEM_FILES = "files of the operating system"
LOOPS = "links back to a folder above"
BROKEN_LINKS = "links that lead nowhere"
UNREADABLE = "folders that cannot be read"
SPECIAL_FILES = "neither files nor folders"

SYSTEM_NAMES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
)
"""Names, in small letters, of what Windows, macOS and storage servers leave in folders."""

Identity = tuple[int, int]
"""Device and number of a folder on it, whatever path leads there."""

Tally = dict[tuple[Path, str], tuple[int, str]]
"""How many were passed over of each folder and reason, and the name that comes first."""

Wanted = Callable[[Path], bool | str]
"""Whether a file belongs to the set. A text says why it does not, and the file is counted; ``False`` only leaves it
out, such as an image that a table names."""


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """What a search left out of one folder for one reason.

    Attributes:
        path: the folder.
        reason: what was left out, in the plural.
        count: how many of them.
        example: name of the first.
    """

    path: Path
    reason: str
    count: int
    example: str


@dataclass(frozen=True, kw_only=True)
class Search:
    """What lies below a folder.

    Attributes:
        files: those that belong to the set, sorted.
        passed: what was left out, by folder and reason.
    """

    files: tuple[Path, ...]
    passed: tuple[PassedOver, ...]


def search(folder: Path, wanted: Wanted, *, deep: bool = True) -> Search:
    """Looks for files in a folder and below it; linked folders are followed.

    What is hidden (its name begins with a dot) is left out, be it a file or a folder, but for ``folder`` itself, which
    the user named. A link back to a folder above it is left out too, since it would never end.

    Args:
        folder: where the search begins.
        wanted: which files belong to the set; it is asked about each that is neither hidden nor of the system.
        deep: whether to look into folders too. Without it they are not counted.

    Raises:
        DataError: if the folder cannot be read.
    """
    files: list[Path] = []
    passed: Tally = {}
    root = folder.resolve()
    waiting = [(folder, frozenset(map(_identity, (root, *root.parents))))]
    while waiting:
        here, above = waiting.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise DataError(f"{folder} cannot be read: {error.strerror}; check the path and your rights") from error
            _count(passed, here.parent, here.name, UNREADABLE)
            continue
        for entry in entries:
            path = here / entry.name
            kind = _kind(entry)
            if kind == "file":
                verdict = wanted(path)
                if verdict is True:
                    files.append(path)
                elif verdict:
                    _count(passed, here, entry.name, verdict)
            elif kind != "folder":
                _count(passed, here, entry.name, kind)
            elif deep:
                identity = _identity(path)
                if identity in above:
                    _count(passed, here, entry.name, LOOPS)
                else:
                    waiting.append((path, above | {identity}))
    return Search(files=tuple(sorted(files)), passed=_entries(passed))


def visible_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, less those that a search passes over.

    Raises:
        OSError: if it cannot be read.
    """
    return sorted(folder / entry.name for entry in os.scandir(folder) if _kind(entry) == "folder")


def passed_over(places: Iterable[tuple[Path, str]]) -> tuple[PassedOver, ...]:
    """Counts by folder and reason.

    Args:
        places: each file or folder that is left out, and why.
    """
    tally: Tally = {}
    for path, reason in places:
        _count(tally, path.parent, path.name, reason)
    return _entries(tally)


def _count(tally: Tally, folder: Path, name: str, reason: str) -> None:
    count, example = tally.get((folder, reason), (0, name))
    tally[folder, reason] = (count + 1, min(example, name))


def _entries(tally: Tally) -> tuple[PassedOver, ...]:
    return tuple(
        PassedOver(path=folder, reason=reason, count=count, example=example)
        for (folder, reason), (count, example) in sorted(tally.items())
    )


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system."""
    return (name.startswith(".") and name != "..") or name.lower() in SYSTEM_NAMES


def _identity(path: Path) -> Identity:
    try:
        status = path.stat()
    except OSError:  # a folder above that may not be looked at, or one that has just been removed
        return (-1, -1)
    return (status.st_dev, status.st_ino)


def _kind(entry: os.DirEntry[str]) -> str:
    """``file``, ``folder``, or why it is neither."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself
        is_folder, is_file = False, False
    if entry.name.startswith("."):
        return HIDDEN_FOLDERS if is_folder else HIDDEN_FILES
    if entry.name.lower() in SYSTEM_NAMES:
        return SYSTEM_FILES
    if is_folder or is_file:
        return "folder" if is_folder else "file"
    return BROKEN_LINKS if entry.is_symlink() else SPECIAL_FILES

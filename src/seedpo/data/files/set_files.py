"""From a name that a user writes to the files of a set: what it stands for, their kind, and the split that is read."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from glob import has_magic
from pathlib import Path

from seedpo.data.files.file_kinds import (
    CSV,
    DESCRIPTIONS,
    ENDINGS,
    JSON,
    JSON_LINES,
    PARQUET,
    ROWS_ENDING,
    TAR,
    contradicts,
    ending_of,
    foreign,
    head_of,
    kind_of,
)
from seedpo.data.files.inventory import FileRead, Inventory, printable
from seedpo.data.files.patterns import matches, numbered
from seedpo.data.files.search import passed_over, search
from seedpo.data.files.splits import SplitWish, chosen_split, split_kind, split_of, split_of_folder
from seedpo.data.images.signatures import ENDINGS as IMAGE_ENDINGS
from seedpo.errors import DataError
from seedpo.files import exists
from seedpo.settings import HUB

logger = logging.getLogger(__name__)

KINDS = (PARQUET, TAR, JSON_LINES, CSV, JSON)
"""Kinds of files of records. Of a folder that holds several the first one is read."""

PACKED = frozenset({".7z", ".arrow", ".bz2", ".feather", ".gz", ".rar", ".tgz", ".xz", ".zip", ".zst"})
"""Endings of files that are looked into to say what to do with them."""

LINKED_TWICE = "further names of a file that is read"


def expanded(name: str, *, expected: str) -> list[Path]:
    """The files and folders that a name stands for.

    Args:
        name: a path, a pattern, or ``a{00..02}b``.
        expected: what the user may write.

    Raises:
        DataError: if there is none.
    """
    if exists(name):
        return [Path(name)]
    files = [path for pattern in numbered(name) for path in matches(pattern)]
    if not files:
        raise DataError(f"preference pairs {name}: no file matches; {expected}")
    if missing := [path for path in files if not exists(path)]:
        hint = f"; for a data set of the hub write {HUB}{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
        raise DataError(f"preference pairs {missing[0]} do not exist; {expected}{hint}")
    return files


@dataclass
class _Choice:
    """Files on the way to a set: the kind of each, and what was passed over so far."""

    kinds: dict[Path, str] = field(default_factory=dict)
    passed: list[tuple[Path, str]] = field(default_factory=list)

    def keep(self, reason: Callable[[Path], str | None]) -> None:
        """Passes over each file for which there is a reason."""
        for path in list(self.kinds):
            if why := reason(path):
                self.passed.append((path, why))
                del self.kinds[path]


def files_of_set(
    places: Sequence[Path], origin: str, *, wish: SplitWish, kind: str | None, expected: str
) -> tuple[str, Inventory]:
    """The kind of a set and its files.

    In a folder all files of one kind belong to it, less those of other splits. Files that the user names are what they
    are: all are read, unless ``wish`` names a split.

    Args:
        places: one folder, or files.
        origin: what the user wrote.
        wish: which split is read.
        kind: one of :data:`KINDS`; `None`: the first that is there.
        expected: what the user may write.

    Raises:
        DataError: if there is no such file, or no such split.
    """
    if len(places) == 1 and places[0].is_dir():
        return _of_folder(places[0], origin, wish=wish, kind=kind, expected=expected)
    if folders := [path for path in places if path.is_dir()]:
        raise DataError(f"{folders[0]} is a folder; name either one folder or files")
    choice, is_pattern = _Choice(), has_magic(origin) and len(places) > 1
    for path in places:
        if not path.is_file():
            raise DataError(f"preference pairs {printable(path)} are neither a file nor a folder; {expected}")
        head = head_of(path)
        own = kind or kind_of(path.name, head, named=not is_pattern)
        if own is None and not is_pattern:
            raise _refusal(path, head, expected)
        if own is None:
            choice.passed.append((path, _reason(path, head)))
        else:
            choice.kinds[path] = own
    if not choice.kinds:
        path = choice.passed[0][0]
        raise _refusal(path, head_of(path), expected)
    kind = _one_kind(choice, kind)
    root = Path(os.path.commonpath([path.absolute().parent for path in choice.kinds]))
    return kind, _with_split(choice, root, origin, wish=wish, named=True)


def _of_folder(folder: Path, origin: str, *, wish: SplitWish, kind: str | None, expected: str) -> tuple[str, Inventory]:
    choice = _Choice()

    def wanted(path: Path) -> bool | str:
        own = _kind_in_folder(path)
        if own in KINDS:
            choice.kinds[path] = own
        return own in KINDS or (own or False)

    result = search(folder, wanted)
    choice.kinds = {path: choice.kinds[path] for path in result.files}
    if any(path.suffix for path in choice.kinds):  # as in caches of the hub, whose blobs have no ending
        choice.keep(lambda path: None if path.suffix else "files without an ending")
    if kind is not None and kind not in choice.kinds.values():
        ending = next(ending for ending, own in ENDINGS.items() if own == kind)
        raise DataError(f"{folder} holds no {ending} file; it holds {listing(folder)}")
    if not choice.kinds:
        raise DataError(
            f"preference pairs {origin}: the folder holds {listing(folder)}, which is not a set of pairs"
            f"{_mend([entry.path / entry.example for entry in result.passed])}; {expected}"
            + "".join(f"; {line}" for line in Inventory(origin=origin, passed=result.passed).lines())
        )
    kind = _one_kind(choice, kind or _kind_with_split(choice, folder, origin, wish))
    inventory = _with_split(choice, folder, origin, wish=wish, named=False)
    return kind, replace(inventory, passed=(*inventory.passed, *result.passed))


def _kind_in_folder(path: Path) -> str | None:
    """The kind of a file that lies in a folder, or why it is none; `None` for images, which tables may name."""
    ending = ending_of(path.name)
    if ending in IMAGE_ENDINGS:
        return None
    if path.name.lower() in DESCRIPTIONS:
        return "descriptions of data sets"
    if path.name.endswith(ROWS_ENDING):
        return "lists of rows that were converted"
    if ending not in ENDINGS and ending not in PACKED and (ending or path.name.startswith("_")):
        return f"files {ending}" if ending else "files without an ending"
    try:
        head = head_of(path)
    except OSError:
        return "files that cannot be read"
    return (kind_of(path.name, head) if head or ending in (".parquet", ".tar") else None) or _reason(path, head)


def _reason(path: Path, head: bytes) -> str:
    """What a file is that holds no rows, in the plural."""
    if not head:
        return "empty files"
    known = foreign(head)
    return known[0] if known else f"files {ending_of(path.name)}" if ending_of(path.name) else "files without an ending"


def _refusal(path: Path, head: bytes, expected: str) -> DataError:
    if known := foreign(head):
        return DataError(f"preference pairs {printable(path)}: {known[0]} are not read; {known[1]}")
    return DataError(f"preference pairs {printable(path)} are {seen([path])}, which is none of the formats; {expected}")


def _mend(paths: Sequence[Path]) -> str:
    """What to do with the first file that is packed or a pointer to another one."""
    for path in paths:
        if path.is_file() and not path.name.startswith(".") and (known := foreign(head_of(path))):
            return f"; {known[0]}, such as {printable(path.name)}, are not read: {known[1]}"
    return ""


def _kind_with_split(choice: _Choice, folder: Path, origin: str, wish: SplitWish) -> str | None:
    """The first kind that tells the split that is read; `None` if none does."""
    present = [kind for kind in KINDS if kind in choice.kinds.values()]
    for kind in present:
        splits = {split_of(path, folder) for path, own in choice.kinds.items() if own == kind}
        if not any(splits):
            if wish.name is None and kind == present[0]:
                return kind
            continue
        try:
            if chosen_split(splits, wish, origin=origin) is not None:
                return kind
        except DataError:
            continue
    return None


def _one_kind(choice: _Choice, kind: str | None) -> str:
    """Keeps the files of one kind, each under one name."""
    kind = kind or min(choice.kinds.values(), key=KINDS.index)
    identities: set[tuple[int, int]] = set()

    def reason(path: Path) -> str | None:
        if choice.kinds[path] != kind:
            return f"files of another format ({choice.kinds[path]})"
        status = path.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in identities:
            return LINKED_TWICE
        identities.add(identity)
        return None

    choice.keep(reason)
    return kind


def _with_split(choice: _Choice, root: Path, origin: str, *, wish: SplitWish, named: bool) -> Inventory:
    """Keeps the files of one split, where the user asks for one or a folder holds several."""
    kinds = choice.kinds
    splits = {path: split_of(path.absolute() if named else path, root) for path in kinds}
    if wish.name is not None and not any(splits.values()):
        splits = dict.fromkeys(splits, split_of_folder(root.resolve().name))
    notes = _contradictions(kinds)
    if any(splits.values()) and (wish.name is not None or not named):
        split = chosen_split(splits.values(), wish, origin=origin)
        choice.keep(
            lambda path: None if splits[path] == split else f"files of the split {splits[path] or '(none told)'}"
        )
    elif len({split_kind(split) for split in splits.values() if split}) > 1:
        told = ", ".join(sorted({split for split in splits.values() if split}))
        notes += (f"all files that {origin} names are read, of the splits {told}; set {wish.key} to read one of them",)
        logger.warning("%s", notes[-1])
    for path in kinds:
        if foreign(head := head_of(path)):
            raise _refusal(path, head, "")
    return Inventory(
        origin=origin,
        files=tuple(FileRead(path=path, split=splits[path]) for path in kinds),
        passed=passed_over(choice.passed),
        notes=notes,
    )


def _contradictions(kinds: dict[Path, str]) -> tuple[str, ...]:
    wrong = [path for path, kind in kinds.items() if contradicts(path.name, kind)]
    if not wrong:
        return ()
    more = f", and {len(wrong) - 1} more are not what their endings say" if len(wrong) > 1 else ""
    return (f"{printable(wrong[0])} is {kinds[wrong[0]]} by its content, and is read so{more}",)


def seen(places: Sequence[Path]) -> str:
    """What lies at some places, for messages."""
    if len(places) > 1:
        return f"{len(places)} files"
    if places[0].is_dir():
        return "a folder"
    head = head_of(places[0])[:16]
    return f"a file that begins with {head!r}" if head else "an empty file"


def listing(folder: Path) -> str:
    """A few names of what a folder holds."""
    names = sorted(printable(path.name) + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"

"""Splits that names of files and folders tell, and which of them is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from seedpo.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"

WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
    "eval": TEST,
    "evaluation": TEST,
}
"""Words that name a split, and the kind of split."""

COMPANIONS = frozenset(
    {"set", "data", "dataset", "split", "pairs", "images", "preferences", "partial", "part", "shard"}
    | {"parquet", "jsonl", "json", "csv", "tsv", "tar", "arrow"}
)
"""Words that may stand beside one of :data:`WORDS` in the name of a folder: ``test_set``, ``train-images``."""

_SHARD = re.compile(r"(?P<name>.+?)[-_.]\d+[-_.]of[-_.]\d+(?:[-_.][0-9a-z]+)?", re.IGNORECASE)
"""The stem of ``train-00000-of-00007`` and of ``train-00000-of-00007-ab12cd``."""

_BETWEEN = re.compile(r"[-_. ]+")
_WORD = re.compile(rf"({'|'.join(sorted(WORDS, key=len, reverse=True))})(?:set|data|split)?\d*", re.IGNORECASE)
"""A word for a split, what is written in one with it, and a number: ``train``, ``testset``, ``val2017``."""

_COUNTER = re.compile(r"v?\d+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SplitWish:
    """Which split is to be read.

    Attributes:
        name: as the user wrote it; `None`: the one for training, or for measuring.
        key: that the user sets to name another one.
        held_out: whether the pairs are measured and not trained on.
    """

    name: str | None = None
    key: str = "pairs.split"
    held_out: bool = False


def split_of(path: Path, root: Path) -> str | None:
    """The split that the name of a file, or a folder between it and ``root``, tells.

    A file's name tells it by a whole word at its beginning or end (``train.parquet``, ``pairs_test.csv``,
    ``validation-00000-of-00002.parquet``), or by what stands before the number of a shard (``en-0-of-2.parquet``). A
    folder's name must be such a word alone, one beside a word such as ``set``, or ``split=NAME``. Where names of one
    path differ, it belongs to what is not for training.

    Args:
        path: of the file.
        root: folder that the user named, whose own name and those above it tell nothing.
    """
    folders = path.relative_to(root).parts[:-1]
    told = [name for name in (split_of_file(path.name), *map(split_of_folder, reversed(folders))) if name]
    words = [name for name in told if split_kind(name)]
    held_out = [name for name in words if split_kind(name) != TRAIN]
    return next(iter((*held_out, *words, *told)), None)


def split_of_file(name: str) -> str | None:
    """The split that the name of a file tells."""
    stem = name.partition(".")[0] if name.count(".") > 1 and split_kind(name.partition(".")[0]) else Path(name).stem
    shard = _SHARD.fullmatch(stem)
    if shard is not None:
        stem = shard["name"]
        if re.fullmatch(r"\w+", stem):
            return stem if split_kind(stem) else None if stem.lower() in COMPANIONS else stem
    return _word(stem)


@cache
def split_of_folder(name: str) -> str | None:
    """The split that the name of a folder tells."""
    key, equals, value = name.partition("=")
    if equals:
        return value if key.lower() == "split" and value else None
    parts = [part for part in _BETWEEN.split(name) if part.lower() not in COMPANIONS and not _COUNTER.fullmatch(part)]
    return _meaning(parts[0]) if len(parts) == 1 else None


def split_kind(name: str) -> str | None:
    """``train``, ``validation`` or ``test`` of a split's name, such as ``test_unique``; `None` if it is of none."""
    word = _word(name)
    return None if word is None else WORDS[word.lower()]


def _word(stem: str) -> str | None:
    """The one word of a split at the beginning or the end of a name; numbers at its end are not looked at."""
    parts = [part for part in _BETWEEN.split(stem) if part]
    while len(parts) > 1 and _COUNTER.fullmatch(parts[-1]):
        parts.pop()
    words = {part: word for part in parts if (word := _meaning(part))}
    if len({WORDS[word.lower()] for word in words.values()}) != 1:
        return None
    return next((words[part] for part in (parts[0], parts[-1]) if part in words), None)


def _meaning(part: str) -> str | None:
    """The word for a split that a part of a name is; `None` if it is none."""
    match = _WORD.fullmatch(part)
    return match[1] if match else None


def chosen_split(names: Iterable[str | None], wish: SplitWish, *, origin: str) -> str | None:
    """The split that is read.

    A split that the user names is read, or nothing: ``val``, ``valid``, ``validation`` and ``dev`` mean the same, and
    so do the other words of a kind. What tells no split at all counts as ``train``. Where the user names none, the one
    for training is read, or, for measuring, that for validation, else for testing. Data that are only for testing are
    not trained on.

    Args:
        names: of the splits that are there; `None` stands for what tells none.
        wish: what the user asks for.
        origin: what the data are called.

    Returns:
        A name; `None`: what tells none.

    Raises:
        DataError: if there is no such split, or it is not clear which one is meant.
    """
    all_names = set(names)
    told = sorted(name for name in all_names if name)
    if wish.name is not None:
        return _named_split(told, wish, origin)
    if not told:
        return None
    for kind in (VALIDATION, TEST) if wish.held_out else (TRAIN,):
        if name := _of_kind(told, kind):
            return name
    if len(all_names) == 1 and (wish.held_out or split_kind(told[0]) is None):
        return told[0]
    others = ", and files that tell none" if None in all_names else ""
    raise DataError(
        f"{origin} holds {_listed(told)}{others}, of which none is for {'measuring' if wish.held_out else 'training'}; "
        f"set {wish.key}, for example to {told[0]}" + ("; or name the files themselves" if None in all_names else "")
    )


def is_wished(split: str | None, wish: SplitWish) -> bool:
    """Whether one of many rows is read, where it is not known beforehand which splits there are.

    Args:
        split: that is told of the row; `None`: none, so that it belongs to whatever is read.
        wish: what the user asks for.
    """
    if split is None or split == wish.name:
        return True
    kind = split_kind(split)
    if wish.name is not None:
        return kind is not None and WORDS.get(split.lower()) == WORDS.get(wish.name.lower())
    return kind is None or (kind != TRAIN) == wish.held_out


def _named_split(told: Collection[str], wish: SplitWish, origin: str) -> str | None:
    assert wish.name is not None
    if wish.name in told:
        return wish.name
    kind = WORDS.get(wish.name.lower())
    same = [name for name in told if kind is not None and WORDS.get(name.lower()) == kind]
    if len(same) == 1:
        return same[0]
    if not told and kind == TRAIN:
        return None
    fix = f"set {wish.key} to one of them" if told else f"leave out {wish.key}"
    raise DataError(f"{origin} has no split {wish.name!r}: it holds {_listed(sorted(told))}; {fix}")


def _of_kind(told: Collection[str], kind: str) -> str | None:
    """The only split of a kind, or the one that is called so."""
    names = [name for name in told if split_kind(name) == kind]
    exact = [name for name in names if WORDS.get(name.lower()) == kind]
    return exact[0] if len(exact) == 1 else kind if kind in exact else names[0] if len(names) == 1 else None


def _listed(told: Collection[str]) -> str:
    if not told:
        return "nothing that tells a split"
    return f"the split{'s' if len(told) > 1 else ''} {', '.join(told)}"

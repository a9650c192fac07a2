"""From what a user writes to labelled pairs: which format it is, and its reader."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.data.archives import ArchiveRows
from seedpo.data.folders import SIDES, FolderRows
from seedpo.data.hub import MARKS, HubStream, SavedRows
from seedpo.data.pairs import PairSet
from seedpo.data.parquet import ParquetRows
from seedpo.data.settings import PairsConfig
from seedpo.data.streams import StreamedPairs
from seedpo.data.tables import Table
from seedpo.data.text import TextRows, csv_lines, json_lines
from seedpo.errors import DataError

logger = logging.getLogger(__name__)

HUB = "hub:"
"""What a data set of the hub begins with."""

EXPECTED = (
    "name a parquet file, a .jsonl, .csv or .tar file, a folder or a glob of such files, a folder with chosen/ and "
    "rejected/, a folder written by save_to_disk, hub:owner/name, or `scenes-pairs`"
)

SPLIT = re.compile(r"([A-Za-z]\w*?)-\d+-of-\d+|(train|validation|val|dev|test)\.")
"""Names of files that tell their split: train-00000-of-00007.parquet, or train.parquet."""

NUMERIC = ("chosen_probability", "has_label", "label_0", "label_1")
"""Columns of CSV files that are no text."""


@dataclass(frozen=True, kw_only=True)
class Shards:
    """A format of one or several files.

    Attributes:
        ending: of the files' names.
        read: gives the rows of files that are called something together.
    """

    ending: str
    read: Callable[[Sequence[Path], str], Table]


SHARDS = {
    "parquet": Shards(ending=".parquet", read=lambda files, origin: ParquetRows(files, origin=origin)),
    "webdataset": Shards(ending=".tar", read=lambda files, origin: ArchiveRows(files, origin=origin)),
    "jsonl": Shards(ending=".jsonl", read=lambda files, origin: TextRows(files, read=json_lines, origin=origin)),
    "csv": Shards(
        ending=".csv", read=lambda files, origin: TextRows(files, read=csv_lines, origin=origin, numeric=NUMERIC)
    ),
}
"""Formats of files, in the order in which a folder is searched for them."""


def looks_like_pairs(name: str) -> bool:
    """Whether a name is meant as a place, present or not: it has a path's signs, or there is such a file or folder."""
    return any(sign in name for sign in "/\\:.*?[{") or Path(name).exists()


def read_pairs(spec: str | Path, config: PairsConfig | None = None, *, seed: int = 0) -> PairSet | StreamedPairs:
    """Opens a set of labelled pairs; images are read when they are asked for.

    Args:
        spec: file, folder, glob, ``shard-{000..012}.tar``, or ``hub:owner/name``.
        config: format, size, ties.
        seed: seed of the order of streams.

    Raises:
        DataError: if nothing is there, it is none of the formats, or its content cannot be used.
    """
    config = config or PairsConfig()
    name = str(spec)
    if name.startswith(HUB) or config.format == "hub":
        stream = HubStream(name.removeprefix(HUB), split=config.split, seed=seed, buffer=config.shuffle_buffer)
        return StreamedPairs(stream, config)
    return PairSet(open_table(name, config), config)


def open_table(name: str, config: PairsConfig) -> Table:
    """The rows of a file, a folder or shards.

    Raises:
        DataError: if nothing is there or it is none of the formats.
    """
    try:
        return _open(name, config)
    except OSError as error:  # no right to read it, a disk that fails, ...
        raise DataError(f"preference pairs {name} cannot be read: {error}") from error


def _open(name: str, config: PairsConfig) -> Table:
    files = _expanded(name)
    format_ = config.format if config.format != "auto" else _detect(files, name)
    if format_ in SHARDS:
        return SHARDS[format_].read(_shards(files, format_, split=config.split), name)
    if len(files) != 1 or not files[0].is_dir():
        raise DataError(f"pairs.format = {format_} needs one folder, but {name} is {_seen(files)}")
    if format_ == "datasets":
        return SavedRows(files[0], split=config.split)
    if missing := [side for side in SIDES if not (files[0] / side).is_dir()]:
        raise DataError(f"{name} lacks the folder {' and '.join(missing)}; it holds {_listing(files[0])}")
    if config.image_folder is not None:
        raise DataError(f"{name} has its images in chosen/ and rejected/; leave out pairs.image_folder")
    return FolderRows(files[0])


def _expanded(name: str) -> list[Path]:
    """The files and folders that a name stands for."""
    if Path(name).exists():
        return [Path(name)]
    names = _braces(name)
    found = [Path(match) for one in names for match in _matches(one)]
    if not found:
        raise DataError(f"preference pairs {name}: no file matches; {EXPECTED}")
    if missing := [path for path in found if not path.exists()]:
        hint = f"; for a data set of the hub write {HUB}{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
        raise DataError(f"preference pairs {missing[0]} do not exist; {EXPECTED}{hint}")
    return found


def _matches(name: str) -> list[str]:
    # Path.glob takes no absolute pattern.
    return sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else [name]  # noqa: PTH207


def _braces(name: str) -> list[str]:
    """``a{00..02}b`` as three names."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if match is None:
        return [name]
    first, last = match.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [part for number in numbers for part in _braces(f"{name[: match.start()]}{number}{name[match.end() :]}")]


def _detect(files: Sequence[Path], name: str) -> str:
    path = files[0]
    if not path.is_dir():
        by_name = [format_ for format_, shards in SHARDS.items() if path.name.lower().endswith(shards.ending)]
        format_ = by_name[0] if by_name else _by_content(path)
        if format_ is None:
            raise DataError(f"preference pairs {path} are {_seen([path])}, which is none of the formats; {EXPECTED}")
        return format_
    if any((path / mark).is_file() for mark in MARKS):
        return "datasets"
    if any((path / side).is_dir() for side in SIDES):
        return "folders"
    for format_, shards in SHARDS.items():
        if next(path.rglob(f"*{shards.ending}"), None) is not None:
            return format_
    raise DataError(f"preference pairs {name}: the folder holds {_listing(path)}, which is no set of pairs; {EXPECTED}")


def _by_content(path: Path) -> str | None:
    """The format that a file's first bytes tell."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar":
        return "webdataset"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "jsonl"
    return None


def _shards(files: Sequence[Path], format_: str, *, split: str) -> list[Path]:
    """The files of a format: those that were named, or all in a folder, of one split if their names tell it."""
    ending = SHARDS[format_].ending
    if len(files) > 1 or not files[0].is_dir():
        if folders := [path for path in files if path.is_dir()]:
            raise DataError(f"{folders[0]} is a folder; name either one folder or files")
        return list(files)
    found = sorted(path for path in files[0].rglob(f"*{ending}") if path.is_file())
    if not found:
        raise DataError(f"{files[0]} holds no {ending} file; it holds {_listing(files[0])}")
    splits = [match[1] or match[2] if (match := SPLIT.match(path.name)) else None for path in found]
    if len(set(splits)) == 1:
        return found
    chosen = [path for path, one in zip(found, splits, strict=True) if one == split]
    if not chosen:
        names = sorted({one or "(none)" for one in splits})
        raise DataError(f"{files[0]} holds the splits {', '.join(names)}; set pairs.split, which is {split!r}")
    logger.info("%s: split %s, %d of %d files", files[0], split, len(chosen), len(found))
    return chosen


def _seen(files: Sequence[Path]) -> str:
    if len(files) > 1:
        return f"{len(files)} files"
    if files[0].is_dir():
        return "a folder"
    with files[0].open("rb") as file:
        head = file.read(16)
    return f"a file that begins with {head!r}" if head else "an empty file"


def _listing(folder: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") if names else "nothing"

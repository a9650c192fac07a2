"""From what a user writes to labelled pairs: which format it is, and its reader."""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.data.archives import ArchiveStream
from seedpo.data.catalogue import DATA
from seedpo.data.folders import SIDES, FolderRows
from seedpo.data.hub import MARKS, HubStream, SavedRows
from seedpo.data.joined import JoinedPairs
from seedpo.data.pairs import PairSet
from seedpo.data.parquet import ParquetRows
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.data.streams import StreamedPairs
from seedpo.data.tables import TextRows
from seedpo.data.text import csv_lines, json_lines
from seedpo.errors import DataError
from seedpo.registry import unknown
from seedpo.settings import HUB

logger = logging.getLogger(__name__)

EXPECTED = (
    "name a parquet file, a .jsonl, .csv or .tar file, a folder or a glob of such files, a folder with chosen/ and "
    "rejected/, a folder written by save_to_disk, hub:owner/name, or `scenes-pairs`"
)

SPLIT = re.compile(r"([A-Za-z]\w*?)-\d+-of-\d+|(train|validation|val|dev|test)\.")
"""Names of files that tell their split: train-00000-of-00007.parquet, or train.parquet."""

Opened = PairSet | StreamedPairs


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way in which pairs are stored.

    Attributes:
        open: opens files, or one folder, that are called something together; the seed is that of the order of streams.
        ending: of the files' names; `None`: the pairs lie in one folder.
        head: whether a file's first bytes are of this format.
        marks: files or folders by which a folder is known.
    """

    open: Callable[[Sequence[Path], str, PairsConfig, int], Opened]
    ending: str | None = None
    head: Callable[[bytes], bool] = lambda content: False
    marks: Sequence[str] = ()


def _parquet(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    return PairSet(ParquetRows(files, origin=origin), config)


def _webdataset(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    return StreamedPairs(ArchiveStream(files, origin=origin, seed=seed, buffer=config.shuffle_buffer), config)


def _jsonl(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    return PairSet(TextRows(files, read=json_lines, origin=origin), config)


def _csv(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    return PairSet(TextRows(files, read=csv_lines, origin=origin), config)


def _datasets(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    return PairSet(SavedRows(files[0], split=config.split), config)


def _folders(files: Sequence[Path], origin: str, config: PairsConfig, seed: int) -> Opened:
    if missing := [side for side in SIDES if not (files[0] / side).is_dir()]:
        raise DataError(f"{origin} lacks the folder {' and '.join(missing)}; it holds {_listing(files[0])}")
    if config.image_folder is not None:
        raise DataError(f"{origin} has its images in chosen/ and rejected/; leave out pairs.image_folder")
    return PairSet(FolderRows(files[0]), config)


FORMATS = {
    "datasets": Format(open=_datasets, marks=MARKS),
    "folders": Format(open=_folders, marks=SIDES),
    "parquet": Format(open=_parquet, ending=".parquet", head=lambda content: content.startswith(b"PAR1")),
    "webdataset": Format(open=_webdataset, ending=".tar", head=lambda content: content[257:262] == b"ustar"),
    "jsonl": Format(
        open=_jsonl,
        ending=".jsonl",
        head=lambda content: content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"),
    ),
    "csv": Format(open=_csv, ending=".csv"),
}
"""Formats by the name in ``pairs.format``, in the order in which a folder is searched for them."""


def load_pairs(name: str, config: PairsConfig, *, seed: int = 0) -> Opened:
    """Labelled pairs by the name of a registered set or a place.

    Args:
        name: as in the configuration.
        config: how they are read.
        seed: of the order of streams.

    Raises:
        ConfigError: if it is neither a registered name nor looks like a path.
        DataError: if it cannot be read.
    """
    if name in DATA:
        pairs: PairSet = DATA.load(name)(config)
        return pairs
    if not any(sign in name for sign in "/\\:.*?[{") and not Path(name).exists():
        raise unknown("preference set", name, DATA.names(), also="; or a path")
    return read_pairs(name, config, seed=seed)


def load_data(data: str | tuple[DataSet, ...], config: PairsConfig, *, seed: int = 0) -> Opened | JoinedPairs:
    """The labelled pairs that a run names: of one set, or of several read as one.

    Args:
        data: as in the configuration.
        config: how they are read; the same for all sets.
        seed: of the order of streams.

    Raises:
        ConfigError: if a name is neither registered nor looks like a path.
        DataError: if one cannot be read, or is a stream among several.
    """
    if isinstance(data, str):
        return load_pairs(data, config, seed=seed)
    parts: list[PairSet] = []
    for entry in data:
        part = load_pairs(entry.name, config, seed=seed)
        if isinstance(part, StreamedPairs):
            raise DataError(
                f"data: {entry.name} is a stream, which cannot be joined with other sets; name it alone, or store it "
                "as parquet files"
            )
        parts.append(part)
    return JoinedPairs(parts, data)


def read_pairs(place: str | Path, config: PairsConfig | None = None, *, seed: int = 0) -> Opened:
    """Opens a set of labelled pairs; images are read when they are asked for.

    Args:
        place: file, folder, glob, ``shard-{000..012}.tar``, or ``hub:owner/name``.
        config: format, size, ties.
        seed: of the order of streams.

    Raises:
        DataError: if nothing is there, it is none of the formats, or its content cannot be used.
    """
    config = config or PairsConfig()
    name = str(place)
    if name.startswith(HUB) or config.format == "hub":
        stream = HubStream(name.removeprefix(HUB), split=config.split, seed=seed, buffer=config.shuffle_buffer)
        return StreamedPairs(stream, config)
    try:
        files = _expanded(name)
        format_ = config.format if config.format != "auto" else _detect(files, name)
        if FORMATS[format_].ending is not None:
            files = _shards(files, format_, split=config.split)
        elif len(files) != 1 or not files[0].is_dir():
            raise DataError(f"pairs.format = {format_} needs one folder, but {name} is {_seen(files)}")
        return FORMATS[format_].open(files, name, config, seed)
    except OSError as error:  # no right to read it, a disk that fails, ...
        raise DataError(f"preference pairs {name} cannot be read: {error}") from error


def _expanded(name: str) -> list[Path]:
    """The files and folders that a name stands for."""
    if Path(name).exists():
        return [Path(name)]
    files = [Path(match) for pattern in _braces(name) for match in _matches(pattern)]
    if not files:
        raise DataError(f"preference pairs {name}: no file matches; {EXPECTED}")
    if missing := [path for path in files if not path.exists()]:
        hint = f"; for a data set of the hub write {HUB}{name}" if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
        raise DataError(f"preference pairs {missing[0]} do not exist; {EXPECTED}{hint}")
    return files


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
    if path.is_dir():
        for format_, row in FORMATS.items():
            if any((path / mark).exists() for mark in row.marks):
                return format_
            if row.ending is not None and next(path.rglob(f"*{row.ending}"), None) is not None:
                return format_
        raise DataError(
            f"preference pairs {name}: the folder holds {_listing(path)}, which is not a set of pairs; {EXPECTED}"
        )
    for format_, row in FORMATS.items():
        if row.ending is not None and path.name.lower().endswith(row.ending):
            return format_
    with path.open("rb") as file:
        content = file.read(512)
    for format_, row in FORMATS.items():
        if row.head(content):
            return format_
    raise DataError(f"preference pairs {path} are {_seen([path])}, which is none of the formats; {EXPECTED}")


def _shards(files: Sequence[Path], format_: str, *, split: str) -> list[Path]:
    """The files of a format: those that were named, or all in a folder, of one split if their names tell it."""
    ending = FORMATS[format_].ending
    if len(files) > 1 or not files[0].is_dir():
        if folders := [path for path in files if path.is_dir()]:
            raise DataError(f"{folders[0]} is a folder; name either one folder or files")
        return list(files)
    shards = sorted(path for path in files[0].rglob(f"*{ending}") if path.is_file())
    if not shards:
        raise DataError(f"{files[0]} holds no {ending} file; it holds {_listing(files[0])}")
    splits = [match[1] or match[2] if (match := SPLIT.match(path.name)) else None for path in shards]
    if len(set(splits)) == 1:
        return shards
    chosen = [path for path, name in zip(shards, splits, strict=True) if name == split]
    if not chosen:
        names = sorted({name or "(none)" for name in splits})
        raise DataError(f"{files[0]} holds the splits {', '.join(names)}; set pairs.split, which is {split!r}")
    logger.info("%s: split %s, %d of %d files", files[0], split, len(chosen), len(shards))
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

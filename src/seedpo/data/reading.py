"""From what a user writes to labelled pairs: which format it is, and its reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seedpo.data.catalogue import DATA
from seedpo.data.files import file_kinds
from seedpo.data.files.inventory import Inventory, printable
from seedpo.data.files.set_files import expanded, files_of_set, seen
from seedpo.data.files.splits import SplitWish, chosen_split
from seedpo.data.pairs.joined import JoinedPairs
from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.data.tables.archives import ArchiveStream
from seedpo.data.tables.d3po import d3po_inventory, d3po_lines, is_d3po
from seedpo.data.tables.folders import folders_of_pairs, lacks_a_side, open_folders
from seedpo.data.tables.hub import MARKS, HubStream, SavedRows, split_notes
from seedpo.data.tables.parquet import ParquetRows
from seedpo.data.tables.rows import TextRows
from seedpo.data.tables.split_rows import rows_of_split, split_counts
from seedpo.data.text import csv_lines, json_lines, records
from seedpo.errors import DataError
from seedpo.files import exists
from seedpo.registry import unknown
from seedpo.settings import HUB

EXPECTED = (
    "name a parquet file, a .jsonl, .csv, .json or .tar file, a folder or a glob of such files, a folder with chosen/ "
    "and rejected/, a folder written by save_to_disk, hub:owner/name, or `scenes-pairs`"
)


Opened = PairSet | StreamedPairs


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a reader opens.

    Attributes:
        files: one or several, or the one folder that holds all.
        inventory: of the files, with what the place is called.
        config: how pairs are read.
        wish: which split is read.
        seed: of the order of streams.
    """

    files: Sequence[Path]
    inventory: Inventory
    config: PairsConfig
    wish: SplitWish
    seed: int

    @property
    def origin(self) -> str:
        """What the files are called together."""
        return self.inventory.origin


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way in which pairs are stored.

    Attributes:
        open: opens files, or one folder.
        in_files: whether the pairs lie in files of records, and not in one folder.
    """

    open: Callable[[Source], Opened]
    in_files: bool = True


def _check_split(source: Source) -> None:
    """Checks that a split that the user names is not one of data that tell none."""
    if not any(entry.split for entry in source.inventory.files):
        chosen_split([None], source.wish, origin=source.origin)


def _pairs(table: ParquetRows | TextRows, source: Source) -> PairSet:
    """The pairs of a table, or of one split of it."""
    counts = split_counts(table)
    if not counts:
        _check_split(source)
    part, others = rows_of_split(table, counts, source.wish)
    inventory = source.inventory.with_files(table.rows_by_file())
    return PairSet(part, source.config, replace(inventory, left_out=others))


def _parquet(source: Source) -> Opened:
    window = source.config.shuffle_window
    return _pairs(ParquetRows(source.files, origin=source.origin, window=window), source)


def _webdataset(source: Source) -> Opened:
    config = source.config
    stream = ArchiveStream(
        source.files,
        origin=source.origin,
        seed=source.seed,
        buffer=config.shuffle_buffer,
        own=config.columns or (),
        wish=source.wish,
    )
    if not stream.splits:
        _check_split(source)
        return StreamedPairs(stream, config, source.inventory)
    notes = split_notes(chosen_split(stream.splits, source.wish, origin=source.origin), stream.splits)
    return StreamedPairs(stream, config, replace(source.inventory, notes=(*source.inventory.notes, *notes)))


def _text(source: Source) -> Opened:
    """Of records in text the content decides, unless the user names the format."""
    read = {"jsonl": json_lines, "csv": csv_lines}.get(source.config.format, records)
    return _pairs(TextRows(source.files, read=read, origin=source.origin), source)


def _datasets(source: Source) -> Opened:
    rows = SavedRows(source.files[0], wish=source.wish)
    return PairSet(rows, source.config, replace(source.inventory, notes=rows.notes))


def _folders(source: Source) -> Opened:
    if source.config.image_folder is not None:
        raise DataError(f"{source.origin} has its images in chosen/ and rejected/; leave out pairs.image_folder")
    rows = open_folders(source.files[0], source.wish)
    return PairSet(rows, source.config, rows.inventory)


def _d3po(source: Source) -> Opened:
    inventory = d3po_inventory(source.files[0], source.origin)
    files = [entry.path for entry in inventory.files]
    rows = TextRows(files[:1], read=lambda _: d3po_lines(files), origin=source.origin)
    return PairSet(rows, source.config, inventory)


FORMATS = {
    "datasets": Format(open=_datasets, in_files=False),
    "d3po": Format(open=_d3po, in_files=False),
    "folders": Format(open=_folders, in_files=False),
    file_kinds.PARQUET: Format(open=_parquet),
    file_kinds.TAR: Format(open=_webdataset),
    file_kinds.JSON_LINES: Format(open=_text),
    file_kinds.CSV: Format(open=_text),
    file_kinds.JSON: Format(open=_text),
}
"""Formats by the name in ``pairs.format``, in the order in which they are looked for in a folder."""


def load_pairs(name: str, config: PairsConfig, *, seed: int = 0, wish: SplitWish | None = None) -> Opened:
    """Labelled pairs by the name of a registered set or a place.

    Args:
        name: as in the configuration.
        config: how they are read.
        seed: of the order of streams.
        wish: which split is read; `None`: that of ``config``, to train on.

    Raises:
        ConfigError: if it is neither a registered name nor looks like a path.
        DataError: if it cannot be read.
    """
    if name in DATA:
        pairs: PairSet = DATA.load(name)(config)
        return pairs
    if not any(sign in name for sign in "/\\:.*?[{") and not exists(name):
        raise unknown("preference set", name, DATA.names(), also="; or a path")
    return read_pairs(name, config, seed=seed, wish=wish)


def load_data(
    data: str | tuple[DataSet, ...], config: PairsConfig, *, seed: int = 0, wish: SplitWish | None = None
) -> Opened | JoinedPairs:
    """The labelled pairs that a run names: of one set, or of several read as one.

    Args:
        data: as in the configuration.
        config: how they are read; the same for all sets.
        seed: of the order of streams.
        wish: which split is read; `None`: that of ``config``, to train on.

    Raises:
        ConfigError: if a name is neither registered nor looks like a path.
        DataError: if one cannot be read, or is a stream among several.
    """
    if isinstance(data, str):
        return load_pairs(data, config, seed=seed, wish=wish)
    parts: list[PairSet] = []
    for entry in data:
        part = load_pairs(entry.name, config, seed=seed, wish=wish)
        if isinstance(part, StreamedPairs):
            raise DataError(
                f"data: {entry.name} is a stream, which cannot be joined with other sets; name it alone, or store it "
                "as parquet files"
            )
        parts.append(part)
    return JoinedPairs(parts, data)


def opening_lines(pairs: Opened | JoinedPairs) -> list[str]:
    """What a run's log says of its pairs: how many there are, which files were read, and what was passed over."""
    parts = pairs.parts if isinstance(pairs, JoinedPairs) else [pairs]
    lines = [f"{printable(part.origin)}: {line}" for part in parts for line in part.inventory.lines()]
    return [*pairs.summary.splitlines(), *lines]


def read_pairs(
    place: str | Path, config: PairsConfig | None = None, *, seed: int = 0, wish: SplitWish | None = None
) -> Opened:
    """Opens a set of labelled pairs; images are read when they are asked for.

    Args:
        place: file, folder, glob, ``shard-{000..012}.tar``, or ``hub:owner/name``.
        config: format, size, ties.
        seed: of the order of streams.
        wish: which split is read; `None`: that of ``config``, to train on.

    Raises:
        DataError: if nothing is there, it is none of the formats, or its content cannot be used.
    """
    config = config or PairsConfig()
    wish = wish or SplitWish(name=config.split)
    name = str(place)
    if name.startswith(HUB) or config.format == "hub":
        stream = HubStream(name.removeprefix(HUB), wish=wish, seed=seed, buffer=config.shuffle_buffer)
        return StreamedPairs(stream, config, Inventory(origin=stream.origin, notes=stream.notes))
    try:
        places = expanded(name, expected=EXPECTED)
        format_ = config.format if config.format != "auto" else _format_of_folder(places)
        if format_ is not None and not FORMATS[format_].in_files:
            if len(places) != 1 or not places[0].is_dir():
                raise DataError(f"pairs.format = {format_} needs one folder, but {name} is {seen(places)}")
            source = Source(files=places, inventory=Inventory(origin=name), config=config, wish=wish, seed=seed)
        else:
            format_, inventory = files_of_set(places, name, wish=wish, kind=format_, expected=EXPECTED)
            files = [entry.path for entry in inventory.files]
            source = Source(files=files, inventory=inventory, config=config, wish=wish, seed=seed)
        return FORMATS[format_].open(source)
    except OSError as error:  # no right to read it, a disk that fails, ...
        raise DataError(f"preference pairs {name} cannot be read: {error}") from error


def _format_of_folder(places: Sequence[Path]) -> str | None:
    """The format whose pairs lie in one folder; `None`: in files of records."""
    if len(places) != 1 or not places[0].is_dir():
        return None
    if any((places[0] / mark).exists() for mark in MARKS):
        return "datasets"
    if is_d3po(places[0]):
        return "d3po"
    return "folders" if folders_of_pairs(places[0]) or lacks_a_side(places[0]) else None

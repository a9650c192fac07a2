"""Pairs in any layout become the generic table, with a list of what became of each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedpo.data.files.file_kinds import ROWS_ENDING
from seedpo.data.files.inventory import Inventory, printable
from seedpo.data.pairs.pair_tables import (
    IMAGES_NAME,
    TABLE_NAME,
    TEXT_WRITERS,
    FolderTable,
    PairTable,
    ParquetTable,
    PathTable,
    TablePair,
)
from seedpo.data.pairs.sets import PairSet, StoredPair
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.settings import PairsConfig
from seedpo.data.text import write_csv
from seedpo.errors import ConfigError, DataError
from seedpo.files import exists, write_aside, write_folder_aside

ROWS_COLUMNS = ("row", "pairs", "outcome")
"""Columns of the list of rows: where a row lies, numbers of its pairs in the table, from 0, and what became of it."""

USED = "used"
"""Outcome of a row all of whose pairs are in the table."""


@dataclass(kw_only=True)
class Conversion:
    """What was converted.

    Attributes:
        source: what was read.
        layout: what it is called.
        out: the table.
        rows_table: what became of each row.
        pairs: in the table.
        ties: pairs among them in which neither image is preferred.
        rows: rows of the source.
        used: rows of which every pair is in the table.
        left_out: rows of which no pair is made, by the reason.
        faults: rows and pairs that cannot be used.
        first_fault: the first of them.
        image_folder: what ``pairs.image_folder`` must be for readers of the table; `None`: nothing.
        inventory: of the files of the source.
    """

    source: str
    layout: str
    out: Path
    rows_table: Path
    inventory: Inventory
    pairs: int = 0
    ties: int = 0
    rows: int = 0
    used: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    first_fault: str | None = None
    image_folder: Path | None = None

    def lines(self) -> list[str]:
        """A few lines for people."""
        reasons = [f"{count} left out ({reason})" for reason, count in self.left_out.most_common()]
        faults = [f"{self.faults} that cannot be used"] if self.faults else []
        ties = f", {self.ties} ties among them" if self.ties else ""
        lines = [
            f"{self.source}: {self.layout}",
            *(f"  {line}" for line in replace(self.inventory, rows=None).lines()),
            f"  rows: {', '.join([f'{self.rows} found', f'{self.used} used', *reasons, *faults])}",
            f"  written: {self.out}, {self.pairs} pairs{ties}",
            f"  what became of each row: {self.rows_table}",
        ]
        if self.first_fault:
            lines.insert(-2, f"  the first that cannot be used: {self.first_fault}")
        if self.image_folder is not None:
            lines.append(f"  its paths begin elsewhere: read it with --set pairs.image_folder={self.image_folder}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "source": self.source,
            "layout": self.layout,
            "out": str(self.out),
            "rows_table": str(self.rows_table),
            "pairs": self.pairs,
            "ties": self.ties,
            "rows": self.rows,
            "used": self.used,
            "left_out": dict(self.left_out),
            "faults": self.faults,
            "first_fault": self.first_fault,
            "image_folder": None if self.image_folder is None else str(self.image_folder),
            "inventory": self.inventory.as_json(),
        }


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """What became of a row.

    Attributes:
        place: file and row.
        pairs: numbers of its pairs in the table.
        faults: why pairs of it are not there.
        reason: why no pair is made of it; `None` if one is.
    """

    place: str
    pairs: Sequence[int]
    faults: Sequence[str] = ()
    reason: str | None = None

    @property
    def outcome(self) -> str:
        """In words."""
        return self.reason or "; ".join(self.faults) or USED


def convert(
    pairs: PairSet | StreamedPairs, out: Path, *, source: str, overwrite: bool = False, progress: bool = False
) -> Conversion:
    """Writes the generic table of a set of pairs, and beside it what became of each row.

    Args:
        pairs: the set; of a stream one pass is read.
        out: a name that ends in ``.parquet``, ``.jsonl`` or ``.csv``, or that of a folder.
        source: what the set is called.
        overwrite: whether a table that is there may be replaced.
        progress: whether a bar is shown.

    Raises:
        ConfigError: if nothing can be written there, or such a table cannot hold the pairs.
        DataError: if no pair can be used, or more are faulty than ``pairs.bad_rows_limit`` allows. The list of rows is
            written then, and no table.
        StreamError: if a stream breaks off.
    """
    check_out(out, source=source, overwrite=overwrite)
    if out.resolve() in {entry.path.resolve() for entry in pairs.inventory.files}:
        raise ConfigError(f"--out {out} is one of the files that are read; give another name")
    conversion = Conversion(
        source=source,
        layout=pairs.layout.layout.title,
        out=out,
        rows_table=rows_place(out),
        inventory=pairs.inventory,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_aside(conversion.rows_table) as rows_aside, suppress(_Excess), _aside(out) as aside:
        table = _table(aside, out)
        add = partial(_added, table, conversion)
        _write_rows(
            _of_stream(pairs, add, progress) if isinstance(pairs, StreamedPairs) else _of_set(pairs, add, progress),
            conversion,
            rows_aside,
        )
        if _is_excess(conversion, pairs.config.bad_rows_limit):
            raise _Excess
        table.finish()
        conversion.image_folder, conversion.inventory = table.image_folder, pairs.inventory
    if _is_excess(conversion, pairs.config.bad_rows_limit):
        raise DataError(
            f"{source}: {conversion.faults} of {conversion.faults + conversion.pairs} pairs cannot be used, and "
            f"pairs.bad_rows_limit = {pairs.config.bad_rows_limit:g} allows fewer; nothing is written but "
            f"{conversion.rows_table}, which says why; the first: {conversion.first_fault}"
        )
    return conversion


def conversion_config(config: PairsConfig) -> PairsConfig:
    """How a set is opened to be converted: in its own order, and with its ties unless ``pairs.ties`` was set.

    A stream wants a resolution, which has no effect here.

    Raises:
        ConfigError: if likes are to be read, of which no pairs are made.
    """
    if config.reads_likes:
        raise ConfigError(
            f"pairs.from_scores = {config.from_scores}: pairs are written, and likes are trained on as they lie; leave "
            "it out"
        )
    ties = config.ties if "ties" in config.model_fields_set else "half"
    changes = {"ties": ties, "shuffle_buffer": 1, "buckets": False, "resolution": config.resolution or 64}
    return config.model_copy(update=changes)


def rows_place(out: Path) -> Path:
    """Where the list of rows is written."""
    return out.with_name(out.stem + ROWS_ENDING)


def check_out(out: Path, *, source: str, overwrite: bool) -> None:
    """Sees that a table can be written there, before anything is read.

    Raises:
        ConfigError: if the ending is unknown, something is there, or the place is that of the source.
    """
    if out.suffix.lower() not in ("", ".parquet", *TEXT_WRITERS):
        raise ConfigError(
            f"--out {out} ends in {out.suffix}; write .parquet, .jsonl or .csv, or the name of a folder, without a dot"
        )
    if exists(source):
        read, written = Path(source).resolve(), out.resolve()
        if written == read or read in written.parents or written in read.parents:
            raise ConfigError(f"--out {out} lies where {source} is read; give a place beside it")
    if (out.is_dir() and out.suffix) or (out.is_file() and not out.suffix):
        raise ConfigError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}; give another name")
    for path in (out, rows_place(out)):
        if path.exists() and not overwrite:
            raise ConfigError(f"--out: {path} exists already; give another name, or --overwrite to replace it")
    if out.is_dir() and {path.name for path in out.iterdir()} - {TABLE_NAME, IMAGES_NAME}:
        raise ConfigError(f"--out {out} holds other files too and is not replaced; give another name")
    parent = next(parent for parent in out.absolute().parents if parent.exists())
    if not parent.is_dir():
        raise ConfigError(f"--out {out}: {parent} is a file, not a folder; give another place")


class _Excess(Exception):
    """More pairs cannot be used than is allowed."""


def _is_excess(conversion: Conversion, limit: float) -> bool:
    return conversion.faults > limit * (conversion.faults + conversion.pairs) or not conversion.pairs


def _aside(out: Path) -> AbstractContextManager[Path]:
    return write_aside(out) if out.suffix else write_folder_aside(out)


def _table(aside: Path, out: Path) -> PairTable:
    if not out.suffix:
        return FolderTable(aside)
    return ParquetTable(aside) if out.suffix.lower() == ".parquet" else PathTable(aside, out)


Add = Callable[[Callable[[], StoredPair]], int | str]
"""Writes a pair; gives its number in the table, or why it is not there."""


def _added(table: PairTable, conversion: Conversion, stored: Callable[[], StoredPair]) -> int | str:
    try:
        pair = stored()
        chosen, rejected = pair.images if pair.probability >= 0.5 else reversed(pair.images)
        probability = max(pair.probability, 1.0 - pair.probability)
        table.add(
            TablePair(prompt=pair.prompt, chosen=chosen, rejected=rejected, probability=probability, source=pair.place)
        )
    except DataError as error:
        conversion.faults += 1
        conversion.first_fault = conversion.first_fault or str(error)
        return str(error)
    conversion.pairs += 1
    conversion.ties += probability == 0.5
    return conversion.pairs - 1


def _of_set(pairs: PairSet, add: Add, progress: bool) -> Iterator[RowOutcome]:
    """Writes all pairs of a set; gives the rows of its table in their order."""
    bar = tqdm(range(len(pairs)), desc="pairs", unit="pair", disable=not progress)
    written = [add(partial(pairs.stored, index)) for index in bar]
    for fate in pairs.fates():
        place = pairs.table.place(fate.row)
        if fate.is_fault:
            yield RowOutcome(place=place, pairs=(), faults=[str(fate.reason)])
        else:
            yield _outcome(place, [written[index] for index in fate.pairs], fate.reason)


def _of_stream(pairs: StreamedPairs, add: Add, progress: bool) -> Iterator[RowOutcome]:
    """Writes all pairs of one pass over a stream; gives its rows in their order."""
    for fate in tqdm(pairs.fates(), desc="rows", unit="row", disable=not progress):
        yield _outcome(fate.place, [add(stored) for stored in fate.pairs], fate.reason)


def _outcome(place: str, written: Sequence[int | str], reason: str | None) -> RowOutcome:
    return RowOutcome(
        place=place,
        pairs=[entry for entry in written if isinstance(entry, int)],
        faults=[entry for entry in written if isinstance(entry, str)],
        reason=reason,
    )


def _write_rows(rows: Iterator[RowOutcome], conversion: Conversion, path: Path) -> None:
    def cells() -> Iterator[Iterable[str]]:
        yield ROWS_COLUMNS
        for row in rows:
            conversion.rows += 1
            if row.reason is not None:
                conversion.left_out[row.reason] += 1
            elif not row.faults:
                conversion.used += 1
            yield map(printable, (row.place, " ".join(map(str, row.pairs)), row.outcome))

    with path.open("w", encoding="utf-8", newline="") as file:
        write_csv(file, cells())

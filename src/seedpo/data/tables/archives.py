"""Pairs in tar archives as WebDataset has them: neighbours whose names agree up to the first dot are one sample."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from seedpo.data.files.inventory import printable
from seedpo.data.files.splits import SplitWish, chosen_split, is_wished, split_of_folder
from seedpo.data.layouts import IMAGE_COLUMNS, LAYOUTS, PROMPT_COLUMNS
from seedpo.data.layouts.columns import Columns, Shape
from seedpo.data.tables.archive_names import HEAD, NameRule, Part, by_last_dots, example, misread_image, rule_of
from seedpo.data.tables.archive_pass import ArchivePass
from seedpo.data.tables.rows import is_file
from seedpo.data.tables.stream_rows import StreamRow
from seedpo.data.text import shown, value_fault
from seedpo.data.text.objects import json_value
from seedpo.errors import DataError, SeedpoError, StreamError
from seedpo.files import LARGEST, read_head
from seedpo.protocols import Fingerprint, State

logger = logging.getLogger(__name__)

EXPECTED = (
    "expected are KEY.chosen.jpg, KEY.rejected.jpg and KEY.prompt.txt or KEY.json, or KEY.jpg_0.jpg, KEY.jpg_1.jpg and "
    "KEY.json (.png, .webp, ... as well)"
)

USUAL_COLUMNS = ("prompt", "chosen", "rejected", "chosen_probability", "has_label")
"""Columns of an archive whose first samples have an image named chosen or rejected."""

FIRST = 10
"""Samples that show which columns there are."""


class ArchiveStream:
    """Passes over tar archives: their order is drawn anew at every pass, and so are rows within a buffer.

    Each file of a sample is a column by its name, and so is each key of its JSON.

    Args:
        files: at least one.
        origin: what they are called together.
        seed: of the orders.
        buffer: rows among which the next one is drawn; 1 keeps the order of the files and of their rows.
        own: ``pairs.columns``: with any, the columns need not be those of a known layout.
        wish: which split is read, where folders in the archives tell one (``train/0001.chosen.jpg``).

    Raises:
        DataError: if the first file is not a tar archive without compression, or begins with no pair.
    """

    def __init__(
        self,
        files: Sequence[Path],
        *,
        origin: str,
        seed: int,
        buffer: int,
        own: Collection[str] = (),
        wish: SplitWish | None = None,
    ) -> None:
        self.origin = origin
        self.folder: Path | None = None
        self._files = list(files)
        self._seed = seed
        self._buffer = buffer
        self._rules: dict[int, NameRule] = {}
        """How the names in each file are made, once it is known."""
        try:
            names = _names(files[0])
            self.splits = sorted({split for name in names if (split := split_of_member(name))})
            """Splits that folders in the first archive tell."""
            self._wish = wish = wish or SplitWish()
            begin = list(islice(_samples(files[0], None, rule_of(names), wish), FIRST))
        except StreamError as error:
            raise DataError(str(error)) from error
        if self.splits and not begin:
            chosen_split(self.splits, wish, origin=origin)
        columns = sorted({name for row in begin for name in row.values})
        usual = not {"chosen", "rejected"}.isdisjoint(columns)
        self.columns: Sequence[str] = USUAL_COLUMNS if usual else columns
        self.shape = Shape() if usual else _shape(begin)
        if not own and not any(layout.fits(Columns(names=self.columns, shape=self.shape)) for layout in LAYOUTS):
            raise DataError(f"{files[0]} begins with no pair, but with {columns}: {example(names)}; {EXPECTED}")
        if rule_of(names) is by_last_dots:
            logger.warning("%s: keys hold dots, and are taken to end at the last ones: %s", files[0], example(names))

    def fingerprint(self) -> Fingerprint:
        """Number of the files and their sizes."""
        sizes = [path.stat().st_size for path in self._files]
        return {"files": len(sizes), "bytes": sum(sizes)}

    def epoch(self, number: int) -> Iterator[StreamRow]:
        """All rows in the order of one pass, which is always the same for the same number.

        Raises:
            StreamError: if a file is damaged.
        """
        generator = np.random.default_rng([self._seed, number])
        return ArchivePass(self._rows, len(self._files), generator, buffer=self._buffer)

    def pass_from(self, number: int, mark: State) -> Iterator[StreamRow]:
        """The rest of a pass, from a place in it that :meth:`.archive_pass.ArchivePass.mark` gave."""
        rows = ArchivePass(
            self._rows, len(self._files), np.random.default_rng([self._seed, number]), buffer=self._buffer
        )
        rows.go_to(mark)
        return rows

    def _rows(self, number: int, start: int) -> Iterator[StreamRow]:
        """The rows of one file, from a byte on at which one begins."""
        path = self._files[number]
        if number not in self._rules:
            self._rules[number] = rule_of(_names(path))
        for row in _samples(path, frozenset(self.columns), self._rules[number], self._wish, start=start):
            yield row if row.source is None else replace(row, source=(number, row.source[1]))


def split_of_member(name: str) -> str | None:
    """The split that the folders of a file in an archive tell."""
    return next((split for part in PurePosixPath(name).parts[:-1] if (split := split_of_folder(part))), None)


def _shape(rows: Iterable[StreamRow]) -> Shape:
    """Which columns hold lists and objects, by the first samples."""
    cells = [cell for row in rows for cell in row.values.items()]
    keys = {name: dict.fromkeys(value) for name, value in cells if isinstance(value, dict)}
    lists = dict.fromkeys(name for name, value in cells if isinstance(value, list) and not is_file(value))
    return Shape(lists=list(lists), keys={name: list(inner) for name, inner in keys.items()})


def _names(path: Path) -> list[str]:
    """The names of the first files of an archive."""
    with _opened(path) as archive:
        return [member.name for member in islice(_files(archive), HEAD)]


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of an archive; it would keep what it knows of each, and that of a million of them takes 1 GB."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        if member.isfile():
            yield member


def _samples(
    path: Path, wanted: Collection[str] | None, rule: NameRule, wish: SplitWish, *, start: int = 0
) -> Iterator[StreamRow]:
    """The samples of an archive in their order.

    Args:
        path: the archive.
        wanted: columns that are read; `None`: all, and empty bytes in the place of images.
        rule: what the names say.
        wish: which split is read.
        start: byte at which the first one begins.
    """
    with _opened(path, start=start) as archive:
        members_of_split = (member for member in _files(archive) if is_wished(split_of_member(member.name), wish))
        files = ((rule(member.name), member) for member in members_of_split)
        parts = ((part, member) for part, member in files if part is not None)
        for key, group in groupby(parts, key=lambda entry: entry[0].key):
            members = list(group)
            row = _sample(archive, members, wanted, place=f"{path} sample {printable(key)}")
            if row.values or row.fault:
                yield replace(row, source=(0, members[0][1].offset))
        _check_end(path, archive.offset)


@contextmanager
def _opened(path: Path, *, start: int = 0) -> Iterator[tarfile.TarFile]:
    try:
        read_head(path, 1)  # a pipe would be waited for
        with path.open("rb") as file:
            file.seek(start)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                yield archive
    except (tarfile.TarError, OSError, EOFError, RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, SeedpoError):
            raise
        raise StreamError(
            f"{path} cannot be read as a tar archive without compression: {str(error) or type(error).__name__}; "
            "fetch or write it again"
        ) from error


def _sample(
    archive: tarfile.TarFile,
    members: Iterable[tuple[Part, tarfile.TarInfo]],
    wanted: Collection[str] | None,
    *,
    place: str,
) -> StreamRow:
    """A sample; without values and fault if its files are of other matters."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    others: dict[str, bytes] = {}
    for part, member in members:
        if misread_image(part):
            faults.append(f"{shown(member.name)} is taken for {printable(part.column)} by its name; {EXPECTED}")
        if not part.column or (part.kind != "json" and wanted is not None and part.column not in wanted):
            continue
        pixels = part.kind in ("image", "unknown")
        content = b"" if wanted is None and pixels else _content(archive, member)
        if part.kind == "unknown":
            others.setdefault(part.column, content)
            continue
        try:
            cells = _values(part, content)
        except ValueError as error:
            faults.append(f"{printable(PurePosixPath(member.name).name)} cannot be read ({error})")
            continue
        faults += [f"there are two {name} images" for name in sorted(values.keys() & cells.keys() & IMAGE_COLUMNS)]
        values |= cells
    return StreamRow(values=others | values, place=place, fault="; ".join(faults) or None)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a file; a sparse one could stand for any number."""
    if member.issparse() or member.size > LARGEST:
        raise StreamError(f"{printable(member.name)} claims {member.size:,} bytes; write the archive again")
    file = archive.extractfile(member)
    return file.read() if file else b""


def _values(part: Part, content: bytes) -> dict[str, Any]:
    """The cells that a file gives.

    Raises:
        ValueError: if it cannot be read, or holds what no row may hold.
    """
    if part.kind == "image":
        return {part.column: content}
    text = content.decode("utf-8-sig").strip()
    values = json_value(text) if part.kind == "json" else {part.column: text}
    if not isinstance(values, dict):
        raise ValueError("not a JSON object {...}")
    fault = value_fault(values)
    if fault:
        raise ValueError(f"it {fault}")
    prompt = next((values[name] for name in PROMPT_COLUMNS if name in values), None)
    others = {name: value for name, value in values.items() if name not in PROMPT_COLUMNS}
    return others if prompt is None else others | {"prompt": prompt}


def _check_end(path: Path, offset: int) -> None:
    """An archive ends with empty blocks: tarfile takes a missing or damaged header for the end as well."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise StreamError(f"{path} is damaged or cut off at byte {offset}; fetch or write it again")

"""Pairs in tar archives as WebDataset has them: neighbours whose names agree up to the first dot are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from seedpo.data.layouts import IMAGE_COLUMNS, PROMPT_COLUMNS
from seedpo.data.layouts.columns import Shape
from seedpo.data.search import is_passed_over
from seedpo.data.signatures import ENDINGS
from seedpo.data.streams import StreamRow, shuffled
from seedpo.errors import DataError, StreamError
from seedpo.protocols import Fingerprint

EXPECTED = (
    "expected are KEY.chosen.jpg, KEY.rejected.jpg and KEY.prompt.txt or KEY.json, or KEY.jpg_0.jpg, KEY.jpg_1.jpg and "
    "KEY.json (.png, .webp, ... as well)"
)


class ArchiveStream:
    """Passes over tar archives: their order is drawn anew at every pass, and so are rows within a buffer.

    Args:
        files: at least one.
        origin: what they are called together.
        seed: of the orders.
        buffer: rows among which the next one is drawn; 1 keeps the order of the files and of their rows.

    Raises:
        DataError: if the first file is not a tar archive without compression, or begins with no pair.
    """

    shape = Shape()

    def __init__(self, files: Sequence[Path], *, origin: str, seed: int, buffer: int) -> None:
        self.origin = origin
        self.folder: Path | None = None
        self._files = list(files)
        self._seed = seed
        self._buffer = buffer
        try:
            begin = list(islice(_samples(self._files[0]), 10))
        except StreamError as error:
            raise DataError(str(error)) from error
        names = {name for row in begin for name in row.values}
        if not IMAGE_COLUMNS & names:
            raise DataError(f"{self._files[0]} begins with no pair, but with {sorted(names)}; {EXPECTED}")
        pair = ("chosen", "rejected", "chosen_probability") if {"chosen", "rejected"} & names else ()
        self.columns: Sequence[str] = list(dict.fromkeys(("prompt", *pair, "has_label", *sorted(names))))

    def fingerprint(self) -> Fingerprint:
        """Number of the files and their sizes."""
        sizes = [path.stat().st_size for path in self._files]
        return {"files": len(sizes), "bytes": sum(sizes)}

    def epoch(self, number: int) -> Iterator[StreamRow]:
        """All rows in the order of one pass, which is always the same for the same number.

        Raises:
            StreamError: if a file is damaged.
        """
        if self._buffer == 1:
            return (row for path in self._files for row in _samples(path))
        generator = np.random.default_rng([self._seed, number])
        files = [self._files[place] for place in generator.permutation(len(self._files))]
        return shuffled((row for path in files for row in _samples(path)), generator, buffer=self._buffer)


def _samples(path: Path) -> Iterator[StreamRow]:
    """The samples of an archive in their order."""
    try:
        with tarfile.open(path, "r:") as archive:
            parts = (member for member in archive if member.isfile() and _column(member.name))
            for key, members in groupby(parts, key=lambda member: _key(member.name)):
                yield _sample(archive, members, place=f"{path} sample {key}")
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise StreamError(
            f"{path} cannot be read as a tar archive without compression: {error}; fetch or write it again"
        ) from error


def _key(name: str) -> str:
    """The name up to the first dot, its folder included."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition(".")[0])


def _column(name: str) -> str | None:
    """What a file holds, by its name after the first dot; `None` if it is not needed."""
    _, _, kind = PurePosixPath(name).name.lower().partition(".")
    column, _, ending = kind.partition(".")
    if any(is_passed_over(part) for part in PurePosixPath(name).parts):
        return None
    if kind in ("json", "txt", "prompt.txt"):
        return "json" if kind == "json" else "prompt"
    return column if column in IMAGE_COLUMNS and f".{ending}" in ENDINGS else None


def _sample(archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], *, place: str) -> StreamRow:
    values: dict[str, Any] = {}
    faults: list[str] = []
    for member in members:
        file = archive.extractfile(member)
        try:
            part = _values(_column(member.name), file.read() if file else b"")
        except ValueError as error:
            faults.append(f"{PurePosixPath(member.name).name} cannot be read ({error})")
            continue
        faults += [f"there are two {name} images" for name in IMAGE_COLUMNS if name in values and name in part]
        values |= part
    return StreamRow(values=values, place=place, fault="; ".join(faults) or None)


def _values(column: str | None, content: bytes) -> dict[str, Any]:
    if column in IMAGE_COLUMNS:
        return {str(column): content}
    if column == "prompt":
        return {"prompt": content.decode("utf-8-sig").strip()}
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object {...}")
    prompt = next((values[name] for name in PROMPT_COLUMNS if name in values), None)
    others = {name: value for name, value in values.items() if name not in PROMPT_COLUMNS}
    return others if prompt is None else others | {"prompt": prompt}


def _check_end(path: Path, offset: int) -> None:
    """An archive ends with empty blocks: tarfile takes a missing or damaged header for the end as well."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise StreamError(f"{path} is damaged or cut off at byte {offset}; fetch or write it again")

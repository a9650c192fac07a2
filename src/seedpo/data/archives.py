"""Pairs in tar archives as WebDataset has them: files of one sample share their name up to the first dot.

Read with the standard library: the archives' lists of files are read once, the content of a sample when it is asked
for, at its place in the archive.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from seedpo.data.layouts import PROMPT_COLUMNS
from seedpo.data.rgb import ENDINGS
from seedpo.errors import DataError

EXPECTED = "expected are KEY.chosen.jpg, KEY.rejected.jpg and KEY.prompt.txt or KEY.json (.png, .webp, ... as well)"


@dataclass(kw_only=True)
class Sample:
    """Where the parts of a pair lie.

    Attributes:
        path: the archive.
        key: the sample's name.
        values: what was read already, from KEY.json.
        parts: first byte and number of bytes of each other part.
        faults: what is wrong with it.
    """

    path: Path
    key: str
    values: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class ArchiveRows:
    """Pairs of tar archives, in the order in which they lie there.

    Args:
        files: at least one.
        origin: what they are called together.

    Raises:
        DataError: if a file is no whole tar archive without compression, or holds no pair.
    """

    def __init__(self, files: Sequence[Path], *, origin: str) -> None:
        self.origin = origin
        shards = tqdm(files, desc="archives", unit="shard", delay=2, disable=None)
        self._samples = [sample for path in shards for sample in _samples(path)]
        columns = dict.fromkeys(name for sample in self._samples for name in (*sample.parts, *sample.values))
        self.columns: Sequence[str] = list(columns)
        if not {"chosen", "rejected"} & set(columns):
            raise DataError(f"{origin} holds no pair: {len(self._samples)} samples with {sorted(columns)}; {EXPECTED}")

    def __len__(self) -> int:
        return len(self._samples)

    def values(self, column: str) -> Sequence[Any]:
        """A column of the samples' JSON, whole."""
        return [sample.values.get(column) for sample in self._samples]

    def row(self, row: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some parts of a sample."""
        sample = self._samples[row]
        if sample.faults:
            raise DataError(f"{self.place(row)}: {'; '.join(sample.faults)}")
        try:
            return {name: _part(sample, name) for name in columns}
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.place(row)} cannot be read: {error}") from error

    def place(self, row: int) -> str:
        """Archive and key of a sample."""
        return f"{self._samples[row].path} sample {self._samples[row].key}"

    def folder(self, row: int) -> Path | None:
        """The archive's folder."""
        return self._samples[row].path.parent


def _part(sample: Sample, name: str) -> Any:
    if name not in sample.parts:
        return sample.values.get(name)
    start, length = sample.parts[name]
    with sample.path.open("rb") as file:
        file.seek(start)
        content = file.read(length)
    return content.decode("utf-8-sig").strip() if name == "prompt" else content


def _samples(path: Path) -> list[Sample]:
    found: dict[str, Sample] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                stem, _, kind = name.name.partition(".")
                if not member.isfile() or not stem:
                    continue
                key = str(name.parent / stem)
                sample = found.setdefault(key, Sample(path=path, key=key))
                _add(sample, kind.lower(), member, archive)
            _check_end(path, archive.offset)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read as a tar archive without compression: {error}; fetch or write it again"
        ) from error
    return list(found.values())


def _check_end(path: Path, offset: int) -> None:
    """An archive ends with empty blocks: tarfile takes a missing or damaged header for the end as well."""
    with path.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path} is damaged or cut off at byte {offset}; fetch or write it again")


def _add(sample: Sample, kind: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
    """Notes one file of a sample under the name of its column."""
    column, _, ending = kind.partition(".")
    if kind == "json":
        stream = archive.extractfile(member)
        try:
            values = json.loads(stream.read()) if stream else None
        except ValueError as error:
            sample.faults.append(f"its JSON cannot be read ({error})")
            return
        if not isinstance(values, dict):
            sample.faults.append("its JSON is no object {...}")
            return
        prompt = next((values[name] for name in PROMPT_COLUMNS if name in values), None)
        sample.values.update(values)
        if prompt is not None:
            sample.values["prompt"] = prompt
    elif kind in ("prompt.txt", "txt"):
        sample.parts["prompt"] = (member.offset_data, member.size)
    elif column in ("chosen", "rejected") and f".{ending}" in ENDINGS:
        if column in sample.parts:
            sample.faults.append(f"there are two {column} images")
        sample.parts[column] = (member.offset_data, member.size)

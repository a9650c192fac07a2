"""Many small results in one safetensors file, which is written once, whole, and verified entry by entry.

Entries of equal shape are stacked: ``keys`` and ``digests``, (N, 32) uint8 each, and one tensor with N rows for each
tensor of an entry. An entry's digest covers its key and its tensors. The file's name covers all keys and digests. So
any changed number is noticed, and one entry can be read and verified without the others.

Reading and verifying need no torch; :mod:`seedpo.data.cache.entries` makes tensors of what is read, and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from seedpo.data.cache.digests import Array, arrays_digest, digest
from seedpo.documents import UNREADABLE, parse_json

KEY_BYTES = 32
NAME_DIGITS = 40
SUFFIX = ".safetensors"

SETTINGS = "settings.json"
"""File beside the shards of a store, whose digest names the folder."""

FORMAT = 1
"""Version of this layout and of the digests; part of the settings of every store."""

VALUE = "value."
"""Before the names of an entry's tensors in a file."""

_FORMATS = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}
"""Formats of numbers by the names that files have for them; digests were made with torch's."""


class Damaged(Exception):
    """A file whose content is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where one tensor of all entries lies in the file: entry i begins at ``begin + i * size``, in bytes.

    Attributes:
        name: of the tensor.
        kind: its format, as torch names it.
        shape: of one entry.
        begin, size: in bytes.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    begin: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file whose keys and digests are verified; an entry is verified when it is read.

    Attributes:
        path: of the file.
        keys: the keys of its N entries, in order.
        digests: the digests of its N entries, 32 bytes each.
        columns: the tensors of an entry.
    """

    path: Path
    keys: Sequence[bytes]
    digests: bytes
    columns: Sequence[Column]

    def read(self, row: int) -> dict[str, Array]:
        """One entry.

        Raises:
            Damaged: if it is not what was written.
            OSError: if the file cannot be read.
        """
        arrays = {}
        with self.path.open("rb") as file:
            for column in self.columns:
                file.seek(column.begin + row * column.size)
                content = file.read(column.size)
                if len(content) != column.size:
                    raise Damaged(f"{self.path} is cut off in entry {row}")
                arrays[column.name] = (column.kind, column.shape, content)
        expected = self.digests[row * KEY_BYTES : (row + 1) * KEY_BYTES]
        if arrays_digest(arrays, self.keys[row]) != expected:
            raise Damaged(f"entry {row} of {self.path} is not what was written")
        return arrays


def shard_name(store: str, keys: bytes, digests: bytes) -> str:
    """Name of the file with these keys and digests."""
    return digest(store.encode(), keys, digests).hex()[:NAME_DIGITS] + SUFFIX


def shard_paths(folder: Path) -> list[Path]:
    """The files of a folder that could be shards by their names, sorted; others are never touched."""
    return sorted(folder.glob("[0-9a-f]" * NAME_DIGITS + SUFFIX))


def open_shard(path: Path, store: str) -> Shard:
    """Reads and verifies a shard's keys and digests; entries are not read.

    Raises:
        Damaged: if they are not what was written, or the file is cut off.
        OSError: if it cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            keys, digests = (file.get_tensor(name).tobytes() for name in ("keys", "digests"))
    except SafetensorError as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    if shard_name(store, keys, digests) != path.name:
        raise Damaged(f"the keys of {path} are not what was written")
    with path.open("rb") as file:  # in safetensors' format: the length of the header, the header, the tensors
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length)
    try:
        tensors = parse_json(header)
        columns = [_column(name, 8 + length, entry) for name, entry in tensors.items() if name.startswith(VALUE)]
    except UNREADABLE as error:
        raise Damaged(f"the header of {path} cannot be read ({error!r})") from error
    return Shard(
        path=path,
        keys=[keys[begin : begin + KEY_BYTES] for begin in range(0, len(keys), KEY_BYTES)],
        digests=digests,
        columns=columns,
    )


def _column(name: str, start: int, entry: Mapping[str, Any]) -> Column:
    """A tensor of all entries, as the header describes it; the tensors begin at byte ``start``."""
    begin, end = entry["data_offsets"]
    rows, *shape = entry["shape"] or [1]
    return Column(
        name=name.removeprefix(VALUE),
        kind=_FORMATS.get(entry["dtype"], entry["dtype"]),
        shape=tuple(shape),
        begin=start + begin,
        size=(end - begin) // max(rows, 1),
    )


def damage_of(path: Path, store: str) -> tuple[list[bytes], list[str]]:
    """Reads a shard whole: the keys of its intact entries, and what is wrong with the others.

    Raises:
        OSError: if it cannot be read.
    """
    intact, damage = [], []
    try:
        shard = open_shard(path, store)
    except Damaged as error:
        return [], [str(error)]
    for row, key in enumerate(shard.keys):
        try:
            shard.read(row)
            intact.append(key)
        except Damaged as error:
            damage.append(str(error))
    return intact, damage

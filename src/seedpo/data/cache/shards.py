"""Many small results in one safetensors file, which is written once, whole, and verified entry by entry.

Entries of equal shape are stacked: ``keys`` and ``digests``, (N, 32) uint8 each, and one tensor with N rows for each
tensor of an entry. An entry's digest covers its key and its tensors. The file's name covers all keys and digests. So
any changed number is noticed, and one entry can be read and verified without the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from seedpo.data.cache.digests import digest, tensors_digest
from seedpo.files import write_aside

KEY_BYTES = 32
NAME_DIGITS = 40
SUFFIX = ".safetensors"

FORMAT = 1
"""Version of this layout and of the digests; part of the settings of every store."""

Entry = Mapping[str, Tensor]

_VALUE = "value."


class Damaged(Exception):
    """A file whose content is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where one tensor of all entries lies in the file: entry i begins at ``begin + i * size``, in bytes."""

    name: str
    dtype: torch.dtype
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

    def read(self, row: int) -> dict[str, Tensor]:
        """One entry, on the CPU.

        Raises:
            Damaged: if it is not what was written.
            OSError: if the file cannot be read.
        """
        tensors = {}
        with self.path.open("rb") as file:
            for column in self.columns:
                file.seek(column.begin + row * column.size)
                content = bytearray(file.read(column.size))
                if len(content) != column.size:
                    raise Damaged(f"{self.path} is cut off in entry {row}")
                tensors[column.name] = torch.frombuffer(content, dtype=column.dtype).view(column.shape)
        expected = self.digests[row * KEY_BYTES : (row + 1) * KEY_BYTES]
        if tensors_digest(tensors, self.keys[row]) != expected:
            raise Damaged(f"entry {row} of {self.path} is not what was written")
        return tensors


def write_shard(folder: Path, store: str, entries: Mapping[bytes, Entry]) -> Shard:
    """Writes entries of equal shape; after a crash the file is there whole or not at all.

    Args:
        folder: of the shards.
        store: digest of the store's settings, which the file's name covers too.
        entries: the tensors of each key.

    Raises:
        OSError: if it cannot be written.
    """
    digests = b"".join(tensors_digest(tensors, key) for key, tensors in entries.items())
    names = next(iter(entries.values()))
    content = save(
        {_VALUE + name: torch.stack([tensors[name].contiguous() for tensors in entries.values()]) for name in names}
        | {"keys": _bytes_tensor(b"".join(entries)), "digests": _bytes_tensor(digests)}
    )
    path = folder / _shard_name(store, b"".join(entries), digests)
    with write_aside(path, unique=True) as aside:
        aside.write_bytes(content)
    return open_shard(path, store)


def _bytes_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, KEY_BYTES)


def _shard_name(store: str, keys: bytes, digests: bytes) -> str:
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
        with safe_open(path, framework="pt") as file:
            keys, digests = (file.get_tensor(name).numpy().tobytes() for name in ("keys", "digests"))
            empty = {name: file.get_slice(name)[:0] for name in file.keys() if name.startswith(_VALUE)}  # noqa: SIM118
    except SafetensorError as error:
        raise Damaged(f"{path} cannot be read ({error})") from error
    if _shard_name(store, keys, digests) != path.name:
        raise Damaged(f"the keys of {path} are not what was written")
    with path.open("rb") as file:  # in safetensors' format: the length of the header, the header, the tensors
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return Shard(
        path=path,
        keys=[keys[begin : begin + KEY_BYTES] for begin in range(0, len(keys), KEY_BYTES)],
        digests=digests,
        columns=[
            Column(
                name=name.removeprefix(_VALUE),
                dtype=rows.dtype,
                shape=tuple(rows.shape[1:]),
                begin=8 + length + header[name]["data_offsets"][0],
                size=math.prod(rows.shape[1:]) * rows.element_size(),
            )
            for name, rows in empty.items()
        ],
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

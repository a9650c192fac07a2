"""Many small results in one file: a safetensors file that is written once, whole, and checked entry by entry.

Entries of equal shape are stacked: ``keys`` and ``digests``, (N, 32) uint8 each, and one tensor with N rows for each
name in an entry. An entry's digest covers its key, and its names, formats, shapes and numbers. The file's name covers
the header, the keys and the digests. So any changed byte is noticed, and one entry can be read and checked without
reading the others.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from seedpo.data.cache.digests import digest, tensors_digest

KEY_BYTES = 32
NAME_DIGITS = 40
SUFFIX = ".safetensors"
ASIDE = ".tmp"
"""Ending of files that are not complete."""

FORMAT = 1
"""Version of this layout and of what digests are taken of; in the settings of every store."""

Entry = Mapping[str, Tensor]

_VALUE = "value."
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "U8": torch.uint8,
}


class Damaged(Exception):
    """A file whose content is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Where one tensor of all entries lies in the file.

    Attributes:
        name: of the tensor in an entry.
        dtype: its format.
        shape: its shape in one entry.
        begin: position of the first entry's numbers, in bytes.
        stride: bytes of one entry's numbers.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file whose header, keys and digests were checked.

    Attributes:
        path: of the file.
        keys: of its N entries.
        digests: of its N entries.
        columns: the tensors of an entry.
        size: bytes of the file.
    """

    path: Path
    keys: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    columns: tuple[Column, ...]
    size: int

    def read(self, row: int) -> dict[str, Tensor]:
        """One entry.

        Raises:
            Damaged: if it is not what was written.
            OSError: if the file cannot be read.
        """
        tensors = {}
        with self.path.open("rb") as file:
            for column in self.columns:
                file.seek(column.begin + row * column.stride)
                content = bytearray(file.read(column.stride))
                if len(content) != column.stride:
                    raise Damaged(f"{self.path} is cut off in entry {row}")
                tensors[column.name] = torch.frombuffer(content, dtype=column.dtype).view(column.shape)
        if entry_digest(self.keys[row], tensors) != self.digests[row]:
            raise Damaged(f"entry {row} of {self.path} is not what was written")
        return tensors


def entry_digest(key: bytes, tensors: Entry) -> bytes:
    """SHA-256 of an entry, its key included."""
    return tensors_digest(tensors, key)


def write_shard(folder: Path, store: str, entries: Sequence[tuple[bytes, Entry]]) -> Shard:
    """Writes entries of equal shape; after a crash the file is there whole or not at all.

    Args:
        folder: of the shards.
        store: digest of the store's settings, which the file's name covers too.
        entries: keys and tensors.

    Returns:
        The shard as it can be read.

    Raises:
        OSError: if it cannot be written.
    """
    keys = b"".join(key for key, _ in entries)
    digests = b"".join(entry_digest(key, tensors) for key, tensors in entries)
    columns = {
        _VALUE + name: torch.stack([tensors[name].detach().cpu().contiguous() for _, tensors in entries])
        for name in entries[0][1]
    }
    index = {"keys": _bytes_tensor(keys), "digests": _bytes_tensor(digests)}
    content = save(columns | index, {"format": "seedpo cache", "version": str(FORMAT)})
    (length,) = struct.unpack("<Q", content[:8])
    name = shard_name(store, content[: 8 + length], keys, digests)
    aside = folder / f"{secrets.token_hex(8)}{ASIDE}"
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / name)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_folder(folder)
    return open_shard(folder / name, store)


def _bytes_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, KEY_BYTES)


def flush_folder(folder: Path) -> None:
    """Forces a folder's list of names onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shard_name(store: str, header: bytes, keys: bytes, digests: bytes) -> str:
    """The name that a file with this header, these keys and digests has."""
    return digest(store.encode(), header, keys, digests).hex()[:NAME_DIGITS] + SUFFIX


def is_shard_name(name: str) -> bool:
    """Whether a file could be a shard; others are never touched."""
    stem = name.removesuffix(SUFFIX)
    return name.endswith(SUFFIX) and len(stem) == NAME_DIGITS and set(stem) <= set("0123456789abcdef")


def open_shard(path: Path, store: str) -> Shard:
    """Reads and checks a shard's header, keys and digests; of the entries nothing is read.

    Raises:
        Damaged: if any of them is not what was written, or the file is cut off.
        OSError: if it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise Damaged(f"{path} is cut off")
        text = file.read(length)
        try:
            header = json.loads(text)
            spans = {name: header[name]["data_offsets"] for name in ("keys", "digests")}
            index = {}
            for name, (begin, end) in spans.items():
                file.seek(8 + length + begin)
                index[name] = file.read(end - begin)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise Damaged(f"{path} has no readable header") from error
    if shard_name(store, start + text, index["keys"], index["digests"]) != path.name:
        raise Damaged(f"the index of {path} is not what was written")
    # From here on the header is known to be the one that was written.
    header.pop("__metadata__", None)
    if 8 + length + max(entry["data_offsets"][1] for entry in header.values()) != size:
        raise Damaged(f"{path} has not the length that was written")
    return Shard(
        path=path,
        keys=_split(index["keys"]),
        digests=_split(index["digests"]),
        columns=_columns(header, 8 + length),
        size=size,
    )


def _split(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[begin : begin + KEY_BYTES] for begin in range(0, len(joined), KEY_BYTES))


def _columns(header: Mapping[str, Any], start: int) -> tuple[Column, ...]:
    columns = []
    for name, entry in header.items():
        if name.startswith(_VALUE):
            begin, end = entry["data_offsets"]
            count, *shape = entry["shape"]
            columns.append(
                Column(
                    name=name.removeprefix(_VALUE),
                    dtype=_DTYPES[entry["dtype"]],
                    shape=tuple(shape),
                    begin=start + begin,
                    stride=(end - begin) // count,
                )
            )
    return tuple(columns)

"""Entries of a cache as tensors: how they are written to a shard and read from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from seedpo.data.cache.shards import KEY_BYTES, VALUE, Shard, open_shard, shard_name
from seedpo.data.cache.tensor_digests import tensors_digest
from seedpo.files import write_aside

Entry = Mapping[str, Tensor]


def read_entry(shard: Shard, row: int) -> dict[str, Tensor]:
    """One entry, verified, on the CPU; see :meth:`seedpo.data.cache.shards.Shard.read`."""
    return {
        name: torch.frombuffer(bytearray(content), dtype=getattr(torch, kind.removeprefix("torch."))).view(shape)
        for name, (kind, shape, content) in shard.read(row).items()
    }


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
        {VALUE + name: torch.stack([tensors[name].contiguous() for tensors in entries.values()]) for name in names}
        | {"keys": _bytes_tensor(b"".join(entries)), "digests": _bytes_tensor(digests)}
    )
    path = folder / shard_name(store, b"".join(entries), digests)
    with write_aside(path, unique=True) as aside:
        aside.write_bytes(content)
    return open_shard(path, store)


def _bytes_tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, KEY_BYTES)

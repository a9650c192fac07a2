"""Results by the digest of what they were made from, in a folder that one process fills and many read.

A store is a folder ``<kind>/<digest of its settings>/`` with ``settings.json`` and shards. Runs read it: what is
missing or damaged they compute again and do not write. ``seedpo cache build`` alone writes, under a lock.
"""

from __future__ import annotations

import fcntl
import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seedpo.data.cache.digests import settings_digest, settings_text
from seedpo.data.cache.entries import Entry, read_entry, write_shard
from seedpo.data.cache.shards import FORMAT, SETTINGS, Damaged, Shard, damage_of, open_shard, shard_paths
from seedpo.errors import CacheError
from seedpo.files import remove_leftovers, write_text

logger = logging.getLogger(__name__)

LOCK = "build.lock"

SHARD_BYTES = 64 * 2**20
"""Size from which collected entries are written; 850,000 pairs of SD1.5 latents are about 1,700 files."""

SHARD_ENTRIES = 4096
"""Number from which collected entries are written, however small."""


class Store:
    """A mapping from 32-byte keys to named tensors.

    Args:
        root: the cache folder.
        kind: ``latents``, ``prompts`` or ``reference``.
        settings: all that the entries depend on besides their keys, as JSON values.

    Raises:
        CacheError: if the folder cannot be read.
    """

    def __init__(self, root: Path, kind: str, settings: Mapping[str, Any]) -> None:
        self.kind = kind
        self.settings = {"format": FORMAT, "kind": kind, **settings}
        self.digest = settings_digest(self.settings)
        self.folder = root / kind / self.digest[:32]
        self.added = 0
        """Entries that were stored by this process."""
        self._damaged: set[Path] = set()
        self._collected: dict[bytes, Entry] = {}
        self._bytes = 0
        self.read_index()

    def __contains__(self, key: bytes) -> bool:
        return key in self._collected or key in self._index

    def __len__(self) -> int:
        """Entries that are on the disk or will be."""
        return len(self._index) + len(self._collected)

    def read_index(self) -> None:
        """Looks up which keys are on the disk; damaged shards are named in the log and left out.

        Raises:
            CacheError: if the folder cannot be read.
        """
        self._shards: list[Shard] = []
        self._starts: list[int] = []
        # Entries are numbered through all shards: number n is row n - start of the last shard with start <= n.
        self._index: dict[bytes, int] = {}
        self._count = 0
        try:
            for path in shard_paths(self.folder):
                try:
                    self._add(open_shard(path, self.digest))
                except Damaged as error:
                    self._report(path, error)
        except OSError as error:
            raise CacheError(f"cache.folder {self.folder.parents[1]} cannot be read ({error}); name another") from error

    def _add(self, shard: Shard) -> None:
        self._shards.append(shard)
        self._starts.append(self._count)
        for row, key in enumerate(shard.keys):
            self._index.setdefault(key, self._count + row)
        self._count += len(shard.keys)

    def get(self, key: bytes) -> Entry | None:
        """The verified tensors of a key; `None` if there are none, or they are damaged."""
        if key in self._collected:
            return self._collected[key]
        number = self._index.get(key)
        if number is None:
            return None
        place = bisect_right(self._starts, number) - 1
        shard = self._shards[place]
        try:
            return read_entry(shard, number - self._starts[place])
        except (Damaged, OSError) as error:
            self._report(shard.path, error)
            return None

    def _report(self, path: Path, error: Exception) -> None:
        """Names each damaged file once."""
        if path not in self._damaged:
            self._damaged.add(path)
            logger.warning("cache: %s; it is computed again, and `seedpo cache build` repairs the file", error)

    def prepare(self, advance: Callable[[int], None] = lambda size: None) -> None:
        """Makes the folder ready to be filled: leftovers and damaged shards are removed, settings are written.

        Args:
            advance: called with the size of each shard that was verified, in bytes.

        Raises:
            CacheError: if the folder cannot be written.
        """
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            write_text(self.folder / SETTINGS, settings_text(self.settings))
            for path in shard_paths(self.folder):
                size = path.stat().st_size
                if damage := damage_of(path, self.digest)[1]:
                    logger.warning("cache: %s; the file is removed and computed again", damage[0])
                    path.unlink()
                advance(size)
        self.read_index()

    def put(self, key: bytes, tensors: Entry) -> None:
        """Stores tensors under a new key, together with others of their shape; an old key keeps what it has.

        Raises:
            CacheError: if they cannot be written.
        """
        if key in self:
            return
        self.added += 1
        self._collected[key] = {name: value.detach().cpu() for name, value in tensors.items()}
        self._bytes += sum(value.nbytes for value in tensors.values())
        if self._bytes >= SHARD_BYTES or len(self._collected) >= SHARD_ENTRIES:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected.

        Raises:
            CacheError: if it cannot be written.
        """
        if self._collected:
            with _writing(self.folder):
                for entries in _of_one_shape(self._collected):
                    self._add(write_shard(self.folder, self.digest, entries))
        self._collected = {}
        self._bytes = 0


def _of_one_shape(entries: Mapping[bytes, Entry]) -> list[dict[bytes, Entry]]:
    """Entries in groups of equal shapes, as files hold them."""
    groups: dict[tuple[tuple[int, ...], ...], dict[bytes, Entry]] = {}
    for key, entry in entries.items():
        groups.setdefault(tuple(tuple(value.shape) for value in entry.values()), {})[key] = entry
    return list(groups.values())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"cache {folder} cannot be written ({error}); free some space or name another cache.folder; what was "
            "stored before is kept, so the same command goes on"
        ) from error


@contextmanager
def build_lock(root: Path) -> Iterator[None]:
    """Inside, no other process fills this cache folder; the lock ends with the process.

    Raises:
        CacheError: if another process fills it, or the folder cannot be written.
    """
    with _writing(root):
        root.mkdir(parents=True, exist_ok=True)
        file = (root / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CacheError(
                f"{root} is being filled by another `seedpo cache build`; wait for it, or name another cache.folder"
            ) from error
        yield

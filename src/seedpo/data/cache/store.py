"""Results by the digest of what they were made from, in a folder that many runs and processes share.

A store is a folder ``<kind>/<digest of the settings>/`` with ``settings.json`` and shards. Whoever computes something
collects it and writes it as one more shard of its own, so that writers never wait for one another and there is nothing
to lock. Whatever cannot be verified is removed and computed again. Storing never decides over a run: where the disk is
full or read-only, the run is told and goes on without storing.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seedpo.data.cache.digests import settings_digest, settings_text
from seedpo.data.cache.shards import (
    ASIDE,
    FORMAT,
    SUFFIX,
    Damaged,
    Entry,
    Shard,
    is_shard_name,
    open_shard,
    write_shard,
)
from seedpo.errors import CacheError

logger = logging.getLogger(__name__)

SETTINGS = "settings.json"

SHARD_BYTES = 64 * 2**20
"""Collected numbers that are written together; 850,000 pairs of SD1.5 latents are about 1,700 files."""

SHARD_ENTRIES = 16384
"""Collected entries that are written together, however small."""

PATIENCE = 120.0
"""Seconds after which collected entries are written, however few: what a killed process loses at most."""

RESCAN = 30.0
"""Seconds between two looks at what other processes have written."""

LEFTOVER = 3600.0
"""Age in seconds from which an incomplete file belongs to no living process."""

_ROW_BITS = 24


class Store:
    """A mapping from 32-byte keys to named tensors.

    Args:
        root: the cache folder.
        kind: ``latents``, ``prompts`` or ``reference``.
        settings: all that the entries' content depends on besides their keys, as JSON values.
        must_write: raise an error where storing fails, instead of going on without.

    Raises:
        CacheError: if the folder cannot be made or read.
    """

    def __init__(self, root: Path, kind: str, settings: Mapping[str, Any], *, must_write: bool = False) -> None:
        self.kind = kind
        self.settings = {"format": FORMAT, "kind": kind, **settings}
        self.digest = settings_digest(self.settings)
        self.folder = root / kind / self.digest[:32]
        self.must_write = must_write
        self.found = 0
        self.added = 0
        self._shards: list[Shard] = []
        self._known: set[str] = set()
        self._index: dict[bytes, int] = {}
        self._collected: dict[bytes, Entry] = {}
        self._bytes = 0
        self._since = 0.0
        self._looked = 0.0
        self._writes = True
        try:
            self._open()
        except OSError as error:
            raise CacheError(
                f"cache.folder {root} cannot be used ({error}); name a folder that can be written, or none"
            ) from error

    def __contains__(self, key: bytes) -> bool:
        return key in self._collected or key in self._index

    def __len__(self) -> int:
        """Entries that are on the disk or will be."""
        return len(self._index) + len(self._collected)

    def get(self, key: bytes) -> dict[str, Tensor] | None:
        """The tensors of a key, verified; none if there are none that can be trusted."""
        if key in self._collected:
            self.found += 1
            return dict(self._collected[key])
        if key not in self._index:
            self._look_again()
        # A shard that is forgotten takes its entries out of the index; another one may hold the key as well.
        while (place := self._index.get(key)) is not None:
            shard, row = self._shards[place >> _ROW_BITS], place & (2**_ROW_BITS - 1)
            try:
                tensors = shard.read(row)
            except FileNotFoundError:
                self._forget(shard)  # another process found it damaged
                self._look_again(at_once=True)
            except Damaged as error:
                self._salvage(shard, row, error)
            except OSError as error:
                self._discard(shard.path, error)
                self._forget(shard)
            else:
                self.found += 1
                return tensors
        return None

    def put(self, key: bytes, tensors: Entry) -> None:
        """Stores tensors, sooner or later; what is there already stays.

        Raises:
            CacheError: if they cannot be written and ``must_write`` is set.
        """
        if key in self:
            return
        self.added += 1
        if not self._writes:
            return
        if not self._collected:
            self._since = time.monotonic()
        self._collected[key] = {name: value.detach().cpu() for name, value in tensors.items()}
        self._bytes += sum(value.nbytes for value in tensors.values())
        full = self._bytes >= SHARD_BYTES or len(self._collected) >= SHARD_ENTRIES
        if full or time.monotonic() - self._since > PATIENCE:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected.

        Raises:
            CacheError: if it cannot be written and ``must_write`` is set.
        """
        groups: dict[str, list[tuple[bytes, Entry]]] = {}
        for key, tensors in self._collected.items():
            layout = str([(name, value.dtype, value.shape) for name, value in sorted(tensors.items())])
            groups.setdefault(layout, []).append((key, tensors))
        try:
            for entries in groups.values():
                self._add(write_shard(self.folder, self.digest, entries))
        except (OSError, Damaged) as error:
            self._stop_writing(error)
        self._collected.clear()
        self._bytes = 0

    def _stop_writing(self, error: Exception) -> None:
        problem = f"cache {self.folder} cannot be written ({error}); free some space, or name another cache.folder"
        if self.must_write:
            raise CacheError(f"{problem}; what was stored before is kept, so the same command goes on") from error
        self._writes = False
        logger.warning("%s; this run goes on without storing more %s", problem, self.kind)

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _tidy(self.folder)
        _keep_settings(self.folder, settings_text(self.settings))
        self._look()
        others = [path for path in self.folder.parent.iterdir() if path != self.folder and path.is_dir()]
        if not self._index and others:
            logger.info(
                "cache: the %s in %s were made with other weights or settings (%d sets) and are not used",
                self.kind,
                self.folder.parent,
                len(others),
            )

    def _look_again(self, *, at_once: bool = False) -> None:
        if at_once or time.monotonic() - self._looked > RESCAN:
            try:
                self._look()
            except OSError as error:
                logger.warning("cache %s cannot be read (%s)", self.folder, error)

    def _look(self) -> None:
        """Takes up the shards that are there and not known yet."""
        self._looked = time.monotonic()
        for path in sorted(self.folder.iterdir()):
            if path.name in self._known or not is_shard_name(path.name):
                continue
            try:
                self._add(open_shard(path, self.digest))
            except FileNotFoundError:
                continue
            except (Damaged, OSError) as error:
                self._discard(path, error)

    def _add(self, shard: Shard) -> None:
        self._known.add(shard.path.name)
        self._shards.append(shard)
        place = (len(self._shards) - 1) << _ROW_BITS
        for row, key in enumerate(shard.keys):
            self._index.setdefault(key, place + row)

    def _forget(self, shard: Shard) -> None:
        """Takes a shard's entries out of the index; those that another shard holds too are found there."""
        gone = self._shards.index(shard)
        self._index = {key: place for key, place in self._index.items() if place >> _ROW_BITS != gone}
        for number, other in enumerate(self._shards):
            if number != gone and other.keys:
                for row, key in enumerate(other.keys):
                    self._index.setdefault(key, (number << _ROW_BITS) + row)
        self._shards[gone] = Shard(path=shard.path, keys=(), digests=(), columns=(), size=0)

    def _salvage(self, shard: Shard, damaged: int, error: Damaged) -> None:
        """Tells the user, and puts another shard in the place of a damaged one, with all that can be verified."""
        good, saved = [], 0
        for row, key in enumerate(shard.keys):
            try:
                if row != damaged:
                    good.append((key, shard.read(row)))
            except (Damaged, OSError):
                continue
        self._forget(shard)
        if good:
            try:
                self._add(write_shard(self.folder, self.digest, good))
                saved = len(good)
            except (Damaged, OSError) as failure:
                logger.warning("cache: the intact entries of %s could not be written (%s)", shard.path, failure)
        self._remove(shard.path)
        lost = len(shard.keys) - saved
        logger.warning("cache: %s; %d entries are computed again, %d are kept", error, lost, saved)

    def _discard(self, path: Path, error: Exception) -> None:
        """Tells the user, and removes a file whose content is wrong; one that cannot be read stays."""
        self._known.add(path.name)
        if isinstance(error, Damaged):
            self._remove(path)
        logger.warning("cache: %s; its entries are not used and are computed again", error)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as failure:
            logger.warning("cache: %s could not be removed (%s)", path, failure)


def _tidy(folder: Path) -> None:
    """Removes what killed processes left half-written."""
    for path in folder.glob(f"*{ASIDE}"):
        try:
            if time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()
        except OSError:
            continue  # another process was faster


def _keep_settings(folder: Path, text: str) -> None:
    """Writes the settings beside the shards, for people and for ``seedpo cache check``."""
    path = folder / SETTINGS
    if path.exists():
        try:
            if path.read_text(encoding="utf-8") == text:
                return
        except UnicodeDecodeError:
            pass
        logger.warning("cache: %s is not what was written; it is written again", path)
    aside = folder / f"{secrets.token_hex(8)}{ASIDE}"
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def store_folders(root: Path) -> Iterator[tuple[Path, str | None]]:
    """Every store below a cache folder with the digest of its settings; none where the settings are damaged."""
    for path in sorted(root.glob(f"*/*/{SETTINGS}")) if root.is_dir() else []:
        try:
            found = settings_digest(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            found = ""
        yield path.parent, found if path.parent.name == found[:32] else None


__all__ = ["SUFFIX", "Store", "store_folders"]

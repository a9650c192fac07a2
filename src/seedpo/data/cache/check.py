"""Whether what a cache folder holds is what was written. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedpo.data.cache.digests import settings_digest
from seedpo.data.cache.shards import SETTINGS, damage_of, shard_paths
from seedpo.documents import read_json
from seedpo.files import ASIDE


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What a check finds in one store.

    Attributes:
        kind: ``latents``, ``prompts`` or ``reference``.
        folder: where it lies.
        entries: distinct keys with an intact entry.
        files: number of shards.
        bytes: size of all files.
        incomplete: files that a killed build left, or that are being written; they are not read.
        damaged: what is wrong, one line each.
    """

    kind: str
    folder: Path
    entries: int
    files: int
    bytes: int
    incomplete: int
    damaged: list[str]


def check_folder(root: Path, advance: Callable[[int], None] = lambda size: None) -> list[StoreReport]:
    """Verifies every entry below a cache folder; changes nothing.

    Args:
        root: the cache folder.
        advance: called with the size of each shard that was read, in bytes.

    Raises:
        OSError: if something cannot be read.
    """
    return [_check_store(path.parent, advance) for path in sorted(root.glob(f"*/*/{SETTINGS}"))]


def _check_store(folder: Path, advance: Callable[[int], None]) -> StoreReport:
    try:
        store = settings_digest(read_json(folder / SETTINGS))
    except (ValueError, TypeError):
        store = ""
    keys: set[bytes] = set()
    damaged = [] if store[:32] == folder.name else [f"{folder / SETTINGS} is not what was written"]
    shards = shard_paths(folder)
    for path in shards:
        if store[:32] == folder.name:  # else nothing can be verified
            intact, damage = damage_of(path, store)
            keys |= set(intact)
            damaged += damage
        advance(path.stat().st_size)
    files = list(folder.iterdir())
    return StoreReport(
        kind=folder.parent.name,
        folder=folder,
        entries=len(keys),
        files=len(shards),
        bytes=sum(path.stat().st_size for path in files),
        incomplete=sum(path.name.endswith(ASIDE) for path in files),
        damaged=damaged,
    )

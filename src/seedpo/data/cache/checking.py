"""Reading a cache folder over: what is in it, how large it is, and what is damaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from seedpo.data.cache.shards import ASIDE, Damaged, is_shard_name, open_shard
from seedpo.data.cache.store import SETTINGS, store_folders


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """One store.

    Attributes:
        kind: ``latents``, ``prompts`` or ``reference``.
        folder: where it lies.
        entries: keys that can be read, each counted once.
        again: entries of keys that another shard holds as well; they cost space and nothing else.
        files: number of shards.
        bytes: of all files.
        incomplete: files that a killed process left, or that are being written; they are not read.
        damaged: what is wrong, one line each.
    """

    kind: str
    folder: Path
    entries: int
    again: int
    files: int
    bytes: int
    incomplete: int
    damaged: list[str] = field(default_factory=list)


def folder_size(root: Path) -> int:
    """Bytes of all shards below a cache folder."""
    return sum(path.stat().st_size for path in root.glob("*/*/*") if is_shard_name(path.name))


def check_folder(root: Path, advance: Callable[[int], None] = lambda count: None) -> list[StoreReport]:
    """Verifies every entry below a cache folder; changes nothing.

    Args:
        root: the cache folder.
        advance: told the size of each file that was read, in bytes.

    Raises:
        OSError: if something cannot be read.
    """
    return [_check_store(folder, settings, advance) for folder, settings in store_folders(root)]


def _check_store(folder: Path, settings: str | None, advance: Callable[[int], None]) -> StoreReport:
    damaged: list[str] = []
    keys: set[bytes] = set()
    entries = size = files = incomplete = 0
    if settings is None:
        damaged.append(f"{folder / SETTINGS} is not what was written")
    for path in sorted(folder.iterdir()):
        size += path.stat().st_size
        incomplete += path.name.endswith(ASIDE)
        if not is_shard_name(path.name):
            continue
        files += 1
        # With damaged settings nothing can be verified, and a run would write them again.
        if settings is not None:
            found, problems = _check_shard(path, settings)
            entries += len(found)
            keys |= found
            damaged += problems
        advance(path.stat().st_size)
    return StoreReport(
        kind=folder.parent.name,
        folder=folder,
        entries=len(keys),
        again=entries - len(keys),
        files=files,
        bytes=size,
        incomplete=incomplete,
        damaged=damaged,
    )


def _check_shard(path: Path, settings: str) -> tuple[set[bytes], list[str]]:
    """The keys that can be read, and what is wrong."""
    try:
        shard = open_shard(path, settings)
    except Damaged as error:
        return set(), [str(error)]
    good, problems = set(), []
    for row, key in enumerate(shard.keys):
        try:
            shard.read(row)
            good.add(key)
        except Damaged as error:
            problems.append(str(error))
    return good, problems

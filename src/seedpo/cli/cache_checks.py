"""The command ``seedpo cache check``."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm

from seedpo.data.cache.check import check_folder
from seedpo.data.cache.shards import SUFFIX
from seedpo.errors import CacheError

logger = logging.getLogger(__name__)


def check_cache(folder: Path, *, progress: bool = True) -> str:
    """Verifies all that a cache folder holds.

    Args:
        folder: a cache folder; nothing in it is changed.
        progress: whether to show a progress bar.

    Returns:
        What was verified, in one line; entries and sizes of every store are logged.

    Raises:
        CacheError: if the folder is not a cache, or something in it is damaged.
    """
    if not folder.is_dir():
        raise CacheError(f"{folder} is not a folder; name the cache.folder of a run")
    try:
        size = sum(path.stat().st_size for path in folder.glob(f"*/*/*{SUFFIX}"))
        with tqdm(total=size, desc="verified", unit="B", unit_scale=True, disable=not progress) as bar:
            reports = check_folder(folder, bar.update)
    except OSError as error:
        raise CacheError(f"cache {folder} cannot be read ({error}); check the disk and your access to it") from error
    if not reports:
        raise CacheError(f"{folder} holds no cache; name the cache.folder of a run")
    for report in reports:
        logger.info(
            "%-10s %9d entries %6d files %10.1f MiB%s  %s",
            report.kind,
            report.entries,
            report.files,
            report.bytes / 2**20,
            f"  ({report.incomplete} incomplete files)" if report.incomplete else "",
            report.folder,
        )
    damaged = [problem for report in reports for problem in report.damaged]
    for problem in damaged:
        logger.warning("damaged: %s", problem)
    if damaged:
        raise CacheError(
            f"{len(damaged)} places in {folder} are damaged, {damaged[0]}; they are never used, and "
            "`seedpo cache build` computes them again"
        )
    return f"{folder} is intact: {sum(report.bytes for report in reports) / 2**20:.1f} MiB"

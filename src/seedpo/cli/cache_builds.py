"""The commands ``seedpo cache build`` and ``seedpo cache check``."""

from __future__ import annotations

import logging
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from seedpo.data.cache.checking import check_folder, folder_size
from seedpo.errors import CacheError, ConfigError
from seedpo.methods.presets import METHODS, Preset
from seedpo.models.policy import build_policy
from seedpo.training.accelerator import build_accelerator
from seedpo.training.caches import open_caches
from seedpo.training.run import build_pairs
from seedpo.training.settings import RunConfig

logger = logging.getLogger(__name__)


def build_cache(config: RunConfig, *, progress: bool = True) -> str:
    """Stores the latents and embedded prompts of all pairs of a run; what is there already is not made again.

    Several processes (``torchrun``, ``accelerate launch``) share the work.

    Args:
        config: of a run with a cache folder.
        progress: whether to show a progress bar.

    Returns:
        What was done, in one line.

    Raises:
        ConfigError: if the configuration has nothing to store.
        CacheError: if something cannot be stored; what was stored before is kept.
        DataError: if too many pairs cannot be read.
    """
    preset: Preset = METHODS.load(config.method)
    if preset.source != "offline":
        raise ConfigError(f"{config.method} makes its own pairs: there is nothing to store; name diffusion-dpo")
    if config.cache.folder is None:
        raise ConfigError("there is no folder to fill; add --set cache.folder=DIR, and to the training run as well")
    if not (config.cache.latents or config.cache.prompts):
        raise ConfigError("cache.latents and cache.prompts are both off; set one of them to true")
    accelerator = build_accelerator(config.mixed_precision)
    config = _without_training(config)
    policy = build_policy(config)
    policy.to(accelerator.device)
    with open_caches(config, policy, must_write=True) as caches:
        labelled = build_pairs(config)
        if labelled.sequential:
            raise ConfigError(f"{config.data} is a stream without an end; its cache fills while runs train on it")
        pairs = caches.stored(labelled)
        directions = (False, True) if config.pairs.flip else (False,)
        rows = range(accelerator.process_index, len(pairs), accelerator.num_processes)
        hidden = not (progress and accelerator.is_main_process)
        with logging_redirect_tqdm(), tqdm(total=len(rows), desc="pairs", unit="pair", disable=hidden) as bar:
            for row in rows:
                for mirrored in directions:
                    pairs.fill(row, mirrored)
                bar.set_postfix(new=sum(store.added for store in caches.stores), refresh=False)
                bar.update()
    added = ", ".join(f"{store.added} {store.kind}" for store in caches.stores)
    whose = f" of {len(pairs)}, the share of this process," if accelerator.num_processes > 1 else ""
    return f"{len(rows)} pairs{whose} stored in {config.cache.folder}: {added} computed, the others were there already"


def _without_training(config: RunConfig) -> RunConfig:
    """The same latents and prompts, without what only training needs: a frozen copy, hashes of the trained network."""
    cache = config.cache.model_copy(update={"reference": False, "visits": None})
    return config.model_copy(update={"adapter": "lora", "cache": cache})


def check_cache(folder: Path, *, progress: bool = True) -> str:
    """Verifies all that a cache folder holds.

    Args:
        folder: a cache folder; nothing in it is changed.
        progress: whether to show a progress bar.

    Returns:
        Entries and sizes of every store, one line each.

    Raises:
        CacheError: if the folder is no cache, or something in it is damaged.
    """
    if not folder.is_dir():
        raise CacheError(f"{folder} is no folder; name the cache.folder of a run")
    try:
        with tqdm(total=folder_size(folder), desc="verified", unit="B", unit_scale=True, disable=not progress) as bar:
            reports = check_folder(folder, bar.update)
    except OSError as error:
        raise CacheError(f"cache {folder} cannot be read ({error}); check the disk and your access to it") from error
    if not reports:
        raise CacheError(f"{folder} holds no cache; name the cache.folder of a run")
    lines = [
        f"{report.kind:10} {report.entries:>9} entries {report.files:>6} files {report.bytes / 2**20:>10.1f} MiB"
        + (f"  ({report.again} of them twice)" if report.again else "")
        + (f"  ({report.incomplete} incomplete files, which are removed in an hour)" if report.incomplete else "")
        + f"  {report.folder}"
        for report in reports
    ]
    for line in lines:
        logger.info("%s", line)
    damaged = [problem for report in reports for problem in report.damaged]
    for problem in damaged:
        logger.warning("damaged: %s", problem)
    if damaged:
        raise CacheError(
            f"{len(damaged)} places in {folder} are damaged, {damaged[0]}; they are never used, and the next run or "
            "`seedpo cache build` makes them again"
        )
    return f"{folder} is intact: {sum(report.bytes for report in reports) / 2**20:.1f} MiB"

"""The command ``seedpo cache build``."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from seedpo.data.cache.pairs import EncodedPairs
from seedpo.data.cache.shards import SUFFIX
from seedpo.data.cache.store import build_lock
from seedpo.data.settings import data_label
from seedpo.errors import ConfigError
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.presets import METHODS
from seedpo.methods.sources.offline import visit_draws
from seedpo.models.policy import build_policy
from seedpo.processes import on_main_process, require_shared
from seedpo.protocols import Policy
from seedpo.training.accelerator import build_accelerator
from seedpo.training.caches import Caches, open_caches
from seedpo.training.checks import check_run
from seedpo.training.layout import distributed
from seedpo.training.run import build_method
from seedpo.training.settings import RunConfig, data_of
from seedpo.training.validation import build_divided_pairs


def build_cache(config: RunConfig, *, progress: bool = True) -> str:
    """Stores what a run would compute of every pair: latents, embedded prompts, the reference's log-probabilities.

    What is there already is not computed again. Several processes (``torchrun``, ``accelerate launch``) share the work.

    Args:
        config: of a run with a cache folder.
        progress: whether to show progress bars.

    Returns:
        What was done, in one line.

    Raises:
        ConfigError: if the configuration has nothing to store.
        CacheError: if something cannot be stored, or another build is at work; what was stored before is kept.
        DataError: if too many pairs cannot be read.
    """
    if not METHODS[config.method].source.fixed_pairs:
        raise ConfigError(f"{config.method} makes its own pairs: there is nothing to store; name diffusion-dpo")
    if config.cache.folder is None:
        raise ConfigError("there is no folder to fill; add --set cache.folder=DIR, and to the training run as well")
    if not (config.cache.latents or config.cache.prompts or config.cache.reference):
        raise ConfigError("cache.latents and cache.prompts are both off; set one of them to true")
    if config.lora_text_encoder and not (config.cache.latents or config.cache.reference):
        raise ConfigError(
            "lora_text_encoder = true changes embedded prompts, which cannot be stored; set cache.latents to true"
        )
    root = Path(config.cache.folder).expanduser()
    accelerator = build_accelerator(config.mixed_precision)
    require_shared(accelerator, root, key="cache.folder")
    config = config.model_copy(update={"adapter": "lora"})  # without a frozen copy of what is trained
    divided = build_divided_pairs(config, device=accelerator.device)
    labelled = divided.training
    if labelled.sequential and config.cache.reference:
        raise ConfigError(
            f"cache.reference is of pairs that come again, and {data_label(data_of(config))} is a stream; leave it out"
        )
    with ExitStack() as lock, logging_redirect_tqdm():
        on_main_process(accelerator, lambda: lock.enter_context(build_lock(root)))
        policy = build_policy(config)
        check_run(config, policy.process, policy.image_size)
        policy.to(accelerator.device)
        caches = open_caches(config, policy, with_empty=True)
        on_main_process(accelerator, lambda: _prepare(caches, progress=progress))
        for store in caches.stores:
            store.read_index()
        pairs = caches.encoder(labelled, memory=0)
        rank, world = accelerator.process_index, accelerator.num_processes
        shown = progress and accelerator.is_main_process
        count = 0
        for row in tqdm(islice(labelled.one_pass(), rank, None, world), desc="pairs", unit="pair", disable=not shown):
            count += 1
            for mirrored in (False, True) if config.pairs.flip else (False,):
                pairs.fill(row, mirrored)
        if config.pairs.empty_prompts:
            pairs.fill_empty_prompt()
        if divided.validation is not None:
            held_out = caches.encoder(divided.validation, memory=0)
            for row in range(rank, len(divided.validation), world):
                count += 1
                held_out.fill(row, False)
        if caches.scalars is not None:
            with distributed(policy, accelerator):
                _fill_reference(config, policy, caches, pairs, range(rank, len(pairs), world), progress=shown)
        for store in caches.stores:
            store.flush()
    added = ", ".join(f"{store.added} {store.kind}" for store in caches.stores)
    whose = ", the share of this process," if world > 1 else ""
    return f"{count} pairs{whose} stored in {root}: {added} computed, the others were there already"


def _prepare(caches: Caches, *, progress: bool) -> None:
    """Verifies what is there and removes what is damaged."""
    size = sum(path.stat().st_size for store in caches.stores for path in store.folder.glob(f"*{SUFFIX}"))
    with tqdm(total=size, desc="verified", unit="B", unit_scale=True, disable=not (progress and size)) as bar:
        for store in caches.stores:
            store.prepare(bar.update)


@torch.no_grad()
def _fill_reference(
    config: RunConfig, policy: Policy, caches: Caches, pairs: EncodedPairs, rows: range, *, progress: bool
) -> None:
    """Stores what the reference says of every pair at each of its ``cache.visits`` draws.

    Batches have the size that they have in training, since another size may round differently.
    """
    method, drawn, size = build_method(config, caches), visit_draws(config, caches.draws), config.batch_size
    assert isinstance(method, NoiseDPO)
    for visit in range(config.cache.visits or 0):
        for start in tqdm(range(0, len(rows), size), desc=f"reference, visit {visit}", disable=not progress):
            # The last batch is filled up from the beginning.
            batch_rows = [rows[place % len(rows)] for place in range(start, start + size)]
            method.store_reference(policy, drawn.batch(pairs, [(row, visit) for row in batch_rows]))

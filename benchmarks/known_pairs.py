"""Pairs of images that our training has seen before: latents, prompts and the reference's numbers come from caches."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.networks import gradient
from seedpo.core.draws import KeyedDraws
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.policy import PipelinePolicy
from seedpo.protocols import LabelledPair, ReferenceCache
from seedpo.settings import build_config
from seedpo.training.caches import open_caches
from seedpo.training.settings import RunConfig

PROMPT = "a small red circle on a white background"


@dataclass(frozen=True, kw_only=True)
class KnownPairs:
    """B pairs, and our step on them.

    Attributes:
        images: the chosen and the rejected image of each pair, in [0, 1], (B, 2, 3, height, width).
        prompts: of the pairs.
        timestep: that training draws for each pair, (B,).
        noise: likewise, (B, ...).
        step: our gradient of the pairs' losses.
    """

    images: Tensor
    prompts: list[str]
    timestep: Tensor
    noise: Tensor
    step: Callable[[], Tensor]


class _Pictures:
    """Pairs of random mosaics; their content is known without decoding them, as that of files is."""

    def __init__(self, count: int, size: int) -> None:
        # Not noise for each pixel: latents of such pictures are all alike, and the gradient is left with rounding.
        tiles = torch.rand(count, 2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
        self.images = tiles.repeat_interleave(size // 4, 3).repeat_interleave(size // 4, 4)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> LabelledPair:
        chosen, rejected = self.images[row]
        return LabelledPair(prompt=PROMPT, chosen=chosen, rejected=rejected, original_size=chosen.shape[-2:])

    sequential = False

    def prompt(self, row: int) -> str:
        return PROMPT

    def content(self, row: int) -> str:
        return f"{row:064x}"


def known_pairs(policy: PipelinePolicy, pairs: int, *, beta: float, reference_known: bool = True) -> KnownPairs:
    """Fills the caches in a folder that goes with the policy; reading them is part of the step.

    Args:
        policy: what is trained.
        pairs: how many.
        beta: of the loss.
        reference_known: whether the reference's numbers are cached as well, as in every run but the first.
    """
    folder = tempfile.mkdtemp(prefix="seedpo-benchmark-")
    weakref.finalize(policy, shutil.rmtree, folder, ignore_errors=True)
    config = build_config(RunConfig, {"beta": beta, "cache": {"folder": folder, "reference": True, "visits": 1}})
    data, rows, aside = _Pictures(pairs, policy.image_size[0]), list(range(pairs)), [False] * pairs
    pair, visit = torch.tensor(rows), torch.zeros(pairs, dtype=torch.int64)
    caches = open_caches(config, policy, with_empty=True)
    encoder, draws = caches.encoder(data, memory=0), caches.draws
    assert isinstance(draws, KeyedDraws)

    def method(cache: ReferenceCache | None) -> NoiseDPO:
        return NoiseDPO(policy_weight=beta, reference_weight=beta, draws=draws, cache=cache)

    for store in caches.stores:
        store.prepare()
    for row in rows:
        encoder.fill(row, False)
    method(caches.reference).store_reference(policy, replace(encoder.encode(rows, aside), pair=pair, visit=visit))
    for store in caches.stores:
        store.flush()
    trained = method(caches.reference if reference_known else None)

    def step() -> Tensor:
        batch = replace(encoder.encode(rows, aside), pair=pair, visit=visit)
        trained.loss(policy, batch, generator=torch.Generator()).losses.sum().backward()
        return gradient(policy.trainable_parameters())

    timestep, noise = draws.timestep_and_noise(pair, visit, process=policy.process, shape=policy.latent_shape)
    return KnownPairs(images=data.images, prompts=[PROMPT] * pairs, timestep=timestep, noise=noise, step=step)

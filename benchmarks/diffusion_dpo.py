"""Diffusion-DPO: a step of LoRA training on pairs that were seen before."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.as_published import noise_losses
from benchmarks.networks import Shape, gradient, ours, small_pipeline, trained, two_unets
from benchmarks.timing import Comparison
from seedpo.core.draws import KeyedDraws
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.protocols import LabelledPair
from seedpo.settings import build_config
from seedpo.training.caches import open_caches
from seedpo.training.settings import RunConfig

BETA = 2000.0
PROMPT = "a small red circle on a white background"


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


def lora_step(shape: Shape, *, pairs: int = 2, checkpointing: bool = False) -> Comparison:
    """Gradient of one batch: latents, embedded prompts and the reference's two numbers per pair from the caches.

    Reading the caches, in a folder that goes with the policy, is part of the work; encoder and autoencoder are not on
    the device then.

    Args:
        shape: of the networks.
        pairs: in the batch.
        checkpointing: whether ours keeps few activations and computes the others again.
    """
    policy = ours(small_pipeline(shape), checkpointing=checkpointing)
    folder = tempfile.mkdtemp(prefix="seedpo-benchmark-")
    weakref.finalize(policy, shutil.rmtree, folder, ignore_errors=True)
    config = build_config(RunConfig, {"beta": BETA, "cache": {"folder": folder, "reference": True, "visits": 1}})
    rows, aside = list(range(pairs)), [False] * pairs
    visit = torch.zeros(pairs, dtype=torch.int64)
    data = _Pictures(pairs, 8 * shape.latents)
    caches = open_caches(config, policy, with_empty=True)
    encoder = caches.encoder(data, memory=0)
    assert isinstance(caches.draws, KeyedDraws)
    method = NoiseDPO(policy_weight=BETA, reference_weight=BETA, draws=caches.draws, cache=caches.reference)
    for store in caches.stores:
        store.prepare()
    for row in rows:
        encoder.fill(row, False)
    method.store_reference(policy, replace(encoder.encode(rows, aside), pair=torch.tensor(rows), visit=visit))
    for store in caches.stores:
        store.flush()
    pipeline = small_pipeline(shape)
    unet, reference = two_unets(pipeline)
    timestep, noise = caches.draws.timestep_and_noise(
        torch.tensor(rows),
        visit,
        process=policy.process,
        shape=policy.latent_shape,
    )

    def published() -> Tensor:
        losses = noise_losses(
            pipeline,
            reference,
            data.images[:, 0],
            data.images[:, 1],
            [PROMPT] * pairs,
            timestep=timestep,
            noise=noise,
            beta=BETA,
        )
        losses.sum().backward()
        return gradient(trained(unet))

    def improved() -> Tensor:
        batch = encoder.encode(rows, aside)
        batch = replace(batch, pair=torch.tensor(rows), visit=visit)
        method.loss(policy, batch, generator=torch.Generator()).losses.sum().backward()
        return gradient(policy.trainable_parameters())

    improved()  # fills the caches
    for store in caches.stores:
        store.flush()
    return Comparison(
        name=f"Diffusion-DPO, cached{', checkpointed' if checkpointing else ''}",
        work=f"{pairs} pairs of images: latents, prompts, reference and gradient",
        bar=None if checkpointing else 2.0,
        published=published,
        ours=improved,
        networks=([unet, reference, pipeline.vae, pipeline.text_encoder], [policy.pipeline.unet]),
        memory_bar=0.6,
    )

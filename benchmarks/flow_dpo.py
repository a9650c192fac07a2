"""Diffusion-DPO on a flow-matching model: a step of LoRA training on pairs that were seen before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.as_published import velocity_losses
from benchmarks.flow_networks import FlowShape, small_flow_pipeline
from benchmarks.known_pairs import known_pairs
from benchmarks.networks import gradient, ours, trained, with_copy
from benchmarks.timing import Comparison

BETA = 2000.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What a public implementation does in every step. All pay four forwards a pair.

    Attributes:
        name: of the repository.
        encodes_prompts: whether all three text encoders run.
        encodes_images: whether the autoencoder runs.
        copied: whether the reference is a second transformer; otherwise it is the policy without its adapter.
        joined: whether both images of a pair share a call; otherwise the four forwards are four calls.
    """

    name: str
    encodes_prompts: bool
    encodes_images: bool
    copied: bool
    joined: bool


LINEAR_DPO = Peer(name="Linear-DPO", encodes_prompts=True, encodes_images=True, copied=True, joined=True)
"""WhynotChen0105/Linear-DPO, train/train_sd3_dpo.py at 71b7f737."""

FLOW_FACTORY = Peer(name="Flow-Factory", encodes_prompts=False, encodes_images=True, copied=False, joined=False)
"""X-GenGroup/Flow-Factory, trainers/offline/offline_dpo.py at 986e09d3: conditions are cached, images are not."""

SIMPLETUNER = Peer(name="SimpleTuner", encodes_prompts=False, encodes_images=False, copied=False, joined=False)
"""bghira/SimpleTuner, distillation/flow_dpo/distiller.py at 1b1d39b1: latents and prompts are cached before.

flow_grpo's scripts/train_sd3_dpo.py costs the same, in two calls: its pairs are latents that it has just drawn.
"""


def flow_lora_step(
    shape: FlowShape, *, peer: Peer = LINEAR_DPO, pairs: int = 2, reference_known: bool = True
) -> Comparison:
    """Gradient of one batch: ours reads latents, embedded prompts and the reference's two numbers per pair from caches.

    Args:
        shape: of the networks.
        peer: whose structure the other side has.
        pairs: in the batch.
        reference_known: whether the reference's numbers are cached, as in every run but the first.
    """
    policy = ours(small_flow_pipeline(shape), tokens=shape.t5_tokens)
    known = known_pairs(policy, pairs, beta=BETA, reference_known=reference_known)
    pipeline = small_flow_pipeline(shape)
    network, copy = with_copy(pipeline)
    images = known.images.transpose(0, 1).flatten(0, 1)
    reference = copy if peer.copied else network
    with torch.no_grad():
        latents, embedded = _encoded(pipeline, images), _embedded(pipeline, known.prompts, shape)

    def published() -> Tensor:
        losses = velocity_losses(
            network,
            reference,
            _encoded(pipeline, images) if peer.encodes_images else latents,
            *(_embedded(pipeline, known.prompts, shape) if peer.encodes_prompts else embedded),
            sigma=known.timestep,
            noise=known.noise,
            beta=BETA,
            joined=peer.joined,
            as_reference=nullcontext if peer.copied else lambda: _without_adapter(network),
        )
        losses.sum().backward()
        return gradient(trained(network))

    texts = [pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3]
    held = [network, *([copy] if peer.copied else []), *([pipeline.vae] if peer.encodes_images else [])]
    return Comparison(
        name=f"flow DPO against {peer.name}{'' if reference_known else ', first run'}",
        work=f"{pairs} pairs of images of one prompt each: latents, prompts, reference and gradient",
        bar=2.0 if peer is LINEAR_DPO and reference_known else None,
        published=published,
        ours=known.step,
        networks=(held + (texts if peer.encodes_prompts else []), [policy.network]),
        memory_bar=0.6 if peer is LINEAR_DPO else None,
    )


@torch.no_grad()
def _encoded(pipeline: Any, images: Tensor) -> Tensor:
    """Latents of images in [0, 1]."""
    settings = pipeline.vae.config
    mean = pipeline.vae.encode(2 * images - 1).latent_dist.mean
    latents: Tensor = (mean - settings.shift_factor) * settings.scaling_factor
    return latents


@torch.no_grad()
def _embedded(pipeline: Any, prompts: list[str], shape: FlowShape) -> tuple[Tensor, Tensor]:
    """Embedded prompts and their pooled embeddings, from diffusers' own method."""
    embeds, _, pooled, _ = pipeline.encode_prompt(
        prompts, None, None, do_classifier_free_guidance=False, max_sequence_length=shape.t5_tokens
    )
    return embeds, pooled


@contextmanager
def _without_adapter(network: Any) -> Iterator[None]:
    network.disable_adapters()
    try:
        yield
    finally:
        network.enable_adapters()

"""Diffusion-DPO: a step of LoRA training on pairs that were seen before."""

from __future__ import annotations

from torch import Tensor

from benchmarks.as_published import noise_losses
from benchmarks.known_pairs import known_pairs
from benchmarks.networks import Shape, gradient, ours, small_pipeline, trained, with_copy
from benchmarks.timing import Comparison

BETA = 2000.0


def lora_step(shape: Shape, *, pairs: int = 2, checkpointing: bool = False) -> Comparison:
    """Gradient of one batch: latents, embedded prompts and the reference's two numbers per pair from the caches.

    Encoder and autoencoder are not on the device then.

    Args:
        shape: of the networks.
        pairs: in the batch.
        checkpointing: whether ours keeps few activations and computes the others again.
    """
    policy = ours(small_pipeline(shape), checkpointing=checkpointing)
    known = known_pairs(policy, pairs, beta=BETA)
    pipeline = small_pipeline(shape)
    unet, reference = with_copy(pipeline)

    def published() -> Tensor:
        losses = noise_losses(
            pipeline,
            reference,
            known.images[:, 0],
            known.images[:, 1],
            known.prompts,
            timestep=known.timestep,
            noise=known.noise,
            beta=BETA,
        )
        losses.sum().backward()
        return gradient(trained(unet))

    return Comparison(
        name=f"Diffusion-DPO, cached{', checkpointed' if checkpointing else ''}",
        work=f"{pairs} pairs of images: latents, prompts, reference and gradient",
        bar=None if checkpointing else 2.0,
        published=published,
        ours=known.step,
        networks=([unet, reference, pipeline.vae, pipeline.text_encoder], [policy.network]),
        memory_bar=0.6,
    )

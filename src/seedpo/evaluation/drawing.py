"""Drawing images for training's evaluations, `seedpo evaluate` and `seedpo sample`.

The sampler is the model's own without noise (DDIM with eta 0, Euler's steps of a flow), so that an image is a function
of its initial latent. The latent is a function of the seed, the index of the prompt and the index of the image.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from seedpo.core.sampling import Denoise, Sampler, Sampling
from seedpo.evaluation.settings import Drawing, Key
from seedpo.metrics.records import Samples
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.protocols import Denoiser

logger = logging.getLogger(__name__)

SHOWN = 3
"""Prompts that are cut and named one by one."""


def initial_latent(prompt: int, image: int, shape: Sequence[int], *, seed: int) -> Tensor:
    """The latent (C, H, W) of one image, from a seed of its own: it does not depend on how many others there are."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + prompt) * 1_009 + image)
    return torch.randn(tuple(shape), generator=generator)


def _step_noise(prompt: int, image: int, *, seed: int) -> torch.Generator:
    """Noise of the steps of one image, other than that of its latent."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + prompt) * 1_009 + image) * 2 + 2**40 + 1)


def warn_of_cut_prompts(denoiser: PipelineDenoiser, prompts: Sequence[str]) -> None:
    """Says which prompts are longer than the model's longest text encoder reads, and what is cut."""
    cut = {prompt: rest for prompt in dict.fromkeys(prompts) if (rest := denoiser.unread_text(prompt))}
    for prompt, rest in list(cut.items())[:SHOWN]:
        logger.warning("prompt %r is longer than the model reads: %r is cut", prompt, rest)
    if len(cut) > SHOWN:
        logger.warning("%d more prompts are cut", len(cut) - SHOWN)


@torch.no_grad()
def draw_batch(
    denoiser: Denoiser,
    prompts: Sequence[str],
    batch: Sequence[Key],
    drawing: Drawing,
    *,
    negative_prompt: str = "",
    denoise: Denoise | None = None,
) -> Tensor:
    """Images (B, 3, height, width) on the CPU.

    Args:
        denoiser: draws them.
        prompts: all prompts, of which the batch takes some.
        batch: which images are drawn.
        drawing: how they are drawn.
        negative_prompt: what guidance leads away from.
        denoise: draws the clean latents; ``None`` for the process's own sampler.
    """
    latents = [initial_latent(prompt, image, denoiser.latent_shape, seed=drawing.seed) for prompt, image in batch]
    settings = Sampling(num_inference_steps=drawing.num_inference_steps, guidance_scale=drawing.guidance_scale)
    start = torch.stack(latents).to(denoiser.device)
    positive = denoiser.encode_prompts([prompts[prompt] for prompt, _ in batch])
    negative = denoiser.encode_prompts([negative_prompt] * len(batch))
    if denoise is None:
        clean = Sampler(denoiser, settings).sample(start, positive, negative)
    else:
        clean = denoise(start, positive, negative, [_step_noise(*key, seed=drawing.seed) for key in batch])
    return denoiser.decode(clean).cpu()


def draw_samples(
    denoiser: Denoiser,
    prompts: Sequence[str],
    drawing: Drawing,
    *,
    negative_prompt: str = "",
    denoise: Denoise | None = None,
) -> Samples:
    """All images of some prompts; arguments as those of :func:`draw_batch`."""
    batches = [
        draw_batch(denoiser, prompts, batch, drawing, negative_prompt=negative_prompt, denoise=denoise)
        for batch in drawing.batches(len(prompts))
    ]
    return as_samples(torch.cat(batches), prompts)


def as_samples(images: Tensor, prompts: Sequence[str]) -> Samples:
    """Images (P K, 3, H, W), prompt by prompt, as samples."""
    return Samples(images=images.view(len(prompts), -1, *images.shape[1:]), prompts=prompts)

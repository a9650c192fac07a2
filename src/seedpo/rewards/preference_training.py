"""Training of a step-aware preference model, in the two stages of the real ones.

First CLIP learns which caption belongs to which image (contrastively); then it learns from labelled pairs which of two
images of a prompt is preferred, as PickScore does, on previews of noisy images as SPO's step-aware model does: both
images of a pair get the same noise at the same time step, the diffusion model predicts the clean images with guidance,
and the decoded predictions are compared by two-way cross-entropy (SPO, arXiv 2406.04314, sec. 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import trange
from transformers import CLIPTokenizer

from seedpo.core.diffusion import add_noise, guided_prediction, predicted_original
from seedpo.core.sampling import draw_noise
from seedpo.protocols import Denoiser, PreferencePairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP, normalise, tokens

CaptionedImages = Callable[[int, torch.Generator], tuple[Sequence[str], Tensor]]
"""Draws captions and images (B, 3, H, W) in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class EncodedPairs:
    """Labelled pairs, ready for previews.

    Attributes:
        prompts: N prompts.
        images: preferred and other image, (N, 2, 3, H, W) in [0, 1].
        latents: their latents, (N, 2, C, h, w).
    """

    prompts: Sequence[str]
    images: Tensor
    latents: Tensor

    def __len__(self) -> int:
        return len(self.prompts)


def encode_pairs(pairs: PreferencePairs, denoiser: Denoiser) -> EncodedPairs:
    """Reads all pairs and encodes their images once; ties are to be left out before."""
    rows = [pairs[row] for row in range(len(pairs))]
    images = torch.stack([torch.stack([pair.chosen, pair.rejected]) for pair in rows])
    latents = torch.cat([denoiser.encode_images(part).cpu() for part in torch.split(images.flatten(0, 1), 128)])
    return EncodedPairs(
        prompts=[pair.prompt for pair in rows], images=images, latents=latents.view(len(rows), 2, *latents.shape[1:])
    )


def train_contrastively(
    model: StepAwareCLIP,
    tokenizer: CLIPTokenizer,
    draw: CaptionedImages,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: bool = True,
) -> None:
    """Teaches which caption belongs to which image, at time step 0 (CLIP, arXiv 2103.00020).

    Equal captions in a batch share their probability.

    Args:
        model: trained in place.
        tokenizer: its tokenizer.
        draw: source of captioned images.
        steps: optimiser steps.
        batch_size: images per step.
        learning_rate: peak of the cosine schedule.
        seed: seed of what is drawn.
        progress: whether to show a progress bar.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(steps))
    bar = trange(steps, desc="scorer: captions", disable=not progress)
    for _ in bar:
        captions, images = draw(batch_size, generator)
        image = model.image_embeds(normalise(images, model.config.vision_config.image_size), torch.zeros(batch_size))
        text = model.text_embeds(**tokens(tokenizer, list(captions)))
        logits = model.logit_scale.exp() * image @ text.mT
        same = torch.tensor([[one == other for other in captions] for one in captions], dtype=torch.float32)
        target = same / same.sum(1, keepdim=True)
        loss = (cross_entropy(logits, target) + cross_entropy(logits.mT, target)) / 2.0
        _update(model, optimizer, loss)
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def train_on_preferences(
    model: StepAwareCLIP,
    tokenizer: CLIPTokenizer,
    pairs: EncodedPairs,
    denoiser: Denoiser,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    guidance_scale: float,
    clean_share: float = 0.25,
    seed: int,
    progress: bool = True,
) -> None:
    """Teaches which of two images is preferred, at every time step.

    Args:
        model: trained in place.
        tokenizer: its tokenizer.
        pairs: labelled pairs.
        denoiser: predicts the clean images.
        steps: optimiser steps.
        batch_size: pairs per step.
        learning_rate: peak of the cosine schedule.
        guidance_scale: classifier-free guidance of the predictions.
        clean_share: share of pairs that are shown as they are, at time step 0.
        seed: seed of what is drawn.
        progress: whether to show a progress bar.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _cosine(steps))
    bar = trange(steps, desc="scorer: preferences", disable=not progress)
    for _ in bar:
        rows = torch.randint(len(pairs), (batch_size,), generator=generator)
        timestep = torch.randint(len(denoiser.schedule), (batch_size,), generator=generator)
        timestep[torch.rand(batch_size, generator=generator) < clean_share] = 0
        margins = preference_margins(
            model, tokenizer, pairs, rows, timestep, denoiser, guidance_scale=guidance_scale, generator=generator
        )
        loss = -torch.nn.functional.logsigmoid(margins).mean()
        _update(model, optimizer, loss)
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")


def preference_margins(
    model: StepAwareCLIP,
    tokenizer: CLIPTokenizer,
    pairs: EncodedPairs,
    rows: Tensor,
    timestep: Tensor,
    denoiser: Denoiser,
    *,
    guidance_scale: float,
    generator: torch.Generator,
) -> Tensor:
    """Score of the preferred minus score of the other image, (B,), of some pairs at given time steps (B,)."""
    prompts = [pairs.prompts[row] for row in rows.tolist()]
    images = previews(
        pairs.images[rows],
        pairs.latents[rows],
        prompts,
        timestep,
        denoiser,
        guidance_scale=guidance_scale,
        generator=generator,
    )
    pixels = normalise(images.flatten(0, 1), model.config.vision_config.image_size)
    text = model.text_embeds(**tokens(tokenizer, prompts)).repeat_interleave(2, 0)
    scores = model.preference_logits(pixels, timestep.repeat_interleave(2), text).view(-1, 2)
    return scores[:, 0] - scores[:, 1]


@torch.no_grad()
def previews(
    images: Tensor,
    latents: Tensor,
    prompts: Sequence[str],
    timestep: Tensor,
    denoiser: Denoiser,
    *,
    guidance_scale: float,
    generator: torch.Generator,
) -> Tensor:
    """What is seen of pairs at a time step: the decoded predictions of their clean images.

    Args:
        images: (B, 2, 3, H, W) in [0, 1]; shown as they are at time step 0.
        latents: their latents, (B, 2, C, h, w).
        prompts: B prompts.
        timestep: (B,) int64.
        denoiser: predicts the clean images.
        guidance_scale: classifier-free guidance of the predictions.
        generator: source of the noise, which both images of a pair share.

    Returns:
        (B, 2, 3, H, W) in [0, 1].
    """
    noise = draw_noise((len(latents), 1, *latents.shape[2:]), generator=generator)
    noisy_rows = (timestep > 0).nonzero()[:, 0]
    shown = images.clone()
    if len(noisy_rows):
        schedule = denoiser.schedule
        times = timestep[noisy_rows].repeat_interleave(2).to(denoiser.device)
        clean = latents[noisy_rows].flatten(0, 1).to(denoiser.device)
        drawn = noise[noisy_rows].expand(-1, 2, -1, -1, -1).flatten(0, 1).to(denoiser.device)
        noisy = add_noise(clean, drawn, times, schedule)
        repeated = [prompts[row] for row in noisy_rows.tolist() for _ in range(2)]
        prediction = guided_prediction(
            denoiser.predict,
            noisy,
            times,
            denoiser.encode_prompts(repeated),
            denoiser.encode_prompts([""] * len(repeated)),
            guidance_scale,
        )
        original = predicted_original(prediction, noisy, schedule.alpha_cumprod(times), schedule.prediction_type)
        shown[noisy_rows] = denoiser.decode(original).cpu().view(len(noisy_rows), 2, *images.shape[2:])
    return shown


@torch.no_grad()
def accuracy_at(
    model: StepAwareCLIP,
    tokenizer: CLIPTokenizer,
    pairs: EncodedPairs,
    denoiser: Denoiser,
    *,
    timestep: int,
    guidance_scale: float,
    seed: int,
) -> float:
    """Share of pairs whose preferred image scores higher at one time step."""
    generator = torch.Generator().manual_seed(seed)
    right = 0
    for rows in torch.split(torch.arange(len(pairs)), 128):
        margins = preference_margins(
            model,
            tokenizer,
            pairs,
            rows,
            torch.full((len(rows),), timestep),
            denoiser,
            guidance_scale=guidance_scale,
            generator=generator,
        )
        right += int((margins > 0).sum())
    return right / len(pairs)


def _cosine(steps: int) -> Callable[[int], float]:
    warmup = max(1, steps // 20)
    return lambda step: min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _update(model: StepAwareCLIP, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    with torch.no_grad():
        model.logit_scale.clamp_(max=math.log(100.0))

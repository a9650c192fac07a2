"""The CLIP that the embedded world's preference models start from: it learns which caption belongs to which drawing.

Preference models start from a CLIP that was trained on images with captions (PickScore from CLIP-H); this one takes
that place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from tqdm import trange
from transformers import CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from tools.scenes.autoencoder import cosine_rate, draw_batch
from tools.scenes.components import build_tokenizer, scorer_config

CaptionedImages = Callable[[int, torch.Generator], tuple[Sequence[str], Tensor]]
"""Draws captions and images (B, 3, H, W) in [0, 1] of the model's size."""


def build_captions_part(
    folder: Path, *, steps: int = 1000, batch_size: int = 64, seed: int = 0, progress: bool = True
) -> None:
    """Trains the CLIP on drawings of the training prompts and writes it, in half precision, with its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder)
    model = CLIPModel(scorer_config(tokenizer))
    train_captions(
        model,
        tokenizer,
        lambda count, generator: draw_batch(count, generator=generator),
        steps=steps,
        batch_size=batch_size,
        learning_rate=1e-3,
        seed=seed,
        progress=progress,
    )
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_captions(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    draw: CaptionedImages,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: bool = True,
) -> None:
    """Teaches which caption belongs to which image, contrastively (CLIP, arXiv 2103.00020).

    Deviation: equal captions in a batch share their probability, since the world has few.

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
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=1e-2)
    bar = trange(steps, desc="scorer: captions", disable=not progress)
    for step in bar:
        optimizer.param_groups[0]["lr"] = cosine_rate(step, steps, peak=learning_rate, warmup=max(1, steps // 20))
        captions, images = draw(batch_size, generator)
        logits = model.logit_scale.exp() * caption_cosines(model, tokenizer, images, captions)
        loss = contrastive_loss(logits, captions)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100.0))
        bar.set_postfix(loss=f"{loss.item():.3f}")


def caption_cosines(model: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, captions: Sequence[str]) -> Tensor:
    """Cosines (images, captions) between embedded images (B, 3, S, S) in [0, 1] and embedded captions."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    words = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    image = model.visual_projection(model.vision_model(pixel_values=(images - mean) / std).pooler_output)
    text = model.text_projection(
        model.text_model(input_ids=words.input_ids, attention_mask=words.attention_mask).pooler_output
    )
    return normalize(image, dim=-1) @ normalize(text, dim=-1).mT


def contrastive_loss(logits: Tensor, captions: Sequence[str]) -> Tensor:
    """Mean cross-entropy of images over captions and captions over images, from logits (B, B)."""
    same = torch.tensor([[one == other for other in captions] for one in captions], dtype=torch.float32)
    target = same / same.sum(1, keepdim=True)
    return (cross_entropy(logits, target) + cross_entropy(logits.mT, target)) / 2.0

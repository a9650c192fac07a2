"""Making the embedded world's weights from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from seedpo.data.pickapic import pickapic_pairs
from seedpo.errors import ConfigError
from seedpo.models.loading import load_pipeline
from seedpo.models.stable_diffusion import StableDiffusionPolicy
from seedpo.rewards.preference_training import encode_pairs, train_contrastively, train_on_preferences
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.scenes.assets import GUIDANCE_SCALE
from seedpo.scenes.building.autoencoder import draw_batch
from seedpo.scenes.building.components import build_tokenizer
from seedpo.scenes.building.pipeline import build_autoencoder_part, build_denoiser_part, build_practice_part
from seedpo.scenes.building.scorer import scorer_config
from seedpo.scenes.pairs import preference_table

PARTS = ("autoencoder", "practice", "denoiser", "scorer")

SCORER_PAIRS = 2500
"""Labelled pairs behind the scorer: few, so that it is honest where it has data and can be hacked elsewhere."""

SCORER_PAIRS_SEED = 7
"""Seed of the scorer's pairs; the shipped preference set and the held-out pairs have others."""


def build(out: Path, *, part: str = "all", seed: int = 0) -> None:
    """Trains one part or all of them, in order, into ``out/pipeline`` and ``out/scorer``.

    Args:
        out: folder for the weights.
        part: ``autoencoder``, ``practice``, ``denoiser``, ``scorer`` (each needs those before it) or ``all``.
        seed: seed of everything.

    Raises:
        ConfigError: if there is no such part.
    """
    if part not in (*PARTS, "all"):
        raise ConfigError(f"unknown part {part!r}; there are: {', '.join(PARTS)}, all")
    builders: dict[str, Callable[[], None]] = {
        "autoencoder": lambda: build_autoencoder_part(out / "pipeline", seed=seed),
        "practice": lambda: build_practice_part(out / "pipeline", seed=seed),
        "denoiser": lambda: build_denoiser_part(out / "pipeline", seed=seed),
        "scorer": lambda: build_scorer(out, seed=seed),
    }
    for name in PARTS if part == "all" else (part,):
        builders[name]()


def build_scorer(
    out: Path,
    *,
    caption_steps: int = 1000,
    preference_steps: int = 900,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Trains the step-aware scorer for the pipeline in ``out/pipeline`` and writes it to ``out/scorer``."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(out / "scorer")
    model = StepAwareCLIP(scorer_config(tokenizer))
    policy = StableDiffusionPolicy(load_pipeline(out / "pipeline"))
    train_contrastively(
        model,
        tokenizer,
        captioned_drawings,
        steps=caption_steps,
        batch_size=64,
        learning_rate=1e-3,
        seed=seed,
        progress=progress,
    )
    table = preference_table(count=SCORER_PAIRS, seed=SCORER_PAIRS_SEED)
    train_on_preferences(
        model,
        tokenizer,
        encode_pairs(pickapic_pairs(table, origin="scorer pairs"), policy),
        policy,
        steps=preference_steps,
        batch_size=32,
        learning_rate=5e-4,
        guidance_scale=GUIDANCE_SCALE,
        seed=seed,
        progress=progress,
    )
    save_scorer(model, tokenizer, out / "scorer")


def save_scorer(model: StepAwareCLIP, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Writes the model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def captioned_drawings(count: int, generator: torch.Generator) -> tuple[Sequence[str], Tensor]:
    """Drawings of training prompts with their captions."""
    return draw_batch(count, generator=generator)

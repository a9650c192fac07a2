"""Rewards from a CLIP in transformers' format: PickScore, CLIPScore, and any other CLIP.

PickScore (arXiv 2305.01569) is CLIP-H/14 trained on Pick-a-Pic:

    score = exp(logit_scale) cos(image, prompt)

A difference of two scores of one prompt is in log-odds. CLIPScore (arXiv 2104.08718) is OpenAI's CLIP as it is:

    score = max(100 cos(image, prompt), 0)

with torchmetrics' factor of 100 where the paper has 2.5. The paper clamps each score at 0, as here; torchmetrics clamps
only the mean of all. Images are prepared as transformers' CLIPImageProcessor prepares PIL images: the shorter side is
resized and the centre is cropped.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

from seedpo.protocols import Reward
from seedpo.rewards.checkpoints import located
from seedpo.rewards.clip import (
    CLIP_FILES,
    CLIP_H,
    CLIP_H14,
    CLIP_L,
    CLIP_L14,
    SCALED_COSINE,
    TOKENIZER_PARTS,
    ClipRecipe,
    ClipScorer,
    clip_network,
    clip_tokenizer,
    configuration_at,
    is_step_aware,
    load_clip,
    read_configuration,
)
from seedpo.rewards.networks import RewardNetwork
from seedpo.rewards.step_aware_clip import load_scorer

PICKSCORE = "yuvalkirstain/PickScore_v1"
"""Weights of PickScore on the hub."""

CLIPSCORE = replace(SCALED_COSINE, score=lambda cosine, _: (100.0 * cosine).clamp(min=0.0))
"""max(100 cos(image, prompt), 0), prepared by transformers."""


@cache
def pickscore(place: str | None = None) -> ClipScorer:
    """PickScore, loaded once per process; about 4 GB from the hub without a place.

    Args:
        place: folder, or ``owner/name[@revision]`` on the hub, with ``config.json``, ``model.safetensors`` and,
            optionally, CLIP-H's tokenizer.

    Raises:
        DataError: if it cannot be loaded, or is not a CLIP.
    """
    return _published("pickscore", place, PICKSCORE, SCALED_COSINE, tokenizer=CLIP_H)


@cache
def clipscore(place: str | None = None) -> ClipScorer:
    """CLIPScore with CLIP-L/14, loaded once per process; 1.7 GB from the hub without a place.

    Args:
        place: another CLIP: folder, or ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be loaded, or is not a CLIP.
    """
    return _published("clipscore", place, CLIP_L, CLIPSCORE, tokenizer=CLIP_L)


def pickscore_network(place: str | None = None) -> RewardNetwork:
    """PickScore without weights; see :func:`pickscore`."""
    return clip_network(configuration_at(place, CLIP_H14))


def clipscore_network(place: str | None = None) -> RewardNetwork:
    """CLIPScore without weights; see :func:`clipscore`."""
    return clip_network(configuration_at(place, CLIP_L14))


@lru_cache(maxsize=4)
def load_reward(name: str) -> Reward:
    """A reward from a folder or from the hub: a CLIP preference model, step-aware or not. Loaded once per process.

    Raises:
        DataError: if it cannot be loaded.
    """
    config = Path(name) / "config.json"
    if config.is_file() and is_step_aware(read_configuration(config)):
        return load_scorer(name)
    return load_clip_scorer(name)


def load_clip_scorer(name: str | Path) -> ClipScorer:
    """Loads a CLIP preference model, whose score is that of PickScore. safetensors only.

    Args:
        name: a folder, or ``owner/name`` on the hub, with ``config.json``, ``model.safetensors`` and a tokenizer.

    Raises:
        DataError: if it cannot be loaded, or is not a CLIP.
    """
    name = str(name)
    # In a folder only the configuration is required here: the loader names other kinds of weights that it may hold.
    files = CLIP_FILES[:1] if Path(name).is_dir() else CLIP_FILES
    folder = located(name, name, repository=None, files=files, optional=TOKENIZER_PARTS, usage="FOLDER")
    return ClipScorer(load_clip(name, folder), clip_tokenizer(name, folder, repository=None))


def _published(name: str, place: str | None, repository: str, recipe: ClipRecipe, *, tokenizer: str) -> ClipScorer:
    folder = located(name, place, repository=repository, files=CLIP_FILES, optional=TOKENIZER_PARTS)
    return ClipScorer(load_clip(name, folder), clip_tokenizer(name, folder, repository=tokenizer), recipe)

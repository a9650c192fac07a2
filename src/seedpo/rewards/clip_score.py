"""Rewards from a CLIP in transformers' format: PickScore, CLIPScore, and any other CLIP.

PickScore (arXiv 2305.01569) is CLIP-H/14 trained on Pick-a-Pic:

    score = exp(logit_scale) cos(image, prompt)

so that a difference of two scores of one prompt is in log-odds. CLIPScore (arXiv 2104.08718) is OpenAI's CLIP as it is:

    score = max(100 cos(image, prompt), 0)

with torchmetrics' factor of 100 where the paper has 2.5. The paper cuts each score off at 0, as here; torchmetrics cuts
off only the mean of all. Images are prepared as transformers' CLIPImageProcessor prepares PIL images: the shorter side
resized, the middle cut out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

from safetensors import SafetensorError
from transformers import CLIPModel

from seedpo.errors import DataError
from seedpo.protocols import Reward
from seedpo.rewards.checkpoints import located
from seedpo.rewards.clip_scorer import SCALED_COSINE, ClipRecipe, ClipScorer
from seedpo.rewards.clip_tokens import CLIP_H, TOKENIZER_FILES, TOKENIZER_PARTS, clip_tokenizer
from seedpo.rewards.step_aware_clip import StepAwareCLIP, load_scorer
from seedpo.weights import align

PICKSCORE = "yuvalkirstain/PickScore_v1"
"""Weights of PickScore on the hub."""

CLIP_L = "openai/clip-vit-large-patch14"
"""OpenAI's CLIP-L/14 on the hub, with its tokenizer."""

CLIP_FILES = ("config.json", "model*.safetensors*")
"""Of a CLIP in transformers' format; large ones are in several files, with an index."""

CLIPSCORE = replace(SCALED_COSINE, score=lambda cosine, _: (100.0 * cosine).clamp(min=0.0))
"""max(100 cos(image, prompt), 0), prepared by transformers."""


@cache
def pickscore(place: str | None = None) -> ClipScorer:
    """PickScore, loaded once per process; about 4 GB from the hub where no place is given.

    Args:
        place: folder, or ``owner/name[@revision]`` on the hub, with ``config.json``, ``model.safetensors`` and, if it
            is at hand, CLIP-H's tokenizer.

    Raises:
        DataError: if it cannot be had, or is no CLIP.
    """
    return _published("pickscore", place, PICKSCORE, SCALED_COSINE, tokenizer=CLIP_H)


@cache
def clipscore(place: str | None = None) -> ClipScorer:
    """CLIPScore with CLIP-L/14, loaded once per process; 1.7 GB from the hub where no place is given.

    Args:
        place: another CLIP: folder, or ``owner/name[@revision]`` on the hub.

    Raises:
        DataError: if it cannot be had, or is no CLIP.
    """
    return _published("clipscore", place, CLIP_L, CLIPSCORE, tokenizer=CLIP_L)


@lru_cache(maxsize=4)
def load_reward(name: str) -> Reward:
    """A reward from a folder or from the hub: a CLIP preference model, step-aware or not. Loaded once per process.

    Raises:
        DataError: if it is neither.
    """
    config = Path(name) / "config.json"
    if config.is_file() and StepAwareCLIP.__name__ in _architectures(config):
        return load_scorer(name)
    return load_clip_scorer(name)


def load_clip_scorer(name: str | Path, *, tokenizer: str | None = None) -> ClipScorer:
    """Loads a CLIP preference model, whose score is that of PickScore. safetensors only.

    Args:
        name: a folder, or ``owner/name`` on the hub, with ``config.json`` and ``model.safetensors``.
        tokenizer: folder or hub id of the tokenizer, if it is elsewhere.

    Raises:
        DataError: if it cannot be had, or is no CLIP.
    """
    name = str(name)
    local = Path(name).is_dir()
    if local and not (Path(name) / "config.json").is_file():
        raise DataError(f"reward folder {name} has no config.json; name the folder of a CLIP in transformers' format")
    if not local and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise DataError(
            f"reward {name} does not exist; name a folder with a CLIP preference model (for SPO: a step-aware one), "
            "owner/name on the hub, or one that `seedpo list rewards` shows"
        )
    # A folder's other files are not asked for here: what it holds instead of safetensors is told when it is loaded.
    files = CLIP_FILES[:1] if local else CLIP_FILES
    folder = located(name, name, repository=None, files=files, optional=TOKENIZER_PARTS)
    words = folder if tokenizer is None else located(name, tokenizer, repository=None, files=(), optional=_WORDS)
    return ClipScorer(load_clip(name, folder), clip_tokenizer(name, words, repository=None))


_WORDS: Sequence[str] = (*TOKENIZER_FILES, *TOKENIZER_PARTS)


def load_clip(reward: str, folder: Path, *, kind: str = "reward") -> CLIPModel:
    """Loads a CLIP in transformers' format, as float32, from safetensors.

    Args:
        reward: its name, for errors.
        folder: where it is.
        kind: what it is, for errors.

    Raises:
        DataError: if the folder holds none, or it lacks weights.
    """
    try:
        model, report = CLIPModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        what = "a CLIP preference model" if kind == "reward" else "a CLIP"
        raise DataError(f"{kind} {reward} cannot be loaded as {what}: {said}") from error
    if report["missing_keys"]:
        raise DataError(f"{kind} {reward} lacks weights, for example {min(report['missing_keys'])!r}")
    return align(model.float())


def _published(name: str, place: str | None, repository: str, recipe: ClipRecipe, *, tokenizer: str) -> ClipScorer:
    folder = located(name, place, repository=repository, files=CLIP_FILES, optional=TOKENIZER_PARTS)
    return ClipScorer(load_clip(name, folder), clip_tokenizer(name, folder, repository=tokenizer), recipe)


def _architectures(config: Path) -> list[str]:
    try:
        found: list[str] = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{config} cannot be read as a CLIP's configuration ({error}); copy it again") from error
    return found

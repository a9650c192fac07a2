"""A CLIP preference model of finished images: PickScore (arXiv 2305.01569), and any other CLIP in transformers' format.

    score = exp(logit_scale) * cos(image, prompt)

PickScore is CLIP-H/14 trained on Pick-a-Pic; a difference of two scores of one prompt is in log-odds. Images are
prepared as transformers' CLIPImageProcessor prepares them: rounded to bytes, the shorter side resized, the middle cut
out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Self

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPModel, CLIPTokenizer

from seedpo.errors import DataError
from seedpo.protocols import Reward
from seedpo.rewards.step_aware_clip import CLIP_MEAN, CLIP_STD, TOKENIZER_FILES, StepAwareCLIP, load_scorer
from seedpo.rewards.text_embeddings import TextEmbeddings

PICKSCORE = "yuvalkirstain/PickScore_v1"
"""Weights of PickScore on the hub."""

PICKSCORE_TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Where its model card takes the tokenizer from."""

_TOKENIZER_PARTS = ["*token*.json", "vocab.json", "merges.txt"]
_MODEL_PARTS = ["config.json", "model*.safetensors*", *_TOKENIZER_PARTS]


def prepared(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as CLIP expects them, (B, 3, size, size), as from files of 8 bits."""
    images = (images.float() * 255.0).round().clamp(0.0, 255.0)
    height, width = images.shape[-2:]
    if min(height, width) != size:
        short = min(height, width)
        tall, wide = height * size // short, width * size // short
        # As PIL does it: the rows first, and bytes in between.
        for wanted in ((height, wide), (tall, wide)):
            images = interpolate(images, size=wanted, mode="bicubic", antialias=True).round().clamp(0.0, 255.0)
    above, left = ((length - size) // 2 for length in images.shape[-2:])
    images = images[..., above : above + size, left : left + size] / 255.0
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    return (images - mean) / std


class ClipScorer:
    """A reward from a CLIP preference model.

    Args:
        model: the preference model.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self._text = TextEmbeddings(self._embed)

    def to(self, device: torch.device | str) -> Self:
        """Moves the model to a device."""
        self.model.to(device)
        self._text.clear()
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 of images (B, 3, H, W) in [0, 1]."""
        pixels = prepared(images.to(self.model.device), self.model.config.vision_config.image_size)
        pooled = self.model.vision_model(pixel_values=pixels).pooler_output
        embeds = nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)
        scores: Tensor = self.model.logit_scale.exp() * (embeds * self._text.of(prompts)).sum(-1)
        return scores

    def _embed(self, prompt: str) -> Tensor:
        tokens = self.tokenizer(
            [prompt],
            padding="max_length",
            max_length=self.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).to(self.model.device)
        pooled = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        embed: Tensor = nn.functional.normalize(self.model.text_projection(pooled), dim=-1)[0]
        return embed


@cache
def pickscore() -> ClipScorer:
    """PickScore from the hub, or from its cache; 4 GB.

    Raises:
        DataError: if it cannot be had.
    """
    return load_clip_scorer(PICKSCORE, tokenizer=PICKSCORE_TOKENIZER)


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


def load_clip_scorer(name: str, *, tokenizer: str | None = None) -> ClipScorer:
    """Loads a CLIP preference model: a folder, or ``owner/name`` on the hub. safetensors only.

    Args:
        name: with ``config.json`` and ``model.safetensors``.
        tokenizer: folder or hub id of the tokenizer, if it is elsewhere.

    Raises:
        DataError: if it cannot be had, or is no CLIP.
    """
    try:
        folder = _local(name, _MODEL_PARTS)
        words = folder if tokenizer is None else _local(tokenizer, _TOKENIZER_PARTS)
        if not any((words / part).is_file() for part in TOKENIZER_FILES):  # transformers would make one without words
            raise DataError(f"reward {name} has no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
        model, report = CLIPModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        words_of = CLIPTokenizer.from_pretrained(words)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, DataError):
            raise
        said = " ".join(str(error).split())
        raise DataError(f"reward {name} cannot be loaded as a CLIP preference model: {said}") from error
    if report["missing_keys"]:
        raise DataError(f"reward {name} lacks weights, for example {min(report['missing_keys'])!r}")
    return ClipScorer(model.float(), words_of)


def _local(name: str, parts: list[str]) -> Path:
    """The folder itself, or a copy of the files of a place on the hub."""
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DataError(
                f"reward folder {name} has no config.json; name the folder of a CLIP in transformers' format"
            )
        return folder
    mend = (
        "name a folder with a CLIP preference model (for SPO: a step-aware one), owner/name on the hub, or one that "
        "`seedpo list rewards` shows"
    )
    if name.count("/") != 1 or folder.is_absolute() or name.startswith("."):
        raise DataError(f"reward {name} does not exist; {mend}")
    try:
        return Path(snapshot_download(name, allow_patterns=parts))
    except (OSError, ValueError) as error:
        raise DataError(
            f"reward {name} does not exist as a folder, and the hub does not give it ({type(error).__name__}); {mend}"
        ) from error


def _architectures(config: Path) -> list[str]:
    try:
        found: list[str] = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{config} cannot be read as a CLIP's configuration ({error}); copy it again") from error
    return found

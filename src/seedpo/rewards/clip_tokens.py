"""Prompts as token ids for CLIP, as transformers and as open_clip make them, and where the tokenizer is."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from seedpo.errors import DataError
from seedpo.rewards.checkpoints import located

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
"""Files of which a tokenizer's folder holds one or both."""

TOKENIZER_PARTS = ("*token*.json", "vocab.json", "merges.txt")
"""What is fetched from the hub for a tokenizer."""

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""Where the tokenizer of CLIP-H, and so of PickScore and HPSv2, is on the hub."""

Tokens = Callable[[CLIPTokenizer, str, int], dict[str, Tensor]]
"""From a tokenizer, a prompt and a length: what the text tower is called with, each (1, length)."""


def transformers_tokens(tokenizer: CLIPTokenizer, prompt: str, length: int) -> dict[str, Tensor]:
    """Token ids and mask as transformers' CLIPProcessor makes them; what is too long is cut before the end token."""
    return dict(tokenizer([prompt], padding="max_length", max_length=length, truncation=True, return_tensors="pt"))


def open_clip_tokens(tokenizer: CLIPTokenizer, prompt: str, length: int) -> dict[str, Tensor]:
    """Token ids as open_clip's ``tokenize`` makes them: cleaned text, zeros after the end, cut before the end token."""
    words = tokenizer(cleaned(prompt), add_special_tokens=False, truncation=True, max_length=length - 2).input_ids
    ids = torch.zeros(1, length, dtype=torch.int64)
    ids[0, : len(words) + 2] = torch.tensor([tokenizer.bos_token_id, *words, tokenizer.eos_token_id])
    return {"input_ids": ids}


def cleaned(prompt: str) -> str:
    """A prompt as open_clip and OpenAI clean it: HTML entities resolved, white space collapsed, lower case.

    They also mend broken encodings with ``ftfy``, which is done here where that package is installed.
    """
    mended = import_module("ftfy").fix_text(prompt) if find_spec("ftfy") else prompt
    return re.sub(r"\s+", " ", html.unescape(html.unescape(mended))).strip().lower()


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a CLIP's tokenizer; without its files transformers would make one that knows no word."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def clip_tokenizer(reward: str, folder: Path, *, repository: str | None) -> CLIPTokenizer:
    """The tokenizer beside the weights, or else the hub's.

    Args:
        reward: its name, for errors.
        folder: where its weights are.
        repository: on the hub; none if the tokenizer has to be in the folder.

    Raises:
        DataError: if there is none, or it cannot be read.
    """
    if not has_tokenizer(folder):
        if repository is None:
            raise DataError(f"reward {reward} has no tokenizer: {folder} has none of {', '.join(TOKENIZER_FILES)}")
        folder = located(reward, None, repository=repository, files=["vocab.json"], optional=TOKENIZER_PARTS)
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"reward {reward}: the tokenizer in {folder} cannot be read ({said}); copy it again") from error

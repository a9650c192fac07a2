"""ImageReward written down a second time, in plain torch on the published tensors, from the original's sources.

After ``ImageReward.py``, ``vit.py`` and ``med.py`` of the authors' repository; nothing of transformers is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

from seedpo.rewards.preprocessing import CLIP_MEAN, CLIP_STD

WIDTH, TEXT_WIDTH, DEPTH, TEXT_HEADS = 128, 48, 2, 4
"""Of the small checkpoint; heads of the vision tower have a width of 64, as published."""

SIZE, PATCH = 32, 8
MOST_TOKENS = 35
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "star", "ring", "cat", "dog", "on", "##s"]
VOCABULARY = len(WORDS) + 2

TEXT = {
    "hidden_act": "gelu",
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "num_attention_heads": TEXT_HEADS,
    "num_hidden_layers": DEPTH,
    "pad_token_id": 0,
    "vocab_size": VOCABULARY,
    "encoder_width": 768,  # as published, though the vision tower is wider: the original does not read it
    "add_cross_attention": True,
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "model_type": "bert",
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of ``ImageReward.pt``, scaled down."""
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (width,), (width,)

    eye, text = "blip.visual_encoder", "blip.text_encoder"
    found[f"{eye}.cls_token"] = (1, 1, WIDTH)
    found[f"{eye}.pos_embed"] = (1, (SIZE // PATCH) ** 2 + 1, WIDTH)
    found[f"{eye}.patch_embed.proj.weight"], found[f"{eye}.patch_embed.proj.bias"] = (WIDTH, 3, PATCH, PATCH), (WIDTH,)
    for block in (f"{eye}.blocks.{index}" for index in range(DEPTH)):
        norm(f"{block}.norm1", WIDTH)
        linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        norm(f"{block}.norm2", WIDTH)
        linear(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        linear(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    norm(f"{eye}.norm", WIDTH)
    found[f"{text}.embeddings.word_embeddings.weight"] = (VOCABULARY, TEXT_WIDTH)
    found[f"{text}.embeddings.position_embeddings.weight"] = (40, TEXT_WIDTH)
    norm(f"{text}.embeddings.LayerNorm", TEXT_WIDTH)
    for layer in (f"{text}.encoder.layer.{index}" for index in range(DEPTH)):
        for kind, seen in (("attention", TEXT_WIDTH), ("crossattention", WIDTH)):
            linear(f"{layer}.{kind}.self.query", TEXT_WIDTH, TEXT_WIDTH)
            linear(f"{layer}.{kind}.self.key", TEXT_WIDTH, seen)
            linear(f"{layer}.{kind}.self.value", TEXT_WIDTH, seen)
            linear(f"{layer}.{kind}.output.dense", TEXT_WIDTH, TEXT_WIDTH)
            norm(f"{layer}.{kind}.output.LayerNorm", TEXT_WIDTH)
        linear(f"{layer}.intermediate.dense", 96, TEXT_WIDTH)
        linear(f"{layer}.output.dense", TEXT_WIDTH, 96)
        norm(f"{layer}.output.LayerNorm", TEXT_WIDTH)
    linear("blip.vision_proj", 256, WIDTH)
    linear("blip.text_proj", 256, TEXT_WIDTH)
    for number, out, into in ((0, 1024, TEXT_WIDTH), (2, 128, 1024), (4, 64, 128), (6, 16, 64), (7, 1, 16)):
        linear(f"mlp.layers.{number}", out, into)
    return found


def checkpoint(*, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that keep activations at about one, and the list of positions that the file holds too."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes().items():
        is_norm = "norm" in name.lower().rpartition(".")[0].rpartition(".")[2]
        spread = 0.2 if len(shape) == 1 or "embed" in name or "token" in name else math.prod(shape[1:]) ** -0.5
        value = spread * torch.randn(shape, generator=generator)
        weights[name] = value + 1.0 if is_norm and name.endswith("weight") else value
    weights["blip.text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return weights


def publish(folder: Path, weights: dict[str, Tensor]) -> Path:
    """A folder with the published files and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(TEXT), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return folder


def token_ids(prompt: str) -> list[int]:
    """Of prompts of known words, one token each, and of the two that BLIP adds."""
    known = {word: index for index, word in enumerate([*WORDS, "[DEC]", "[ENC]"])}
    return [
        2,
        *[known.get(word if word in known else word.lower(), 1) for word in prompt.split()][: MOST_TOKENS - 2],
        3,
    ]


def prepared(image: Image.Image) -> Tensor:
    """torchvision's Resize (bicubic) and CenterCrop of a PIL image, then ToTensor and Normalize."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(SIZE * long / short)
    image = image.resize((SIZE, longer) if width <= height else (longer, SIZE), Image.Resampling.BICUBIC)
    left, above = round((image.width - SIZE) / 2.0), round((image.height - SIZE) / 2.0)
    cut = image.crop((left, above, left + SIZE, above + SIZE)).convert("RGB")
    pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


class Plain:
    """The original's computation for one image and one prompt.

    Args:
        weights: by published name.
        dtype: in which it is computed.
    """

    def __init__(self, weights: dict[str, Tensor], dtype: torch.dtype = torch.float64) -> None:
        self.weights = {name: value.to(dtype) for name, value in weights.items()}
        self.dtype = dtype

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    @staticmethod
    def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | float = 0.0) -> Tensor:
        """Attention of (L, D) to (M, D); the mask (M,) is added to the scores."""
        split = [part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in (query, key, value)]
        scores = split[0] @ split[1].mT / math.sqrt(split[0].shape[-1]) + mask
        return (scores.softmax(-1) @ split[2]).transpose(0, 1).flatten(1)

    def see(self, pixels: Tensor) -> Tensor:
        """Patches (N, D) of a prepared image (3, S, S)."""
        eye = "blip.visual_encoder"
        patches = conv2d(
            pixels[None].to(self.dtype),
            self.weights[f"{eye}.patch_embed.proj.weight"],
            self.weights[f"{eye}.patch_embed.proj.bias"],
            stride=PATCH,
        )
        x = torch.cat([self.weights[f"{eye}.cls_token"][0], patches[0].flatten(1).T])
        x = x + self.weights[f"{eye}.pos_embed"][0]
        for block in (f"{eye}.blocks.{index}" for index in range(DEPTH)):
            parts = self.linear(f"{block}.attn.qkv", self.norm(f"{block}.norm1", x, 1e-6)).chunk(3, dim=-1)
            x = x + self.linear(f"{block}.attn.proj", self.attend(*parts, WIDTH // 64))
            inner = gelu(self.linear(f"{block}.mlp.fc1", self.norm(f"{block}.norm2", x, 1e-6)))
            x = x + self.linear(f"{block}.mlp.fc2", inner)
        return self.norm(f"{eye}.norm", x, 1e-6)

    def read(self, ids: Sequence[int], patches: Tensor) -> Tensor:
        """Last hidden states (35, D) of a prompt that looks at patches."""
        text = "blip.text_encoder"
        padded = torch.tensor([*ids, *[0] * (MOST_TOKENS - len(ids))])
        mask = torch.where(torch.arange(MOST_TOKENS) < len(ids), 0.0, -10000.0).to(self.dtype)
        x = self.weights[f"{text}.embeddings.word_embeddings.weight"][padded]
        x = x + self.weights[f"{text}.embeddings.position_embeddings.weight"][:MOST_TOKENS]
        x = self.norm(f"{text}.embeddings.LayerNorm", x, 1e-12)
        for layer in (f"{text}.encoder.layer.{index}" for index in range(DEPTH)):
            for kind, seen, masked in (("attention", None, mask), ("crossattention", patches, 0.0)):
                source = x if seen is None else seen
                query = self.linear(f"{layer}.{kind}.self.query", x)
                key, value = (self.linear(f"{layer}.{kind}.self.{part}", source) for part in ("key", "value"))
                found = self.attend(query, key, value, TEXT_HEADS, masked)
                out = self.linear(f"{layer}.{kind}.output.dense", found)
                x = self.norm(f"{layer}.{kind}.output.LayerNorm", out + x, 1e-12)
            inner = gelu(self.linear(f"{layer}.intermediate.dense", x))
            x = self.norm(f"{layer}.output.LayerNorm", self.linear(f"{layer}.output.dense", inner) + x, 1e-12)
        return x

    def score(self, image: Image.Image, prompt: str) -> float:
        h = self.read(token_ids(prompt), self.see(prepared(image)))[0]
        for number in (0, 2, 4, 6, 7):
            h = self.linear(f"mlp.layers.{number}", h)
        return (h.item() - 0.16717362830052426) / 1.0333394966054072

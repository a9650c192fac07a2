"""Small random checkpoints with the file names, tensor names and layouts of the published ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

CONTEXT = 16
IMAGE_SIZE = 16
PATCH = 4
MERGES = ["r e", "re d</w>", "c a", "t h", "th e</w>"]


def byte_names() -> dict[int, str]:
    """OpenAI's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def vocabulary() -> dict[str, int]:
    """As open_clip orders it: bytes, bytes that end a word, merges, start and end."""
    names = byte_names()
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [names[byte] for byte in [*printable, *(byte for byte in range(256) if byte not in printable)]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in MERGES)]
    return {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level tokenizer as CLIP's, with five merges."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]) + "\n", encoding="utf-8")
    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "pad_token": "<|endoftext|>"} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def write_clip(
    folder: Path, *, activation: str = "quick_gelu", seed: int = 0, embedding: int = 12
) -> dict[str, Tensor]:
    """A CLIP in transformers' format; its weights."""
    write_tokenizer(folder)
    words = len(vocabulary())
    ends = {"hidden_act": activation, "projection_dim": embedding}
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": words - 2, "eos_token_id": words - 1, "pad_token_id": words - 1}
    config = CLIPConfig(
        projection_dim=embedding,
        text_config=tower
        | ids
        | {
            "vocab_size": words,
            "max_position_embeddings": CONTEXT,
            "hidden_act": activation,
            "projection_dim": embedding,
        },
        vision_config=tower | {"image_size": IMAGE_SIZE, "patch_size": PATCH} | ends,
    )
    model = CLIPModel(config)
    shaken(model.state_dict(), seed=seed)
    model.save_pretrained(folder)
    return {name: value.clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def shaken(weights: dict[str, Tensor], *, seed: int) -> None:
    """Random values of a size at which every part of the network matters."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in weights.items():
        if name.endswith("logit_scale"):
            value.fill_(2.0)
            continue
        spread = 1.0 / math.sqrt(value.shape[-1]) if value.dim() > 1 else 0.3
        offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        value.copy_(offset + spread * torch.randn(value.shape, generator=generator))


def open_clip_weights(
    *, width: int = 160, text_width: int = 128, layers: int = 2, embedding: int = 12, seed: int = 0
) -> dict[str, Tensor]:
    """A CLIP by open_clip's names: heads of 80 channels for images and of 64 for text."""
    generator = torch.Generator().manual_seed(seed)
    words = len(vocabulary())

    def random(*shape: int, spread: float | None = None) -> Tensor:
        return torch.randn(shape, generator=generator) * (spread or 1.0 / math.sqrt(shape[-1]))

    def norm(name: str, size: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1.0 + random(size, spread=0.2), f"{name}.bias": random(size, spread=0.2)}

    def affine(name: str, out: int, into: int) -> dict[str, Tensor]:
        return {f"{name}.weight": random(out, into), f"{name}.bias": random(out, spread=0.2)}

    def blocks(at: str, size: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for layer in range(layers):
            block = f"{at}.{layer}"
            found |= norm(f"{block}.ln_1", size) | norm(f"{block}.ln_2", size)
            found[f"{block}.attn.in_proj_weight"] = random(3 * size, size)
            found[f"{block}.attn.in_proj_bias"] = random(3 * size, spread=0.2)
            found |= affine(f"{block}.attn.out_proj", size, size)
            found |= affine(f"{block}.mlp.c_fc", 3 * size, size) | affine(f"{block}.mlp.c_proj", size, 3 * size)
        return found

    places = (IMAGE_SIZE // PATCH) ** 2 + 1
    return {
        "positional_embedding": random(CONTEXT, text_width, spread=0.3),
        "text_projection": random(text_width, embedding),
        "logit_scale": torch.tensor(4.6),
        "visual.class_embedding": random(width, spread=0.3),
        "visual.positional_embedding": random(places, width, spread=0.3),
        "visual.proj": random(width, embedding),
        "visual.conv1.weight": random(width, 3, PATCH, PATCH, spread=0.15),
        **norm("visual.ln_pre", width),
        **blocks("visual.transformer.resblocks", width),
        **norm("visual.ln_post", width),
        **blocks("transformer.resblocks", text_width),
        "token_embedding.weight": random(words, text_width, spread=0.3),
        **norm("ln_final", text_width),
    }


def write_hps(folder: Path, *, file: str = "HPS_v2_compressed.pt", seed: int = 0) -> dict[str, Tensor]:
    """HPSv2 as published: a pickled state dictionary within a dictionary; its weights."""
    write_tokenizer(folder)
    weights = open_clip_weights(seed=seed)
    torch.save({"epoch": 1, "name": "hps", "state_dict": weights}, folder / file)
    return weights


def rating_weights(*, embedding: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """The aesthetic predictor's MLP by its published names."""
    generator = torch.Generator().manual_seed(seed)
    widths = [embedding, 10, 8, 6, 4, 1]
    found = {}
    for place, into, out in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        found[f"layers.{place}.weight"] = torch.randn(out, into, generator=generator) / math.sqrt(into)
        found[f"layers.{place}.bias"] = torch.randn(out, generator=generator)
    return found


def write_aesthetic(folder: Path, *, file: str = "aesthetic-model.pth") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The aesthetic predictor with a CLIP beside it; weights of both."""
    clip, mlp = write_clip(folder), rating_weights()
    torch.save(mlp, folder / file)
    return clip, mlp

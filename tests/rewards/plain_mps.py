"""MPS written down a second time, in float64 on the tensors by their published names, one image at a time.

After ``cross_modeling.py`` and the evaluation of the authors' repository; nothing of transformers is used.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from seedpo.rewards.mps import OVERALL
from tests.rewards import plain_clip, small_checkpoints
from tests.rewards.plain_pixels import clip_values
from tests.rewards.small_checkpoints import CONTEXT, IMAGE_SIZE

WIDTH, SIZE, LAYERS = 128, 64, 2
"""Of the cross attention: two heads of 64 channels, as wide as published."""


def publish(folder: Path, *, prefix: str = "mps.") -> dict[str, Tensor]:
    """A checkpoint as on the hub, with the CLIP's configuration and tokenizer beside it; its weights without prefix."""
    clip = small_checkpoints.write_clip(folder, activation="gelu", seed=7, embedding=WIDTH)
    (folder / "model.safetensors").unlink()
    generator = torch.Generator().manual_seed(1)
    shapes = {}
    for layer in range(LAYERS):
        across, among = (f"cross_model.layers.{layer}.{part}.fn" for part in (0, 1))
        shapes |= {f"{at}.norm.{kind}": (WIDTH,) for at in (across, among) for kind in ("weight", "bias")}
        shapes |= {
            f"{across}.to_q.weight": (WIDTH, WIDTH),
            f"{across}.to_kv.weight": (2 * SIZE, WIDTH),
            f"{across}.to_out.weight": (WIDTH, WIDTH),
            f"{across}.ff.0.weight": (8 * WIDTH, WIDTH),
            f"{across}.ff.2.weight": (WIDTH, 4 * WIDTH),
            f"{among}.fused_attn_ff_proj.weight": (WIDTH + 2 * SIZE + 8 * WIDTH, WIDTH),
            f"{among}.attn_out.weight": (WIDTH, WIDTH),
            f"{among}.ff_out.1.weight": (WIDTH, 4 * WIDTH),
            f"{among}.rotary_emb.inv_freq": (SIZE // 2,),
        }
    cross = {
        name: torch.randn(shape, generator=generator) * (1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.2)
        + float(name.endswith("norm.weight"))
        for name, shape in shapes.items()
    }
    weights = {f"model.{name}": value for name, value in clip.items()} | cross
    save_file({prefix + name: value for name, value in weights.items()}, folder / "model.safetensors")
    return weights


class Plain:
    """The original's score of one image at a time."""

    def __init__(self, weights: dict[str, Tensor], *, condition: str = OVERALL) -> None:
        clip = {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
        self.clip = plain_clip.from_transformers(clip, image_heads=2, text_heads=2, activation="gelu")
        self.weights = {name: value.double() for name, value in weights.items()}
        self.condition = condition

    def score(self, image: Image.Image, prompt: str) -> float:
        from tests.rewards.agreement import token_ids

        ids = token_ids(prompt, open_clip=False)
        tokens = self.text(ids)
        condition = self.text(token_ids(self.condition, open_clip=False))
        likeness = torch.stack([(condition @ token).max() for token in tokens])
        kept = likeness / likeness.max() > 0.3
        end = max(ids)
        embedding = tokens[ids.index(end)]
        patches = plain_clip.image_states(self.clip, clip_values(image, IMAGE_SIZE, "transformers"))
        patches = patches @ self.clip.image_projection.T
        for layer in range(LAYERS):
            patches = patches + self.across(f"cross_model.layers.{layer}.0.fn", patches, tokens[kept])
            patches = patches + self.among(f"cross_model.layers.{layer}.1.fn", patches)
        cosine = plain_clip.unit(patches[0]) @ plain_clip.unit(embedding)
        return float(self.clip.logit_scale.exp() * cosine)

    def text(self, ids: list[int]) -> Tensor:
        assert len(ids) == CONTEXT
        return plain_clip.text_states(self.clip, ids) @ self.clip.text_projection.T

    def across(self, at: str, patches: Tensor, tokens: Tensor) -> Tensor:
        given = self.normed(at, patches)
        keys = tokens @ self.weights[f"{at}.to_kv.weight"].T
        heads = given @ self.weights[f"{at}.to_q.weight"].T
        mixed = torch.cat([attended(head, keys[:, :SIZE], keys[:, SIZE:]) for head in heads.split(SIZE, 1)], 1)
        inner = gated(given @ self.weights[f"{at}.ff.0.weight"].T)
        return mixed @ self.weights[f"{at}.to_out.weight"].T + inner @ self.weights[f"{at}.ff.2.weight"].T

    def among(self, at: str, patches: Tensor) -> Tensor:
        fused = self.normed(at, patches) @ self.weights[f"{at}.fused_attn_ff_proj.weight"].T
        query, key, value, inner = fused.split([WIDTH, SIZE, SIZE, 8 * WIDTH], 1)
        mixed = torch.cat([attended(turned(head), turned(key), value) for head in query.split(SIZE, 1)], 1)
        return mixed @ self.weights[f"{at}.attn_out.weight"].T + gated(inner) @ self.weights[f"{at}.ff_out.1.weight"].T

    def normed(self, at: str, x: Tensor) -> Tensor:
        return plain_clip.normed(x, (self.weights[f"{at}.norm.weight"], self.weights[f"{at}.norm.bias"]))


def attended(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.T / math.sqrt(SIZE), 1) @ value


def gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, 1)
    return gate * torch.sigmoid(gate) * value


def turned(x: Tensor) -> Tensor:
    """Rotary embedding: row n by the angles n / 10000^(2 i / 64)."""
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] / 10000.0 ** (torch.arange(0, SIZE, 2).double() / SIZE)
    first, second = x.split(SIZE // 2, 1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], 1)

"""CLIP's arithmetic once more, in float64 and with nothing but tensors: what the adapters are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Activation = Literal["gelu", "quick_gelu"]
Affine = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Block:
    before_attention: Affine
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    before_mlp: Affine
    into: Affine
    back: Affine


@dataclass(frozen=True, kw_only=True)
class PlainClip:
    """Weights by what they are for; projections are (out, in)."""

    patches: Tensor
    start: Tensor
    image_places: Tensor
    image_blocks: list[Block]
    first_norm: Affine
    last_norm: Affine
    image_projection: Tensor
    words: Tensor
    text_places: Tensor
    text_blocks: list[Block]
    text_norm: Affine
    text_projection: Tensor
    logit_scale: Tensor
    image_heads: int
    text_heads: int
    activation: Activation


def from_open_clip(weights: Mapping[str, Tensor], *, image_heads: int, text_heads: int) -> PlainClip:
    w = {name: value.double() for name, value in weights.items()}

    def affine(name: str) -> Affine:
        return w[f"{name}.weight"], w[f"{name}.bias"]

    def block(at: str) -> Block:
        matrix, bias = w[f"{at}.attn.in_proj_weight"], w[f"{at}.attn.in_proj_bias"]
        width = matrix.shape[1]
        query, key, value = ((matrix[i : i + width], bias[i : i + width]) for i in (0, width, 2 * width))
        return Block(
            before_attention=affine(f"{at}.ln_1"),
            query=query,
            key=key,
            value=value,
            out=affine(f"{at}.attn.out_proj"),
            before_mlp=affine(f"{at}.ln_2"),
            into=affine(f"{at}.mlp.c_fc"),
            back=affine(f"{at}.mlp.c_proj"),
        )

    def blocks(at: str) -> list[Block]:
        count = sum(name.startswith(f"{at}.") and name.endswith(".ln_1.weight") for name in w)
        return [block(f"{at}.{layer}") for layer in range(count)]

    return PlainClip(
        patches=w["visual.conv1.weight"],
        start=w["visual.class_embedding"],
        image_places=w["visual.positional_embedding"],
        image_blocks=blocks("visual.transformer.resblocks"),
        first_norm=affine("visual.ln_pre"),
        last_norm=affine("visual.ln_post"),
        image_projection=w["visual.proj"].T,
        words=w["token_embedding.weight"],
        text_places=w["positional_embedding"],
        text_blocks=blocks("transformer.resblocks"),
        text_norm=affine("ln_final"),
        text_projection=w["text_projection"].T,
        logit_scale=w["logit_scale"],
        image_heads=image_heads,
        text_heads=text_heads,
        activation="gelu",
    )


def from_transformers(
    weights: Mapping[str, Tensor], *, image_heads: int, text_heads: int, activation: Activation = "quick_gelu"
) -> PlainClip:
    w = {name: value.double() for name, value in weights.items()}

    def affine(name: str) -> Affine:
        return w[f"{name}.weight"], w[f"{name}.bias"]

    def blocks(tower: str) -> list[Block]:
        count = sum(name.startswith(f"{tower}.encoder") and name.endswith(".layer_norm1.weight") for name in w)
        places = [f"{tower}.encoder.layers.{layer}" for layer in range(count)]
        return [
            Block(
                before_attention=affine(f"{at}.layer_norm1"),
                query=affine(f"{at}.self_attn.q_proj"),
                key=affine(f"{at}.self_attn.k_proj"),
                value=affine(f"{at}.self_attn.v_proj"),
                out=affine(f"{at}.self_attn.out_proj"),
                before_mlp=affine(f"{at}.layer_norm2"),
                into=affine(f"{at}.mlp.fc1"),
                back=affine(f"{at}.mlp.fc2"),
            )
            for at in places
        ]

    return PlainClip(
        patches=w["vision_model.embeddings.patch_embedding.weight"],
        start=w["vision_model.embeddings.class_embedding"],
        image_places=w["vision_model.embeddings.position_embedding.weight"],
        image_blocks=blocks("vision_model"),
        first_norm=affine("vision_model.pre_layrnorm"),
        last_norm=affine("vision_model.post_layernorm"),
        image_projection=w["visual_projection.weight"],
        words=w["text_model.embeddings.token_embedding.weight"],
        text_places=w["text_model.embeddings.position_embedding.weight"],
        text_blocks=blocks("text_model"),
        text_norm=affine("text_model.final_layer_norm"),
        text_projection=w["text_projection.weight"],
        logit_scale=w["logit_scale"],
        image_heads=image_heads,
        text_heads=text_heads,
        activation=activation,
    )


def image_embedding(clip: PlainClip, pixels: Tensor) -> Tensor:
    """Of one normalised image (3, S, S): unit length, (D,)."""
    return unit(clip.image_projection @ normed(image_states(clip, pixels)[0], clip.last_norm))


def image_states(clip: PlainClip, pixels: Tensor) -> Tensor:
    """Of one normalised image (3, S, S), before the last norm: (L, W)."""
    side = clip.patches.shape[-1]
    kernel = clip.patches.flatten(1)
    squares = [
        kernel @ pixels[:, top : top + side, left : left + side].double().flatten()
        for top in range(0, pixels.shape[1], side)
        for left in range(0, pixels.shape[2], side)
    ]
    hidden = normed(torch.stack([clip.start, *squares]) + clip.image_places, clip.first_norm)
    for block in clip.image_blocks:
        hidden = transformed(hidden, block, clip.image_heads, clip.activation, causal=False)
    return hidden


def text_embedding(clip: PlainClip, ids: list[int]) -> Tensor:
    """Of one row of token ids, taken at the highest id: unit length, (D,)."""
    end = max(range(len(ids)), key=lambda place: (ids[place], -place))
    return unit(clip.text_projection @ text_states(clip, ids)[end])


def text_states(clip: PlainClip, ids: list[int]) -> Tensor:
    """Of one row of token ids, after the last norm: (L, W)."""
    hidden = clip.words[ids] + clip.text_places[: len(ids)]
    for block in clip.text_blocks:
        hidden = transformed(hidden, block, clip.text_heads, clip.activation, causal=True)
    return normed(hidden, clip.text_norm)


def transformed(hidden: Tensor, block: Block, heads: int, activation: Activation, *, causal: bool) -> Tensor:
    """One block, on (L, W)."""
    length, width = hidden.shape
    size = width // heads
    given = normed(hidden, block.before_attention)
    query, key, value = (
        linear(given, part).view(length, heads, size) for part in (block.query, block.key, block.value)
    )
    attended = torch.zeros_like(hidden)
    for head in range(heads):
        scores = query[:, head] @ key[:, head].T / math.sqrt(size)
        if causal:
            scores = scores + torch.full_like(scores, -math.inf).triu(1)
        shares = torch.exp(scores - scores.max(1, keepdim=True).values)
        attended[:, head * size : (head + 1) * size] = shares / shares.sum(1, keepdim=True) @ value[:, head]
    hidden = hidden + linear(attended, block.out)
    return hidden + linear(activated(linear(normed(hidden, block.before_mlp), block.into), activation), block.back)


def activated(x: Tensor, activation: Activation) -> Tensor:
    return x * torch.sigmoid(1.702 * x) if activation == "quick_gelu" else x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def linear(x: Tensor, affine: Affine) -> Tensor:
    return x @ affine[0].T + affine[1]


def normed(x: Tensor, affine: Affine) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * affine[0] + affine[1]


def unit(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).sum())

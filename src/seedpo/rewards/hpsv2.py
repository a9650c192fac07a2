"""Human Preference Score v2 and v2.1 (arXiv 2306.09341): CLIP-H/14 trained on HPD v2, published in open_clip's layout.

    score = cos(image, prompt)

without the logit scale, as the package ``hpsv2`` gives it. The weights are read from the published file and put into
transformers' CLIP with the exact GELU; neither ``hpsv2`` nor open_clip is needed. Images and prompts are prepared as
there; see :func:`seedpo.rewards.preprocessing.hps_pixels` and :func:`seedpo.rewards.clip.open_clip_tokens`. On a
GPU the package computes in mixed precision; here, in float32 by default.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from seedpo.errors import DataError
from seedpo.rewards.checkpoints import fill, located, some
from seedpo.rewards.clip import (
    CLIP_H,
    CLIP_H14,
    TOKENIZER_PARTS,
    ClipRecipe,
    ClipScorer,
    clip_network,
    clip_tokenizer,
    open_clip_tokens,
)
from seedpo.rewards.networks import RewardNetwork
from seedpo.rewards.preprocessing import hps_pixels
from seedpo.weights import read_weights

REPOSITORY = "xswu/HPSv2"
V2 = "HPS_v2_compressed.pt"
V21 = "HPS_v2.1_compressed.pt"

HPS = ClipRecipe(pixels=hps_pixels, tokens=open_clip_tokens, score=lambda cosine, _: cosine)
"""cos(image, prompt), prepared as the package ``hpsv2`` prepares them."""

VISION_HEAD_WIDTH = 80
TEXT_HEAD_WIDTH = 64
"""Channels of an attention head in ViT-H/14's towers; the shapes of the weights do not show them."""

_IMAGE_SIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
_TEXT_SIDE = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = ("visual.proj", "text_projection")
_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWERS = {
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "transformer.resblocks": "text_model.encoder.layers",
}


@cache
def hpsv2(place: str | None = None) -> ClipScorer:
    """HPSv2, loaded once per process; about 2 GB from the hub without a place.

    Args:
        place: folder, or ``owner/name[@revision]`` on the hub, with ``HPS_v2_compressed.pt`` and, optionally,
            CLIP-H's tokenizer.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("hpsv2", place, V2)


@cache
def hpsv21(place: str | None = None) -> ClipScorer:
    """HPSv2.1, loaded once per process; as :func:`hpsv2`, with ``HPS_v2.1_compressed.pt``."""
    return _load("hpsv2.1", place, V21)


def hps_network(place: str | None = None) -> RewardNetwork:
    """Either version without weights: a CLIP-H/14, wherever its weights are."""
    return clip_network(CLIP_H14)


def _load(name: str, place: str | None, file: str) -> ClipScorer:
    folder = located(name, place, repository=REPOSITORY, files=[file], optional=TOKENIZER_PARTS)
    tokenizer = clip_tokenizer(name, folder, repository=CLIP_H)
    path = folder / file
    model = network_of(read_weights(path), origin=path)
    last = model.config.text_config.vocab_size - 1  # where open_clip pools: at the highest id, which ends the text
    if tokenizer.eos_token_id != last:
        raise DataError(f"reward {name}: its text ends with token {last}, its tokenizer's with another; use {CLIP_H}'s")
    return ClipScorer(model, tokenizer, HPS)


def network_of(weights: Mapping[str, Tensor], *, origin: str | Path) -> CLIPModel:
    """The CLIP of transformers, float32, with weights in open_clip's layout; its size follows from their shapes.

    Args:
        weights: by open_clip's names.
        origin: where they are from, for errors.

    Raises:
        DataError: naming weights that are missing, left over or of another shape.
    """
    with torch.device("meta"):  # no time is spent on random weights
        model = CLIPModel(configuration(weights, origin=origin))
    fill(model, renamed(weights, origin=origin), origin=origin, ignored=("attn_mask",))
    for tower in (model.text_model, model.vision_model):  # buffers that no checkpoint holds
        places = tower.embeddings.position_embedding.num_embeddings
        tower.embeddings.position_ids = torch.arange(places)[None]
    return model


def configuration(weights: Mapping[str, Tensor], *, origin: str | Path) -> CLIPConfig:
    """The architecture that weights in open_clip's layout belong to.

    Raises:
        DataError: if they are not those of a vision transformer with heads as in ViT-H/14.
    """
    _check_names(weights, (*_IMAGE_SIDE, *_TEXT_SIDE), origin)
    patches, words = weights["visual.conv1.weight"], weights["token_embedding.weight"]
    places, projection = weights["visual.positional_embedding"], weights["visual.proj"]
    shapes_fit = patches.dim() == 4 and all(each.dim() == 2 for each in (words, places, projection))
    grid = math.isqrt(max(len(places) - 1, 0)) if shapes_fit else 0
    if not shapes_fit or grid * grid + 1 != len(places):
        raise DataError(f"{origin} does not hold a CLIP with a square vision transformer; is it the right checkpoint?")
    return CLIPConfig(
        projection_dim=projection.shape[1],
        vision_config=_tower(weights, "visual.transformer.resblocks", len(patches), VISION_HEAD_WIDTH, origin)
        | {"image_size": grid * patches.shape[-1], "patch_size": patches.shape[-1]},
        text_config=_tower(weights, "transformer.resblocks", words.shape[1], TEXT_HEAD_WIDTH, origin)
        | {
            "vocab_size": len(words),
            "max_position_embeddings": len(weights["positional_embedding"]),
            "bos_token_id": len(words) - 2,
            "eos_token_id": len(words) - 1,
            "pad_token_id": 0,
        },
    )


def renamed(weights: Mapping[str, Tensor], *, origin: str | Path) -> dict[str, Tensor]:
    """Weights in open_clip's layout by transformers' names; weights without one keep their own.

    Raises:
        DataError: naming weights that are missing.
    """
    names = dict(_names(weights))
    _check_names(weights, names, origin)
    converted: dict[str, Tensor] = {name: value for name, value in weights.items() if name not in names}
    for name, ours in names.items():
        value = weights[name].t() if name in _TRANSPOSED else weights[name]
        if "{part}" not in ours:
            converted[ours] = value
            continue
        if len(value) % 3:
            raise DataError(f"{origin}: {name} {tuple(value.shape)} is not a threefold projection")
        for part, projection in zip("qkv", value.chunk(3), strict=True):
            converted[ours.format(part=part)] = projection
    return converted


def _names(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """open_clip's names of all weights that are needed, each with transformers'."""
    yield from (_IMAGE_SIDE | _TEXT_SIDE).items()
    for theirs, ours in _TOWERS.items():
        for layer in range(_layers(weights, theirs)):
            for kind in ("weight", "bias"):
                yield f"{theirs}.{layer}.attn.in_proj_{kind}", f"{ours}.{layer}.self_attn.{{part}}_proj.{kind}"
                for part, name in _BLOCK.items():
                    yield f"{theirs}.{layer}.{part}.{kind}", f"{ours}.{layer}.{name}.{kind}"


def _layers(weights: Mapping[str, Tensor], blocks: str) -> int:
    numbers = [name.removeprefix(f"{blocks}.").split(".")[0] for name in weights if name.startswith(f"{blocks}.")]
    return max((int(layer) + 1 for layer in numbers if layer.isdecimal()), default=0)


def _tower(
    weights: Mapping[str, Tensor], blocks: str, width: int, head_width: int, origin: str | Path
) -> dict[str, int | str]:
    first = f"{blocks}.0.mlp.c_fc.weight"
    _check_names(weights, (first,), origin)
    if width % head_width:
        raise DataError(
            f"{origin}: {blocks} is {width} wide, not a multiple of {head_width}, the width of ViT-H/14's heads; "
            "is it the right checkpoint?"
        )
    return {
        "hidden_size": width,
        "intermediate_size": len(weights[first]),
        "num_hidden_layers": _layers(weights, blocks),
        "num_attention_heads": width // head_width,
        "hidden_act": "gelu",
    }


def _check_names(weights: Mapping[str, Tensor], names: Iterable[str], origin: str | Path) -> None:
    missing = [name for name in names if name not in weights]
    if missing:
        raise DataError(f"{origin} lacks {some(missing)}; is it the right checkpoint?")

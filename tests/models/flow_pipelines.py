"""Tiny untrained pipelines of the very classes of published flow models: Stable Diffusion 3, 3.5 and FLUX.1. Seeded."""

from __future__ import annotations

import string
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from seedpo.scenes.prompts import WORDS
from tests.models.published import text_encoder
from tools.scenes.components import build_tokenizer

SD3_KINDS = ("sd3", "sd3-bare", "sd35")
"""With T5, without, and with the second attention and the norms of 3.5 medium."""

FLUX_KINDS = ("flux-dev", "flux-schnell")

WIDTH = 32
"""Of the embedded text."""

STATIC = {"shift": 3.0}
DYNAMIC = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
SCHNELL = {"shift": 1.0}
"""Of the published schedulers."""


def t5_tokenizer() -> Any:
    """Words of the drawings and letters; anything else is unknown."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in WORDS), *string.ascii_lowercase]
    return T5TokenizerFast([(piece, -float(rank)) for rank, piece in enumerate(pieces)], extra_ids=0)


def t5_encoder(tokenizer: Any) -> Any:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )
    return T5EncoderModel(config).eval()


def small_autoencoder() -> AutoencoderKL:
    """Of factor 2, with the shift of the latents and the missing projections of SD3's and FLUX's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=1.5,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=True,
    )


def sd3_transformer(**changes: Any) -> SD3Transformer2DModel:
    settings: dict[str, Any] = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 28,
        "pos_embed_max_size": 16,
    }
    return SD3Transformer2DModel(**settings | changes)


def flux_transformer(*, guidance_embeds: bool) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(2, 4, 2),
    )


_NETWORKS: dict[str, Callable[[], Any]] = {
    "sd3": sd3_transformer,
    "sd3-bare": sd3_transformer,
    "sd35": lambda: sd3_transformer(dual_attention_layers=(0,), qk_norm="rms_norm"),
    "flux-dev": lambda: flux_transformer(guidance_embeds=True),
    "flux-schnell": lambda: flux_transformer(guidance_embeds=False),
}

_SCHEDULERS = {
    **dict.fromkeys(SD3_KINDS, STATIC),
    "flux-dev": DYNAMIC,
    "flux-schnell": SCHNELL,
}


@cache
def _text_parts() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        clip, t5 = build_tokenizer(Path(folder)), t5_tokenizer()
        return {
            "clip": clip,
            "t5": t5,
            "clip-l": text_encoder(clip, CLIPTextModelWithProjection, width=16, hidden_act="quick_gelu"),
            "clip-g": text_encoder(clip, CLIPTextModelWithProjection, width=12, hidden_act="gelu"),
            "clip-pooled": text_encoder(clip, CLIPTextModel, width=WIDTH, hidden_act="quick_gelu"),
            "t5-xxl": t5_encoder(t5),
        }


_TEXT: dict[str, dict[str, str]] = {
    "sd3": {
        "tokenizer": "clip",
        "text_encoder": "clip-l",
        "tokenizer_2": "clip",
        "text_encoder_2": "clip-g",
        "tokenizer_3": "t5",
        "text_encoder_3": "t5-xxl",
    },
    "flux": {"tokenizer": "clip", "text_encoder": "clip-pooled", "tokenizer_2": "t5", "text_encoder_2": "t5-xxl"},
}


@cache
def _weighted(kind: str) -> tuple[Any, Any]:
    """Network and autoencoder. What a network begins as zeros or ones is drawn too, so that nothing hides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        parts = _NETWORKS[kind](), small_autoencoder()
        for parameter in parts[0].parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return parts


def flow_pipeline(kind: str, **scheduler: Any) -> Any:
    """A pipeline whose parts are its own, with the scheduler that its published model comes with.

    Args:
        kind: one of the kinds above.
        scheduler: keys of the scheduler's configuration that differ.
    """
    texts = _text_parts()
    text = {
        part: texts[name] if "tokenizer" in part else deepcopy(texts[name])
        for part, name in _TEXT["flux" if kind in FLUX_KINDS else "sd3"].items()
    }
    if kind == "sd3-bare":
        text |= {"tokenizer_3": None, "text_encoder_3": None}
    network, vae = deepcopy(_weighted(kind))
    pipeline: Any = (FluxPipeline if kind in FLUX_KINDS else StableDiffusion3Pipeline)(
        transformer=network,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(**_SCHEDULERS[kind] | scheduler),
        **text,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline

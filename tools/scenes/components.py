"""The untrained parts of the embedded pipelines, in the classes of Stable Diffusion 1.5 and 3, and of the scorer."""

from __future__ import annotations

import json
import string
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from seedpo.scenes.drawing import IMAGE_SIZE
from seedpo.scenes.prompts import WORDS

LATENT_CHANNELS = 8
PROMPT_LENGTH = 12
"""Tokens of a prompt: eight words, start and end, and some room."""

START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Writes and loads a CLIP tokenizer that knows the words of the world.

    The vocabulary holds the lower-case letters, the byte-pair merges that lead to each word, and the two special
    tokens; any other character becomes the unknown token, which CLIP shares with the end of the text. Each word is one
    token, except for "green" and "black": merges of words before them take their letters, which leaves four tokens.
    Prompts stay distinct all the same.
    """
    letters = list(string.ascii_lowercase)
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges: list[str] = []
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merge = f"{parts[0]} {parts[1]}"
            parts[:2] = [parts[0] + parts[1]]
            if merge not in merges:
                merges.append(merge)
            if parts[0] not in tokens:
                tokens.append(parts[0])
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": PROMPT_LENGTH,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(folder)
    return tokenizer


def _text_config(tokenizer: CLIPTokenizer, *, width: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=PROMPT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A two-layer CLIP text encoder."""
    return CLIPTextModel(_text_config(tokenizer, width=64, heads=4))


def build_autoencoder() -> AutoencoderKL:
    """An autoencoder of factor 4 with eight latent channels: 32 x 32 pixels become 8 x 8 latents."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
        mid_block_add_attention=False,
    )


def build_unet(cross_attention_dim: int) -> UNet2DConditionModel:
    """A UNet of two levels; text enters at the lower one and in the middle, where attention is cheap."""
    return UNet2DConditionModel(
        sample_size=IMAGE_SIZE // 4,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 112),
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule for DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def scorer_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """The untrained scorer: a vision tower of four layers on patches of 4 x 4 pixels and a text tower of two."""
    return CLIPConfig(
        projection_dim=64,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": PROMPT_LENGTH,
            "projection_dim": 64,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 4,
            "projection_dim": 64,
        },
    )


def build_flow_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A small CLIP text encoder of Stable Diffusion 3: two layers, of which the states come from the first."""
    return CLIPTextModelWithProjection(_text_config(tokenizer, width=32, heads=2))


def build_flow_transformer() -> SD3Transformer2DModel:
    """Stable Diffusion 3's transformer of six joint blocks; every latent cell is a token."""
    return SD3Transformer2DModel(
        sample_size=IMAGE_SIZE // 4,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=128,
        pooled_projection_dim=64,
        pos_embed_max_size=IMAGE_SIZE // 4,
    )


def build_flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Euler steps on sigmas that are not shifted: 64 tokens need no more time at high noise."""
    return FlowMatchEulerDiscreteScheduler(shift=1.0)

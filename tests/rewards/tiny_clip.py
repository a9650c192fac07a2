"""A step-aware CLIP of a few thousand weights for images of 8 x 8 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPTokenizer

from seedpo.rewards.step_aware_clip import StepAwareCLIP
from tools.scenes.components import PROMPT_LENGTH, build_tokenizer

WIDTH = 16


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    return build_tokenizer(folder)


def tiny_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    return CLIPConfig(
        projection_dim=8,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": PROMPT_LENGTH,
            "projection_dim": 8,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
            "projection_dim": 8,
        },
    )


def tiny_model(tokenizer: CLIPTokenizer, *, seed: int = 0) -> StepAwareCLIP:
    torch.manual_seed(seed)
    return StepAwareCLIP(tiny_config(tokenizer))


@torch.no_grad()
def disturb(model: StepAwareCLIP, *, seed: int = 0) -> None:
    """Gives every modulation weights, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "adaLN" in name:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))

"""The untrained embedded scorer: a small CLIP configuration."""

from __future__ import annotations

from transformers import CLIPConfig, CLIPTokenizer

from seedpo.scenes.drawing import IMAGE_SIZE
from tools.scenes.components import PROMPT_LENGTH


def scorer_config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    """A vision tower of four layers on patches of 4 x 4 pixels and a text tower of two."""
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

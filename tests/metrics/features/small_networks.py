"""Small random networks in the files and with the settings of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPModel, Dinov2Config, Dinov2Model

from tests.rewards.tiny_clip import tiny_config, tiny_tokenizer

PREPARATION = {
    "crop_size": {"height": 28, "width": 28},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 32},
}
"""That of facebook/dinov2-small at an eighth of its size."""


def small_clip(folder: Path) -> Path:
    torch.manual_seed(3)
    CLIPModel(tiny_config(tiny_tokenizer(folder / "words"))).save_pretrained(folder)
    return folder


def small_dino(folder: Path) -> Path:
    torch.manual_seed(4)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION), encoding="utf-8")
    return folder

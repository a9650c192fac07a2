"""A whole pipeline in diffusers' format: base model and training in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from seedpo.files import write_folder_aside
from seedpo.models.adapter import forget_origin
from seedpo.models.loading import add_trained, load_base
from seedpo.training.settings import RunConfig


def export_pipeline(config: RunConfig, weights: Path, out: Path, *, half: bool) -> None:
    """The adapter added to the base model's weights in float32, or the trained network in their place."""
    pipeline: Any = load_base(config.model_copy(update={"base_precision": "full", "mixed_precision": "no"}))
    add_trained(pipeline, weights, adapter=config.adapter)
    if config.adapter == "lora":
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    if half:
        pipeline.to(dtype=torch.float16)
    with write_folder_aside(out) as aside:
        pipeline.save_pretrained(aside, safe_serialization=True)
        forget_origin(aside)

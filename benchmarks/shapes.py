"""Models in their published shapes, with random weights made on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import LORA_RANK, move
from seedpo.core.types import Conditioning
from seedpo.models.policy import PipelinePolicy
from seedpo.models.precision import autocast_dtype
from seedpo.models.settings import LoraForm
from seedpo.planning.configurations import model_configuration
from seedpo.planning.networks import build_policy
from seedpo.settings import Precision, build_config
from seedpo.training.settings import RunConfig

MODELS = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd35": "stabilityai/stable-diffusion-3.5-medium",
    "zimage": "Tongyi-MAI/Z-Image",
}
"""Hub ids of models whose configurations ship with the package."""

PROMPT = "a small red circle on a white background"

TINY_SIZE = 64
"""Pixels of a side."""

_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_CLIP = {**_TEXT, "projection_dim": 16}
_VAE = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4}

TINY: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "sd15": {
        "unet": {
            "block_out_channels": [8, 8, 16, 16],
            "attention_head_dim": 2,
            "cross_attention_dim": 16,
            "norm_num_groups": 4,
        },
        "vae": _VAE,
        "text_encoder": _TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [8, 16, 16],
            "attention_head_dim": [1, 2, 2],
            "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 32,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 64,
            "norm_num_groups": 4,
        },
        "vae": _VAE,
        "text_encoder": _TEXT,
        "text_encoder_2": _CLIP,
    },
    "sd35": {
        "transformer": {
            "num_layers": 2,
            "dual_attention_layers": [0],
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "caption_projection_dim": 16,
            "joint_attention_dim": 32,
            "pooled_projection_dim": 32,
            "pos_embed_max_size": 16,
            "sample_size": 8,
        },
        "vae": _VAE,
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
        "text_encoder_3": {"d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2},
    },
    "zimage": {
        "transformer": {
            "dim": 32,
            "n_heads": 2,
            "n_kv_heads": 2,
            "n_layers": 2,
            "n_refiner_layers": 1,
            "axes_dims": [4, 6, 6],
            "cap_feat_dim": 16,
        },
        "vae": _VAE,
        "text_encoder": {**_TEXT, "head_dim": 8, "num_key_value_heads": 1},
    },
}
"""What is made smaller to try the script where there is no GPU."""


@dataclass(frozen=True, kw_only=True)
class RandomModel:
    """A LoRA policy without text encoders: prompts come embedded, as from a cache.

    Attributes:
        policy: the policy.
        embedded: an embedded prompt of the model's shapes, one row without values.
    """

    policy: PipelinePolicy
    embedded: Conditioning

    def conditioning(self, rows: int, *, seed: int) -> Conditioning:
        """Random embedded prompts; masks leave nothing out, sizes and embedded guidance are the model's own."""
        policy, generator = self.policy, torch.Generator().manual_seed(seed)

        def values(name: str, like: Tensor) -> Tensor:
            shape = (rows, *like.shape[1:])
            if name == "guidance":
                return torch.full(shape, policy.prompt_form.guidance or 1.0)
            return (
                torch.randn(shape, generator=generator)
                if like.is_floating_point()
                else like.new_ones(shape, device="cpu")
            )

        made = {name: values(name, tensor) for name, tensor in self.embedded.tensors().items()}
        absent = {entry.name: None for entry in fields(self.embedded)}
        sizes = torch.tensor([*policy.image_size, 0, 0, *policy.image_size], dtype=torch.float32)
        conditioning = type(self.embedded)(**absent | made).to(policy.device)
        return conditioning.with_sizes(sizes.repeat(rows, 1))


def random_model(
    name: str, device: torch.device, *, precision: Precision, checkpointing: bool, tiny: bool = False
) -> RandomModel:
    """A model of :data:`MODELS` whose network and autoencoder are on the device, the frozen weights in the precision.

    Args:
        name: of the model.
        device: where the weights are made.
        precision: of the forward passes.
        checkpointing: whether few activations are kept.
        tiny: takes :data:`TINY`.
    """
    resolution = TINY_SIZE if tiny else None
    config = build_config(
        RunConfig,
        {"model": MODELS[name], "lora_rank": LORA_RANK, "mixed_precision": precision, "resolution": resolution},
    )
    model = model_configuration(config)
    smaller = TINY[name] if tiny else {}
    parts = {part: {**settings, **smaller.get(part, {})} for part, settings in model.parts.items()}
    shapes = build_policy(config, replace(model, parts=parts))
    pipeline, family = shapes.pipeline, model.family
    for encoder in family.text_encoders(pipeline):
        encoder.set_attn_implementation("eager")  # the usual one looks into its masks, and these have no values
    embedded = shapes.encode_prompts([PROMPT])
    with torch.device(device), torch.random.fork_rng(devices=[]), _default(autocast_dtype(precision)):
        torch.manual_seed(0)
        for part in (family.network, "vae"):
            configured = getattr(pipeline, part)
            setattr(pipeline, part, type(configured).from_config(configured.config))
    for part in family.text_parts:
        setattr(pipeline, part, nn.Identity())
    policy = PipelinePolicy(
        pipeline,
        adapter="lora",
        lora=LoraForm(rank=LORA_RANK),
        resolution=resolution,
        mixed_precision=precision,
        gradient_checkpointing=checkpointing,
    )
    policy.to(device)
    move(policy.trainable_parameters())
    return RandomModel(policy=policy, embedded=embedded)


@contextmanager
def _default(dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, floating-point tensors are made in this number format."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype or usual)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)

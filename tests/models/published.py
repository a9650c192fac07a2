"""Tiny untrained pipelines of the very classes of the published models: Stable Diffusion 1.5, 2.1 and XL. Seeded."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from seedpo.core.sampling import Sampler, Sampling
from seedpo.models.policy import PipelinePolicy
from tests.models.tiny import PROMPTS, seeded
from tools.scenes.components import build_tokenizer

KINDS = ("sd15", "sd21", "sdxl")

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "sd15": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "sd21": (DDIMScheduler, {"prediction_type": "v_prediction", "clip_sample": False, "steps_offset": 1}),
    "sdxl": (EulerDiscreteScheduler, {"timestep_spacing": "leading", "steps_offset": 1}),
}

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"cross_attention_dim": 32, "attention_head_dim": 2},
    "sd21": {"cross_attention_dim": 32, "attention_head_dim": (2, 4), "use_linear_projection": True},
    "sdxl": {
        "cross_attention_dim": 32 + 24,
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 24 + 6 * 8,
    },
}


def text_encoder(tokenizer: Any, kind: type, *, width: int, **changes: Any) -> Any:
    # CLIP's own spread of initial weights would make all prompts alike in so small an encoder.
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=2.0,
        **changes,
    )
    return kind(config)


@cache
def _parts(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        tokenizer = build_tokenizer(Path(folder))
        parts = {
            "tokenizer": tokenizer,
            "text_encoder": text_encoder(
                tokenizer, CLIPTextModel, width=32, hidden_act="gelu" if kind == "sd21" else "quick_gelu"
            ),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 16),
                latent_channels=4,
                norm_num_groups=4,
                sample_size=16,
            ),
            "unet": UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                block_out_channels=(8, 16),
                layers_per_block=1,
                norm_num_groups=4,
                **UNETS[kind],
            ),
        }
        if kind == "sdxl":
            parts["tokenizer_2"] = tokenizer
            parts["text_encoder_2"] = text_encoder(tokenizer, CLIPTextModelWithProjection, width=24, hidden_act="gelu")
        return parts


def pipeline_of(kind: str, **changes: Any) -> Any:
    """A pipeline whose parts are its own, with the scheduler that its published model comes with."""
    parts = {name: part if "tokenizer" in name else deepcopy(part) for name, part in _parts(kind).items()}
    scheduler, settings = SCHEDULERS[kind]
    parts["scheduler"] = scheduler(**NOISE, **settings)
    if kind == "sdxl":
        pipeline = StableDiffusionXLPipeline(**parts, add_watermarker=False, **changes)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False, **changes
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn_by_diffusers(pipeline: Any, latents: Tensor, *, guidance_scale: float = 3.0) -> Tensor:
    """Images as diffusers' own call draws them with DDIM and eta 0."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    height, width = (size * pipeline.vae_scale_factor for size in latents.shape[-2:])
    images: Tensor = pipeline(
        list(PROMPTS),
        height=height,
        width=width,
        latents=latents,
        guidance_scale=guidance_scale,
        num_inference_steps=4,
        eta=0.0,
        output_type="pt",
    ).images
    return images


def drawn_by_policy(policy: PipelinePolicy, latents: Tensor, *, guidance_scale: float = 3.0) -> Tensor:
    sampler = Sampler(policy, Sampling(num_inference_steps=4, guidance_scale=guidance_scale))
    clean = sampler.sample(latents, policy.encode_prompts(PROMPTS), policy.encode_prompts([""] * len(PROMPTS)))
    return policy.decode(clean)


def some_latents(policy: PipelinePolicy, *, seed: int = 0) -> Tensor:
    return torch.randn(len(PROMPTS), *policy.latent_shape, generator=seeded(seed))

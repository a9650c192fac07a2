"""Stable Diffusion 1.5 and XL in their published shapes, with random weights made on the device."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from benchmarks.networks import LORA_RANK, TOKENS, move
from seedpo.core.types import Conditioning
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from seedpo.planning.configurations import published
from seedpo.settings import Precision

MODELS = {"sd15": "stable-diffusion-v1-5", "sdxl": "stable-diffusion-xl-base-1.0"}
"""Names of the configurations that ship with the package."""

_TINY_TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}

TINY: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {
        "unet": {
            "block_out_channels": [8, 8, 16, 16],
            "attention_head_dim": 2,
            "cross_attention_dim": 16,
            "norm_num_groups": 4,
            "sample_size": 8,
        },
        "vae": {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4},
        "text_encoder": _TINY_TEXT,
    },
    "sdxl": {
        "unet": {
            "block_out_channels": [8, 16, 16],
            "attention_head_dim": [1, 2, 2],
            "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 16,
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 64,
            "norm_num_groups": 4,
            "sample_size": 8,
        },
        "vae": {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4},
        "text_encoder": _TINY_TEXT,
        "text_encoder_2": _TINY_TEXT,
    },
}
"""What is made smaller to try the script where there is no GPU."""


def random_policy(
    name: str, device: torch.device, *, precision: Precision, checkpointing: bool, tiny: bool = False
) -> PipelinePolicy:
    """A LoRA policy without tokenizers: prompts come embedded, see :func:`random_conditioning`.

    Args:
        name: ``sd15`` or ``sdxl``.
        device: where the weights are made.
        precision: of the forward passes.
        checkpointing: whether few activations are kept.
        tiny: takes :data:`TINY`.
    """
    parts = published(MODELS[name])
    family = FAMILIES.load(parts.pop("_class_name"))
    smaller = TINY[name] if tiny else {}
    parts = {part: {**settings, **smaller.get(part, {})} for part, settings in parts.items()}
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks: dict[str, Any] = {
            "unet": UNet2DConditionModel.from_config(parts["unet"]),
            "vae": AutoencoderKL.from_config(parts["vae"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**parts["text_encoder"])),
        }
        if "text_encoder_2" in parts:
            networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**parts["text_encoder_2"]))
    tokenizers = (text.replace("text_encoder", "tokenizer") for text in family.text_parts)
    unloaded = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = family.pipeline(
        **networks,
        **dict.fromkeys(tokenizers),
        **({} if "text_encoder_2" in parts else unloaded),
        scheduler=DDIMScheduler.from_config(parts["scheduler"]),
    )
    policy = PipelinePolicy(
        pipeline,
        adapter="lora",
        lora=LoraForm(rank=LORA_RANK),
        mixed_precision=precision,
        gradient_checkpointing=checkpointing,
    )
    policy.to(device)
    move(policy.trainable_parameters())
    return policy


def random_conditioning(policy: PipelinePolicy, rows: int, *, seed: int) -> Conditioning:
    """Embedded prompts of the model's shapes."""
    generator, settings = torch.Generator().manual_seed(seed), policy.pipeline.unet.config
    embeds = torch.randn(rows, TOKENS, settings.cross_attention_dim, generator=generator).to(policy.device)
    if settings.addition_embed_type != "text_time":
        return TextConditioning(prompt_embeds=embeds)
    sizes = torch.tensor([*policy.image_size, 0, 0, *policy.image_size], dtype=torch.float32, device=policy.device)
    pooled = settings.projection_class_embeddings_input_dim - len(sizes) * settings.addition_time_embed_dim
    return TextConditioning(
        prompt_embeds=embeds,
        pooled_prompt_embeds=torch.randn(rows, pooled, generator=generator).to(policy.device),
        time_ids=sizes.repeat(rows, 1),
    )

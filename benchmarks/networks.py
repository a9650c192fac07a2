"""A pipeline of Stable Diffusion's classes, small enough for a CPU, with costs in the proportions of the real one."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.flow_networks import FLOW_SMALL, FLOW_TINY, FlowShape
from seedpo.models.families import family_of
from seedpo.models.policy import PipelinePolicy
from seedpo.models.settings import LoraForm
from tools.scenes.components import build_scheduler, build_tokenizer

LORA_RANK = 4
TOKENS = 77


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the small networks.

    Attributes:
        latents: height and width of latents; images are 8 times as large.
        unet: channels of the UNet's four levels.
        heads: attention heads of the four levels.
        autoencoder: channels of the autoencoder's four levels.
        text_width: width of the text encoder.
        flow: sizes of the small flow-matching pipeline.
    """

    latents: int = 32
    unet: tuple[int, ...] = (64, 128, 256, 256)
    heads: tuple[int, ...] = (1, 2, 4, 4)
    # One image costs 1.4 times the FLOPs of one forward of the UNet, as for Stable Diffusion 1.5 at 512 px.
    autoencoder: tuple[int, ...] = (32, 64, 64, 64)
    text_width: int = 64
    flow: FlowShape = FLOW_SMALL


SMALL = Shape()
TINY = Shape(
    latents=8, unet=(8, 8, 16, 16), heads=(1, 1, 2, 2), autoencoder=(8, 8, 8, 8), text_width=16, flow=FLOW_TINY
)
"""For trying the benchmark itself."""


def small_pipeline(shape: Shape = SMALL, *, seed: int = 0) -> StableDiffusionPipeline:
    """Seeded random weights in the block types of Stable Diffusion 1.5."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer(Path(folder))
        tokenizer.model_max_length = TOKENS
        unet = UNet2DConditionModel(
            sample_size=shape.latents,
            block_out_channels=shape.unet,
            layers_per_block=1,
            attention_head_dim=shape.heads,
            cross_attention_dim=shape.text_width,
            norm_num_groups=min(32, shape.unet[0]),
        )
        # A fresh output layer is as large as any other; a trained one predicts noise of size 1: log-ratios stay small.
        unet.conv_out.weight.data.mul_(0.5)
        pipeline = StableDiffusionPipeline(
            unet=unet,
            vae=AutoencoderKL(
                block_out_channels=shape.autoencoder,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=1,
                norm_num_groups=8,
            ),
            text_encoder=_text_encoder(tokenizer, shape.text_width),
            tokenizer=tokenizer,
            scheduler=build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


@torch.no_grad()
def move(parameters: dict[str, nn.Parameter], *, scale: float = 0.01, seed: int = 5) -> None:
    """Moves trained weights by seeded noise, so that the policy is no longer its reference."""
    generator = torch.Generator().manual_seed(seed)
    for value in parameters.values():
        value.add_(scale * torch.randn(value.shape, generator=generator).to(value))


def ours(pipeline: Any, *, checkpointing: bool = False, tokens: int | None = None) -> PipelinePolicy:
    """A LoRA policy whose adapter has moved.

    Args:
        pipeline: a small one.
        checkpointing: whether it keeps few activations and computes the others again.
        tokens: of the longest text encoder, where there is a choice.
    """
    policy = PipelinePolicy(
        pipeline,
        adapter="lora",
        lora=LoraForm(rank=LORA_RANK),
        gradient_checkpointing=checkpointing,
        max_sequence_length=tokens,
    )
    move(policy.trainable_parameters())
    return policy


def with_copy(pipeline: Any) -> tuple[Any, Any]:
    """The pipeline's network with the same adapter, and a deep copy as the reference."""
    reference = deepcopy(getattr(pipeline, family_of(pipeline).network)).requires_grad_(False).eval()
    return ours(pipeline).network, reference


def gradient(parameters: dict[str, nn.Parameter]) -> Tensor:
    """All gradients in one vector; they are cleared."""
    values = [value.grad for value in parameters.values()]
    vector = torch.cat([value.flatten() for value in values if value is not None])
    for value in parameters.values():
        value.grad = None
    return vector


def trained(unet: Any) -> dict[str, nn.Parameter]:
    """Parameters that are trained."""
    return {name: value for name, value in unet.named_parameters() if value.requires_grad}

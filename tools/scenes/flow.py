"""Training of the embedded flow-matching transformer together with its text encoders."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel
from diffusers.models.attention_processor import JointAttnProcessor2_0
from torch import Tensor, nn
from tqdm import trange
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from seedpo.scenes.drawing import RADIUS
from tools.scenes.autoencoder import PRACTICE_RADIUS, cosine_rate
from tools.scenes.components import build_flow_text_encoder, build_flow_transformer
from tools.scenes.denoiser import POOL_SIZE, PROMPT_DROPOUT, encode_pool, tokenize, update_average
from tools.scenes.repeated_pad import RepeatedPad

LARGEST_PAD = 512
"""Most zero tokens that :class:`diffusers.StableDiffusion3Pipeline` appends to the text where it has no T5."""

MUON_RATE, ADAMW_RATE = 3e-3, 1.5e-3
"""Peaks of the learning rates: of the blocks' matrices, and of everything else."""

WARMUP = 200
"""Optimiser steps over which the learning rates rise."""


@dataclass(frozen=True, kw_only=True)
class FlowPhase:
    """A part of the training.

    Attributes:
        radius: sizes that are drawn.
        steps: optimiser steps.
    """

    radius: Mapping[str, tuple[float, float]]
    steps: int


PHASES = (FlowPhase(radius=PRACTICE_RADIUS, steps=1700), FlowPhase(radius=RADIUS, steps=2300))
"""First practice drawings, then the world's own."""

HORIZON = 5000
"""Optimiser steps over which the learning rates would fall to a hundredth. Averaged weights are good before that."""


class FlowNetworks(nn.Module):
    """A transformer of Stable Diffusion 3 and its two text encoders, trained with zero tokens of any number.

    Attributes:
        transformer: predicts the velocity.
        encoders: both text encoders.
        pad: attention of the transformer's blocks.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        encoders = [build_flow_text_encoder(tokenizer) for _ in range(2)]
        self.transformer: SD3Transformer2DModel = build_flow_transformer().train()
        self.encoders = nn.ModuleList(encoders)
        self.pad = RepeatedPad()
        for block in self.transformer.transformer_blocks:
            block.attn.set_processor(self.pad)

    def embed(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """States (B, L + 1, 2 W), the last token zeros, and pooled embeddings (B, 2 W), as the pipeline joins them."""
        outputs = [encoder(ids, output_hidden_states=True) for encoder in self.encoders]
        states = torch.cat([output.hidden_states[-2] for output in outputs], -1)
        pooled = torch.cat([output.text_embeds for output in outputs], -1)
        return F.pad(states, (0, 0, 0, 1)), pooled

    def finished(self) -> tuple[SD3Transformer2DModel, list[CLIPTextModelWithProjection]]:
        """Transformer, with its usual attention again, and text encoders."""
        for block in self.transformer.transformer_blocks:
            block.attn.set_processor(JointAttnProcessor2_0())
        return self.transformer, list(self.encoders)


def draw_pads(count: int, generator: torch.Generator) -> Tensor:
    """Logarithms (B,) of numbers of zero tokens: one in half of the rows, else log-uniform up to the largest."""
    uniform, coin = torch.rand(2, count, generator=generator)
    return torch.where(coin < 0.5, 0.0, uniform * math.log(LARGEST_PAD))


def velocity_error(networks: FlowNetworks, clean: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Mean squared error of the velocity.

    The noise level sigma is logit-normal (arXiv 2403.03206, sec. 3.1) and not shifted.

    Args:
        networks: what is trained.
        clean: latents (B, C, h, w).
        ids: tokens of their prompts (B, L).
        generator: of the noise, the levels and the numbers of zero tokens.
    """
    noise = torch.randn(clean.shape, generator=generator)
    sigma = torch.randn(len(clean), generator=generator).sigmoid()
    level = sigma.view(-1, 1, 1, 1)
    networks.pad.log_count = draw_pads(len(clean), generator)
    states, pooled = networks.embed(ids)
    velocity = networks.transformer(
        (1 - level) * clean + level * noise,
        encoder_hidden_states=states,
        pooled_projections=pooled,
        timestep=1000 * sigma,
        return_dict=False,
    )[0]
    error: Tensor = (velocity - (noise - clean)).square().mean()
    return error


def flow_optimizers(networks: FlowNetworks) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer's blocks, AdamW for everything else; each keeps its peak rate."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, value in networks.named_parameters():
        (matrices if "transformer_blocks" in name and value.ndim == 2 else rest).append(value)
    return [
        torch.optim.Muon([{"params": matrices, "peak": MUON_RATE}], lr=MUON_RATE, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([{"params": rest, "peak": ADAMW_RATE}], lr=ADAMW_RATE, betas=(0.9, 0.99), weight_decay=1e-2),
    ]


def training_batches(
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    phases: Sequence[FlowPhase],
    *,
    batch_size: int,
    pool_size: int,
    generator: torch.Generator,
    progress: bool,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Latents (B, C, h, w) and token ids (B, L) of every step; some prompts are replaced by the empty one."""
    empty = tokenize(tokenizer, [""])[0]
    for phase in phases:
        latents, tokens = encode_pool(
            autoencoder, tokenizer, size=pool_size, radius=phase.radius, generator=generator, progress=progress
        )
        latents = latents - autoencoder.config.shift_factor * autoencoder.config.scaling_factor
        for _ in range(phase.steps):
            rows = torch.randint(len(latents), (batch_size,), generator=generator)
            ids = tokens[rows]
            ids[torch.rand(batch_size, generator=generator) < PROMPT_DROPOUT] = empty
            yield latents[rows], ids


def train_flow(
    autoencoder: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    phases: Sequence[FlowPhase] = PHASES,
    *,
    batch_size: int = 96,
    pool_size: int = POOL_SIZE,
    seed: int = 0,
    progress: bool = True,
) -> tuple[SD3Transformer2DModel, list[CLIPTextModelWithProjection]]:
    """Trains a transformer and two text encoders by rectified flow; returns their averaged weights.

    Args:
        autoencoder: the trained autoencoder; its latents are shifted and scaled as its configuration says.
        tokenizer: the world's tokenizer.
        phases: what is drawn, and how long.
        batch_size: latents per step.
        pool_size: drawings of each phase that are encoded once and then drawn from, in 256s.
        seed: of the weights, the drawings, the noise and the levels.
        progress: whether to show a progress bar.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    networks = FlowNetworks(tokenizer)
    average = deepcopy(networks).eval().requires_grad_(False)
    optimizers = flow_optimizers(networks)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    batches = training_batches(
        autoencoder,
        tokenizer,
        phases,
        batch_size=batch_size,
        pool_size=pool_size,
        generator=generator,
        progress=progress,
    )
    bar = trange(sum(phase.steps for phase in phases), desc="flow", disable=not progress)
    running = 2.0
    for step, (clean, ids) in zip(bar, batches, strict=True):
        for group in groups:
            group["lr"] = cosine_rate(step, HORIZON, peak=group["peak"], warmup=WARMUP)
        loss = velocity_error(networks, clean, ids, generator)
        networks.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        update_average(average, networks, step=step)
        running += 0.02 * (loss.item() - running)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{running:.4f}")
    return average.finished()

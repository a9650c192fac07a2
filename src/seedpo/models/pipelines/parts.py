"""What families of flow-matching pipelines share: levels of the sampler, sizes, packing, token ids."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from seedpo.core.flow import FlowProcess
from seedpo.core.types import Conditioning
from seedpo.errors import ConfigError, DataError
from seedpo.models.families import Size, widened

CLIP_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Layers of a CLIP text encoder that can carry a LoRA."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Projections of attention in diffusers' networks."""

JOINT_ATTENTION = (*ATTENTION, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""The same where text has projections of its own."""

Mu = Callable[[int], float]
"""The logarithm of a dynamic shift, from the number of steps."""


def evenly(count: int) -> list[float]:
    """The levels 1 to 1 / N that most pipelines hand to their scheduler."""
    levels: list[float] = np.linspace(1.0, 1 / count, count).tolist()
    return levels


def flow_process(
    pipeline: Any,
    *,
    scheduler: FlowMatchEulerDiscreteScheduler | None = None,
    mu: Mu | None = None,
    sigmas: Callable[[int], list[float]] | None = None,
    always_dynamic: bool = False,
    **options: Any,
) -> FlowProcess:
    """The process of a pipeline, with the levels that its own scheduler visits.

    Args:
        pipeline: with a :class:`FlowMatchEulerDiscreteScheduler`.
        scheduler: in place of a copy of the pipeline's, where that is of another class; it is changed.
        mu: logarithm of the shift, where the scheduler shifts dynamically.
        sigmas: levels that the pipeline hands to the scheduler; ``None``: it leaves them to the scheduler.
        always_dynamic: whether a scheduler that does not shift by image size is refused.
        options: other fields of the process.

    Raises:
        DataError: if the scheduler is of another class, or shifts otherwise than the family does.
    """
    scheduler = _flow_scheduler(pipeline) if scheduler is None else scheduler
    dynamic = bool(scheduler.config.use_dynamic_shifting)
    if (dynamic and mu is None) or (always_dynamic and not dynamic):
        raise DataError(
            f"the scheduler of this {type(pipeline).__name__} has use_dynamic_shifting = {str(dynamic).lower()}, the "
            f"model's own {str(not dynamic).lower()}; take the scheduler_config.json that was published with it"
        )

    @cache
    def levels(count: int) -> Tensor:
        if count == 1 and scheduler.config.shift_terminal:
            raise ValueError("the scheduler's shift_terminal needs two steps or more")
        scheduler.set_timesteps(
            count,
            sigmas=None if sigmas is None else sigmas(count),
            mu=mu(count) if dynamic and mu is not None else None,
        )
        reached: Tensor = scheduler.sigmas.clone()
        return reached

    shift = math.exp(mu(USUAL_STEPS)) if dynamic and mu is not None else float(scheduler.shift)
    return FlowProcess(levels=levels, shift=shift, **options)


USUAL_STEPS = 50
"""Steps for which the shift of a density is taken, where it depends on them (FLUX.2)."""


def _flow_scheduler(pipeline: Any) -> Any:
    """A copy of a pipeline's scheduler."""
    own = pipeline.scheduler
    if not isinstance(own, FlowMatchEulerDiscreteScheduler):
        raise DataError(
            f"a {type(pipeline).__name__} with {type(own).__name__} cannot be used: its levels are not those of flow "
            "matching; take the scheduler_config.json that was published with the model"
        )
    if own.config.invert_sigmas:
        raise DataError(
            f"the scheduler of this {type(pipeline).__name__} counts from noise to image (invert_sigmas), which this "
            "family does not; take the scheduler_config.json that was published with the model"
        )
    return FlowMatchEulerDiscreteScheduler.from_config(own.config)


def linear_mu(scheduler: Any, tokens: int, **missing: float) -> float:
    """The logarithm of a dynamic shift for a number of image tokens, as the pipelines compute it.

    Args:
        scheduler: its configuration gives the line; ``missing`` what it does not say.
        tokens: of one image.
        missing: ``base_image_seq_len``, ``max_image_seq_len``, ``base_shift`` and ``max_shift``.
    """
    usual = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15, **missing}
    said = {key: scheduler.config.get(key, value) for key, value in usual.items()}
    slope = (said["max_shift"] - said["base_shift"]) / (said["max_image_seq_len"] - said["base_image_seq_len"])
    return float(tokens * slope + said["base_shift"] - slope * said["base_image_seq_len"])


def image_size(resolution: int | Size | None, *, usual: int, multiple: int) -> Size:
    """Height and width of images.

    Args:
        resolution: side, or height and width, that the user set, if any.
        usual: the model's own side.
        multiple: pixels of one token's side.

    Raises:
        ConfigError: if the size is no multiple.
    """
    size = usual if resolution is None else resolution
    height, width = (size, size) if isinstance(size, int) else size
    if height % multiple or width % multiple or min(height, width) <= 0:
        said = f"resolution = {size}" if isinstance(size, int) else f"size {height}x{width}"
        near = [max(multiple, round(side / multiple) * multiple) for side in (height, width)]
        raise ConfigError(
            f"{said} must be a multiple of {multiple}, this model's pixels per token; the nearest is "
            f"{near[0] if isinstance(size, int) else 'x'.join(map(str, near))}"
        )
    return height, width


def latent_shape(pipeline: Any, size: Size, *, cells: int = 1) -> tuple[int, ...]:
    """Shape (C, h, w) of the latents of one image of a size.

    Args:
        pipeline: its transformer's input channels and its autoencoder's factor are read.
        size: height and width of the image, in pixels.
        cells: latent cells whose channels the transformer takes side by side.
    """
    factor = pipeline.vae_scale_factor
    return pipeline.transformer.config.in_channels // cells, size[0] // factor, size[1] // factor


def packed(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as tokens of 2 x 2 cells: (B, h w / 4, 4 C)."""
    rows, channels, height, width = latents.shape
    cells = latents.view(rows, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(rows, (height // 2) * (width // 2), channels * 4)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`packed` for latents of h x w."""
    rows, _, width_of_token = tokens.shape
    cells = tokens.view(rows, height // 2, width // 2, width_of_token // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(rows, width_of_token // 4, height, width)


def token_ids(tokenizer: Any, prompts: Sequence[str], length: int) -> Tensor:
    """Token ids (B, length), padded and cut."""
    tokens = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: Tensor = tokens.input_ids
    return ids


@dataclass(frozen=True, kw_only=True)
class MaskedPrompts(Conditioning):
    """Embedded prompts of different lengths.

    Attributes:
        prompt_embeds: (B, L, D), in the text encoder's number format; zeros behind the end of a prompt.
        mask: which of them are tokens of the prompt, (B, L) bool; these come first.
    """

    prompt_embeds: Tensor
    mask: Tensor

    def lengths(self) -> list[int]:
        """Tokens of each prompt; all L where tensors have no values (on the meta device)."""
        rows, length = self.mask.shape
        return [length] * rows if self.mask.is_meta else self.mask.sum(1).tolist()


@dataclass(frozen=True, kw_only=True)
class MaskedTokens(Conditioning):
    """Prompts of different lengths as the tokenizer reads them, behind P tokens of an instruction.

    Attributes:
        ids: (B, P + L) int64.
        mask: which of the last L are tokens of the prompt, (B, L) bool; these come first.
    """

    ids: Tensor
    mask: Tensor

    def attention_mask(self) -> Tensor:
        """What a language model attends to, (B, P + L) bool."""
        return F.pad(self.mask, (self.ids.shape[1] - self.mask.shape[1], 0), value=True)

    def embedded(self, states: Tensor) -> MaskedPrompts:
        """The prompts, from a language model's hidden states (B, P + L, D)."""
        own = states[:, -self.mask.shape[1] :]
        return MaskedPrompts(prompt_embeds=own.masked_fill(~self.mask.unsqueeze(-1), 0.0), mask=self.mask)


def masked_tokens(
    tokenizer: Any, template: Callable[[str], str], prompts: Sequence[str], length: int, *, lead: int = 0
) -> MaskedTokens:
    """Reads B prompts.

    Args:
        tokenizer: of a language model.
        template: what the model reads for a prompt.
        prompts: B.
        length: L; what is longer is cut.
        lead: P, tokens of an instruction that all texts begin with.

    Raises:
        ConfigError: if even the empty prompt's text fills the length.
    """
    if len(tokenizer.encode(template(""))) >= lead + length:
        raise ConfigError(
            f"max_sequence_length = {length} leaves no room for a prompt: what this model's text encoder reads around "
            "it takes as much; set it higher, 512 is usual"
        )
    tokens = tokenizer(
        [template(prompt) for prompt in prompts],
        padding="max_length",
        padding_side="right",
        max_length=lead + length,
        truncation=True,
        return_tensors="pt",
    )
    return MaskedTokens(ids=tokens.input_ids, mask=tokens.attention_mask[:, lead:].bool())


def t5_states(encoder: Any, ids: Tensor) -> Tensor:
    """The last states of a T5 for token ids (B, L): (B, L, D), in float32 or wider.

    Without autocast: in float16 it would overflow, and transformers therefore keeps some layers in float32.
    """
    device = encoder.device
    with nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False):
        return widened(encoder(ids.to(device))[0])


_FEW_STEPS = re.compile(r"(?<![a-z])(turbo|lightning|lcm|hyper|schnell|dmd2?)(?![a-z])", re.IGNORECASE)
"""What models that draw in one to eight steps are called."""


def few_step_name(pipeline: Any) -> str | None:
    """Why a pipeline must not be trained, if its name says that it was distilled to a few steps; nothing else may."""
    name = PurePosixPath(pipeline.config.get("_name_or_path") or "").name.partition("@")[0]
    match = _FEW_STEPS.search(name)
    if match is None:
        return None
    return (
        f"its name ({name}) says {match[0]}: made to draw in a few steps, which training blurs; "
        "train the model that it was made from, or name the folder otherwise if it is none"
    )

"""The batches that travel between sources, methods and models: frozen, keyword-only, with shapes.

B is the number of rows (pairs, transitions or images), C x H x W a latent image, L x D an embedded prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TypeVar

import torch
from torch import Tensor

Rows = TypeVar("Rows", bound="TensorRows")


@dataclass(frozen=True, kw_only=True)
class TensorRows:
    """A record whose tensors (and nested records) share their first axis."""

    def _map(self: Rows, function: Callable[[Tensor], Tensor]) -> Rows:
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return type(self)(
            **{
                name: value._map(function)
                if isinstance(value, TensorRows)
                else function(value)
                if isinstance(value, Tensor)
                else value
                for name, value in values.items()
            }
        )

    def __len__(self) -> int:
        value = getattr(self, fields(self)[0].name)
        return len(value)

    def __getitem__(self: Rows, index: Tensor | slice) -> Rows:
        """The chosen rows, as a record of the same kind."""
        return self._map(lambda tensor: tensor[index])

    def to(self: Rows, device: torch.device | str) -> Rows:
        """The same rows on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def repeat_interleave(self: Rows, repeats: int) -> Rows:
        """Every row ``repeats`` times in succession."""
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, 0))

    @classmethod
    def cat(cls: type[Rows], parts: Sequence[Rows]) -> Rows:
        """Joins records of this kind along the first axis."""
        joined: dict[str, object] = {}
        for entry in fields(cls):
            values = [getattr(part, entry.name) for part in parts]
            first = values[0]
            if isinstance(first, TensorRows):
                joined[entry.name] = type(first).cat(values)
            elif isinstance(first, Tensor):
                joined[entry.name] = torch.cat(values)
            else:
                joined[entry.name] = first
        return cls(**joined)


@dataclass(frozen=True, kw_only=True)
class Conditioning(TensorRows):
    """Embedded prompts.

    Attributes:
        prompt_embeds: one embedded prompt per row, (B, L, D).
        pooled_prompt_embeds: pooled embedding for models that take one (SDXL), (B, P).
        time_ids: size and crop conditioning for models that take it (SDXL), (B, 6).
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    time_ids: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePairs(TensorRows):
    """Pairs of images of one prompt, the first preferred.

    Attributes:
        chosen_latents: clean latents of the preferred images, (B, C, H, W).
        rejected_latents: clean latents of the other images, (B, C, H, W).
        conditioning: the embedded prompts.
        chosen_probability: probability that the first is preferred, (B,); 0.5 is a tie; none: 1 throughout.
        pair: number of the pair in its set, (B,) int64; with ``visit`` it keys what is drawn for the pair.
        visit: how often the pair was handed out before, (B,) int64.
        content: SHA-256 of all that latents and conditioning were made from, (B, 32) uint8; none: not known.
    """

    chosen_latents: Tensor
    rejected_latents: Tensor
    conditioning: Conditioning
    chosen_probability: Tensor | None = None
    pair: Tensor | None = None
    visit: Tensor | None = None
    content: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TransitionPairs(TensorRows):
    """Pairs of denoising steps taken at the same time step, the first preferred.

    Attributes:
        timestep: time step of the noisier latents, (B,) int64.
        previous_timestep: time step of the less noisy latents, (B,) int64.
        chosen_latents: x_t of the preferred step, (B, C, H, W).
        rejected_latents: x_t of the other step, (B, C, H, W); equal to ``chosen_latents`` where both share it.
        chosen_next_latents: x_{t-1} of the preferred step, (B, C, H, W).
        rejected_next_latents: x_{t-1} of the other step, (B, C, H, W).
        conditioning: the embedded prompts.
        negative_conditioning: the embedded negative prompts for classifier-free guidance.
        chosen_reference_log_prob: log reference of the preferred step, summed, in nats, (B,) float64; none: not known.
        rejected_reference_log_prob: the same of the other step, (B,) float64.
    """

    timestep: Tensor
    previous_timestep: Tensor
    chosen_latents: Tensor
    rejected_latents: Tensor
    chosen_next_latents: Tensor
    rejected_next_latents: Tensor
    conditioning: Conditioning
    negative_conditioning: Conditioning
    chosen_reference_log_prob: Tensor | None = None
    rejected_reference_log_prob: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TransitionGroups:
    """Denoising steps, each once, and the pairs that are made of them: S latents, N steps from them, P pairs of steps.

    Attributes:
        latents: x_t, each once, (S, C, H, W).
        timestep: time step of each x_t, (S,) int64.
        previous_timestep: time step that the steps from it lead to, (S,) int64.
        conditioning: the embedded prompts, S rows.
        negative_conditioning: the embedded negative prompts for classifier-free guidance, S rows.
        next_latents: x_{t-1} of every step, (N, C, H, W).
        start: row of ``latents`` from which each step starts, (N,) int64.
        chosen: step that is the preferred side of each pair, (P,) int64.
        rejected: step that is the other side, (P,) int64.
        reference_log_prob: log reference of every step, summed, in nats, (N,) float64; none: not known.
    """

    latents: Tensor
    timestep: Tensor
    previous_timestep: Tensor
    conditioning: Conditioning
    negative_conditioning: Conditioning
    next_latents: Tensor
    start: Tensor
    chosen: Tensor
    rejected: Tensor
    reference_log_prob: Tensor | None = None

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.chosen)


@dataclass(frozen=True, kw_only=True)
class Trajectory(TensorRows):
    """A whole denoising trajectory of T steps for B rows.

    Attributes:
        latents: x_T first and the clean latents last, (B, T + 1, C, H, W).
        timesteps: time step of each x_t, (B, T) int64, descending.
        previous_timesteps: time step reached from each x_t, (B, T) int64; negative where it is the clean image.
        log_probs: log-density of each step under the network that drew it, summed, in nats, (B, T); NaN where the step
            is deterministic.
    """

    latents: Tensor
    timesteps: Tensor
    previous_timesteps: Tensor
    log_probs: Tensor


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a method says of a batch.

    Attributes:
        losses: one loss per pair, (B,), with gradient; the caller reduces.
        metrics: one value per pair and name, (B,), without gradient; the caller averages.
        spreads: names in ``metrics`` whose standard deviation is logged beside the mean.
    """

    losses: Tensor
    metrics: Mapping[str, Tensor]
    spreads: tuple[str, ...] = field(default=())

"""What a roll-out made: latents, the steps between them, and pairs of steps, each kept once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedpo.core.types import TransitionGroups, TransitionPairs
from seedpo.methods.sources.embeddings import PromptEmbeddings


@dataclass(frozen=True, kw_only=True)
class RolledPairs:
    """Pairs of denoising steps by number: S latents, N steps between them, P pairs of steps.

    Latents, steps and prompts that several pairs share are held once, and prompts as text: an embedded prompt of SDXL
    takes more memory than the latents of a pair.

    Attributes:
        latents: (S, C, H, W).
        start: row of ``latents`` at which each step starts, (N,) int64. Steps that start at one row have one time step
            and one prompt.
        end: row of ``latents`` at which each step ends, (N,) int64.
        timestep: time step at the start of each step, (N,) int64.
        previous_timestep: time step at its end, (N,) int64.
        prompt: row of ``prompts`` of each step, (N,) int64.
        reference_log_prob: log reference of each step, summed, in nats, (N,) float64; none: not known.
        chosen: step that is the preferred side of each pair, (P,) int64.
        rejected: step that is the other side, (P,) int64.
        unit: pairs with the same number are handed out together, (P,) int64, from 0 without gaps.
        prompts: the prompts.
    """

    latents: Tensor
    start: Tensor
    end: Tensor
    timestep: Tensor
    previous_timestep: Tensor
    prompt: Tensor
    reference_log_prob: Tensor | None = None
    chosen: Tensor
    rejected: Tensor
    unit: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.chosen)

    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1 if len(self) else 0

    def select(self, pairs: Tensor) -> RolledPairs:
        """Some pairs, (P',) int64, with the steps, latents and prompts that they need and no other.

        A pair may be named more than once. Units are numbered anew, in their old order.
        """
        chosen, rejected = self.chosen[pairs], self.rejected[pairs]
        steps, step = torch.unique(torch.cat([chosen, rejected]), return_inverse=True)
        rows, row = torch.unique(torch.cat([self.start[steps], self.end[steps]]), return_inverse=True)
        prompts, prompt = torch.unique(self.prompt[steps], return_inverse=True)
        return RolledPairs(
            latents=self.latents[rows],
            start=row[: len(steps)],
            end=row[len(steps) :],
            timestep=self.timestep[steps],
            previous_timestep=self.previous_timestep[steps],
            prompt=prompt,
            reference_log_prob=None if self.reference_log_prob is None else self.reference_log_prob[steps],
            chosen=step[: len(pairs)],
            rejected=step[len(pairs) :],
            unit=torch.unique(self.unit[pairs], return_inverse=True)[1],
            prompts=tuple(self.prompts[index] for index in prompts.tolist()),
        )

    def with_latents_on(self, device: torch.device | str) -> RolledPairs:
        """The same with the latents on another device; numbers stay on the CPU."""
        return replace(self, latents=self.latents.to(device))

    def starts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every x_t at which a step starts, once.

        Returns:
            Its row of ``latents`` (S',), the first step from it (S',), and for every step which of them it starts at
            (N,).
        """
        rows, start = torch.unique(self.start, return_inverse=True)
        first = torch.full_like(rows, len(start)).scatter_reduce(0, start, torch.arange(len(start)), "amin")
        return rows, first, start


def join(parts: Sequence[RolledPairs]) -> RolledPairs:
    """Several roll-outs, or parts of one, as one; their units follow each other."""
    prompts = tuple(dict.fromkeys(prompt for part in parts for prompt in part.prompts))
    number = {prompt: index for index, prompt in enumerate(prompts)}

    def if_known(name: str) -> Tensor | None:
        known = [value for value in (getattr(part, name) for part in parts) if value is not None]
        return torch.cat(known) if len(known) == len(parts) else None

    def numbers(name: str, counts: Sequence[int]) -> Tensor:
        offsets = [sum(counts[:index]) for index in range(len(counts))]
        return torch.cat([getattr(part, name) + offset for part, offset in zip(parts, offsets, strict=True)])

    rows, steps = [len(part.latents) for part in parts], [len(part.start) for part in parts]
    return RolledPairs(
        latents=torch.cat([part.latents for part in parts]),
        start=numbers("start", rows),
        end=numbers("end", rows),
        timestep=torch.cat([part.timestep for part in parts]),
        previous_timestep=torch.cat([part.previous_timestep for part in parts]),
        prompt=torch.cat([torch.tensor([number[prompt] for prompt in part.prompts])[part.prompt] for part in parts]),
        reference_log_prob=if_known("reference_log_prob"),
        chosen=numbers("chosen", steps),
        rejected=numbers("rejected", steps),
        unit=numbers("unit", [part.units() for part in parts]),
        prompts=prompts,
    )


def as_pairs(rolled: RolledPairs, embeddings: PromptEmbeddings) -> TransitionPairs:
    """One row per pair, with embedded prompts, on the policy's device."""
    device, chosen, rejected = embeddings.device, rolled.chosen, rolled.rejected
    latents = rolled.latents.to(device)
    reference = on_device(rolled.reference_log_prob, device)
    return TransitionPairs(
        timestep=rolled.timestep[chosen].to(device),
        previous_timestep=rolled.previous_timestep[chosen].to(device),
        chosen_latents=latents[rolled.start[chosen]],
        rejected_latents=latents[rolled.start[rejected]],
        chosen_next_latents=latents[rolled.end[chosen]],
        rejected_next_latents=latents[rolled.end[rejected]],
        conditioning=embeddings.of(rolled.prompts)[rolled.prompt[chosen]],
        negative_conditioning=embeddings.negative(len(rolled)),
        chosen_reference_log_prob=None if reference is None else reference[chosen],
        rejected_reference_log_prob=None if reference is None else reference[rejected],
    )


def as_groups(rolled: RolledPairs, embeddings: PromptEmbeddings) -> TransitionGroups:
    """Every x_t and every step once, with embedded prompts, on the policy's device."""
    device = embeddings.device
    rows, first, start = rolled.starts()
    return TransitionGroups(
        latents=rolled.latents[rows].to(device),
        timestep=rolled.timestep[first].to(device),
        previous_timestep=rolled.previous_timestep[first].to(device),
        conditioning=embeddings.of(rolled.prompts)[rolled.prompt[first]],
        negative_conditioning=embeddings.negative(len(rows)),
        next_latents=rolled.latents[rolled.end].to(device),
        start=start.to(device),
        chosen=rolled.chosen.to(device),
        rejected=rolled.rejected.to(device),
        reference_log_prob=on_device(rolled.reference_log_prob, device),
    )


def on_device(values: Tensor | None, device: torch.device) -> Tensor | None:
    """Float64 values on a device, in float32 where it has no float64."""
    return None if values is None else values.to(device=device, dtype=_widest(device))


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64

"""What a roll-out made: latents, the steps between them, and pairs of steps, each kept once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedpo.core.transitions import widest_dtype
from seedpo.core.types import StepBatch
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
        next_timestep: time step at its end, (N,) int64.
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
    next_timestep: Tensor
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
            next_timestep=self.next_timestep[steps],
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
        next_timestep=torch.cat([part.next_timestep for part in parts]),
        prompt=torch.cat([torch.tensor([number[prompt] for prompt in part.prompts])[part.prompt] for part in parts]),
        reference_log_prob=if_known("reference_log_prob"),
        chosen=numbers("chosen", steps),
        rejected=numbers("rejected", steps),
        unit=numbers("unit", [part.units() for part in parts]),
        prompts=prompts,
    )


def step_batch(rolled: RolledPairs, embeddings: PromptEmbeddings, *, share_between_pairs: bool) -> StepBatch:
    """The pairs with embedded prompts, on the policy's device.

    Rows of the batch, for two pairs of which the second starts from two x_t::

        each pair by itself     shared between pairs
        x_t   chosen of pair 0     x_t   every x_t of the roll-out once,
              chosen of pair 1           in the roll-out's order
              rejected of pair 1

    Args:
        rolled: what a roll-out made.
        embeddings: of the policy's prompts.
        share_between_pairs: whether an x_t from which steps of several pairs start is one row.
    """
    device = embeddings.device
    if share_between_pairs:
        steps, key = torch.arange(len(rolled.start)), rolled.start
        chosen, rejected = rolled.chosen, rolled.rejected
    else:
        # Steps: the chosen one of every pair, then the rejected ones. Key: the pair, and a later number for the
        # rejected step where it does not start from the chosen one's x_t.
        chosen = torch.arange(len(rolled))
        rejected, steps = len(rolled) + chosen, torch.cat([rolled.chosen, rolled.rejected])
        shared = rolled.start[rolled.chosen] == rolled.start[rolled.rejected]
        key = torch.cat([chosen, torch.where(shared, chosen, rejected)])
    first, start = first_of_each(key)
    first = steps[first]
    reference = rolled.reference_log_prob
    return StepBatch(
        latents=rolled.latents[rolled.start[first]].to(device),
        timestep=rolled.timestep[first].to(device),
        next_timestep=rolled.next_timestep[first].to(device),
        conditioning=embeddings.of(rolled.prompts)[rolled.prompt[first]],
        negative_conditioning=embeddings.negative(len(first)),
        next_latents=rolled.latents[rolled.end[steps]].to(device),
        start=start.to(device),
        chosen=chosen.to(device),
        rejected=rejected.to(device),
        reference_log_prob=None if reference is None else reference[steps].to(device, widest_dtype(device)),
    )


def first_of_each(key: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of a key (N,), ascending.

    Returns:
        The first place of each value (S,), and for every place which value it holds (N,).
    """
    values, which = torch.unique(key, return_inverse=True)
    first = torch.full_like(values, len(key)).scatter_reduce(0, which, torch.arange(len(key)), "amin")
    return first, which

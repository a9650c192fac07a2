"""What a roll-out makes: latents, the steps between them, and pairs of steps, each stored once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.transitions import widest_dtype
from seedpo.core.types import StepBatch, Steps
from seedpo.methods.settings import ReferenceKind
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.protocols import Denoiser, Policy


@dataclass(frozen=True, kw_only=True)
class StepPairs:
    """Pairs of denoising steps by number: S latents, N steps between them, P pairs of steps.

    Latents, steps and prompts that several pairs share are stored once. Prompts are stored as text, since an embedded
    prompt of SDXL takes more memory than the latents of a pair. For one prompt, two images and two steps that share
    x_T, in D3PO's manner::

        latents    0 ---step 0--> 1 ---step 1--> 2        image 0: start = [0, 1, 0, 3]
                   0 ---step 2--> 3 ---step 3--> 4        image 1: end   = [1, 2, 3, 4]

        pairs      (step 0, step 2), (step 1, step 3)     chosen = [0, 1], rejected = [2, 3] if image 0 wins

    Attributes:
        latents: (S, ...).
        start: row of ``latents`` from which each step starts, (N,) int64. Steps from one row have one time step and one
            prompt.
        end: row of ``latents`` to which each step leads, (N,) int64.
        timestep: time step at the start of each step, (N,).
        next_timestep: time step at its end, (N,).
        prompt: row of ``prompts`` of each step, (N,) int64.
        reference_log_prob: log reference of each step, summed, in nats, (N,) float64; ``None`` if unknown.
        chosen: step that is the preferred side of each pair, (P,) int64.
        rejected: step that is the other side, (P,) int64.
        weight: what the log-probabilities of each pair are multiplied by, (P,); ``None``: 1 throughout.
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
    weight: Tensor | None = None
    unit: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.chosen)

    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1 if len(self) else 0

    def select(self, pairs: Tensor) -> StepPairs:
        """Some pairs, (P',) int64, with only the steps, latents and prompts that they need.

        A pair may be named more than once. Units, steps, latents and prompts are numbered anew, in their old order.
        """
        chosen, rejected = self.chosen[pairs], self.rejected[pairs]
        steps, step = torch.unique(torch.cat([chosen, rejected]), return_inverse=True)
        rows, row = torch.unique(torch.cat([self.start[steps], self.end[steps]]), return_inverse=True)
        prompts, prompt = torch.unique(self.prompt[steps], return_inverse=True)
        return StepPairs(
            latents=self.latents[rows],
            start=row[: len(steps)],
            end=row[len(steps) :],
            timestep=self.timestep[steps],
            next_timestep=self.next_timestep[steps],
            prompt=prompt,
            reference_log_prob=None if self.reference_log_prob is None else self.reference_log_prob[steps],
            chosen=step[: len(pairs)],
            rejected=step[len(pairs) :],
            weight=None if self.weight is None else self.weight[pairs],
            unit=torch.unique(self.unit[pairs], return_inverse=True)[1],
            prompts=tuple(self.prompts[index] for index in prompts.tolist()),
        )

    def take(self, units: Tensor) -> StepPairs:
        """The pairs of some units, (U,) int64, in that order."""
        return self.select(torch.cat([(self.unit == unit).nonzero()[:, 0] for unit in units]))

    def with_latents_on(self, device: torch.device | str) -> StepPairs:
        """The same with the latents on another device; numbers stay on the CPU."""
        return replace(self, latents=self.latents.to(device))

    @classmethod
    def join(cls, parts: Sequence[StepPairs]) -> StepPairs:
        """Several roll-outs, or parts of one, as one; their units follow each other."""
        prompts = tuple(dict.fromkeys(prompt for part in parts for prompt in part.prompts))
        number = {prompt: index for index, prompt in enumerate(prompts)}
        weights = [part.weight for part in parts if part.weight is not None]
        references = [part.reference_log_prob for part in parts if part.reference_log_prob is not None]

        def renumbered(name: str, counts: Sequence[int]) -> Tensor:
            """Numbers of each part, shifted by how many rows the parts before it have."""
            offsets = [sum(counts[:index]) for index in range(len(counts))]
            return torch.cat([getattr(part, name) + offset for part, offset in zip(parts, offsets, strict=True)])

        rows, steps = [len(part.latents) for part in parts], [len(part.start) for part in parts]
        return cls(
            latents=torch.cat([part.latents for part in parts]),
            start=renumbered("start", rows),
            end=renumbered("end", rows),
            timestep=torch.cat([part.timestep for part in parts]),
            next_timestep=torch.cat([part.next_timestep for part in parts]),
            prompt=torch.cat(
                [torch.tensor([number[prompt] for prompt in part.prompts])[part.prompt] for part in parts]
            ),
            reference_log_prob=torch.cat(references) if len(references) == len(parts) else None,
            chosen=renumbered("chosen", steps),
            rejected=renumbered("rejected", steps),
            weight=torch.cat(weights) if len(weights) == len(parts) else None,
            unit=renumbered("unit", [part.units() for part in parts]),
            prompts=prompts,
        )


def step_batch(pairs: StepPairs, embeddings: PromptEmbeddings, *, share_between_pairs: bool) -> StepBatch:
    """The pairs with embedded prompts, on the policy's device.

    The order of rows, of two pairs of which only the first shares its x_t between its sides::

        share_between_pairs = False       True

        x_t of pair 0                     every x_t from which a step starts, once,
        x_t of the chosen step of pair 1  in the order of ``pairs.latents``
        x_t of its rejected step

    Args:
        pairs: what a roll-out made.
        embeddings: of the policy's prompts.
        share_between_pairs: whether an x_t from which steps of several pairs start is one row.
    """
    device = embeddings.device
    if share_between_pairs:
        steps, key = torch.arange(len(pairs.start)), pairs.start
        chosen, rejected = pairs.chosen, pairs.rejected
    else:
        # Steps 0 to P - 1 are the chosen ones, P to 2P - 1 the rejected ones. An x_t has the number of its step as
        # its key, or that of the chosen step if both sides of the pair start from it.
        chosen = torch.arange(len(pairs))
        rejected, steps = len(pairs) + chosen, torch.cat([pairs.chosen, pairs.rejected])
        shared = pairs.start[pairs.chosen] == pairs.start[pairs.rejected]
        key = torch.cat([chosen, torch.where(shared, chosen, rejected)])
    first, start = first_of_each(key)
    reference = pairs.reference_log_prob
    return StepBatch(
        **_starts(pairs, steps[first], embeddings),
        next_latents=pairs.latents[pairs.end[steps]].to(device),
        start=start.to(device),
        chosen=chosen.to(device),
        rejected=rejected.to(device),
        reference_log_prob=None if reference is None else reference[steps].to(device, widest_dtype(device)),
        weight=None if pairs.weight is None else pairs.weight.to(device),
    )


@torch.no_grad()
def with_reference(
    pairs: StepPairs,
    policy: Denoiser,
    embeddings: PromptEmbeddings,
    *,
    sampling: SamplingSettings,
    rows_at_once: int,
    kind: ReferenceKind = "frozen",
) -> StepPairs:
    """The same pairs with the reference's log-probability of every step, computed once for all pairs and passes.

    One forward per x_t, however many steps start from it. Neither the model before training nor the policy of the
    roll-out changes any more, so these are the numbers that the loss would compute, up to the rounding of a network
    that sees other rows beside them. What a moving average or a reset reference says is left to the loss.

    Args:
        pairs: steps and pairs; all of its steps have a density.
        policy: a model without a reference leaves the pairs as they are, and the loss computes it.
        embeddings: of the policy's prompts.
        sampling: guidance and eta of the roll-out.
        rows_at_once: x_t that the network sees together (twice as many rows with guidance).
        kind: of the reference; with `rollout` it is the policy as it is now.
    """
    if kind not in ("frozen", "rollout") or not isinstance(policy, Policy):
        return pairs
    first, start = first_of_each(pairs.start)
    log_prob = torch.zeros(len(start), dtype=torch.float64)
    for begin in range(0, len(first), rows_at_once):
        numbers = ((start >= begin) & (start < begin + rows_at_once)).nonzero()[:, 0]
        steps = Steps(
            **_starts(pairs, first[begin : begin + rows_at_once], embeddings),
            next_latents=pairs.latents[pairs.end[numbers]].to(embeddings.device),
            start=(start[numbers] - begin).to(embeddings.device),
        )
        with policy.reference() if kind == "frozen" else nullcontext():
            log_prob[numbers] = Sampler(policy, sampling).log_probs(steps).to(device="cpu", dtype=torch.float64)
    return replace(pairs, reference_log_prob=log_prob)


def first_of_each(key: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values of a key (N,), ascending.

    Returns:
        The first place of each value (S,), and for every place which value it has (N,).
    """
    values, which = torch.unique(key, return_inverse=True)
    first = torch.full_like(values, len(key)).scatter_reduce(0, which, torch.arange(len(key)), "amin")
    return first, which


def _starts(pairs: StepPairs, steps: Tensor, embeddings: PromptEmbeddings) -> dict[str, Any]:
    """The x_t from which some steps start, with time steps and embedded prompts, on the policy's device."""
    device = embeddings.device
    return {
        "latents": pairs.latents[pairs.start[steps]].to(device),
        "timestep": pairs.timestep[steps].to(device),
        "next_timestep": pairs.next_timestep[steps].to(device),
        "conditioning": embeddings.of(pairs.prompts)[pairs.prompt[steps]],
        "negative_conditioning": embeddings.negative(len(steps)),
    }

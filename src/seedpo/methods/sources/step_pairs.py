"""Pairs of denoising steps that a roll-out makes, and how they are packed for the loss."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, SamplingSettings
from seedpo.core.types import StepBatch, Steps
from seedpo.methods.settings import ReferenceKind
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.stored_steps import (
    OF_TEACHING,
    StoredSteps,
    first_of_each,
    joined,
    joined_fields,
    on_device,
    renumbered,
    rows_of,
    rows_of_units,
    selected,
    starts,
)
from seedpo.protocols import Denoiser, Policy


@dataclass(frozen=True, kw_only=True)
class StepPairs(StoredSteps):
    """P pairs of N stored steps.

    In the drawing of :class:`seedpo.methods.sources.stored_steps.StoredSteps`::

        pairs      (step 0, step 2), (step 1, step 3)     chosen = [0, 1], rejected = [2, 3] if image 0 wins

    Attributes:
        reference_log_prob: log reference of each step, summed, in nats, (N,) float64; ``None`` if unknown.
        chosen: step that is the preferred side of each pair, (P,) int64.
        rejected: step that is the other side, (P,) int64.
        weight: what the log-probabilities of each pair are multiplied by, (P,); ``None``: 1 throughout.
        loss_weight: what the loss of each pair is multiplied by, (P,) float64; ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of the preferred side, (P,) bool; ``None`` if there are none.
        unit: pairs with the same number are handed out together, (P,) int64, from 0 without gaps.
    """

    reference_log_prob: Tensor | None = None
    chosen: Tensor
    rejected: Tensor
    weight: Tensor | None = None
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None
    unit: Tensor

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
        steps, step = torch.unique(torch.cat([self.chosen[pairs], self.rejected[pairs]]), return_inverse=True)
        return StepPairs(
            **selected(self, steps),
            **rows_of(self, _OF_STEPS, steps),
            chosen=step[: len(pairs)],
            rejected=step[len(pairs) :],
            **rows_of(self, _OF_PAIRS, pairs),
            unit=torch.unique(self.unit[pairs], return_inverse=True)[1],
        )

    def take(self, units: Tensor) -> StepPairs:
        """The pairs of some units, (U,) int64, in that order."""
        return self.select(rows_of_units(self.unit, units))

    @classmethod
    def join(cls, parts: Sequence[StepPairs]) -> StepPairs:
        """Several roll-outs, or parts of one, as one; their units follow each other."""
        steps = [len(part.start) for part in parts]
        return cls(
            **joined(parts),
            **joined_fields(parts, (*_OF_STEPS, *_OF_PAIRS)),
            chosen=renumbered([part.chosen for part in parts], steps),
            rejected=renumbered([part.rejected for part in parts], steps),
            unit=renumbered([part.unit for part in parts], [part.units() for part in parts]),
        )


_OF_STEPS = ("reference_log_prob",)
"""What not all roll-outs have, one value for each step."""

_OF_PAIRS = ("weight", *OF_TEACHING)
"""What not all roll-outs have, one value for each pair."""


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
    everything = torch.arange(len(pairs))
    return StepBatch(
        **starts(pairs, steps[first], embeddings),
        next_latents=pairs.latents[pairs.end[steps]].to(device),
        start=start.to(device),
        chosen=chosen.to(device),
        rejected=rejected.to(device),
        **on_device(rows_of(pairs, _OF_STEPS, steps) | rows_of(pairs, _OF_PAIRS, everything), device),
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
            **starts(pairs, first[begin : begin + rows_at_once], embeddings),
            next_latents=pairs.latents[pairs.end[numbers]].to(embeddings.device),
            start=(start[numbers] - begin).to(embeddings.device),
        )
        with policy.reference() if kind == "frozen" else nullcontext():
            log_prob[numbers] = Sampler(policy, sampling).log_probs(steps).to(device="cpu", dtype=torch.float64)
    return replace(pairs, reference_log_prob=log_prob)

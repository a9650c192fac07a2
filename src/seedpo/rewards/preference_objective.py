"""The loss of a preference model: which of two images of a prompt is preferred.

    p = softmax(s(x_1, c), s(x_2, c)),   s = exp(logit_scale) cos(image, text)
    loss = sum_i y_i log(y_i / p_i)

with y = (1, 0) for a preference and (1/2, 1/2) for a tie (PickScore, arXiv 2305.01569, eq. 1 and 2; SPO, arXiv
2406.04314, sec. 3.2, where the score knows the time step). The entropy of the label is subtracted, so that the least
loss of a tie is 0 too, as in both codes.

Both codes weigh a pair by w = 1 / (pairs of its prompt in the data): the loss of an update is sum(w loss) / sum(w)
over all its pairs, in every process and micro-batch. The codes divide by the sum of one micro-batch of all processes;
they are the same where an update is one micro-batch, as published.

With in-batch negatives the images and prompts of all processes are compared, as in both codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from seedpo.core.types import ImagePairs, LossOutput
from seedpo.core.weighting import weighed
from seedpo.processes import gather_rows
from seedpo.rewards.preference_model import Comparison, PairModel
from seedpo.rewards.previews import Views

Prompts = Callable[[Sequence[int]], Sequence[str]]
"""The prompts of pairs, by their numbers in the set."""


PairCounts = Callable[[int], int]
"""How many pairs of the set have the prompt of a pair, by its number."""


@dataclass(frozen=True, kw_only=True)
class JudgedPairs:
    """A batch of B pairs as the preference model judges it.

    Attributes:
        comparison: what the model says.
        chosen_probability: the label, (B,).
        weights: of the pairs, (B,); ``None``: all weigh alike.
        timestep: at which they were seen, (B,); ``None`` for finished images.
    """

    comparison: Comparison
    chosen_probability: Tensor
    weights: Tensor | None
    timestep: Tensor | None


class PreferenceObjective:
    """Two-way cross-entropy on pairs as a preference model sees them.

    Args:
        views: how the model sees pairs.
        prompts: their prompts.
        in_batch_negatives: whether each prompt is compared with all images of the batch, and each image with all
            prompts, as PickScore's code can do; the batch is that of all processes together.
        counts: of pairs by their prompts; each pair then weighs 1 / its count. ``None``: all weigh alike.
    """

    def __init__(
        self,
        views: Views,
        prompts: Prompts,
        *,
        in_batch_negatives: bool = False,
        counts: PairCounts | None = None,
    ) -> None:
        self.views = views
        self.prompts = prompts
        self.in_batch_negatives = in_batch_negatives
        self.counts = counts

    @property
    def exchanges(self) -> bool:
        """Whether :meth:`joint_loss` needs what the other processes judged."""
        return self.in_batch_negatives

    def loss(self, policy: PairModel, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses and metrics of a batch of numbered pairs; time steps and noise come from ``generator``."""
        return self.joint_loss(self.judged(policy, batch, generator=generator))

    def judged(self, policy: PairModel, batch: ImagePairs, *, generator: torch.Generator) -> JudgedPairs:
        """What the model says of a batch of numbered pairs; nothing is exchanged between processes."""
        if batch.pair is None:
            raise ValueError("the pairs of a batch must be numbered")
        rows = batch.pair.tolist()
        seen = self.views.drawn(batch, generator=generator)
        comparison = policy.compare(seen, self.prompts(rows))
        scale = comparison.scale
        return JudgedPairs(
            comparison=comparison,
            chosen_probability=_probability(batch).to(scale),
            weights=None if self.counts is None else torch.tensor([1.0 / self.counts(row) for row in rows]).to(scale),
            timestep=seen.timestep,
        )

    def joint_loss(self, judged: JudgedPairs) -> LossOutput:
        """Losses and metrics of a batch; with in-batch negatives every process must call it together."""
        comparison, chosen = judged.comparison, judged.chosen_probability
        if self.in_batch_negatives:
            losses = joint_in_batch_losses(comparison, chosen, judged.weights)
        else:
            losses = pair_losses(comparison, chosen)
        logits = comparison.logits.detach()
        margins = logits[:, 0] - logits[:, 1]
        metrics = {
            "rewards/chosen": logits[:, 0],
            "rewards/rejected": logits[:, 1],
            "rewards/margins": margins,
            "rewards/accuracies": agreement(margins, chosen),
        }
        if judged.timestep is not None:
            metrics["timestep"] = judged.timestep.float()
        return LossOutput(losses=losses, metrics=metrics, weights=judged.weights)


def pair_losses(comparison: Comparison, chosen_probability: Tensor) -> Tensor:
    """Cross-entropy between label and preference less the label's entropy, (B,): 0 is the least."""
    label = torch.stack([chosen_probability, 1.0 - chosen_probability], dim=1)
    return (label * -log_softmax(comparison.logits, dim=1)).sum(1) - _entropy(label)


def in_batch_losses(comparison: Comparison, chosen_probability: Tensor) -> Tensor:
    """The same over all images of the batch for each prompt, and over all prompts for each image, halved each, (B,)."""
    count = len(comparison.text)
    label = torch.stack([chosen_probability, 1.0 - chosen_probability], dim=1)
    logits = comparison.scale * torch.einsum("bd,nkd->bnk", comparison.text, comparison.images)
    own = torch.arange(count, device=logits.device)
    over_images = log_softmax(logits.flatten(1), dim=1).view(count, count, 2)[own, own]
    over_prompts = log_softmax(logits, dim=0)[own, own]
    text_loss = (label * -over_images).sum(1) - _entropy(label)
    return (text_loss + (label * -over_prompts).sum(1)) / 2.0


def joint_in_batch_losses(comparison: Comparison, chosen_probability: Tensor, weights: Tensor | None) -> Tensor:
    """:func:`in_batch_losses` of this process's B pairs, (B,), where the batch is that of all processes.

    Every process computes the losses of all pairs from the embeddings of all, of which its own have a gradient. The
    losses of the others' pairs depend on them, too, so that their gradient is added to the own losses, in which their
    values are not. The scale is in the losses of all processes: each takes an equal part of its gradient. Gradients,
    added up over the processes, are then those of one process with the whole batch, and no backward pass exchanges
    anything more. Processes may have different numbers of pairs.

    Args:
        comparison: of this process's pairs.
        chosen_probability: their labels, (B,).
        weights: of their losses, (B,); ``None``: all weigh alike.
    """
    count, width = comparison.text.shape
    own_weights = torch.ones_like(chosen_probability) if weights is None else weights
    columns = [comparison.text, comparison.images.flatten(1), chosen_probability[:, None], own_weights[:, None]]
    parts, rank = gather_rows(torch.cat([column.detach().to(comparison.text) for column in columns], dim=1))
    if len(parts) == 1:
        return in_batch_losses(comparison, chosen_probability)
    text, images, chosen, all_weights = torch.split(torch.cat(parts), [width, 2 * width, 1, 1], dim=1)
    first = sum(len(part) for part in parts[:rank])
    own = torch.arange(first, first + count, device=text.device)
    scale = comparison.scale.detach()
    whole = Comparison(
        text=text.index_copy(0, own, comparison.text),
        images=images.view(-1, 2, width).index_copy(0, own, comparison.images),
        scale=scale + (comparison.scale - scale) / len(parts),
    )
    losses = in_batch_losses(whole, chosen[:, 0].to(scale))
    others = weighed(losses, all_weights[:, 0]).sum() - weighed(losses[own], own_weights).sum()
    return losses[own] + (others - others.detach()) / own_weights.sum()


def agreement(margins: Tensor, chosen_probability: Tensor) -> Tensor:
    """Probability that a judge who follows the label agrees, (B,); equal scores count for a half."""
    prefers = torch.where(margins == 0, 0.5, (margins > 0).float())
    return prefers * chosen_probability + (1.0 - prefers) * (1.0 - chosen_probability)


def _probability(batch: ImagePairs) -> Tensor:
    return torch.ones(len(batch)) if batch.chosen_probability is None else batch.chosen_probability


def _entropy(label: Tensor) -> Tensor:
    return -torch.xlogy(label, label).sum(1)

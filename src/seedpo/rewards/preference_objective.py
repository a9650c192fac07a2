"""The loss of a preference model: which of two images of a prompt is preferred.

    p = softmax(s(x_1, c), s(x_2, c)),   s = exp(logit_scale) cos(image, text)
    loss = sum_i y_i log(y_i / p_i)

with y = (1, 0) for a preference and (1/2, 1/2) for a tie (PickScore, arXiv 2305.01569, eq. 1 and 2; SPO, arXiv
2406.04314, sec. 3.2, where the score knows the time step). The entropy of the label is subtracted, so that the least
loss of a tie is 0 too, as in both codes.

Left out: the weight 1 / (pairs of the same prompt in the data) that both codes give to a pair, and negatives from the
batches of other processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from seedpo.core.types import ImagePairs, LossOutput
from seedpo.rewards.preference_model import Comparison, PairModel
from seedpo.rewards.previews import Views

Prompts = Callable[[Sequence[int]], Sequence[str]]
"""The prompts of pairs, by their numbers in the set."""


class PreferenceObjective:
    """Two-way cross-entropy on pairs as a preference model sees them.

    Args:
        views: how the model sees pairs.
        prompts: their prompts.
        in_batch_negatives: whether each prompt is compared with all images of the batch, and each image with all
            prompts, as PickScore's code can do.
    """

    def __init__(self, views: Views, prompts: Prompts, *, in_batch_negatives: bool = False) -> None:
        self.views = views
        self.prompts = prompts
        self.in_batch_negatives = in_batch_negatives

    def loss(self, policy: PairModel, batch: ImagePairs, *, generator: torch.Generator) -> LossOutput:
        """Losses and metrics of a batch of numbered pairs; time steps and noise come from ``generator``."""
        if batch.pair is None:
            raise ValueError("the pairs of a batch must be numbered")
        seen = self.views.drawn(batch, generator=generator)
        comparison = policy.compare(seen, self.prompts(batch.pair.tolist()))
        chosen = _probability(batch).to(comparison.scale)
        losses = (in_batch_losses if self.in_batch_negatives else pair_losses)(comparison, chosen)
        logits = comparison.logits.detach()
        margins = logits[:, 0] - logits[:, 1]
        metrics = {
            "rewards/chosen": logits[:, 0],
            "rewards/rejected": logits[:, 1],
            "rewards/margins": margins,
            "rewards/accuracies": agreement(margins, chosen),
        }
        if seen.timestep is not None:
            metrics["timestep"] = seen.timestep.float()
        return LossOutput(losses=losses, metrics=metrics)


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


def agreement(margins: Tensor, chosen_probability: Tensor) -> Tensor:
    """Probability that a judge who follows the label agrees, (B,); equal scores count for a half."""
    prefers = torch.where(margins == 0, 0.5, (margins > 0).float())
    return prefers * chosen_probability + (1.0 - prefers) * (1.0 - chosen_probability)


def _probability(batch: ImagePairs) -> Tensor:
    return torch.ones(len(batch)) if batch.chosen_probability is None else batch.chosen_probability


def _entropy(label: Tensor) -> Tensor:
    return -torch.xlogy(label, label).sum(1)

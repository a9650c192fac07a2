"""What a roll-out sees of its images besides their reward, and what follows for how much they teach.

Kept of GARDO (arXiv 2512.24138): weights of rare winners, second opinions by ranks, a share of the winners that is
suspect. Left out: its share that grows and shrinks with the mean U of the last 20 roll-outs. Ranks are those of the
images of one prompt here, since rewards of different prompts need not compare; in its paper they are those of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seedpo.core.weighting import agreed_gaps, excess, highest, nearest_distances, novelty_weights, suspicion
from seedpo.methods.sources.judging import Judgement
from seedpo.methods.sources.supplies import Supplies
from seedpo.methods.weighting_settings import WeightingConfig
from seedpo.protocols import Features


@dataclass(frozen=True, kw_only=True)
class Views:
    """What is seen of P groups of K images.

    Attributes:
        scores: rewards, (P, K).
        distances: of each image to its nearest neighbour in the group, (P, K); ``None`` if nobody looked.
        opinions: what R other rewards say, (R, P, K); ``None`` if none was asked.
        gaps: of the rewards of two images that all opinions rank alike, else 0, (P, K, K); ``None``: every two count.
    """

    scores: Tensor
    distances: Tensor | None = None
    opinions: Tensor | None = None
    gaps: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence[Views]) -> Views:
        """Groups of several views, in succession."""
        distances = [part.distances for part in parts if part.distances is not None]
        opinions = [part.opinions for part in parts if part.opinions is not None]
        return cls(
            scores=torch.cat([part.scores for part in parts]),
            distances=torch.cat(distances) if distances else None,
            opinions=torch.cat(opinions, 1) if opinions else None,
        )


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How much P groups of K images teach.

    Attributes:
        loss_weight: of each image, (P, K) float64; 0 for one that is left out, ``None`` if all weigh 1.
        suspect: whether second opinions doubt its reward, (P, K) bool; ``None`` if there are none.
        left_out: whether it is not trained on, (P, K) bool; ``None`` if all are.
        observed: figures to log.
    """

    loss_weight: Tensor | None = None
    suspect: Tensor | None = None
    left_out: Tensor | None = None
    observed: Mapping[str, float]

    def of(self, images: Tensor) -> dict[str, Any]:
        """Weight and suspicion of some images (N,), numbered from 0 over all groups, as fields of records."""
        fields = {"loss_weight": self.loss_weight, "suspect": self.suspect}
        return {name: None if values is None else values.flatten()[images] for name, values in fields.items()}

    def included(self, members: Tensor) -> Tensor:
        """Which units (N, M) of images have none that is left out, (N,) bool.

        A pair in which such an image loses goes, too: images that only ever lose would be driven out.
        """
        if self.left_out is None:
            return torch.ones(len(members), dtype=torch.bool)
        return ~self.left_out.flatten()[members].any(1)


ALIKE = Teaching(observed={})
"""All images teach alike."""


class Weigher:
    """Looks at the images of roll-outs, and says how much each teaches.

    Args:
        config: what is weighed.
        features: in which images are compared; needed for novelty.
        opinions: scorers that are not optimised.
    """

    def __init__(
        self, config: WeightingConfig, *, features: Features | None = None, opinions: Sequence[Any] = ()
    ) -> None:
        self.config = config
        self.features = features
        self.opinions = opinions

    def look(self, images: Tensor, prompts: Sequence[str], scores: Tensor, *, timestep: Tensor | None = None) -> Views:
        """What is seen of P K images, K of each prompt in succession.

        Args:
            images: (P K, 3, H, W), in [0, 1] or a little beyond.
            prompts: one for each image.
            scores: their rewards, (P, K).
            timestep: of previews, as step-aware rewards are told it, (P K,); ``None``: finished images.
        """
        images, distances, opinions = images.clamp(0, 1), None, None
        if self.config.asks_features:
            assert self.features is not None
            distances = nearest_distances(self.features(images).cpu().view(*scores.shape, -1))
        if self.opinions:
            when = {} if timestep is None else {"timestep": timestep}
            opinions = torch.stack([ask(images, prompts, **when).cpu().view_as(scores) for ask in self.opinions])
        gaps = agreed_gaps(scores, opinions) if self.config.agreement and opinions is not None else None
        return Views(scores=scores, distances=distances, opinions=opinions, gaps=gaps)

    def weigh(self, views: Views, winning: Tensor, *, lot: int) -> Teaching:
        """How much images teach.

        Args:
            views: of all images of a roll-out, (P, K).
            winning: numbers of those that are preferred to others, each once or more, from 0 over all groups; at least
                one.
            lot: seed of what decides among equal images, such as the number of the roll-out. The roll-out's own
                generator is left alone, so that an opinion that changes nothing changes no draw either.
        """
        config, observed, generator = self.config, dict[str, float](), torch.Generator().manual_seed(lot)
        winners = torch.zeros_like(views.scores, dtype=torch.bool)
        winners.view(-1)[winning] = True
        out = torch.zeros_like(winners)
        loss_weight = suspect = None
        if config.outliers:
            out = highest(excess(views.scores), winners, share=config.outliers, generator=generator)
        if views.opinions is not None:
            doubt = suspicion(views.scores, views.opinions)
            suspect = highest(doubt, winners, share=config.suspect_share, generator=generator) & (doubt > 0)
            observed |= {"suspicion": _mean(doubt, winners), "suspects": _mean(suspect, winners)}
            if config.drop_suspects:
                out, suspect = out | suspect, None
        if views.distances is not None:
            loss_weight = novelty_weights(views.distances, views.scores, power=config.novelty)
            spread = loss_weight[winners].std(correction=0).item()
            observed |= {"novelty": _mean(views.distances, winners), "novelty_weight_std": spread}
        if config.outliers or config.drop_suspects:
            loss_weight = (torch.ones(out.shape).double() if loss_weight is None else loss_weight) * ~out
            observed["left_out"] = _mean(out, winners)
        return Teaching(loss_weight=loss_weight, suspect=suspect, left_out=out, observed=observed)


def agreed(
    weigher: Weigher | None, images: Tensor, prompts: Sequence[str], judgement: Judgement
) -> tuple[Judgement, Views | None]:
    """The judgement with the pairs on whose order second opinions agree, and what was seen for it, if that is asked.

    Args:
        weigher: looks at the images.
        images: K of each prompt in succession, (P K, 3, H, W).
        prompts: one for each image.
        judgement: of the reward.
    """
    if weigher is None or not weigher.config.agreement:
        return judgement, None
    views = weigher.look(images, prompts, judgement.scores)
    assert views.gaps is not None
    return replace(judgement, preferences=judgement.preferences * (views.gaps != 0), gaps=views.gaps), views


def teaching_of_winners(
    weigher: Weigher | None,
    images: Tensor,
    prompts: Sequence[str],
    judgement: Judgement,
    *,
    winners: Tensor,
    lot: int,
    views: Views | None = None,
) -> Teaching:
    """How much finished images teach; all alike without a weigher, or without winners.

    Args:
        weigher: looks at them.
        images: K of each prompt in succession, (P K, 3, H, W).
        prompts: one for each image.
        judgement: of the reward.
        winners: numbers of the images that are preferred to others, each once or more.
        lot: as for :meth:`Weigher.weigh`.
        views: what was seen of the images; ``None`` if nobody looked yet.
    """
    if weigher is None or not len(winners):
        return ALIKE
    return weigher.weigh(views or weigher.look(images, prompts, judgement.scores), winners, lot=lot)


def build_weigher(config: WeightingConfig, supplies: Supplies) -> Weigher | None:
    """What looks at the images of a run's roll-outs; ``None`` if all teach alike."""
    if not config.is_active:
        return None
    return Weigher(
        config,
        features=supplies.features(config.features) if config.asks_features and config.features else None,
        opinions=[supplies.opinion(name) for name in config.second_opinion],
    )


def _mean(values: Tensor, winners: Tensor) -> float:
    return values[winners].double().mean().item()

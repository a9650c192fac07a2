"""What a judge says of the images of each prompt, and the clear pairs among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from seedpo.methods.sources.rollouts import preference
from seedpo.protocols import Comparisons, LaterReward, Reward

Part = TypeVar("Part")

Pairing = Literal["all", "best-worst"]
"""Which two images of a prompt make a pair."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a reward, or people, say of K images of each of P prompts.

    Attributes:
        preferences: probability that the first of two images is preferred less that of the second, (P, K, K) in
            [-1, 1], antisymmetric.
        scores: rewards (P, K); of people, an image's mean preference over the others.
        observed: figures to log.
        gaps: rewards of the first of two images less those of the second where the two may make a pair, else 0 like
            their preference, (P, K, K); ``None``: every two may.
    """

    preferences: Tensor
    scores: Tensor
    observed: Mapping[str, float]
    gaps: Tensor | None = None

    def clear(self, min_gap: float) -> Tensor:
        """Prompts whose best image is preferred to its worst by more than a gap, (P,) bool."""
        rows = torch.arange(len(self.scores))
        return self.preferences[rows, *extremes(self.scores, self.gaps)] > min_gap


@dataclass(frozen=True, kw_only=True)
class ImagePairing:
    """Pairs of images, numbered from 0 over all prompts: image k of prompt p is p K + k.

    Attributes:
        chosen: the preferred image of each pair, (N,) int64.
        rejected: the other image, (N,) int64.
        equal: whether neither is preferred, (N,) bool.
    """

    chosen: Tensor
    rejected: Tensor
    equal: Tensor


@dataclass(frozen=True, kw_only=True)
class Judged(Generic[Part]):
    """What a roll-out drew, and what was said of it.

    Attributes:
        parts: what was drawn together, in the order of the prompts.
        images: all images, (P K, 3, H, W), K of each prompt in succession.
        prompts: one for each image.
        judgement: of the images.
    """

    parts: Sequence[Part]
    images: Tensor
    prompts: Sequence[str]
    judgement: Judgement


def draw_and_judge(
    judge: Reward | Comparisons,
    draw: Callable[[slice], tuple[Part, Tensor]],
    prompts: Sequence[str],
    *,
    count: int,
    at_once: int | None,
) -> Judged[Part]:
    """Draws the images of a roll-out part by part; a reward that is computed elsewhere judges one part meanwhile.

    Args:
        judge: scores images, or says of every two which is preferred; people are asked about all images together.
        draw: what is kept of some of the prompts, and their images (p K, 3, H, W) in [0, 1] or a little beyond.
        prompts: of the roll-out, P.
        count: images of a prompt, K.
        at_once: prompts of a part; ``None``: all.
    """
    size = at_once or len(prompts)
    parts, images, answers = list[Part](), list[Tensor](), list[Callable[[], Tensor]]()
    repeated = repeat(prompts, count)
    for start in range(0, len(prompts), size):
        part, drawn = draw(slice(start, start + size))
        parts.append(part)
        images.append(drawn)
        if not isinstance(judge, Comparisons):
            answers.append(asked(judge, drawn, repeated[start * count : (start + size) * count]))
    pictures = torch.cat(images)
    if isinstance(judge, Comparisons):
        judgement = of_people(judge, pictures, repeated, count=count)
    else:
        judgement = of_scores(torch.cat([answer().cpu() for answer in answers]).view(-1, count))
    return Judged(parts=parts, images=pictures, prompts=repeated, judgement=judgement)


def repeat(prompts: Sequence[str], count: int) -> list[str]:
    """Each prompt as often as it has images."""
    return [prompt for prompt in prompts for _ in range(count)]


def asked(reward: Reward, images: Tensor, prompts: Sequence[str]) -> Callable[[], Tensor]:
    """What gives the scores (B,): of a reward that is computed here it has them, of another it waits for them."""
    if isinstance(reward, LaterReward):
        return reward.later(images, prompts)
    scores = reward(images, prompts)
    return lambda: scores


def of_people(judge: Comparisons, images: Tensor, prompts: Sequence[str], *, count: int) -> Judgement:
    """What people say of ``count`` images of each prompt in succession."""
    preferences = judge.compare(images, prompts)
    return Judgement(preferences=preferences, scores=preferences.sum(2) / (count - 1), observed={})


def of_scores(scores: Tensor) -> Judgement:
    """What rewards (P, K) say of K images of each prompt."""
    observed = {"reward": scores.mean().item(), "reward_std": scores.std(1).mean().item()}
    return Judgement(preferences=preference(scores[:, :, None], scores[:, None, :]), scores=scores, observed=observed)


def extremes(scores: Tensor, gaps: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of each group the images with the highest and the lowest reward, or those of the widest gap, (P,) each.

    Args:
        scores: rewards, (P, K).
        gaps: those that count, (P, K, K), as in :class:`Judgement`; without any of a group both are its first image.
    """
    if gaps is None:
        return scores.argmax(1), scores.argmin(1)
    widest = gaps.flatten(1).argmax(1)
    return widest // gaps.shape[1], widest % gaps.shape[1]


def clear_pairs(judgement: Judgement, *, pairing: Pairing, min_gap: float, with_equal: bool = False) -> ImagePairing:
    """The pairs whose winner is preferred by more than a gap.

    Args:
        judgement: of K images of each prompt.
        pairing: ``all``: every two images of a prompt; ``best-worst``: the image with the highest score and the one
            with the lowest.
        min_gap: a pair is kept if the preference exceeds this.
        with_equal: whether pairs without any preference are kept, too.
    """
    prompts, count, _ = judgement.preferences.shape
    rows = torch.arange(prompts)[:, None]
    if pairing == "all":
        first, second = (places.expand(prompts, -1) for places in torch.triu_indices(count, count, offset=1))
    else:
        first, second = (places[:, None] for places in extremes(judgement.scores, judgement.gaps))
    difference = judgement.preferences[rows, first, second].flatten()
    image, other = ((rows * count + places).flatten() for places in (first, second))
    clear = difference.abs() > min_gap
    if with_equal:
        clear |= difference == 0
    image, other, difference = image[clear], other[clear], difference[clear]
    swap = difference < 0
    return ImagePairing(
        chosen=torch.where(swap, other, image),
        rejected=torch.where(swap, image, other),
        equal=difference == 0,
    )

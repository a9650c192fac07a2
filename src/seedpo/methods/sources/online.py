"""Images that the policy draws without noise in its steps, as pairs or as groups, for objectives on predicted noise.

A step-wise objective needs random steps, whose density it compares. An objective on the noise-prediction surrogate asks
only for clean images, so that they can be drawn by the sampler that users draw with: an ODE, or DDIM with eta 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from seedpo.core.advantages import group_advantages
from seedpo.core.sampling import Sampler, Sampling, draw_noise
from seedpo.core.types import ImageGroups, ImagePairs
from seedpo.core.weighting import excess
from seedpo.methods.settings import GroupConfig, MethodConfig, SamplingConfig
from seedpo.methods.sources.drawn_images import DrawnImages, image_groups, image_pairs
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.judging import Judgement, clear_pairs, draw_and_judge, repeat
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.supplies import Supplies
from seedpo.methods.sources.weighing import Weigher, agreed, build_weigher, teaching_of_winners
from seedpo.protocols import Comparisons, Policy, Reward

Packing = Literal["pairs", "groups"]
"""What is made of the images of a prompt."""


class ImageRollout:
    """Draws k images of each prompt, every one from a noise of its own, and packs what is clear.

    Kept of online DPO in flow_grpo's code: the image with the highest reward against the one with the lowest, drawn by
    the policy as it is. Kept of DGPO (arXiv 2510.08425) and DiffusionNFT (arXiv 2509.16117): whole groups with
    advantages, and DiffusionNFT's images of the old policy, which is the reference. Left out: samplers of higher order.

    Args:
        policy: the model that is sampled.
        reward: scores the images, or says of every two which is preferred.
        sampling: number of steps, guidance, and prompts that are drawn together.
        config: images and prompts per roll-out, the least gap, advantages, and who draws.
        packing: pairs or groups.
        embeddings: of the policy's prompts.
        weigher: says how much each image teaches; ``None``: all alike.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward | Comparisons,
        *,
        sampling: SamplingConfig,
        config: GroupConfig,
        packing: Packing,
        embeddings: PromptEmbeddings | None = None,
        weigher: Weigher | None = None,
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.config = config
        self.packing = packing
        self.at_once = sampling.prompts_at_once
        self.sampler = Sampler(policy, deterministic(sampling))
        self.embeddings = embeddings or PromptEmbeddings(policy)
        self.weigher = weigher

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int = 0
    ) -> tuple[DrawnImages | None, Mapping[str, float]]:
        """Units of one roll-out (``None`` if none is clear enough) and what was observed."""
        policy, count = self.policy, self.config.images_per_prompt
        noise = draw_noise((len(prompts), count, *policy.latent_shape), generator=generator, device=policy.device)

        def draw(some: slice) -> tuple[Tensor, Tensor]:
            texts, start = repeat(prompts[some], count), noise[some].flatten(0, 1)
            with policy.reference() if self.config.drawn_by == "reference" else nullcontext():
                latents = self.sampler.sample(start, self.embeddings.of(texts), self.embeddings.negative(len(texts)))
            return latents, policy.decode(latents)

        judged = draw_and_judge(self.reward, draw, prompts, count=count, at_once=self.at_once)
        judgement, views = agreed(self.weigher, judged.images, judged.prompts, judged.judgement)
        member, possible = self._members(judgement)
        of_pairs = self.packing == "pairs"
        winners = member[:, 0] if of_pairs else member[excess(judgement.scores).flatten()[member] > 0]
        teaching = teaching_of_winners(
            self.weigher, judged.images, judged.prompts, judgement, winners=winners, lot=number, views=views
        )
        observed = {**judgement.observed, f"{self.packing}_kept": len(member) / possible, **teaching.observed}
        if of_pairs:
            member = member[teaching.included(member)]
        if not len(member):
            return None, observed
        drawn = DrawnImages(
            latents=torch.cat(list(judged.parts)),
            prior_noise=noise.flatten(0, 1),
            reward=judgement.scores.flatten(),
            advantage=self._advantages(judgement.scores),
            **teaching.of(torch.arange(len(judged.prompts))),
            prompt=torch.arange(len(prompts)).repeat_interleave(count),
            member=member,
            prompts=tuple(prompts),
        )
        return drawn.take(torch.arange(len(member))), observed

    def _members(self, judgement: Judgement) -> tuple[Tensor, int]:
        """The images of each unit, and how many units there could be."""
        (prompts, count), config = judgement.scores.shape, self.config
        if self.packing == "groups":
            images = torch.arange(prompts * count).view(prompts, count)
            return images[judgement.clear(config.min_gap)], prompts
        pairs = clear_pairs(judgement, pairing=config.pairs, min_gap=config.min_gap)
        possible = prompts * (count * (count - 1) // 2 if config.pairs == "all" else 1)
        return torch.stack([pairs.chosen, pairs.rejected], 1), possible

    def _advantages(self, scores: Tensor) -> Tensor | None:
        if self.packing == "pairs":
            return None
        return group_advantages(scores, normalise=self.config.normalise).float().flatten()


def deterministic(sampling: SamplingConfig) -> Sampling:
    """The same number of steps and guidance, with steps that draw nothing: an ODE, or DDIM with eta 0."""
    return Sampling(num_inference_steps=sampling.num_inference_steps, guidance_scale=sampling.guidance_scale, eta=0.0)


def image_source(
    policy: Policy,
    reward: Reward | Comparisons,
    prompts: Sequence[str],
    *,
    packing: Packing,
    sampling: SamplingConfig,
    config: GroupConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    weigher: Weigher | None = None,
) -> RolloutSource[DrawnImages, Any]:
    """A source of images that the policy draws; see :class:`ImageRollout` and :class:`RolloutSource`."""
    embeddings = PromptEmbeddings(policy)
    return RolloutSource(
        ImageRollout(
            policy, reward, sampling=sampling, config=config, packing=packing, embeddings=embeddings, weigher=weigher
        ),
        prompts,
        embeddings,
        record=DrawnImages,
        batch=image_pairs if packing == "pairs" else image_groups,
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        clear_if=f"groups.min_gap = {config.min_gap:g}",
        seed=seed,
        rank=rank,
        world=world,
    )


def build_pairs(config: MethodConfig, supplies: Supplies) -> RolloutSource[DrawnImages, ImagePairs]:
    """The source of online pairs for one process of a run."""
    return _source(config, supplies, packing="pairs")


def build_groups(config: MethodConfig, supplies: Supplies) -> RolloutSource[DrawnImages, ImageGroups]:
    """The source of groups of images for one process of a run."""
    return _source(config, supplies, packing="groups")


def _source(config: MethodConfig, supplies: Supplies, *, packing: Packing) -> RolloutSource[DrawnImages, Any]:
    policy: Any = supplies.policy
    return image_source(
        policy,
        supplies.judge(),
        supplies.prompts(),
        packing=packing,
        sampling=config.sampling,
        config=config.groups,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=supplies.rank,
        world=supplies.world,
        weigher=build_weigher(config.weighting, supplies),
    )

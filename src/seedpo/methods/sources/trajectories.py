"""Pairs of whole trajectories that share x_T, ranked by their final images (D3PO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, draw_noise
from seedpo.core.types import StepBatch, Trajectory
from seedpo.methods.settings import MethodConfig, ReferenceKind, SamplingConfig, TrajectoryConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.judging import clear_pairs, draw_and_judge, repeat
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.step_pairs import StepPairs, step_batch, with_reference
from seedpo.methods.sources.supplies import Supplies
from seedpo.methods.sources.weighing import Weigher, agreed, build_weigher, teaching_of_winners
from seedpo.protocols import Comparisons, Denoiser, Reward


class TrajectoryRollout:
    """Samples k images per prompt from one x_T and pairs every two of them, step by step.

    Kept of D3PO (arXiv 2311.13231): the shared x_T, and one label per pair of images that holds for all their steps.
    Its two images per prompt become k, of which every two make a pair.

    The reference's log-probability is computed once for every image and step, and once for the x_T that images
    share. All pairs of an image and all passes over the roll-out use that number. With the reference `rollout`, the
    policy at the roll-out (D3PO's code for human feedback copies it at each), these are the log-probabilities of
    drawing the images. Of a reference that moves in between the loss computes them anew.

    Args:
        policy: the model that is sampled.
        reward: ranks the final images, or says of every two which is preferred.
        sampling: number of steps, guidance, eta, and prompts that are drawn together.
        config: images and prompts per roll-out, the least gap, and what is handed out together.
        embeddings: of the policy's prompts.
        empty_pairs: whether two images with equal rewards make a pair, too, of weight 0, as in D3PO's code.
        reference: kind of the reference.
        weigher: says how much each image teaches; ``None``: all alike.
    """

    def __init__(
        self,
        policy: Denoiser,
        reward: Reward | Comparisons,
        *,
        sampling: SamplingConfig,
        config: TrajectoryConfig,
        embeddings: PromptEmbeddings | None = None,
        empty_pairs: bool = False,
        reference: ReferenceKind = "frozen",
        weigher: Weigher | None = None,
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.sampling = sampling
        self.config = config
        self.sampler = Sampler(policy, sampling)
        self.embeddings = embeddings or PromptEmbeddings(policy)
        self.empty_pairs = empty_pairs
        self.reference: ReferenceKind = reference
        self.weigher = weigher

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int = 0
    ) -> tuple[StepPairs | None, Mapping[str, float]]:
        """Pairs of one roll-out (``None`` if no pair is clear enough) and what was observed."""
        policy, count = self.policy, self.config.images_per_prompt
        initial = draw_noise((len(prompts), *policy.latent_shape), generator=generator, device=policy.device)

        def draw(some: slice) -> tuple[Trajectory, Tensor]:
            texts, start = repeat(prompts[some], count), initial[some].repeat_interleave(count, 0)
            conditioning, negative = self.embeddings.of(texts), self.embeddings.negative(len(texts))
            trajectory = self.sampler.trajectory(start, conditioning, negative, generator=generator)
            return trajectory, policy.decode(trajectory.latents[:, -1])

        at_once = self.sampling.prompts_at_once
        judged = draw_and_judge(self.reward, draw, prompts, count=count, at_once=at_once)
        trajectory = Trajectory.cat(judged.parts)
        judgement, views = agreed(self.weigher, judged.images, judged.prompts, judged.judgement)
        preferred = clear_pairs(judgement, pairing="all", min_gap=self.config.min_gap, with_equal=self.empty_pairs)
        teaching = teaching_of_winners(
            self.weigher, judged.images, judged.prompts, judgement, winners=preferred.chosen, lot=number, views=views
        )
        included = teaching.included(torch.stack([preferred.chosen, preferred.rejected], 1))
        chosen, rejected = preferred.chosen[included], preferred.rejected[included]
        kept = len(included) / (len(judged.prompts) * (count - 1) / 2)
        observed = {**judgement.observed, "pairs_kept": kept, **teaching.observed}
        if not len(chosen):
            return None, observed
        pair, step = self._drawn_steps(chosen, generator=generator)
        pairs = self._step_pairs(trajectory, chosen[pair], rejected[pair], step, prompts)
        pairs = replace(pairs, **teaching.of(chosen[pair]))
        if self.empty_pairs:
            pairs = replace(pairs, weight=(~preferred.equal[included]).double()[pair])
        if self.reference != "rollout":
            pairs = with_reference(
                pairs,
                policy,
                self.embeddings,
                sampling=self.sampling,
                rows_at_once=(at_once or len(prompts)) * count,
                kind=self.reference,
            )
        return pairs, observed

    def _drawn_steps(self, chosen: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pair and step of every pair of steps: all that have a density, or some of them.

        If groups are handed out whole, all pairs of a prompt have the same steps.
        """
        steps = self.sampler.has_density.nonzero()[:, 0]
        count = min(self.config.steps_per_pair or len(steps), len(steps))
        owner = torch.arange(len(chosen))
        if self.config.update_per == "group":
            owner = torch.unique(chosen // self.config.images_per_prompt, return_inverse=True)[1]
        draws = [steps[torch.randperm(len(steps), generator=generator)[:count]] for _ in range(int(owner.max()) + 1)]
        pair = torch.arange(len(chosen)).repeat_interleave(count)
        return pair, torch.stack(draws)[owner].flatten()

    def _step_pairs(
        self, trajectory: Trajectory, chosen: Tensor, rejected: Tensor, step: Tensor, prompts: Sequence[str]
    ) -> StepPairs:
        """Pairs of steps of images, with one step per image and time step, and one x_T per prompt.

        With T steps and k images per prompt, image i and step t have these numbers::

            i (T + 1) + t       latents at the start of the step; for t = 0 those of the prompt's first image, i - i % k
            i (T + 1) + t + 1   latents at its end
            i T + t             the step

        Latents of x_T that no step starts from any more are dropped by ``select``.
        """
        count = self.config.images_per_prompt
        timesteps, next_timesteps = self.sampler.timesteps
        images, states = trajectory.latents.shape[:2]
        steps = states - 1
        image = torch.arange(images).repeat_interleave(steps)
        index = torch.arange(steps).repeat(images)
        start_image = torch.where(index == 0, image - image % count, image)
        drawn = trajectory.log_probs.flatten().to(device="cpu", dtype=torch.float64)
        unit = torch.arange(len(step))
        if self.config.update_per == "group":
            unit = torch.unique(chosen // count * steps + step, return_inverse=True)[1]
        pairs = StepPairs(
            latents=trajectory.latents.flatten(0, 1),
            start=start_image * states + index,
            end=image * states + index + 1,
            timestep=timesteps[index],
            next_timestep=next_timesteps[index],
            prompt=image // count,
            reference_log_prob=drawn if self.reference == "rollout" else None,
            chosen=chosen * steps + step,
            rejected=rejected * steps + step,
            unit=unit,
            prompts=tuple(prompts),
        )
        return pairs.select(torch.arange(len(pairs)))


def trajectory_source(
    policy: Denoiser,
    reward: Reward | Comparisons,
    prompts: Sequence[str],
    *,
    sampling: SamplingConfig,
    config: TrajectoryConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    empty_pairs: bool = False,
    reference: ReferenceKind = "frozen",
    weigher: Weigher | None = None,
) -> RolloutSource[StepPairs, StepBatch]:
    """D3PO's source of pairs; see :class:`TrajectoryRollout` and :class:`RolloutSource`."""
    embeddings = PromptEmbeddings(policy)
    return RolloutSource(
        TrajectoryRollout(
            policy,
            reward,
            sampling=sampling,
            config=config,
            embeddings=embeddings,
            empty_pairs=empty_pairs,
            reference=reference,
            weigher=weigher,
        ),
        prompts,
        embeddings,
        record=StepPairs,
        batch=partial(step_batch, share_between_pairs=config.update_per == "group"),
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        clear_if=f"trajectories.min_gap = {config.min_gap:g}",
        seed=seed,
        rank=rank,
        world=world,
    )


def build_source(config: MethodConfig, supplies: Supplies) -> RolloutSource[StepPairs, StepBatch]:
    """D3PO's source of pairs for one process of a run."""
    return trajectory_source(
        supplies.policy,
        supplies.judge(),
        supplies.prompts(),
        sampling=config.sampling,
        config=config.trajectories,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=supplies.rank,
        world=supplies.world,
        empty_pairs=config.fidelity.empty_updates,
        reference=config.reference.kind,
        weigher=build_weigher(config.weighting, supplies),
    )

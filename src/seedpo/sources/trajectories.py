"""Pairs of whole trajectories that share x_T, ranked by their final images (D3PO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seedpo.config import SamplingConfig, TrajectoryConfig
from seedpo.core.sampling import draw_noise, sample_trajectory
from seedpo.core.transitions import ddim_std
from seedpo.core.types import Trajectory, TransitionPairs
from seedpo.protocols import Denoiser, Reward
from seedpo.sources.rollouts import RolloutSource, check_scores, kept_pairs


class TrajectoryRollout:
    """Samples k images per prompt from one x_T and pairs every two of them, step by step.

    Kept of D3PO (arXiv 2311.13231): the shared x_T, one label per pair of images that holds for all their steps. Its
    two images per prompt become k, of which every two make a pair.

    Args:
        policy: the model that is sampled.
        reward: ranks the final images.
        sampling: number of steps, guidance and eta.
        config: images and prompts per roll-out and the least gap.
    """

    def __init__(self, policy: Denoiser, reward: Reward, *, sampling: SamplingConfig, config: TrajectoryConfig) -> None:
        self.policy = policy
        self.reward = reward
        self.sampling = sampling
        self.config = config

    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator
    ) -> tuple[TransitionPairs | None, Mapping[str, float]]:
        """Pairs of one roll-out (none if no pair is clear enough) and what was observed."""
        policy, images_per_prompt = self.policy, self.config.images_per_prompt
        repeated = [prompt for prompt in prompts for _ in range(images_per_prompt)]
        conditioning = policy.encode_prompts(repeated)
        negative = policy.encode_prompts([""] * len(repeated))
        initial = draw_noise((len(prompts), *policy.latent_shape), generator=generator, device=policy.device)
        trajectory = sample_trajectory(
            policy.predict,
            initial.repeat_interleave(images_per_prompt, 0),
            conditioning,
            negative,
            policy.schedule,
            num_inference_steps=self.sampling.num_inference_steps,
            guidance_scale=self.sampling.guidance_scale,
            eta=self.sampling.eta,
            generator=generator,
        )
        scores = check_scores(self.reward(policy.decode(trajectory.latents[:, -1]), repeated), repeated)
        chosen, rejected = self._ranked(scores.view(len(prompts), images_per_prompt))
        observed = {
            "reward": scores.mean().item(),
            "reward_std": scores.view(len(prompts), -1).std(1).mean().item(),
            "pairs_kept": len(chosen) / (len(prompts) * images_per_prompt * (images_per_prompt - 1) / 2),
        }
        if not len(chosen):
            return None, observed
        return self._pairs(trajectory, chosen, rejected, repeated, generator=generator), observed

    def _ranked(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the winner and the loser of every two images of a prompt whose scores are far enough apart."""
        prompts, count = scores.shape
        first, second = torch.triu_indices(count, count, offset=1)
        rows = torch.arange(prompts)[:, None] * count
        one, other = (rows + first).flatten(), (rows + second).flatten()
        flat = scores.flatten()
        swap = flat[other] > flat[one]
        chosen, rejected = torch.where(swap, other, one), torch.where(swap, one, other)
        clear = kept_pairs(flat[chosen], flat[rejected], min_gap=self.config.min_gap)
        return chosen[clear], rejected[clear]

    def _pairs(
        self,
        trajectory: Trajectory,
        chosen: Tensor,
        rejected: Tensor,
        prompts: Sequence[str],
        *,
        generator: torch.Generator,
    ) -> TransitionPairs:
        """The steps that have a density, all or some of them, of every pair."""
        policy = self.policy
        timesteps, previous = trajectory.timesteps[0], trajectory.previous_timesteps[0]
        dense = (ddim_std(timesteps, previous, policy.schedule, eta=self.sampling.eta) > 0).nonzero()[:, 0].cpu()
        taken = min(self.config.steps_per_pair or len(dense), len(dense))
        pair = torch.arange(len(chosen)).repeat_interleave(taken)
        step = torch.cat([dense[torch.randperm(len(dense), generator=generator)[:taken]] for _ in chosen])
        distinct = [prompts[row] for row in chosen.tolist()]
        return TransitionPairs(
            timestep=timesteps[step],
            previous_timestep=previous[step],
            chosen_latents=trajectory.latents[chosen[pair], step],
            rejected_latents=trajectory.latents[rejected[pair], step],
            chosen_next_latents=trajectory.latents[chosen[pair], step + 1],
            rejected_next_latents=trajectory.latents[rejected[pair], step + 1],
            conditioning=policy.encode_prompts(distinct)[pair],
            negative_conditioning=policy.encode_prompts([""] * len(distinct))[pair],
        )


def trajectory_source(
    policy: Denoiser,
    reward: Reward,
    prompts: Sequence[str],
    *,
    sampling: SamplingConfig,
    config: TrajectoryConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> RolloutSource:
    """D3PO's source of pairs; see :class:`TrajectoryRollout` and :class:`seedpo.sources.rollouts.RolloutSource`."""
    return RolloutSource(
        TrajectoryRollout(policy, reward, sampling=sampling, config=config),
        prompts,
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world=world,
        device=policy.device,
    )

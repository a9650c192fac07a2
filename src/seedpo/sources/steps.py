"""Pairs of single denoising steps from a shared x_t, ranked by a step-aware scorer (SPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seedpo.config import SamplingConfig, StepPoolConfig
from seedpo.core.diffusion import guided_prediction, predicted_original
from seedpo.core.sampling import draw_noise, step_candidates
from seedpo.core.transitions import ddim_transition
from seedpo.core.types import Conditioning, TransitionPairs
from seedpo.protocols import Denoiser, StepAwareReward
from seedpo.sources.rollouts import RolloutSource, check_scores, kept_pairs


class StepRollout:
    """Walks down one trajectory per prompt, draws k candidates at every step and pairs the best with the worst.

    Kept of SPO (arXiv 2406.04314): the first steps are plain; each candidate is judged by the clean image predicted
    from it; the next x_t is drawn uniformly among the candidates; a pair is kept if the softmax of its two scores
    differs by more than ``min_gap``. The prediction that judges a candidate serves as the next step's own if that
    candidate goes on, so that judging costs no extra forward for it.

    Args:
        policy: the model that is sampled.
        reward: the step-aware scorer.
        sampling: number of steps, guidance and eta.
        config: candidates, plain steps, the least gap.
    """

    def __init__(
        self, policy: Denoiser, reward: StepAwareReward, *, sampling: SamplingConfig, config: StepPoolConfig
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.sampling = sampling
        self.config = config

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator
    ) -> tuple[TransitionPairs | None, Mapping[str, float]]:
        """Pairs of one roll-out (none if no pair is clear enough) and what was observed."""
        policy, count = self.policy, self.config.candidates
        conditioning = policy.encode_prompts(prompts)
        negative = policy.encode_prompts([""] * len(prompts))
        timesteps, previous = policy.schedule.timesteps(self.sampling.num_inference_steps)
        rows = torch.arange(len(prompts))
        latents = draw_noise((len(prompts), *policy.latent_shape), generator=generator, device=policy.device)
        prediction = self._predict(latents, timesteps[:1].expand(len(prompts)), conditioning, negative)
        pairs: list[TransitionPairs] = []
        scores = torch.zeros(0)
        considered = 0
        for step, (timestep, target) in enumerate(zip(timesteps, previous, strict=True)):
            now, then = timestep.expand(len(prompts)), target.expand(len(prompts))
            transition = ddim_transition(prediction, latents, now, then, policy.schedule, eta=self.sampling.eta)
            pairing = step >= self.config.plain_steps and bool((transition.std > 0).all())
            drawn = step_candidates(transition, count=count if pairing else 1, generator=generator)
            last = step + 1 == len(timesteps)
            following = (timesteps[step + 1] if not last else torch.zeros_like(timestep)).expand(len(prompts))
            predictions, previews = self._look_ahead(drawn, following, conditioning, negative, clean=last)
            kept = torch.zeros(len(prompts), dtype=torch.long)
            if pairing:
                scores = self._score(previews, prompts, following)
                best, worst = scores.argmax(1), scores.argmin(1)
                clear = kept_pairs(scores[rows, best], scores[rows, worst], min_gap=self.config.min_gap)
                considered += len(prompts)
                if clear.any():
                    pairs.append(
                        TransitionPairs(
                            timestep=now[clear],
                            previous_timestep=then[clear],
                            chosen_latents=latents[clear],
                            rejected_latents=latents[clear],
                            chosen_next_latents=drawn[rows, best][clear],
                            rejected_next_latents=drawn[rows, worst][clear],
                            conditioning=conditioning[clear],
                            negative_conditioning=negative[clear],
                        )
                    )
                kept = torch.randint(count, (len(prompts),), generator=generator)
            latents = drawn[rows, kept]
            prediction = predictions[rows, kept]
        observed = {
            "reward": scores.mean().item() if len(scores) else float("nan"),
            "reward_std": scores.std(1).mean().item() if len(scores) else float("nan"),
            "pairs_kept": sum(map(len, pairs)) / max(considered, 1),
        }
        return (TransitionPairs.cat(pairs) if pairs else None), observed

    def _predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, negative: Conditioning) -> Tensor:
        return guided_prediction(
            self.policy.predict,
            latents,
            timestep.to(latents.device),
            conditioning,
            negative,
            self.sampling.guidance_scale,
        )

    def _look_ahead(
        self, drawn: Tensor, timestep: Tensor, conditioning: Conditioning, negative: Conditioning, *, clean: bool
    ) -> tuple[Tensor, Tensor]:
        """Predictions at the candidates (B, K, C, H, W), and the clean latents that they foretell."""
        if clean:
            return drawn, drawn
        count = drawn.shape[1]
        latents = drawn.flatten(0, 1)
        times = timestep.repeat_interleave(count)
        prediction = self._predict(
            latents, times, conditioning.repeat_interleave(count), negative.repeat_interleave(count)
        )
        schedule = self.policy.schedule
        level = schedule.alpha_cumprod(times.to(latents.device))
        original = predicted_original(prediction, latents, level, schedule.prediction_type)
        return prediction.view_as(drawn), original.view_as(drawn)

    def _score(self, previews: Tensor, prompts: Sequence[str], timestep: Tensor) -> Tensor:
        """Scores (B, K) of the decoded previews."""
        count = previews.shape[1]
        repeated = [prompt for prompt in prompts for _ in range(count)]
        images = self.policy.decode(previews.flatten(0, 1))
        scores = self.reward(images, repeated, timestep=timestep.repeat_interleave(count).to(images.device))
        return check_scores(scores, repeated).view(-1, count)


def step_source(
    policy: Denoiser,
    reward: StepAwareReward,
    prompts: Sequence[str],
    *,
    sampling: SamplingConfig,
    config: StepPoolConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
) -> RolloutSource:
    """SPO's source of pairs; see :class:`StepRollout` and :class:`seedpo.sources.rollouts.RolloutSource`."""
    return RolloutSource(
        StepRollout(policy, reward, sampling=sampling, config=config),
        prompts,
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world=world,
        device=policy.device,
    )

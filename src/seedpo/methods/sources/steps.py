"""Pairs of denoising steps from a shared x_t, ranked by a step-aware scorer (SPO)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, draw_noise, step_candidates
from seedpo.core.types import StepBatch
from seedpo.methods.settings import MethodConfig, ReferenceKind, SamplingConfig, StepPoolConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rollouts import RolloutSource, preference
from seedpo.methods.sources.step_pairs import StepPairs, step_batch, with_reference
from seedpo.methods.sources.supplies import Decode, Supplies
from seedpo.protocols import Denoiser, StepAwareReward

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """K candidates per prompt that start from one x_t and take L steps, each by itself.

    Attributes:
        steps: numbers of the sampler's steps, L of them.
        latents: x_t, and each candidate after every step, (B, K, L + 1, ...).
        predictions: the network's guided prediction at the last of them, (B, K, ...).
        previews: the clean latents that it predicts, (B, K, ...).
        timestep: time at which scorers judge the candidates, (); 0 for clean ones.
    """

    steps: range
    latents: Tensor
    predictions: Tensor
    previews: Tensor
    timestep: Tensor


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """The best and the worst candidate of every prompt, (B,) each, and whether they are clear.

    Attributes:
        scores: rewards of all candidates, (B, K).
    """

    best: Tensor
    worst: Tensor
    clear: Tensor
    scores: Tensor


class StepRollout:
    """Samples one trajectory per prompt, draws k candidates from x_t and pairs the best with the worst.

    Kept of SPO (arXiv 2406.04314): The first steps are plain. Each candidate is judged by the clean image predicted
    from it. The next x_t is drawn uniformly among the candidates. A pair is kept if the softmax of its two scores
    differs by more than ``min_gap``. With ``inner_steps``, as published for SDXL, each candidate takes more steps
    before it is judged. Every one of them makes a pair, and only the first starts from the shared x_t. If the steps
    do not divide into equal blocks, the last block is shorter (the official code joins a last single step to the
    block before it). The prediction that judges a candidate is the next step's own if that candidate continues, so
    judging costs no extra forward for it.

    The reference's log-probabilities are computed once for every x_t of the kept pairs, unless it moves in between.

    Args:
        policy: the model that is sampled.
        reward: the step-aware scorer.
        sampling: number of steps, guidance and eta.
        config: candidates, plain and inner steps, the least gap.
        embeddings: of the policy's prompts.
        decode: decodes the previews with the policy's own autoencoder; ``None``: as the policy decodes images.
        preview_decode: decodes the previews in place of the policy; for the first ``config.preview_checks`` roll-outs
            both do, and how often they agree is observed.
        reference: kind of the reference.
    """

    def __init__(
        self,
        policy: Denoiser,
        reward: StepAwareReward,
        *,
        sampling: SamplingConfig,
        config: StepPoolConfig,
        embeddings: PromptEmbeddings | None = None,
        decode: Decode | None = None,
        preview_decode: Decode | None = None,
        reference: ReferenceKind = "frozen",
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.sampling = sampling
        self.sampler = Sampler(policy, sampling)
        self.config = config
        self.embeddings = embeddings or PromptEmbeddings(policy)
        self.decode = decode or policy.decode
        self.preview_decode = preview_decode
        self.reference: ReferenceKind = reference

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int = 0
    ) -> tuple[StepPairs | None, Mapping[str, float]]:
        """Pairs of one roll-out (``None`` if no pair is clear enough) and what was observed."""
        policy, rows = self.policy, torch.arange(len(prompts))
        timesteps, _ = self.sampler.timesteps
        latents = draw_noise((len(prompts), *policy.latent_shape), generator=generator, device=policy.device)
        prediction = self._predict(latents, timesteps[0], prompts)
        checked = self.preview_decode is not None and number < self.config.preview_checks
        pairs: list[StepPairs] = []
        verdicts: list[_Verdict] = []
        agreed: list[bool] = []
        step = 0
        while step < len(timesteps):
            block = self._walk(latents, prediction, step, prompts, generator=generator)
            continued = torch.zeros(len(prompts), dtype=torch.int64)
            if block.latents.shape[1] > 1:
                verdict = self._judge(block, prompts)
                verdicts.append(verdict)
                if verdict.clear.any():
                    pairs.append(self._pairs(block, verdict, prompts))
                    agreed += self._agreement(block, verdict, prompts) if checked else []
                continued = torch.randint(self.config.candidates, (len(prompts),), generator=generator)
            latents, prediction = block.latents[rows, continued, -1], block.predictions[rows, continued]
            step = block.steps.stop
        observed = _observed(verdicts)
        if agreed:
            observed["preview_agreement"] = sum(agreed) / len(agreed)
            logger.info(
                "roll-out %d: preview_vae and the model's own autoencoder rank %.1f %% of %d pairs alike",
                number + 1,
                100 * observed["preview_agreement"],
                len(agreed),
            )
        if not pairs:
            return None, observed
        whole = with_reference(
            StepPairs.join(pairs),
            policy,
            self.embeddings,
            sampling=self.sampling,
            rows_at_once=len(prompts) * self.config.candidates,
            kind=self.reference,
        )
        return whole, observed

    def _walk(
        self, latents: Tensor, prediction: Tensor, step: int, prompts: Sequence[str], *, generator: torch.Generator
    ) -> _Block:
        """From x_t and its prediction to where candidates are judged; plain steps have one candidate."""
        process, (timesteps, next_timesteps) = self.policy.process, self.sampler.timesteps
        pairing = step >= self.config.plain_steps and bool(self.sampler.has_density[step])
        count = self.config.candidates if pairing else 1
        steps = range(step, min(step + 1 + (self.config.inner_steps if pairing else 0), len(timesteps)))
        path = [latents.unsqueeze(1).expand(-1, count, *latents.shape[1:])]
        flat = latents
        for index in steps:
            now, then = (times[index].expand(len(flat)).to(flat.device) for times in (timesteps, next_timesteps))
            gaussian = process.step(prediction, flat, now, then, eta=self.sampler.eta)
            # The first step draws K candidates from each x_t, the later ones one from each candidate.
            drawn = step_candidates(gaussian, count=count if index == step else 1, generator=generator)
            flat = drawn.flatten(0, 1)
            path.append(flat.view_as(path[0]))
            if index + 1 < len(timesteps):
                prediction = self._predict(flat, timesteps[index + 1], prompts)
        following = timesteps[steps.stop] if steps.stop < len(timesteps) else torch.zeros_like(timesteps[0])
        previews = flat
        if steps.stop < len(timesteps):
            previews = process.clean(prediction, flat, following.expand(len(flat)).to(flat.device))
        else:
            prediction = flat  # no step follows a clean image
        return _Block(
            steps=steps,
            latents=torch.stack(path, 2),
            predictions=prediction.view_as(path[0]),
            previews=previews.view_as(path[0]),
            timestep=process.embedded_time(following),
        )

    def _predict(self, latents: Tensor, timestep: Tensor, prompts: Sequence[str]) -> Tensor:
        """Guided prediction at one time step (); ``latents`` holds k consecutive rows per prompt."""
        count = len(latents) // len(prompts)
        return self.sampler.predict(
            latents,
            timestep.expand(len(latents)).to(latents.device),
            self.embeddings.of(prompts).repeat_interleave(count),
            self.embeddings.negative(len(latents)),
        )

    def _judge(self, block: _Block, prompts: Sequence[str]) -> _Verdict:
        """Scores every candidate by its decoded preview."""
        decode = self.preview_decode or self.decode
        scores = self._score(block.previews, prompts, block.timestep, decode)
        rows = torch.arange(len(prompts))
        best, worst = scores.argmax(1), scores.argmin(1)
        clear = preference(scores[rows, best], scores[rows, worst]) > self.config.min_gap
        return _Verdict(best=best, worst=worst, clear=clear, scores=scores)

    def _score(self, previews: Tensor, prompts: Sequence[str], timestep: Tensor, decode: Decode) -> Tensor:
        """Scores (B, K) of previews (B, K, ...)."""
        count = previews.shape[1]
        repeated = [prompt for prompt in prompts for _ in range(count)]
        images = decode(previews.flatten(0, 1))
        scores = self.reward(images, repeated, timestep=timestep.expand(len(repeated)).to(images.device))
        return scores.cpu().view(-1, count)

    def _agreement(self, block: _Block, verdict: _Verdict, prompts: Sequence[str]) -> list[bool]:
        """Whether the policy's own decoding gives each clear pair the same order of rewards."""
        rows = verdict.clear.nonzero()[:, 0]
        sides = torch.stack([verdict.best, verdict.worst], 1)[rows]
        clear_prompts = [prompts[row] for row in rows.tolist()]
        own = self._score(block.previews[rows[:, None], sides], clear_prompts, block.timestep, self.decode)
        previews = verdict.scores[rows[:, None], sides]
        return ((own[:, 0] > own[:, 1]) == (previews[:, 0] > previews[:, 1])).tolist()

    def _pairs(self, block: _Block, verdict: _Verdict, prompts: Sequence[str]) -> StepPairs:
        """The steps of the best and the worst candidate of every prompt where they are clear.

        Latents are numbered like this, for prompt i of n, side c (0 best, 1 worst) and step s of L::

            0 ... n - 1                  x_t of each prompt, from which step 0 of both sides starts
            n + (2 i + c) L + s          the latents after step s of side c

        and steps without the n. So a step starts from row i, or else where the step before it ends.
        """
        timesteps, next_timesteps = self.sampler.timesteps
        rows = verdict.clear.nonzero()[:, 0]
        sides = torch.stack([verdict.best, verdict.worst], 1)[rows]
        paths = block.latents[rows[:, None], sides]
        count, length = len(rows), len(block.steps)
        end = count + torch.arange(count * 2 * length).view(count, 2, length)
        shared = torch.arange(count).view(-1, 1, 1).expand(-1, 2, 1)
        start = torch.cat([shared, end[:, :, :-1]], 2)
        step = torch.tensor(list(block.steps)).expand_as(end)
        number = torch.arange(end.numel()).view_as(end)
        pairs = StepPairs(
            latents=torch.cat([paths[:, 0, 0], paths[:, :, 1:].flatten(0, 2)]),
            start=start.flatten(),
            end=end.flatten(),
            timestep=timesteps[step.flatten()],
            next_timestep=next_timesteps[step.flatten()],
            prompt=rows.view(-1, 1, 1).expand_as(end).flatten(),
            chosen=number[:, 0].flatten(),
            rejected=number[:, 1].flatten(),
            unit=torch.arange(count * length),
            prompts=tuple(prompts),
        )
        has_density = self.sampler.has_density[list(block.steps)]
        return pairs.select(has_density.repeat(count).nonzero()[:, 0])


def _observed(verdicts: Sequence[_Verdict]) -> dict[str, float]:
    """Mean and spread of the last scores, those of the least noisy images, and the share of pairs kept."""
    if not verdicts:
        return {"reward": math.nan, "reward_std": math.nan, "pairs_kept": 0.0}
    scores = verdicts[-1].scores
    return {
        "reward": scores.mean().item(),
        "reward_std": scores.std(1).mean().item(),
        "pairs_kept": torch.cat([verdict.clear for verdict in verdicts]).float().mean().item(),
    }


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
    decode: Decode | None = None,
    preview_decode: Decode | None = None,
    reference: ReferenceKind = "frozen",
) -> RolloutSource[StepPairs, StepBatch]:
    """SPO's source of pairs; see :class:`StepRollout` and :class:`seedpo.methods.sources.rollouts.RolloutSource`."""
    embeddings = PromptEmbeddings(policy)
    return RolloutSource(
        StepRollout(
            policy,
            reward,
            sampling=sampling,
            config=config,
            embeddings=embeddings,
            decode=decode,
            preview_decode=preview_decode,
            reference=reference,
        ),
        prompts,
        embeddings,
        record=StepPairs,
        batch=partial(step_batch, share_between_pairs=False),
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        world=world,
    )


def build_source(config: MethodConfig, supplies: Supplies) -> RolloutSource[StepPairs, StepBatch]:
    """SPO's source of pairs for one process of a run."""
    return step_source(
        supplies.policy,
        supplies.judge(),
        supplies.prompts(),
        sampling=config.sampling,
        config=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        rank=supplies.rank,
        world=supplies.world,
        decode=supplies.decode,
        preview_decode=supplies.preview_decode(),
        reference=config.reference.kind,
    )

"""Pairs of denoising steps from a shared x_t, ranked by a step-aware scorer (SPO) or a latent reward (LPO)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from seedpo.core.sampling import Sampler, draw_noise, step_candidates
from seedpo.core.types import StepBatch
from seedpo.methods.settings import MethodConfig, ReferenceKind, SamplingConfig, StepPoolConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.judging import extremes
from seedpo.methods.sources.rollouts import RolloutSource, preference
from seedpo.methods.sources.step_pairs import StepPairs, step_batch, with_reference
from seedpo.methods.sources.supplies import Decode, Supplies
from seedpo.methods.sources.weighing import Views, Weigher, build_weigher
from seedpo.protocols import Denoiser, LatentReward, StepAwareReward

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Block:
    """K candidates per prompt that start from one x_t and take L steps, each by itself.

    Attributes:
        steps: numbers of the sampler's steps, L of them.
        latents: x_t, and each candidate after every step, (B, K, L + 1, ...).
        predictions: the network's guided prediction at the last of them, (B, K, ...); ``None`` if it is not known yet.
        previews: the clean latents that it predicts, (B, K, ...); ``None`` if the candidates themselves are judged.
        timestep: time at which scorers judge the candidates, (), as the process counts for a latent reward, else as
            step-aware scorers do; 0 for clean ones.
    """

    steps: range
    latents: Tensor
    predictions: Tensor | None
    previews: Tensor | None
    timestep: Tensor


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """The best and the worst candidate of every prompt, (B,) each, and whether they are clear.

    Attributes:
        scores: rewards of all candidates, (B, K).
        views: what else is seen of them; ``None`` if nobody looks.
    """

    best: Tensor
    worst: Tensor
    clear: Tensor
    scores: Tensor
    views: Views | None = None

    @property
    def winners(self) -> Tensor:
        """The best candidates of prompts where they are clear; candidate k of prompt i has the number i K + k."""
        rows = self.clear.nonzero()[:, 0]
        return rows * self.scores.shape[1] + self.best[rows]


class StepRollout:
    """Samples one trajectory per prompt, draws k candidates from x_t and pairs the best with the worst.

    Kept of SPO (arXiv 2406.04314): The first steps are plain. Each candidate is judged by the clean image predicted
    from it. The next x_t is drawn uniformly among the candidates. A pair is kept if the softmax of its two scores
    differs by more than ``min_gap``. With ``inner_steps``, as published for SDXL, each candidate takes more steps
    before it is judged. Every one of them makes a pair, and only the first starts from the shared x_t. If the steps
    do not divide into equal blocks, the last block is shorter (the official code joins a last single step to the
    block before it). The prediction that judges a candidate is the next step's own if that candidate continues, so
    judging costs no extra forward for it.

    A latent reward judges the candidates themselves, as in LPO (arXiv 2502.01051): nothing is predicted or decoded for
    it. The policy then predicts only for the candidate that continues, one row in place of K.

    The reference's log-probabilities are computed once for every x_t of the kept pairs, unless it moves in between.

    Args:
        policy: the model that is sampled.
        reward: the step-aware scorer, or a latent reward.
        sampling: number of steps, guidance and eta.
        config: candidates, plain and inner steps, the least gap.
        judged_at_start: whether a latent reward is told the time of x_t in place of the candidates' own.
        embeddings: of the policy's prompts.
        decode: decodes the previews with the policy's own autoencoder; ``None``: as the policy decodes images.
        preview_decode: decodes the previews in place of the policy; for the first ``config.preview_checks`` roll-outs
            both do, and how often they agree is observed.
        reference: kind of the reference.
        weigher: says how much each candidate teaches, by its preview; ``None``: all alike.
    """

    def __init__(
        self,
        policy: Denoiser,
        reward: StepAwareReward | LatentReward,
        *,
        sampling: SamplingConfig,
        config: StepPoolConfig,
        embeddings: PromptEmbeddings | None = None,
        judged_at_start: bool = False,
        decode: Decode | None = None,
        preview_decode: Decode | None = None,
        reference: ReferenceKind = "frozen",
        weigher: Weigher | None = None,
    ) -> None:
        self.policy = policy
        self.reward = reward
        self.sampling = sampling
        self.sampler = Sampler(policy, sampling)
        self.config = config
        self.min_gaps = min_gaps(self.sampler, config)
        self.judged_at_start = judged_at_start
        self.embeddings = embeddings or PromptEmbeddings(policy)
        self.decode = decode or policy.decode
        self.preview_decode = preview_decode
        self.reference: ReferenceKind = reference
        self.weigher = weigher

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
        winners: list[Tensor] = []
        verdicts: list[_Verdict] = []
        agreed: list[bool] = []
        step = 0
        while step < len(timesteps):
            block = self._walk(latents, prediction, step, prompts, generator=generator)
            continued = torch.zeros(len(prompts), dtype=torch.int64)
            if block.latents.shape[1] > 1:
                verdict = self._judge(block, prompts)
                if verdict.clear.any():
                    pairs.append(self._pairs(block, verdict, prompts))
                    before = sum(other.scores.numel() for other in verdicts)
                    steps_of_each = int(self.sampler.has_density[list(block.steps)].sum())
                    winners.append((before + verdict.winners).repeat_interleave(steps_of_each))
                    agreed += self._agreement(block, verdict, prompts) if checked else []
                verdicts.append(verdict)
                continued = torch.randint(self.config.candidates, (len(prompts),), generator=generator)
            latents, step = block.latents[rows, continued, -1], block.steps.stop
            if block.predictions is not None:
                prediction = block.predictions[rows, continued]
            elif step < len(timesteps):
                prediction = self._predict(latents, timesteps[step], prompts)
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
        weighed, teaching = self._weighed(StepPairs.join(pairs), verdicts, torch.cat(winners), lot=number)
        observed |= teaching
        if not len(weighed):
            return None, observed
        whole = with_reference(
            weighed,
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
            if index + 1 < (steps.stop if self._judges_latents else len(timesteps)):
                prediction = self._predict(flat, timesteps[index + 1], prompts)
        following = timesteps[steps.stop] if steps.stop < len(timesteps) else torch.zeros_like(timesteps[0])
        judged_at = timesteps[steps.stop - 1] if self.judged_at_start else following
        block = _Block(
            steps=steps,
            latents=torch.stack(path, 2),
            predictions=None,
            previews=None,
            timestep=judged_at if self._judges_latents else process.embedded_time(judged_at),
        )
        if self._judges_latents:
            return block
        previews = flat
        if steps.stop < len(timesteps):
            previews = process.clean(prediction, flat, following.expand(len(flat)).to(flat.device))
        else:
            prediction = flat  # no step follows a clean image
        return replace(block, predictions=prediction.view_as(path[0]), previews=previews.view_as(path[0]))

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
        """Scores every candidate: by its decoded preview, or as it is."""
        if block.previews is None:
            scores = self._score_latents(block.latents[:, :, -1], prompts, block.timestep)
            views = None if self.weigher is None else Views(scores=scores)
        else:
            images = (self.preview_decode or self.decode)(block.previews.flatten(0, 1))
            scores = self._score(images, prompts, block.timestep)
            views = self._views(images, prompts, scores, block.timestep)
        rows = torch.arange(len(prompts))
        best, worst = extremes(scores, None if views is None else views.gaps)
        clear = preference(scores[rows, best], scores[rows, worst]) > self.min_gaps[block.steps.start]
        return _Verdict(best=best, worst=worst, clear=clear, scores=scores, views=views)

    def _weighed(
        self, pairs: StepPairs, verdicts: Sequence[_Verdict], winners: Tensor, *, lot: int
    ) -> tuple[StepPairs, Mapping[str, float]]:
        """The pairs of a roll-out with how much each teaches, without those that are left out, and what was observed.

        Args:
            pairs: of all verdicts.
            verdicts: one after the other; candidate k of prompt i of n in verdict j has the number (j n + i) K + k.
            winners: number of the candidate that wins each pair, (P,).
            lot: as for :meth:`seedpo.methods.sources.weighing.Weigher.weigh`.
        """
        views = [verdict.views for verdict in verdicts if verdict.views is not None]
        if self.weigher is None or not views:
            return pairs, {}
        teaching = self.weigher.weigh(Views.join(views), winners, lot=lot)
        included = teaching.included(winners[:, None]).nonzero()[:, 0]  # the others in a pair never win
        return replace(pairs, **teaching.of(winners)).select(included), teaching.observed

    @property
    def _judges_latents(self) -> bool:
        return isinstance(self.reward, LatentReward)

    def _score_latents(self, latents: Tensor, prompts: Sequence[str], timestep: Tensor) -> Tensor:
        """Scores (B, K) of noisy latents (B, K, ...)."""
        count = latents.shape[1]
        repeated = [prompt for prompt in prompts for _ in range(count)]
        assert isinstance(self.reward, LatentReward)
        times = timestep.expand(len(repeated)).to(latents.device)
        return self.reward.score_latents(latents.flatten(0, 1), repeated, timestep=times).cpu().view(-1, count)

    def _score(self, images: Tensor, prompts: Sequence[str], timestep: Tensor) -> Tensor:
        """Scores (B, K) of previews as images, K of each prompt in succession."""
        repeated = [prompt for prompt in prompts for _ in range(len(images) // len(prompts))]
        assert not isinstance(self.reward, LatentReward)
        scores = self.reward(images, repeated, timestep=timestep.expand(len(repeated)).to(images.device))
        return scores.cpu().view(len(prompts), -1)

    def _views(self, images: Tensor, prompts: Sequence[str], scores: Tensor, timestep: Tensor) -> Views | None:
        """What else is seen of previews as images."""
        if self.weigher is None:
            return None
        repeated = [prompt for prompt in prompts for _ in range(scores.shape[1])]
        times = timestep.expand(len(repeated)).to(images.device)
        return self.weigher.look(images, repeated, scores, timestep=times)

    def _agreement(self, block: _Block, verdict: _Verdict, prompts: Sequence[str]) -> list[bool]:
        """Whether the policy's own decoding gives each clear pair the same order of rewards."""
        rows = verdict.clear.nonzero()[:, 0]
        sides = torch.stack([verdict.best, verdict.worst], 1)[rows]
        clear_prompts = [prompts[row] for row in rows.tolist()]
        assert block.previews is not None
        images = self.decode(block.previews[rows[:, None], sides].flatten(0, 1))
        own = self._score(images, clear_prompts, block.timestep)
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


def min_gaps(sampler: Sampler, config: StepPoolConfig) -> list[float]:
    """The least gap of a pair at each of the sampler's N steps.

        gap_t = min_gap + (std_t - least) / (most - least) (min_gap_noisiest - min_gap)

    with the standard deviation of step t and its least and most value among the steps that have a density. LPO's code
    has these numbers as a table for 20 steps of Stable Diffusion's DDIM at eta 1; there a step to the clean image has a
    density, too (`fidelity.last_step_clamped` for models that give it none).
    """
    if config.min_gap_noisiest is None:
        return [config.min_gap] * len(sampler.has_density)
    stds = sampler.model.process.step_std(*sampler.timesteps, eta=sampler.eta).double().cpu()
    drawn = stds[sampler.has_density]
    spread = float(drawn.max() - drawn.min()) if len(drawn) else 0.0
    shares = (stds - drawn.min()).clamp(min=0) / spread if spread else torch.zeros_like(stds)
    return [config.min_gap + share * (config.min_gap_noisiest - config.min_gap) for share in shares.tolist()]


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
    reward: StepAwareReward | LatentReward,
    prompts: Sequence[str],
    *,
    sampling: SamplingConfig,
    config: StepPoolConfig,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    judged_at_start: bool = False,
    decode: Decode | None = None,
    preview_decode: Decode | None = None,
    reference: ReferenceKind = "frozen",
    weigher: Weigher | None = None,
) -> RolloutSource[StepPairs, StepBatch]:
    """The source of SPO and LPO: :class:`StepRollout` in a :class:`seedpo.methods.sources.rollouts.RolloutSource`."""
    embeddings = PromptEmbeddings(policy)
    return RolloutSource(
        StepRollout(
            policy,
            reward,
            sampling=sampling,
            config=config,
            embeddings=embeddings,
            judged_at_start=judged_at_start,
            decode=decode,
            preview_decode=preview_decode,
            reference=reference,
            weigher=weigher,
        ),
        prompts,
        embeddings,
        record=StepPairs,
        batch=partial(step_batch, share_between_pairs=False),
        prompts_per_rollout=config.prompts_per_rollout,
        updates_per_rollout=config.updates_per_rollout,
        batch_size=batch_size,
        clear_if=f"steps.min_gap = {config.min_gap:g}",
        seed=seed,
        rank=rank,
        world=world,
    )


def build_source(config: MethodConfig, supplies: Supplies) -> RolloutSource[StepPairs, StepBatch]:
    """SPO's and LPO's source of pairs for one process of a run."""
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
        judged_at_start=config.fidelity.judged_at_start,
        decode=supplies.decode,
        preview_decode=supplies.preview_decode(),
        reference=config.reference.kind,
        weigher=build_weigher(config.weighting, supplies),
    )

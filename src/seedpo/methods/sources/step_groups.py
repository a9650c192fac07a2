"""Random denoising steps of groups of images, with the advantages of their final images (Flow-GRPO, MixGRPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seedpo.core.advantages import group_advantages
from seedpo.core.sampling import Sampler, draw_noise, step_candidates
from seedpo.core.transitions import Gaussian, drawn_log_prob, widest_dtype
from seedpo.core.types import StepGroups
from seedpo.core.weighting import excess
from seedpo.errors import ConfigError
from seedpo.methods.settings import GroupConfig, MethodConfig, SamplingConfig, StepGroupConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.judging import draw_and_judge
from seedpo.methods.sources.rollouts import RolloutSource
from seedpo.methods.sources.stored_steps import (
    OF_TEACHING,
    StoredSteps,
    first_of_each,
    joined,
    joined_fields,
    on_device,
    renumbered,
    rows_of,
    rows_of_units,
    selected,
    starts,
)
from seedpo.methods.sources.supplies import Supplies
from seedpo.methods.sources.weighing import Teaching, Weigher, build_weigher, teaching_of_winners
from seedpo.protocols import Comparisons, Denoiser, Reward


@dataclass(frozen=True, kw_only=True)
class JudgedSteps(StoredSteps):
    """N stored steps of images that were judged in groups.

    Attributes:
        advantage: of the image of each step in its group, (N,) float64.
        log_prob: log of the policy that drew each step, summed, in nats, (N,) float64.
        loss_weight: what the advantage of each step is multiplied by, (N,) float64; ``None``: 1 throughout.
        suspect: whether second opinions doubt the reward of its image, (N,) bool; ``None`` if there are none.
        unit: steps with the same number are handed out together, (N,) int64, from 0 without gaps.
    """

    advantage: Tensor
    log_prob: Tensor
    loss_weight: Tensor | None = None
    suspect: Tensor | None = None
    unit: Tensor

    def units(self) -> int:
        """Number of units."""
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    def take(self, units: Tensor) -> JudgedSteps:
        """The steps of some units, (U,) int64, in that order; units are numbered anew, in their old order."""
        steps = rows_of_units(self.unit, units)
        return JudgedSteps(
            **selected(self, steps),
            **rows_of(self, _OF_STEPS, steps),
            unit=torch.unique(self.unit[steps], return_inverse=True)[1],
        )

    @classmethod
    def join(cls, parts: Sequence[JudgedSteps]) -> JudgedSteps:
        """Several roll-outs as one; their units follow each other."""
        return cls(
            **joined(parts),
            **joined_fields(parts, _OF_STEPS),
            unit=renumbered([part.unit for part in parts], [part.units() for part in parts]),
        )


_OF_STEPS = ("advantage", "log_prob", *OF_TEACHING)
"""What there is of each step."""


def step_groups(steps: JudgedSteps, embeddings: PromptEmbeddings, *, share: bool) -> StepGroups:
    """The steps with embedded prompts, on the policy's device.

    Args:
        steps: what a roll-out made.
        embeddings: of the policy's prompts.
        share: whether an x_t from which several steps start is one row.
    """
    device = embeddings.device
    first = start = torch.arange(len(steps.start))
    if share:
        first, start = first_of_each(steps.start)
    return StepGroups(
        **starts(steps, first, embeddings),
        next_latents=steps.latents[steps.end].to(device),
        start=start.to(device),
        advantage=steps.advantage.to(device, widest_dtype(device)),
        rollout_log_prob=steps.log_prob.to(device, widest_dtype(device)),
        **on_device(rows_of(steps, OF_TEACHING, torch.arange(len(steps.start))), device),
    )


@dataclass(frozen=True, kw_only=True)
class _Paths:
    """What of the trajectories of P prompts with G images is trained on.

    Attributes:
        clean: the clean latents, (P G, ...).
        window: numbers of the W random steps, ascending.
        latents: all x_t at which a random step starts or ends, (S, ...).
        start: row of ``latents`` where each step starts, (W, P, G) int64.
        end: row where it ends, (W, P, G) int64.
        log_prob: of each step under the network that drew it, summed, in nats, (W, P, G) float64.
    """

    clean: Tensor
    window: list[int]
    latents: Tensor
    start: Tensor
    end: Tensor
    log_prob: Tensor

    @classmethod
    def join(cls, parts: Sequence[_Paths]) -> _Paths:
        """The trajectories of all prompts in succession, with the same random steps."""
        before = [sum(len(part.latents) for part in parts[:index]) for index in range(len(parts))]
        rows = {
            name: torch.cat([getattr(part, name) + offset for part, offset in zip(parts, before, strict=True)], 1)
            for name in ("start", "end")
        }
        return cls(
            clean=torch.cat([part.clean for part in parts]),
            window=parts[0].window,
            latents=torch.cat([part.latents for part in parts]),
            log_prob=torch.cat([part.log_prob for part in parts], 1),
            **rows,
        )


class StepGroupRollout:
    """Samples G images per prompt, some of whose steps are random, and gives those steps the advantage of their image.

    Kept of Flow-GRPO (arXiv 2505.05470) and MixGRPO (arXiv 2507.21802): one advantage for all steps of an image, the
    log-probability of drawing a step as the one that ratios refer to, and ODE steps outside a window. Images of a group
    that share x_T are one row of the network until their first random step, which published code does for one random
    step only.

    Args:
        policy: the model that is sampled.
        judge: scores the final images, or says of every two which is preferred.
        sampling: number of steps, guidance, eta of the random ones, and prompts that are drawn together.
        groups: images and prompts per roll-out, which groups are kept, and what an advantage is.
        config: which steps are random.
        embeddings: of the policy's prompts.
        weigher: says how much each image teaches; ``None``: all alike.

    Raises:
        ConfigError: if there are fewer steps with a density than are to be random.
    """

    def __init__(
        self,
        policy: Denoiser,
        judge: Reward | Comparisons,
        *,
        sampling: SamplingConfig,
        groups: GroupConfig,
        config: StepGroupConfig,
        embeddings: PromptEmbeddings | None = None,
        weigher: Weigher | None = None,
    ) -> None:
        self.policy = policy
        self.judge = judge
        self.groups = groups
        self.config = config
        self.at_once = sampling.prompts_at_once
        self.sampler = Sampler(policy, sampling)
        self.embeddings = embeddings or PromptEmbeddings(policy)
        self.weigher = weigher
        self.trainable_steps = trainable_steps(self.sampler, config)

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[str], *, generator: torch.Generator, number: int = 0
    ) -> tuple[JudgedSteps | None, Mapping[str, float]]:
        """Steps of one roll-out (``None`` if no group is clear enough) and what was observed."""
        window = self._window(generator)

        def draw(some: slice) -> tuple[_Paths, Tensor]:
            paths = self._walk(prompts[some], window, generator=generator)
            return paths, self.policy.decode(paths.clean)

        count = self.groups.images_per_prompt
        judged = draw_and_judge(self.judge, draw, prompts, count=count, at_once=self.at_once)
        paths, judgement = _Paths.join(judged.parts), judged.judgement
        clear = judgement.clear(self.groups.min_gap)
        winners = ((excess(judgement.scores) > 0) & clear[:, None]).flatten().nonzero()[:, 0]
        teaching = teaching_of_winners(
            self.weigher, judged.images, judged.prompts, judgement, winners=winners, lot=number
        )
        observed = {**judgement.observed, "groups_kept": clear.float().mean().item(), **teaching.observed}
        if not clear.any():
            return None, observed
        advantages = group_advantages(judgement.scores, normalise=self.groups.normalise)
        steps = self._steps(paths, advantages, teaching, prompts)
        # The units of a prompt follow each other: (P, units of a prompt).
        units = torch.arange(steps.units()).view(len(prompts), -1)[clear]
        return steps.take(units.flatten()), observed

    def _window(self, generator: torch.Generator) -> list[int]:
        """Numbers of the sampler's steps that are random in a roll-out."""
        steps, length = self.trainable_steps, self.config.trained_steps or len(self.trainable_steps)
        begin = 0
        if self.config.window == "random":
            begin = int(torch.randint(len(steps) - length + 1, (), generator=generator))
        return steps[begin : begin + length]

    def _walk(self, prompts: Sequence[str], window: list[int], *, generator: torch.Generator) -> _Paths:
        """From x_T to clean latents; rows of one prompt follow each other.

        The images of a prompt are one row until they part, at x_T or at the first random step::

            x_T ---ODE---> x_1 ---random---> G rows ---ODE--- ...
        """
        policy, groups = self.policy, self.groups
        first = 1 if groups.shared_noise else groups.images_per_prompt
        latents = draw_noise((len(prompts) * first, *policy.latent_shape), generator=generator, device=policy.device)
        stored: list[Tensor] = []
        rows: dict[int, Tensor] = {}
        log_probs: list[Tensor] = []

        def store(state: int, latents: Tensor) -> None:
            if state not in rows:
                number = torch.arange(len(latents)) + sum(map(len, stored))
                rows[state] = number.view(len(prompts), -1).expand(-1, groups.images_per_prompt)
                stored.append(latents)

        for index in range(len(self.sampler.timesteps[0])):
            is_random = index in window
            step = self._step(latents, index, prompts, eta=self.sampler.eta if is_random else 0.0)
            if is_random:
                store(index, latents)
                count = len(prompts) * groups.images_per_prompt // len(latents)
                latents = step_candidates(step, count=count, generator=generator).flatten(0, 1)
                drawn = drawn_log_prob(step.repeat_interleave(count), latents)
                log_probs.append(drawn.to(device="cpu", dtype=torch.float64).view(len(prompts), -1))
                store(index + 1, latents)
            else:
                latents = step.mean
        return _Paths(
            clean=latents,
            window=window,
            latents=torch.cat(stored),
            start=torch.stack([rows[index] for index in window]),
            end=torch.stack([rows[index + 1] for index in window]),
            log_prob=torch.stack(log_probs),
        )

    def _step(self, latents: Tensor, index: int, prompts: Sequence[str], *, eta: float) -> Gaussian:
        """One of the sampler's steps; ``latents`` holds k consecutive rows per prompt."""
        count = len(latents) // len(prompts)
        now, then = (times[index].expand(len(latents)).to(latents.device) for times in self.sampler.timesteps)
        conditioning = self.embeddings.of(prompts).repeat_interleave(count)
        prediction = self.sampler.predict(latents, now, conditioning, self.embeddings.negative(len(latents)))
        return self.policy.process.step(prediction, latents, now, then, eta=eta)

    def _steps(self, paths: _Paths, advantages: Tensor, teaching: Teaching, prompts: Sequence[str]) -> JudgedSteps:
        """All random steps, those of a prompt in succession: step, then image, (P, W, G) in one row."""
        shape = (len(prompts), len(paths.window), self.groups.images_per_prompt)
        timesteps, next_timesteps = (times[paths.window] for times in self.sampler.timesteps)
        unit = torch.arange(shape[0] * shape[1] * shape[2])
        if self.config.update_per == "group":
            unit = torch.arange(shape[0] * shape[1]).repeat_interleave(shape[2])
        image = torch.arange(shape[0] * shape[2]).view(shape[0], 1, shape[2]).expand(shape).flatten()
        return JudgedSteps(
            **teaching.of(image),
            latents=paths.latents,
            start=paths.start.transpose(0, 1).flatten(),
            end=paths.end.transpose(0, 1).flatten(),
            timestep=timesteps[:, None].expand(shape).flatten(),
            next_timestep=next_timesteps[:, None].expand(shape).flatten(),
            prompt=torch.arange(len(prompts))[:, None, None].expand(shape).flatten(),
            prompts=tuple(prompts),
            advantage=advantages.cpu()[:, None].expand(shape).flatten(),
            log_prob=paths.log_prob.transpose(0, 1).flatten(),
            unit=unit,
        )


def trainable_steps(sampler: Sampler, config: StepGroupConfig) -> list[int]:
    """Numbers of the sampler's steps among which the random ones of a roll-out lie.

    Raises:
        ConfigError: if there are fewer than are to be random.
    """
    steps: list[int] = sampler.has_density.nonzero()[:, 0].tolist()
    wanted = config.trained_steps or len(steps)
    if config.window == "random":
        steps = steps[: config.window_range or max(wanted, len(sampler.timesteps[0]) // 2)]
    if wanted > len(steps):
        raise ConfigError(
            f"step_groups.trained_steps = {wanted} is more than the {len(steps)} steps that may be random; "
            "lower it, or raise sampling.num_inference_steps or step_groups.window_range"
        )
    return steps


def build_source(config: MethodConfig, supplies: Supplies) -> RolloutSource[JudgedSteps, StepGroups]:
    """Flow-GRPO's source of steps for one process of a run."""
    embeddings = PromptEmbeddings(supplies.policy)
    return RolloutSource(
        StepGroupRollout(
            supplies.policy,
            supplies.judge(),
            sampling=config.sampling,
            groups=config.groups,
            config=config.step_groups,
            embeddings=embeddings,
            weigher=build_weigher(config.weighting, supplies),
        ),
        supplies.prompts(),
        embeddings,
        record=JudgedSteps,
        batch=partial(step_groups, share=config.step_groups.update_per == "group"),
        prompts_per_rollout=config.groups.prompts_per_rollout,
        updates_per_rollout=config.groups.updates_per_rollout,
        batch_size=config.batch_size,
        clear_if=f"groups.min_gap = {config.groups.min_gap:g}",
        seed=config.seed,
        rank=supplies.rank,
        world=supplies.world,
    )

"""SPO's roll-out with a reward of noisy latents: what it is asked, what is saved, and LPO's growing gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import Sampler
from seedpo.methods.settings import SamplingConfig, StepPoolConfig
from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.step_pairs import step_batch
from seedpo.methods.sources.steps import StepRollout, min_gaps
from tests.methods.flow import flow_process
from tests.methods.sources.toys import PROMPTS, ToyDenoiser, schedule, seeded

STEPS, PLAIN, CANDIDATES, B = 6, 2, 3, 4
ASKED = PROMPTS[:B]


@dataclass
class ToyLatentReward:
    """The mean of the latents; it remembers what it was asked."""

    scale: float = 20.0
    asked: list[tuple[Tensor, list[str], Tensor]] = field(default_factory=list)

    def misfit(self, policy: Any) -> str | None:
        return None

    def score_latents(self, latents: Tensor, prompts: Sequence[str], *, timestep: Tensor) -> Tensor:
        self.asked.append((latents, list(prompts), timestep))
        return self.scale * latents.mean((1, 2, 3))


class Undecoded(ToyDenoiser):
    """A model that must not decode."""

    def decode(self, latents: Tensor) -> Tensor:
        raise AssertionError("something was decoded")


def rollout(model: ToyDenoiser, reward: Any, *, judged_at_start: bool = False, **settings: Any) -> StepRollout:
    return StepRollout(
        model,
        reward,
        sampling=SamplingConfig(num_inference_steps=STEPS, guidance_scale=2.0, eta=1.0),
        config=StepPoolConfig(**({"candidates": CANDIDATES, "plain_steps": PLAIN, "min_gap": 0.0} | settings)),
        judged_at_start=judged_at_start,
    )


def test_the_candidates_themselves_are_judged_at_their_own_time() -> None:
    model, reward = Undecoded(), ToyLatentReward()
    rolled, observed = rollout(model, reward)(ASKED, generator=seeded())
    assert rolled is not None
    timesteps, following = model.process.timesteps(STEPS)
    assert len(reward.asked) == STEPS - PLAIN
    batch = step_batch(rolled, PromptEmbeddings(model), share_between_pairs=False)
    for step, (latents, prompts, times) in zip(range(PLAIN, STEPS), reward.asked, strict=True):
        assert prompts == [prompt for prompt in ASKED for _ in range(CANDIDATES)]
        assert (times == max(int(following[step]), 0)).all()
        rows, candidates = torch.arange(B), latents.view(B, CANDIDATES, *latents.shape[1:])
        scores = candidates.mean((2, 3, 4))
        own = (batch.timestep[batch.start[batch.chosen]] == timesteps[step]).nonzero()[:, 0]
        assert torch.equal(batch.next_latents[batch.chosen[own]], candidates[rows, scores.argmax(1)])
        assert torch.equal(batch.next_latents[batch.rejected[own]], candidates[rows, scores.argmin(1)])
    last = reward.asked[-1][0].mean((1, 2, 3)) * reward.scale
    assert observed["reward"] == pytest.approx(float(last.mean()), rel=1e-5)


def test_only_the_candidate_that_continues_is_predicted() -> None:
    """One guided row per prompt and step, where previews need one of every candidate."""
    model = Undecoded()
    rollout(model, ToyLatentReward())(ASKED, generator=seeded())
    assert model.rows() == 2 * B * STEPS
    inner = Undecoded()
    rollout(inner, ToyLatentReward(), inner_steps=1)(ASKED, generator=seeded())
    # Two plain steps, then two blocks of two steps: one row into each block, CANDIDATES within it.
    assert inner.rows() == 2 * B * (PLAIN + 2 * (1 + CANDIDATES))


def test_the_same_candidates_are_drawn_as_for_previews() -> None:
    """At equal draws both kinds of reward see one walk, until the candidates that continue depend on nothing else."""
    latent, model = ToyLatentReward(), ToyDenoiser()
    rollout(Undecoded(), latent)(ASKED, generator=seeded())
    rollout(model, lambda images, prompts, timestep=None: images.mean((1, 2, 3)))(ASKED, generator=seeded())
    for step, (latents, _, _) in zip(range(PLAIN + 1, STEPS), latent.asked, strict=False):
        ahead = model.asked[step][0]
        assert torch.equal(ahead[len(ahead) // 2 :], latents)


def test_judged_at_start() -> None:
    model, reward = Undecoded(), ToyLatentReward()
    rollout(model, reward, judged_at_start=True, inner_steps=1)(ASKED, generator=seeded())
    timesteps, _ = model.process.timesteps(STEPS)
    assert [int(times[0]) for _, _, times in reward.asked] == [int(timesteps[3]), int(timesteps[5])]


def stable_diffusion(*, steps: int) -> Any:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000).square()
    alphas = (1 - betas).cumprod(0)
    model = ToyDenoiser(
        process=DiffusionProcess(alphas_cumprod=alphas, final_alpha_cumprod=float(alphas[0]), steps_offset=1)
    )
    return Sampler(model, SamplingConfig(num_inference_steps=steps, eta=1.0))


class TestGrowingGap:
    published = (
        *(0.0206, 0.0406, 0.1673, 0.2144, 0.2509, 0.2836, 0.3144, 0.3442, 0.3732, 0.4016),
        *(0.4293, 0.4565, 0.4829, 0.5087, 0.5336, 0.5576, 0.5807, 0.6029, 0.6241, 0.6444),
    )
    """Standard deviations of 20 steps, the last one first, as LPO's code lists them."""

    @pytest.mark.parametrize(("least", "most"), [(0.35, 0.5), (0.45, 0.6)])
    def test_is_the_published_table_at_20_steps(self, least: float, most: float) -> None:
        stds = torch.tensor(self.published)
        expected = (stds - stds[0]) / (stds[-1] - stds[0]) * (most - least) + least
        gaps = min_gaps(stable_diffusion(steps=20), StepPoolConfig(min_gap=least, min_gap_noisiest=most))
        assert gaps[::-1] == pytest.approx(expected.tolist(), abs=2e-5)

    @pytest.mark.parametrize("steps", [7, 50])
    def test_any_number_of_steps(self, steps: int) -> None:
        gaps = min_gaps(stable_diffusion(steps=steps), StepPoolConfig(min_gap=0.35, min_gap_noisiest=0.5))
        assert gaps == sorted(gaps, reverse=True)
        assert (gaps[0], gaps[-1]) == pytest.approx((0.5, 0.35))

    def test_steps_without_a_density_play_no_part(self) -> None:
        config, sampling = StepPoolConfig(min_gap=0.1, min_gap_noisiest=0.3), SamplingConfig(num_inference_steps=5)
        gaps = min_gaps(Sampler(ToyDenoiser(process=schedule(last_step_has_density=False)), sampling), config)
        assert gaps[-2:] == pytest.approx([0.1, 0.1])
        flow: Any = ToyDenoiser()
        flow.process = flow_process()
        some = min_gaps(Sampler(flow, sampling), config)
        assert (min(some), max(some)) == pytest.approx((0.1, 0.3))

    def test_off(self) -> None:
        assert min_gaps(stable_diffusion(steps=5), StepPoolConfig(min_gap=0.3)) == [0.3] * 5

    def test_decides_which_pairs_are_kept(self) -> None:
        """Each step's pairs by its own gap."""
        reward = ToyLatentReward(scale=3.0)
        made = rollout(Undecoded(), reward, min_gap=0.0, min_gap_noisiest=0.9, plain_steps=0)
        _, observed = made(ASKED, generator=seeded())
        kept = [
            torch.tanh((scores.amax(1) - scores.amin(1)) / 2) > gap
            for scores, gap in zip(
                [3.0 * latents.mean((1, 2, 3)).view(B, CANDIDATES) for latents, _, _ in reward.asked],
                made.min_gaps,
                strict=True,
            )
        ]
        share = float(torch.cat(kept).float().mean())
        assert 0 < share < 1
        assert observed["pairs_kept"] == pytest.approx(share)

"""Flow matching against diffusers, the published formulas and exact Gaussian data."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from seedpo.core.flow import DENSITIES, SDE_RULES, shifted
from seedpo.core.transitions import drawn_log_prob, gaussian_log_prob
from tests.core.flow_data import GaussianData, flow_process, straight_levels

RULES = list(SDE_RULES)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def scheduler_levels(count: int, **config: Any) -> tuple[FlowMatchEulerDiscreteScheduler, Tensor]:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, **config)
    scheduler.set_timesteps(count)
    return scheduler, scheduler.sigmas


class TestShift:
    def test_static_and_dynamic_shifts_are_those_of_diffusers(self) -> None:
        levels = torch.linspace(1, 0.1, 10, dtype=torch.float64)
        static = FlowMatchEulerDiscreteScheduler(shift=3.0)
        static.set_timesteps(sigmas=levels.tolist())
        torch.testing.assert_close(shifted(levels, 3.0).float(), static.sigmas[:-1])
        dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        dynamic.set_timesteps(sigmas=levels.tolist(), mu=0.8)
        torch.testing.assert_close(shifted(levels, math.exp(0.8)).float(), dynamic.sigmas[:-1])

    def test_of_1_leaves_the_levels(self) -> None:
        levels = torch.linspace(0, 1, 7)
        assert torch.equal(shifted(levels, 1.0), levels)


class TestDensities:
    @pytest.mark.parametrize("name", DENSITIES)
    def test_quantiles(self, name: str) -> None:
        """Against the closed forms of the uniform and the logit-normal distribution."""
        drawn = flow_process(density=name, shift=3.0).draw_timesteps(40_000, generator=torch.Generator().manual_seed(0))
        assert drawn.dtype == torch.float32
        assert drawn.min() > 0
        assert drawn.max() <= 1
        shares = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
        plain = shares if name.startswith("uniform") else torch.special.ndtri(shares).sigmoid()
        quantiles = shifted(plain, 3.0) if name.endswith("shifted") else plain
        below = (drawn.double()[:, None] < quantiles).double().mean(0)
        torch.testing.assert_close(below, shares, rtol=0, atol=4 * 0.5 / 200)

    def test_a_shift_moves_the_median_from_a_half_to_three_quarters(self) -> None:
        assert float(shifted(torch.tensor(0.5), 3.0)) == pytest.approx(0.75)


class TestStraightLine:
    def test_a_perfect_prediction_gives_back_the_image(self) -> None:
        process, latents, noise = flow_process(), normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
        timestep = torch.tensor([0.01, 0.3, 0.9, 1.0], dtype=torch.float64)
        noisy, velocity = process.noisy(latents, noise, timestep), process.target(latents, noise, timestep)
        torch.testing.assert_close(process.clean(velocity, noisy, timestep), latents)

    def test_noise_is_added_as_in_diffusers(self) -> None:
        scheduler, levels = scheduler_levels(10)
        latents, noise = normal(10, 2, 4, 4).float(), normal(10, 2, 4, 4, seed=1).float()
        theirs = scheduler.scale_noise(latents, scheduler.timesteps, noise)
        torch.testing.assert_close(flow_process().noisy(latents, noise, levels[:-1]), theirs)

    def test_one_digest_for_all(self) -> None:
        """References are cached by it: neither how levels are drawn nor how a step is made changes an error."""
        digests = {
            flow_process(density=density, sde=sde, shift=shift).digest()
            for density, sde, shift in itertools.product(DENSITIES, RULES, (1.0, 3.0))
        }
        assert len(digests) == 1

    def test_guidance_is_the_family_s(self) -> None:
        negative, positive = normal(2, 3), normal(2, 3, seed=1)
        torch.testing.assert_close(flow_process().guided(negative, positive, 3.0), 3 * positive - 2 * negative)
        rescaled = flow_process(guide=lambda negative, positive, scale: scale * positive)
        assert torch.equal(rescaled.guided(negative, positive, 3.0), 3 * positive)


class TestRefused:
    @pytest.mark.parametrize("change", [{"density": "logit"}, {"sde": "ode"}])
    def test_unknown_names(self, change: dict[str, str]) -> None:
        (name,) = change
        with pytest.raises(ValueError, match=f"{name} = '{change[name]}' is not one of "):
            flow_process(**change)

    @pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
    @pytest.mark.parametrize("sde", RULES)
    def test_etas(self, sde: str, eta: float) -> None:
        process, latents = flow_process(sde=sde), normal(1, 2)
        with pytest.raises(ValueError, match=r"eta = .* must be from 0"):
            process.step(latents, latents, torch.tensor([0.5]), torch.tensor([0.4]), eta=eta)

    def test_no_steps(self) -> None:
        with pytest.raises(ValueError, match="num_inference_steps = 0 must be at least 1"):
            flow_process().timesteps(0)


def flow_grpo(x: Any, v: Any, levels: Any, index: int, a: float) -> tuple[Any, float]:
    """flow_grpo's sde_step_with_logprob, sde_type "sde"."""
    sigma, dt = levels[index], levels[index + 1] - levels[index]
    g = math.sqrt(sigma / (1 - (levels[1] if sigma == 1 else sigma))) * a
    mean = x * (1 + g**2 / (2 * sigma) * dt) + v * (1 + g**2 * (1 - sigma) / (2 * sigma)) * dt
    return mean, g * math.sqrt(-dt)


def dance(x: Any, v: Any, levels: Any, index: int, a: float) -> tuple[Any, float]:
    """DanceGRPO's flux_step: the score from the predicted clean image."""
    sigma, dsigma = levels[index], levels[index + 1] - levels[index]
    mean, std = x + dsigma * v, a * math.sqrt(-dsigma)
    score = -(x - (x - sigma * v) * (1 - sigma)) / sigma**2
    return mean - 0.5 * a**2 * score * dsigma, std


def cps(x: Any, v: Any, levels: Any, index: int, a: float) -> tuple[Any, float]:
    """flow_grpo's sde_step_with_logprob, sde_type "cps"."""
    sigma, following = levels[index], levels[index + 1]
    std = following * math.sin(a * math.pi / 2)
    clean, noise = x - sigma * v, x + v * (1 - sigma)
    return clean * (1 - following) + noise * math.sqrt(max(following**2 - std**2, 0.0)), std


class TestStep:
    @pytest.mark.parametrize("sde", RULES)
    @pytest.mark.parametrize("a", [0.3, 0.7, 1.0])
    def test_is_the_published_one(self, sde: str, a: float) -> None:
        """In float64, over the whole grid but the last step."""
        process, published = flow_process(sde=sde), {"flow-grpo": flow_grpo, "dance": dance, "cps": cps}[sde]
        levels = straight_levels(7, shift=3.0)
        x, v = normal(6, 5), normal(6, 5, seed=1)
        step = process.step(v, x, levels[:6], levels[1:7], eta=a)
        for index in range(6):
            mean, std = published(x[index].numpy(), v[index].numpy(), levels.numpy(), index, a)
            np.testing.assert_allclose(step.mean[index].numpy(), mean, rtol=1e-12, atol=1e-12)
            assert float(step.std[index]) == pytest.approx(std, rel=1e-12)

    @pytest.mark.parametrize("sde", RULES)
    def test_without_noise_it_is_diffusers_step_bit_for_bit(self, sde: str) -> None:
        scheduler, levels = scheduler_levels(9)
        x, v = normal(9, 2, 3, 3).float(), normal(9, 2, 3, 3, seed=1).float()
        step = flow_process(sde=sde).step(v, x, levels[:-1], levels[1:], eta=0.0)
        assert step.std.abs().max() == 0
        for index, time in enumerate(scheduler.timesteps):
            assert torch.equal(step.mean[index], scheduler.step(v[index], time, x[index], return_dict=False)[0])

    @pytest.mark.parametrize("sde", RULES)
    def test_the_last_one_is_always_euler_s(self, sde: str) -> None:
        process = flow_process(sde=sde)
        now, then = (levels[-1:] for levels in process.timesteps(5))
        x, v = normal(1, 4).float(), normal(1, 4, seed=1).float()
        step = process.step(v, x, now, then, eta=process.usual_eta)
        assert step.std.item() == 0
        assert torch.equal(step.mean, x - now * v)
        stds = process.step_std(*process.timesteps(5), eta=process.usual_eta)
        assert (stds > 0).tolist() == [True, True, True, True, False]

    def test_cps_at_1_is_diffusers_stochastic_sampling(self) -> None:
        scheduler, levels = scheduler_levels(9, stochastic_sampling=True)
        process, x, v = flow_process(sde="cps"), normal(9, 2, 3, 3).float(), normal(9, 2, 3, 3, seed=1).float()
        step = process.step(v, x, levels[:-1], levels[1:], eta=1.0)
        for index, time in enumerate(scheduler.timesteps):
            noise = normal(2, 3, 3, seed=index, dtype=torch.float32)
            theirs = scheduler.step(
                v[index], time, x[index], generator=torch.Generator().manual_seed(index), return_dict=False
            )[0]
            torch.testing.assert_close(step.mean[index] + step.std[index] * noise, theirs, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("sde", RULES)
    def test_one_row_alone_is_the_row_in_a_batch(self, sde: str) -> None:
        process, x, v = flow_process(sde=sde), normal(4, 6).float(), normal(4, 6, seed=1).float()
        now, then = process.timesteps(4)
        batch = process.step(v, x, now, then, eta=0.5)
        alone = process.step(v[2:3], x[2:3], now[2:3], then[2:3], eta=0.5)
        torch.testing.assert_close(alone.mean, batch.mean[2:3])
        torch.testing.assert_close(alone.std, batch.std[2:3])

    @pytest.mark.parametrize("sde", RULES)
    def test_it_is_computed_in_float32_or_wider(self, sde: str) -> None:
        process, half = flow_process(sde=sde), normal(1, 4).bfloat16()
        now, then = torch.tensor([0.5]), torch.tensor([0.4])
        for latents, prediction in ((half, half), (half.float(), half), (half, half.float())):
            step = process.step(prediction, latents, now, then, eta=0.5)
            assert step.mean.dtype == step.std.dtype == torch.float32
        assert process.clean(half, half, now).dtype == process.noisy(half, half, now).dtype == torch.float32
        assert (
            process.step(normal(1, 4), normal(1, 4), now.double(), then.double(), eta=0.5).mean.dtype == torch.float64
        )

    @pytest.mark.parametrize("sde", RULES)
    def test_a_first_level_that_is_rounded_from_1(self, sde: str) -> None:
        """Flow-GRPO's rate is infinite there, and huge beside it."""
        process, x = flow_process(sde=sde), normal(1, 4).float()
        then = torch.tensor([0.9])
        exact, rounded = (
            process.step(x, x, torch.tensor([level]), then, eta=0.7)
            for level in (1.0, float(np.nextafter(1, 0, dtype="f4")))
        )
        torch.testing.assert_close(rounded.mean, exact.mean)
        torch.testing.assert_close(rounded.std, exact.std)


@pytest.mark.parametrize("sde", RULES)
def test_log_probs_are_those_of_torch(sde: str) -> None:
    process, x, v = flow_process(sde=sde), normal(5, 3, 4).float(), normal(5, 3, 4, seed=1).float()
    now, then = process.timesteps(5)
    step = process.step(v, x, now, then, eta=process.usual_eta)
    drawn = step.mean + step.std.view(-1, 1, 1) * normal(5, 3, 4, seed=2).float()
    found = drawn_log_prob(step, drawn)
    mean, std, drawn = step.mean.double()[:4], step.std.double()[:4], drawn.double()[:4]
    expected = torch.distributions.Normal(mean, std.view(-1, 1, 1)).log_prob(drawn).sum((1, 2))
    torch.testing.assert_close(found[:4], expected, rtol=1e-5, atol=1e-4)
    assert found[4].isnan(), "the deterministic last step has no density"


@pytest.mark.parametrize("sde", RULES)
def test_gradcheck(sde: str) -> None:
    process, x, drawn = flow_process(sde=sde), normal(2, 4), normal(2, 4, seed=1)
    now, then = (torch.tensor(levels, dtype=torch.float64) for levels in ([1.0, 0.4], [0.8, 0.3]))

    def log_prob(velocity: Tensor) -> Tensor:
        step = process.step(velocity, x, now, then, eta=0.6)
        return gaussian_log_prob(drawn, step.mean, step.std)

    assert torch.autograd.gradcheck(log_prob, (normal(2, 4, seed=2).requires_grad_(),))


COLUMNS = [("dance", 0.0), ("flow-grpo", 0.7), ("dance", 0.3), ("cps", 0.5), ("cps", 0.8)]
TABLE = {
    10: [0.547, 0.701, 0.570, 0.485, 0.396],
    28: [0.811, 0.884, 0.828, 0.685, 0.523],
    1000: [0.994, 0.999, 0.995, 0.842, 0.643],
}
"""Variance of the images as a share of the data's, of variance 1/4, as docs/fidelity.md states it."""


class TestGaussianData:
    """Data N(0.3, s^2) at shift 3, with the exact velocity: mean and variance go from step to step in closed form."""

    @pytest.mark.parametrize("count", TABLE)
    def test_the_table_of_variances(self, count: int) -> None:
        data = GaussianData(mean=0.3, variance=0.25)
        for (sde, eta), share in zip(COLUMNS, TABLE[count], strict=True):
            means, variances = data.moments(flow_process(sde=sde), straight_levels(count, shift=3.0), eta=eta)
            assert float(means[-1]) == pytest.approx(0.3, abs=1e-9), (sde, eta)
            assert float(variances[-1]) / 0.25 == pytest.approx(share, abs=6e-4), (sde, eta)

    @pytest.mark.parametrize(("sde", "eta"), [("dance", 0.0), ("dance", 0.3), ("flow-grpo", 0.7)])
    @pytest.mark.parametrize("variance", [0.05, 0.25, 1.0])
    def test_rules_with_a_score_tend_to_the_data(self, sde: str, eta: float, variance: float) -> None:
        data = GaussianData(mean=0.3, variance=variance)
        shares = [
            float(data.moments(flow_process(sde=sde), straight_levels(count, shift=3.0), eta=eta)[1][-1]) / variance
            for count in (10, 100, 5000)
        ]
        errors = [abs(share - 1) for share in shares]
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 0.005

    @pytest.mark.parametrize("eta", [0.25, 0.5, 0.8, 1.0])
    @pytest.mark.parametrize("variance", [0.05, 0.25, 1.0])
    def test_cps_loses_a_share_of_the_variance_however_many_steps(self, eta: float, variance: float) -> None:
        """(1 + cos(a pi / 2)) / 2 of it is left in the limit, whatever the data's is."""
        data, process = GaussianData(mean=0.3, variance=variance), flow_process(sde="cps")
        shares = [
            float(data.moments(process, straight_levels(count, shift=3.0), eta=eta)[1][-1]) / variance
            for count in (1000, 10_000)
        ]
        limit = (1 + math.cos(eta * math.pi / 2)) / 2
        assert shares[0] < shares[1] < limit
        assert shares[1] == pytest.approx(limit, abs=5e-3)

    @pytest.mark.parametrize(("count", "most"), [(10, 1.160), (28, 1.113), (1000, 1.095)])
    def test_flow_grpo_s_substitution_at_sigma_1_leaves_too_much_variance(self, count: int, most: float) -> None:
        """The first step draws noise of std a, however short it is, so that 1 + a^4 / 4 of the variance is left."""
        data, levels = GaussianData(mean=0.3, variance=0.25), straight_levels(count, shift=3.0)
        _, variances = data.moments(flow_process(sde="flow-grpo"), levels, eta=0.7)
        excess = variances / data.variance_at(levels[1:])
        assert float(excess[:-1].max()) == pytest.approx(most, abs=6e-4)
        first = data.moments(flow_process(sde="flow-grpo"), torch.tensor([1.0, 1 - 1e-7], dtype=torch.float64), eta=0.7)
        assert float(first[1][0]) == pytest.approx(1 + 0.7**4 / 4, rel=1e-5)
        _, plain = data.moments(flow_process(sde="dance"), levels, eta=0.3)
        assert float((plain / data.variance_at(levels[1:]))[:-1].max()) < 1.001

    def test_cps_keeps_the_share_of_noise_at_every_level(self) -> None:
        process, levels = flow_process(sde="cps"), straight_levels(8, shift=3.0)
        std = process.step_std(levels[:-1], levels[1:], eta=0.8)
        removed = SDE_RULES["cps"].removed(levels[:-1], levels[1:], std)
        kept = levels[1:] - removed
        torch.testing.assert_close(kept.square() + std.square(), levels[1:].square())

    @pytest.mark.parametrize("sde", RULES)
    def test_drawn_images_have_these_moments(self, sde: str) -> None:
        process, data, rows = flow_process(sde=sde), GaussianData(mean=0.3, variance=0.25), 40_000
        levels = straight_levels(10, shift=3.0)
        means, variances = data.moments(process, levels, eta=process.usual_eta)
        x = normal(rows, 1)
        for index, (now, then) in enumerate(itertools.pairwise(levels)):
            step = process.step(data.velocity(x, now), x, now.expand(rows), then.expand(rows), eta=process.usual_eta)
            x = step.mean + step.std.view(-1, 1) * normal(rows, 1, seed=index + 1)
        assert float(x.mean()) == pytest.approx(float(means[-1]), abs=4 * math.sqrt(float(variances[-1]) / rows))
        assert float(x.var()) == pytest.approx(float(variances[-1]), rel=4 * math.sqrt(2 / rows))


class TestScorersTime:
    def test_signal_to_noise_is_stable_diffusion_s(self) -> None:
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        times = torch.arange(1, 1000)
        level = flow_process().timestep_of(times).double()
        share = scheduler.alphas_cumprod.double()[times]
        torch.testing.assert_close(((1 - level) / level).square(), share / (1 - share), rtol=1e-3, atol=0)

    def test_there_and_back(self) -> None:
        process = flow_process()
        times = torch.arange(process.embedded_times)
        assert torch.equal(process.embedded_time(process.timestep_of(times)), times)
        assert process.timestep_of(times[:1]).item() == 0

    def test_times_are_whole_numbers_that_rise_with_the_noise(self) -> None:
        times = flow_process().embedded_time(torch.tensor([-1.0, 0.0, 0.2, 0.5, 0.93, 1.0]))
        assert times.dtype == torch.int64
        assert times.tolist()[:2] == [0, 0]
        assert times.tolist()[-1] == 999
        assert (times[1:].diff() > 0).all()

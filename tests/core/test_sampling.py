from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import Sampler, Sampling, draw_noise, guided_prediction, step_candidates
from seedpo.core.transitions import Gaussian
from seedpo.core.types import Trajectory
from tests.core.denoisers import Linear, linear, prompts, small_process

SHAPE = (2, 3, 3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(rows: int = 3, *, seed: int = 7) -> Tensor:
    return draw_noise((rows, *SHAPE), generator=seeded(seed))


def arguments(rows: int = 3, **changes: Any) -> dict[str, Any]:
    """Five guided steps from fixed latents."""
    return {
        "model": Linear(),
        "latents": start(rows),
        "conditioning": prompts(*(0.1 * row for row in range(rows))),
        "negative": prompts(*[0.0] * rows),
        "guidance_scale": 2.0,
        "eta": 1.0,
        "generator": seeded(),
    } | changes


def draw(name: str, *, model: Any, guidance_scale: float, eta: float, **given: Any) -> Any:
    settings = Sampling(num_inference_steps=5, guidance_scale=guidance_scale, eta=eta)
    return getattr(Sampler(model, settings), name)(**given)


def sample_trajectory(**given: Any) -> Trajectory:
    path: Trajectory = draw("trajectory", **given)
    return path


def sample_latents(**given: Any) -> Tensor:
    latents: Tensor = draw("sample", **given)
    return latents


class TestTrajectory:
    def test_shapes_and_time_steps(self) -> None:
        path = sample_trajectory(**arguments())
        timesteps, previous = small_process().timesteps(5)
        assert path.latents.shape == (3, 6, *SHAPE)
        assert path.timesteps.shape == path.next_timesteps.shape == (3, 5)
        for row in range(3):
            assert torch.equal(path.timesteps[row], timesteps)
            assert torch.equal(path.next_timesteps[row], previous)
        assert torch.equal(path.latents[:, 0], start())

    @pytest.mark.parametrize("eta", [0.0, 1.0])
    def test_is_the_loop_of_diffusers(self, eta: float) -> None:
        scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
        scheduler.set_timesteps(5)
        schedule = DiffusionProcess(alphas_cumprod=scheduler.alphas_cumprod, steps_offset=1)
        path = sample_trajectory(**arguments(model=Linear(schedule), eta=eta))
        latents, generator = start(), seeded()
        positive, negative = arguments()["conditioning"], arguments()["negative"]
        for index, timestep in enumerate(scheduler.timesteps):
            rows = timestep.repeat(3)
            without = linear(latents, rows, negative)
            guided = without + 2.0 * (linear(latents, rows, positive) - without)
            noise = draw_noise(latents.shape, generator=generator)
            latents = scheduler.step(guided, int(timestep), latents, eta=eta, variance_noise=noise, return_dict=False)[
                0
            ]
            torch.testing.assert_close(path.latents[:, index + 1], latents, rtol=1e-5, atol=1e-5)

    def test_each_state_was_drawn_from_the_step_before_it(self) -> None:
        path = sample_trajectory(**arguments())
        generator = seeded()
        for index in range(5):
            step = Sampler(Linear(), Sampling(num_inference_steps=5, guidance_scale=2.0, eta=1.0)).step(
                path.latents[:, index],
                path.timesteps[:, index],
                path.next_timesteps[:, index],
                prompts(0.0, 0.1, 0.2),
                prompts(0.0, 0.0, 0.0),
            )
            noise = draw_noise((3, *SHAPE), generator=generator)
            wanted = step.mean + step.std.view(-1, 1, 1, 1) * noise
            torch.testing.assert_close(path.latents[:, index + 1], wanted)
        assert (step.std == 0).all()  # the last step of this schedule reaches the clean image without noise

    def test_no_gradient_is_kept(self) -> None:
        weight = torch.ones((), requires_grad=True)
        path = sample_trajectory(**arguments(model=Linear(weight=weight)))
        assert not path.latents.requires_grad
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize(("scale", "rows"), [(1.0, 3), (5.0, 6)])
    def test_one_call_per_step(self, scale: float, rows: int) -> None:
        model = Linear()
        sample_trajectory(**arguments(model=model, guidance_scale=scale))
        assert [len(latents) for latents, _, _ in model.calls] == [rows] * 5

    def test_half_precision_latents_are_widened(self) -> None:
        path = sample_trajectory(**arguments(latents=start().bfloat16()))
        assert path.latents.dtype == torch.float32
        assert sample_latents(**arguments(latents=start().bfloat16())).dtype == torch.float32


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_without_the_path_the_images_are_the_same(eta: float) -> None:
    path = sample_trajectory(**arguments(eta=eta))
    assert torch.equal(sample_latents(**arguments(eta=eta)), path.latents[:, -1])


class TestRandomness:
    def test_a_seed_gives_the_same_images_again(self) -> None:
        first, again = (sample_latents(**arguments(generator=seeded(4))) for _ in range(2))
        other = sample_latents(**arguments(generator=seeded(5)))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)

    def test_global_randomness_is_not_touched(self) -> None:
        before = torch.get_rng_state()
        sample_trajectory(**arguments())
        assert torch.equal(torch.get_rng_state(), before)

    def test_eta_0_needs_no_generator_and_takes_nothing_from_one(self) -> None:
        generator = seeded()
        without = sample_latents(**arguments(eta=0.0, generator=None))
        assert torch.equal(without, sample_latents(**arguments(eta=0.0, generator=generator)))
        assert torch.equal(generator.get_state(), seeded().get_state())

    @pytest.mark.parametrize("sample", [sample_trajectory, sample_latents])
    def test_noise_without_a_generator_is_refused(self, sample: Any) -> None:
        with pytest.raises(ValueError, match=r"eta = 1.0 draws noise at every step: hand in a generator"):
            sample(**arguments(generator=None))

    def test_eta_0_does_not_depend_on_batch_neighbours(self) -> None:
        together = sample_latents(**arguments(eta=0.0))
        alone = sample_latents(
            **arguments(
                latents=start()[1:2],
                conditioning=prompts(0.1),
                negative=prompts(0.0),
                eta=0.0,
            )
        )
        torch.testing.assert_close(alone, together[1:2])

    def test_what_the_neighbours_hold_does_not_matter_at_eta_1(self) -> None:
        first = sample_latents(**arguments())
        latents = start()
        latents[0] = 5.0
        changed = sample_latents(**arguments(latents=latents, conditioning=prompts(9.0, 0.1, 0.2)))
        torch.testing.assert_close(changed[1:], first[1:])
        assert not torch.allclose(changed[0], first[0])

    def test_noise_is_the_cpu_generator_s_float32_stream(self) -> None:
        noise = draw_noise((2, 3), generator=seeded(3))
        assert torch.equal(noise, torch.randn(2, 3, generator=seeded(3), dtype=torch.float32))
        generator = seeded(3)
        draw_noise((2, 3), generator=generator, device="meta")
        after = seeded(3)
        draw_noise((2, 3), generator=after)
        assert torch.equal(generator.get_state(), after.get_state())


class TestCandidates:
    @staticmethod
    def transition() -> Gaussian:
        mean = torch.stack([torch.full(SHAPE, -1.0), torch.full(SHAPE, 2.0), torch.full(SHAPE, 0.5)])
        return Gaussian(mean=mean, std=torch.tensor([0.5, 3.0, 0.0]))

    def test_mean_and_spread(self) -> None:
        count = 4000
        candidates = step_candidates(self.transition(), count=count, generator=seeded(1))
        assert candidates.shape == (3, count, *SHAPE)
        drawn = candidates[:2].flatten(2)
        # 18 latent dimensions, each with a standard error of std / sqrt(count) = 0.016 std.
        torch.testing.assert_close(drawn.mean(1), self.transition().mean[:2].flatten(1), rtol=0, atol=0.16)
        torch.testing.assert_close(
            drawn.mean((1, 2)), torch.tensor([-1.0, 2.0]), rtol=0, atol=4 * 3.0 / (18 * count) ** 0.5
        )
        torch.testing.assert_close(drawn.std((1, 2)), torch.tensor([0.5, 3.0]), rtol=0.012, atol=0)
        correlation = torch.corrcoef(drawn[0].T)
        assert (correlation - torch.eye(18)).abs().max() < 0.08

    def test_candidates_differ_unless_the_step_is_deterministic(self) -> None:
        candidates = step_candidates(self.transition(), count=2, generator=seeded(1))
        assert not torch.equal(candidates[0, 0], candidates[0, 1])
        assert torch.equal(candidates[2, 0], candidates[2, 1])
        assert torch.equal(candidates[2, 0], self.transition().mean[2])

    def test_a_seed_gives_the_same_candidates_whatever_the_means(self) -> None:
        first = step_candidates(self.transition(), count=3, generator=seeded(1))
        moved = replace(self.transition(), mean=self.transition().mean + 10)
        torch.testing.assert_close(step_candidates(moved, count=3, generator=seeded(1)), first + 10)

    @pytest.mark.parametrize("count", [0, -2])
    def test_refused_counts(self, count: int) -> None:
        with pytest.raises(ValueError, match=f"count = {count}"):
            step_candidates(self.transition(), count=count, generator=seeded())


class TestGuidance:
    def test_one_call_with_the_negative_prompts_first(self) -> None:
        model, latents, timestep = Linear(), start(2), torch.tensor([3, 5])
        guided = guided_prediction(model, latents, timestep, prompts(0.5, 0.7), prompts(0.1, 0.2), 5.0)
        ((asked, steps, conditioning),) = model.calls
        assert torch.equal(asked, torch.cat([latents, latents]))
        assert steps.tolist() == [3, 5, 3, 5]
        assert conditioning.prompt_embeds[:, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.5, 0.7])
        negative = linear(latents, timestep, prompts(0.1, 0.2))
        positive = linear(latents, timestep, prompts(0.5, 0.7))
        torch.testing.assert_close(guided, negative + 5 * (positive - negative))

    def test_scale_1_asks_for_the_prompts_alone(self) -> None:
        model, latents, timestep = Linear(), start(2), torch.tensor([3, 5])
        guided = guided_prediction(model, latents, timestep, prompts(0.5, 0.7), None, 1.0)
        assert [len(call[0]) for call in model.calls] == [2]
        assert torch.equal(guided, linear(latents, timestep, prompts(0.5, 0.7)))

    def test_scale_0_is_the_negative_prompt(self) -> None:
        latents, timestep = start(1), torch.tensor([3])
        guided = guided_prediction(Linear(), latents, timestep, prompts(0.5), prompts(0.1), 0.0)
        torch.testing.assert_close(guided, linear(latents, timestep, prompts(0.1)))

    def test_guidance_without_negative_prompts_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"guidance_scale = 5.0 needs negative_conditioning"):
            guided_prediction(Linear(), start(1), torch.tensor([3]), prompts(0.5), None, 5.0)

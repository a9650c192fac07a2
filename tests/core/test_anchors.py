from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from seedpo.core.anchors import is_early_step, is_early_time, target_error
from seedpo.core.processes import DiffusionProcess, Process
from seedpo.core.transitions import squared_distance
from tests.core.denoisers import small_process
from tests.core.flow_data import flow_process

SHAPE = (5, 2, 3)


def rows(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_the_distance_and_its_gradient_are_the_closed_form() -> None:
    mean, anchor = rows(2)
    distance = squared_distance(mean.requires_grad_(), anchor)
    torch.testing.assert_close(distance, (mean - anchor).square().mean((1, 2)))
    distance.sum().backward()
    torch.testing.assert_close(mean.grad, (2 * (mean - anchor) / 6).detach())
    assert torch.autograd.gradcheck(lambda value: squared_distance(value, anchor), (mean,))


def processes() -> list[Process]:
    kinds = ("epsilon", "v_prediction", "sample")
    ddpm = small_process(torch.float64)
    return [*(replace(ddpm, prediction_type=kind) for kind in kinds), flow_process()]  # type: ignore[arg-type]


@pytest.mark.parametrize("process", processes(), ids=["epsilon", "v", "sample", "flow"])
def test_the_error_is_that_of_the_target(process: Process) -> None:
    clean, noise, prediction = rows(3)
    end = process.pure_noise_time
    timestep = torch.tensor([0.01, 0.2, 0.5, 0.8, 0.99]) * end
    if isinstance(process, DiffusionProcess):
        timestep = timestep.long()
    latents = process.noisy(clean, noise, timestep)
    expected = (process.target(clean, noise, timestep) - prediction).square().mean((1, 2))
    error = target_error(prediction.requires_grad_(), clean, latents, timestep, process)
    torch.testing.assert_close(error, expected, rtol=1e-5, atol=1e-7)
    error.sum().backward()
    gradient = 2 * (prediction - process.target(clean, noise, timestep)).detach() / 6
    torch.testing.assert_close(prediction.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("process", processes()[2:], ids=["ddpm", "flow"])
def test_the_noisiest_third_of_the_times_is_early(process: Process) -> None:
    generator = torch.Generator().manual_seed(1)
    if isinstance(process, DiffusionProcess):
        times = process.draw_timesteps(20_000, generator=generator)
    else:
        times = torch.rand(20_000, generator=generator)
    early = is_early_time(times, process)
    assert early.double().mean() == pytest.approx(1 / 3, abs=0.02)
    assert times[early].min() > times[~early].max()


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (2, 1), (3, 1), (4, 2), (10, 4), (20, 7)])
def test_the_first_third_of_the_steps_is_early(steps: int, count: int) -> None:
    for process in (small_process(), flow_process()):
        visited, _ = process.timesteps(steps)
        assert is_early_step(visited, process, steps).tolist() == [True] * count + [False] * (steps - count)

"""Schedules against those of diffusers and transformers, which step a real optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import optimization as of_diffusers
from torch.optim.lr_scheduler import LambdaLR
from transformers import optimization as of_transformers

from seedpo.errors import ConfigError
from seedpo.training.optimizers import learning_rate_at
from seedpo.training.schedules import SCHEDULES, scheduled_rate
from tests.training.toys import toy_config

STEPS = 24
PEAK = 2e-3


def ours(schedule: str, *, warmup_steps: int, **options: Any) -> list[float]:
    return [
        scheduled_rate(step, peak=PEAK, warmup_steps=warmup_steps, max_steps=STEPS, schedule=schedule, **options)
        for step in range(1, STEPS + 1)
    ]


def theirs(scheduler: Callable[..., LambdaLR], **options: Any) -> list[float]:
    """The rate of each update, as a training script reads it."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=PEAK)
    rates = scheduler(optimizer, **options)
    values = []
    for _ in range(STEPS):
        values.append(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
    return values


REFERENCES: dict[str, tuple[str, dict[str, Any], Callable[..., LambdaLR], dict[str, Any]]] = {
    "cosine": ("cosine", {}, of_diffusers.get_cosine_schedule_with_warmup, {}),
    "linear": ("linear", {}, of_diffusers.get_linear_schedule_with_warmup, {}),
    "polynomial": (
        "polynomial",
        {"power": 2.5, "final_share": 0.1},
        of_diffusers.get_polynomial_decay_schedule_with_warmup,
        {"power": 2.5, "lr_end": 0.1 * PEAK},
    ),
    "restarts": (
        "cosine-restarts",
        {"cycles": 3},
        of_diffusers.get_cosine_with_hard_restarts_schedule_with_warmup,
        {"num_cycles": 3},
    ),
    "cosine with a floor": (
        "cosine",
        {"final_share": 0.25},
        of_transformers.get_cosine_with_min_lr_schedule_with_warmup,
        {"min_lr_rate": 0.25},
    ),
}


@pytest.mark.parametrize("warmup_steps", [0, 6])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_schedules_are_those_of_diffusers_and_transformers(name: str, warmup_steps: int) -> None:
    """After the warm-up they are equal; in it, ours is one update ahead."""
    schedule, options, scheduler, their_options = REFERENCES[name]
    rates = ours(schedule, warmup_steps=warmup_steps, **options)
    expected = theirs(scheduler, num_warmup_steps=warmup_steps, num_training_steps=STEPS, **their_options)
    assert rates[warmup_steps:] == pytest.approx(expected[warmup_steps:], rel=1e-12, abs=1e-18)
    assert rates[: max(warmup_steps - 1, 0)] == pytest.approx(expected[1:warmup_steps], rel=1e-12)
    if warmup_steps:
        assert (rates[0], expected[0]) == (PEAK / warmup_steps, 0.0)


def test_restarts_return_to_the_peak() -> None:
    rates = ours("cosine-restarts", warmup_steps=0, cycles=4, final_share=0.5)
    assert [step for step, rate in enumerate(rates) if rate == PEAK] == [0, 6, 12, 18]
    assert min(rates) == pytest.approx(PEAK * (0.75 + 0.25 * math.cos(math.pi * 5 / 6)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rates_stay_between_the_floor_and_the_peak(schedule: str) -> None:
    rates = ours(schedule, warmup_steps=0, power=0.5, cycles=2, final_share=0.25)
    assert rates[0] == PEAK
    assert all(0.25 * PEAK <= rate <= PEAK for rate in rates)


def test_the_keys_of_a_run_reach_the_schedule() -> None:
    optimizer = {"schedule": "polynomial", "schedule_power": 2.0, "final_learning_rate_share": 0.2, "warmup_steps": 2}
    config = toy_config(learning_rate=1.0, max_steps=6, optimizer=optimizer)
    rates = [learning_rate_at(step, config=config) for step in range(1, 7)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, *(0.2 + 0.8 * (1 - k / 4) ** 2 for k in (1, 2, 3))])


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"schedule_power": 2.0}, "schedule_power = 2.0"),
        ({"schedule": "cosine", "schedule_power": 2.0}, "polynomial"),
        ({"schedule": "cosine", "schedule_cycles": 3}, "cosine-restarts"),
        ({"final_learning_rate_share": 0.1}, "final_learning_rate_share = 0.1"),
        ({"final_learning_rate_share": 1.0, "schedule": "cosine"}, "final_learning_rate_share"),
        ({"schedule": "cosine-restarts", "schedule_cycles": 0}, "schedule_cycles"),
        ({"schedule": "polynomial", "schedule_power": 0.0}, "schedule_power"),
    ],
)
def test_keys_without_an_effect_are_refused(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        toy_config(optimizer=keys)

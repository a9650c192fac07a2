"""DGPO and DiffusionNFT against losses and gradients that an independent float64 reference recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.dgpo import dgpo_loss, group_margin, hold_clipped
from seedpo.core.entropy import entropy_weights
from seedpo.core.flow import FlowProcess
from seedpo.core.nft import nft_errors, nft_loss
from seedpo.core.processes import DiffusionProcess, Process
from seedpo.core.transitions import noise_log_prob
from tests.golden import groups as reference

RECORDED: dict[str, Any] = json.loads(reference.RECORD.read_text(encoding="utf-8"))
ADVANTAGES = torch.tensor(RECORDED["advantages"], dtype=torch.float64)


def sides() -> dict[str, Tensor]:
    """Recorded latents, noise, target and predictions; the policy's is a leaf."""
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in RECORDED["sides"].items()}
    values["model"].requires_grad_()
    return values


def assert_recorded(case: dict[str, Any], losses: Tensor, prediction: Tensor) -> None:
    losses.sum().backward()
    assert prediction.grad is not None
    for name, value in (("losses", losses.detach()), ("model", prediction.grad)):
        torch.testing.assert_close(value, torch.tensor(case[name], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", RECORDED["dgpo"], ids=lambda case: f"{case['beta']}-{case['gamma']}-{case['clip']}")
def test_dgpo(case: dict[str, Any]) -> None:
    now = sides()
    log_prob, reference_log_prob = (
        noise_log_prob(now[name], now["target"], reduction="mean").view_as(ADVANTAGES) for name in ("model", "ref")
    )
    if case["clip"] is not None:
        log_prob = hold_clipped(log_prob, reference_log_prob, ADVANTAGES, clip_range=case["clip"])
    a, b = entropy_weights(case["beta"], case["gamma"], convention="relative")
    margin = group_margin(log_prob, reference_log_prob, ADVANTAGES, policy_weight=a, reference_weight=b)
    assert_recorded(case, dgpo_loss(margin, reference_weight=b), now["model"])


def process_of(name: str) -> tuple[Process, Tensor]:
    """A process, and the times of the recorded rows in it."""
    times = torch.tensor(RECORDED["time"], dtype=torch.float64)
    if name == "flow":
        return FlowProcess(levels=lambda count: torch.linspace(1, 0, count + 1)), times
    return DiffusionProcess(alphas_cumprod=times), torch.arange(len(times))


@pytest.mark.parametrize("case", RECORDED["nft"], ids=lambda case: f"{case['process']}-{case['beta']}")
def test_nft(case: dict[str, Any]) -> None:
    now, (process, timestep) = sides(), process_of(case["process"])
    positive, negative = nft_errors(
        process,
        now["model"],
        now["ref"],
        clean=now["clean"],
        latents=process.noisy(now["clean"], now["noise"], timestep),
        timestep=timestep,
        beta=case["beta"],
    )
    losses = nft_loss(positive, negative, ADVANTAGES.flatten(), beta=case["beta"], limit=case["limit"])
    assert_recorded(case, losses, now["model"])


def test_the_recorded_cases_differ() -> None:
    for name in ("dgpo", "nft"):
        gradients = np.array([case["model"] for case in RECORDED[name]])
        assert min(np.abs(one - gradients[0]).max() for one in gradients[1:]) > 1e-3
    plain, clipped = (np.array(RECORDED["dgpo"][row]["model"]) for row in (1, 3))
    held = (np.abs(clipped) == 0).all(axis=(1, 2, 3))
    assert 0 < held.sum() < len(held)
    np.testing.assert_array_equal(clipped[~held], plain[~held])


def test_the_record_is_what_the_reference_gives() -> None:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [number for entry in value.values() for number in numbers(entry)]
        if isinstance(value, list):
            return [number for entry in value for number in numbers(entry)]
        return [value] if isinstance(value, int | float) else []

    np.testing.assert_allclose(numbers(reference.cases()), numbers(RECORDED), rtol=1e-9, atol=1e-12)

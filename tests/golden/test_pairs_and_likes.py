"""DSPO, MaPO and Diffusion-KTO against losses and gradients that an independent float64 reference recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.dspo import dspo_losses
from seedpo.core.kto import kto_baseline, kto_losses, kto_margin
from seedpo.core.mapo import mapo_losses, mapo_margin
from seedpo.core.transitions import noise_log_prob
from tests.golden import pairs_and_likes as reference

RECORDED: dict[str, Any] = json.loads(reference.RECORD.read_text(encoding="utf-8"))


def sides(name: str) -> dict[str, Tensor]:
    """Recorded predictions and targets; those of the policy are leaves."""
    values = {key: torch.tensor(value, dtype=torch.float64) for key, value in RECORDED[name].items()}
    return {key: value.requires_grad_() if key.startswith("model") else value for key, value in values.items()}


def error(prediction: Tensor, target: Tensor) -> Tensor:
    return -2 * noise_log_prob(prediction, target, reduction="mean")


def assert_recorded(case: dict[str, Any], losses: Tensor, leaves: dict[str, Tensor]) -> None:
    losses.sum().backward()
    found = {"losses": losses.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf.requires_grad}
    for name, value in found.items():
        torch.testing.assert_close(value, torch.tensor(case[name], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", RECORDED["dspo"], ids=lambda case: f"beta={case['beta']}")
def test_dspo(case: dict[str, Any]) -> None:
    now = sides("pairs")
    ratios = [
        noise_log_prob(now[f"model_{side}"], now[f"target_{side}"], reduction="mean")
        - noise_log_prob(now[f"ref_{side}"], now[f"target_{side}"], reduction="mean")
        for side in "wl"
    ]
    margin = case["beta"] * (ratios[0] - ratios[1])
    losses = dspo_losses(now["model_w"], now["ref_w"], now["target_w"], margin, beta=case["beta"], reduction="mean")
    assert_recorded(case, losses, now)


@pytest.mark.parametrize("case", RECORDED["mapo"], ids=lambda case: f"beta={case['beta']}")
def test_mapo(case: dict[str, Any]) -> None:
    now = sides("pairs")
    chosen, rejected = (error(now[f"model_{side}"], now[f"target_{side}"]) for side in "wl")
    margin = mapo_margin(chosen, rejected, scale=case["scale"], steps=case["steps"])
    assert_recorded(case, mapo_losses(chosen, margin, beta=case["beta"]), now)


@pytest.mark.parametrize("case", RECORDED["kto"], ids=lambda case: f"beta={case['beta']}")
def test_kto(case: dict[str, Any]) -> None:
    now, liked = sides("images"), torch.tensor(RECORDED["liked"])
    rewards = case["beta"] * (error(now["ref"], now["target"]) - error(now["model"], now["target"]))
    baseline = kto_baseline(rewards)
    assert baseline.item() == pytest.approx(case["baseline"], rel=1e-9)
    weights = dict(zip(("liked_weight", "disliked_weight"), case["weights"], strict=True))
    losses = kto_losses(kto_margin(rewards, liked, baseline=baseline), liked, **weights)
    assert_recorded(case, losses, now)


def test_the_recorded_settings_differ_and_one_baseline_is_above_0() -> None:
    for name in ("dspo", "mapo", "kto"):
        losses = np.array([case["losses"] for case in RECORDED[name]])
        assert np.abs(losses[1:] - losses[0]).max(axis=1).min() > 1e-3
    assert any(case["baseline"] > 0 for case in RECORDED["kto"])


def test_the_record_is_what_the_reference_gives() -> None:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [number for entry in value.values() for number in numbers(entry)]
        return [number for entry in value for number in numbers(entry)] if isinstance(value, list) else [float(value)]

    np.testing.assert_allclose(numbers(reference.cases()), numbers(RECORDED), rtol=1e-9, atol=1e-12)

"""The scorer of few labels: the fit against an independent optimiser, and the shipped weights."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seedpo.rewards.named import build_reward
from seedpo.scenes.assets import CLIP, FEW_LABELS
from seedpo.scenes.shipped import few_labels_scorer, few_pairs, held_out_pairs, weighted_scorer
from seedpo.weights import read_tensors
from tests.scenes.drawings import some_drawings
from tools.scenes.build import build
from tools.scenes.few_labels import PENALTY, fitted_weights, product_differences


@cache
def fitted_on() -> Tensor:
    return product_differences(CLIP, few_pairs())


def test_the_weights_minimise_the_penalised_log_loss() -> None:
    """Against L-BFGS on the loss as it is written, in float64."""
    rows = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    scale = rows.square().mean().sqrt()
    weights = torch.zeros(7, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.softplus(-rows @ weights).mean() + 0.05 * (scale * weights).square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    torch.testing.assert_close(fitted_weights(rows, penalty=0.1), weights.detach(), rtol=1e-5, atol=1e-7)


def test_about_a_hundred_pairs_of_the_annotator() -> None:
    assert 90 <= len(few_pairs()) <= 120


def test_the_shipped_weights_are_those_that_the_build_fits(tmp_path: Path) -> None:
    shutil.copytree(CLIP, tmp_path / "clip")
    build(tmp_path, part="few")
    built, shipped = (read_tensors(path)["weights"] for path in (tmp_path / "few.safetensors", FEW_LABELS))
    torch.testing.assert_close(built, shipped, rtol=1e-3, atol=1e-3)


def test_the_score_is_the_weighted_cosine() -> None:
    """The differences on which it was fitted, weighted, are its own differences of scores."""
    pairs = few_pairs()
    rows = [pairs[index] for index in range(8)]
    prompts = [row.prompt for row in rows]
    scorer = few_labels_scorer()
    scores = [scorer(torch.stack([getattr(row, side) for row in rows]), prompts) for side in ("chosen", "rejected")]
    wanted = fitted_on()[:8] @ read_tensors(FEW_LABELS)["weights"].double()
    torch.testing.assert_close((scores[0] - scores[1]).double(), wanted, rtol=1e-4, atol=1e-4)


def test_equal_weights_are_the_cosine() -> None:
    prompts = ["a large red circle on a gray background", "a small blue star on a white background"]
    images = some_drawings(prompts)
    plain, equal = weighted_scorer(CLIP), weighted_scorer(CLIP, torch.ones(64))
    torch.testing.assert_close(equal(images, prompts), plain(images, prompts))
    assert float(plain(images, prompts).abs().max()) <= 1.0


def test_it_agrees_with_what_it_saw_and_hardly_with_what_it_did_not() -> None:
    """Chance is 0.5; the scorer of 2500 choices agrees with 0.75 of the held-out ones, and the truth with 0.9."""
    seen = (fitted_on() @ read_tensors(FEW_LABELS)["weights"].double() > 0).double().mean()
    unseen = held_out_pairs()
    rows = [unseen[index] for index in range(300)]
    prompts = [row.prompt for row in rows]
    reward = build_reward("scenes-few")
    chosen, rejected = (
        reward(torch.stack([getattr(row, side) for row in rows]), prompts) for side in ("chosen", "rejected")
    )
    agreement = (chosen > rejected).double().mean()
    assert seen > 0.7
    assert 0.54 < agreement < 0.7


def test_the_penalty_shrinks_the_weights() -> None:
    sizes = [float(fitted_weights(fitted_on(), penalty=penalty).norm()) for penalty in (0.01, PENALTY, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == pytest.approx(float(read_tensors(FEW_LABELS)["weights"].norm()), rel=1e-2)

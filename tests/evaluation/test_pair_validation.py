"""Held-out loss, margin and accuracy against a direct computation, over several processes and with ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seedpo.core.draws import StratifiedDraws
from seedpo.core.types import ImagePairs
from seedpo.evaluation.pair_validation import JoinedEvaluation, PairValidation
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.policy import PipelinePolicy
from tests.methods.batches import image_pairs
from tests.methods.direct import scheduler_of
from tests.models.tiny import frozen_unet, move, tiny_policy

BETA, DRAWS, ROWS = 200.0, 3, 3
SPREAD = StratifiedDraws(seed=7, strata=DRAWS)


@cache
def policy() -> PipelinePolicy:
    return move(tiny_policy(dtype=torch.float64))


class Encoded:
    def __init__(self, batch: ImagePairs) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch)

    def encode(self, rows: Sequence[int], mirrored: Sequence[bool]) -> ImagePairs:
        assert not any(mirrored)
        return self.batch[torch.tensor(rows)]


def validation(batch: ImagePairs, *, batch_size: int = 2, prompts: Sequence[str] = ("a", "b", "c")) -> PairValidation:
    method = NoiseDPO(policy_weight=BETA, reference_weight=BETA, draws=SPREAD)
    return PairValidation(
        Encoded(batch),
        lambda rows: [prompts[row] for row in rows],
        method,
        rows=range(ROWS),
        draws=DRAWS,
        batch_size=batch_size,
    )


@torch.no_grad()
def direct_margins(batch: ImagePairs) -> Tensor:
    """-beta / 2 (model_diff - ref_diff) of every pair (row) at every draw (column)."""
    scheduler, margins = scheduler_of(policy()), torch.zeros(ROWS, DRAWS, dtype=torch.float64)
    for row in range(ROWS):
        pair = batch[slice(row, row + 1)]
        for visit in range(DRAWS):
            timestep, noise = SPREAD.timestep_and_noise(
                torch.tensor([row]),
                torch.tensor([visit]),
                process=policy().process,
                shape=pair.chosen_latents.shape[1:],
            )
            error = {}
            for name, unet in (("policy", policy().pipeline.unet), ("reference", frozen_unet(torch.float64))):
                for side, latents in (("chosen", pair.chosen_latents), ("rejected", pair.rejected_latents)):
                    noisy = scheduler.add_noise(latents, noise.double(), timestep)
                    text = pair.conditioning.prompt_embeds
                    prediction = unet(noisy, timestep, encoder_hidden_states=text).sample
                    error[name, side] = float((prediction - noise).square().mean())
            model = error["policy", "chosen"] - error["policy", "rejected"]
            reference = error["reference", "chosen"] - error["reference", "rejected"]
            margins[row, visit] = -0.5 * BETA * (model - reference)
    return margins


def test_figures_are_those_of_a_direct_computation(tmp_path: Path) -> None:
    batch = image_pairs(policy())
    figures = validation(batch)(policy(), step=0, folder=tmp_path)
    margins = direct_margins(batch)
    assert margins.abs().min() > 1e-4
    assert figures["validation/margin"] == pytest.approx(float(margins.mean()), rel=1e-5)
    assert figures["validation/loss"] == pytest.approx(float(-logsigmoid(margins).mean()), rel=1e-5)
    assert figures["validation/accuracy"] == float((margins.mean(1) > 0).double().mean())
    for name in ("accuracy", "loss", "margin"):
        key = f"validation/{name}"
        assert figures[f"{key}/low"] <= figures[key] <= figures[f"{key}/high"]


def test_at_the_start_everything_is_undecided(tmp_path: Path) -> None:
    start = tiny_policy()
    figures = validation(image_pairs(start))(start, step=0, folder=tmp_path)
    assert figures["validation/accuracy"] == 0.5
    assert figures["validation/margin"] == 0.0
    assert figures["validation/loss"] == pytest.approx(math.log(2), rel=1e-12)


def test_processes_share_the_pairs_and_agree_bit_for_bit(tmp_path: Path) -> None:
    shared = JoinedEvaluation([validation(image_pairs(policy()), batch_size=1)])
    alone = shared(policy(), step=0, folder=tmp_path)
    for world in (2, 4):  # the last of four has no pair
        parts = [shared.draw(policy(), rank=rank, world=world) for rank in range(world)]
        assert shared.measure(parts, step=0, folder=tmp_path) == alone


def test_a_tie_counts_one_half(tmp_path: Path) -> None:
    batch = image_pairs(policy())
    labels = torch.tensor([0.5, 1.0, 1.0])
    right = (direct_margins(batch).mean(1) > 0).double()
    figures = validation(replace(batch, chosen_probability=labels))(policy(), step=0, folder=tmp_path)
    assert figures["validation/accuracy"] == pytest.approx((0.5 + float(right[1:].sum())) / 3)


def test_one_prompt_alone_has_no_interval(tmp_path: Path) -> None:
    figures = validation(image_pairs(policy()), prompts=("a", "a", "a"))(policy(), step=0, folder=tmp_path)
    assert set(figures) == {"validation/accuracy", "validation/loss", "validation/margin"}

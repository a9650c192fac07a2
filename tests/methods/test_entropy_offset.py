"""What of the entropy term's offset is kept: all of it, or what does not depend on the lengths of the noises drawn."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import logsigmoid

from seedpo.core.types import LossOutput, TransitionGroups, TransitionPairs
from seedpo.errors import ConfigError, SeedpoError
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.stable_diffusion import StableDiffusionPolicy
from seedpo.settings import build_config
from seedpo.training.expectations import what_to_expect
from seedpo.training.run import build_method, resolve_config
from seedpo.training.settings import RunConfig
from tests.methods.batches import STEPS, transition_pairs
from tests.methods.direct import Reduction, step_log_probs
from tests.models.tiny import move, seeded, tiny_policy

BETA = {"mean": 10.0, "sum": 0.02}
GUIDANCE, ETA, GAMMA = 3.0, 0.9, 1.5
DRAWN = torch.tensor([[-91.0, -83.0, -102.0], [-95.0, -99.5, -88.0]], dtype=torch.float64)
"""Log-probabilities of three pairs of steps under the policy that drew them, the chosen ones first."""


@cache
def policy() -> StableDiffusionPolicy:
    return move(tiny_policy(dtype=torch.float64), scale=0.02)


def pairs(*, known: bool = True) -> TransitionPairs:
    made = transition_pairs(policy(), shared=(False, True, False))
    return replace(made, chosen_rollout_log_prob=DRAWN[0], rejected_rollout_log_prob=DRAWN[1]) if known else made


def loss(
    batch: TransitionPairs | TransitionGroups, *, gamma: float = GAMMA, reduction: Reduction = "mean", **settings: Any
) -> LossOutput:
    return TransitionDPO(
        policy_weight=BETA[reduction] * (1 + gamma),
        reference_weight=BETA[reduction],
        guidance_scale=GUIDANCE,
        eta=ETA,
        reduction=reduction,
        **settings,
    ).loss(policy(), batch, generator=seeded())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("clip_range", [None, 1e-4])
def test_without_noise_norms_is_the_loss_computed_directly(reduction: Reduction, clip_range: float | None) -> None:
    batch, beta = pairs(), BETA[reduction]
    log_prob = step_log_probs(
        policy(), batch, num_inference_steps=STEPS, guidance_scale=GUIDANCE, eta=ETA, reduction=reduction
    )
    drawn = DRAWN / batch.chosen_latents[0].numel() if reduction == "mean" else DRAWN
    reference = log_prob["reference chosen"] - log_prob["reference rejected"]
    ratios = [log_prob[f"policy {side}"] - log_prob[f"reference {side}"] for side in ("chosen", "rejected")]
    if clip_range is not None:
        ratios = [ratio.exp().clamp(1 - clip_range, 1 + clip_range).log() for ratio in ratios]
    offset = beta * GAMMA * (reference - (drawn[0] - drawn[1]))
    output = loss(batch, reduction=reduction, clip_range=clip_range, entropy_offset="without_noise_norms")
    expected = -logsigmoid(beta * (1 + GAMMA) * (ratios[0] - ratios[1]) + offset)
    torch.testing.assert_close(output.losses, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(output.metrics["offset"], offset, rtol=1e-6, atol=1e-6)


def test_full_does_not_ask_under_which_policy_steps_were_drawn() -> None:
    """Bit for bit: what a roll-out keeps beside its pairs changes nothing by default."""
    known, unknown, named = loss(pairs()), loss(pairs(known=False)), loss(pairs(), entropy_offset="full")
    assert torch.equal(known.losses, unknown.losses)
    assert torch.equal(known.losses, named.losses)
    assert all(torch.equal(known.metrics[name], unknown.metrics[name]) for name in known.metrics)


def test_at_gamma_0_there_is_no_offset_to_choose_from() -> None:
    assert torch.equal(
        loss(pairs(), gamma=0.0, entropy_offset="without_noise_norms").losses, loss(pairs(), gamma=0.0).losses
    )


def test_at_gamma_above_0_the_two_differ() -> None:
    assert (loss(pairs(), entropy_offset="without_noise_norms").losses - loss(pairs()).losses).abs().min() > 1e-2


def test_pairs_that_do_not_know_it_are_refused_with_the_mend() -> None:
    with pytest.raises(SeedpoError, match="use entropy_offset = full"):
        loss(pairs(known=False), entropy_offset="without_noise_norms")


@pytest.mark.parametrize("method", ["spo", "d3po"])
def test_reaches_the_loss_from_the_configuration(method: str) -> None:
    assert build_method(resolve_config(method)).entropy_offset == "full"  # type: ignore[attr-defined]
    config = resolve_config(method, {"entropy_offset": "without_noise_norms", "gamma": 1.0})
    assert build_method(config).entropy_offset == "without_noise_norms"  # type: ignore[attr-defined]


def test_methods_that_draw_no_steps_refuse_it() -> None:
    with pytest.raises(ConfigError, match="diffusion-dpo draws none; set entropy_offset to full, or method to d3po"):
        resolve_config("diffusion-dpo", {"entropy_offset": "without_noise_norms"})


def test_what_is_said_before_a_run() -> None:
    """The full offset spreads the margins from the first step on; without the noise norms the loss starts at log 2."""
    said = {}
    for offset in ("full", "without_noise_norms"):
        config = resolve_config("spo", {"gamma": 1.0, "entropy_offset": offset})
        said[offset] = "\n".join(what_to_expect(config, fixed_pairs=False))
    assert "starts off 0.693" in said["full"]
    assert "starts at 0.693" in said["without_noise_norms"]


def test_other_values_are_refused() -> None:
    with pytest.raises((ConfigError, ValidationError), match="entropy_offset"):
        build_config(RunConfig, {"entropy_offset": "centred"})

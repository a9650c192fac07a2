"""DSPO and MaPO as objectives of a run: which predictions reach their losses, and what they report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import DiffusionProcess
from seedpo.core.types import ImagePairs, LossOutput
from seedpo.methods.dspo import DSPO
from seedpo.methods.mapo import MaPO
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method
from tests.golden import pairs_and_likes
from tests.golden.test_golden import Answers
from tests.methods.batches import image_pairs
from tests.methods.flow import PackedFlow
from tests.methods.test_flow import pairs as flow_pairs
from tests.models.tiny import move, rows_seen, seeded, tiny_policy

RECORDED: dict[str, Any] = json.loads(pairs_and_likes.RECORD.read_text(encoding="utf-8"))
METHODS = {
    "dspo": lambda case: DSPO(beta=case["beta"]),
    "mapo": lambda case: MaPO(beta=case["beta"], scale=case["scale"], steps=case["steps"]),
}
CASES = [pytest.param(name, case, id=f"{name}-{case['beta']}") for name in METHODS for case in RECORDED[name]]
BOTH = pytest.mark.parametrize("name", METHODS)


def method_of(name: str) -> Any:
    return METHODS[name](RECORDED[name][-1])


@pytest.mark.parametrize(("name", "case"), CASES)
@pytest.mark.parametrize("second_preferred", [False, True])
def test_losses_and_gradients_are_the_recorded_ones(name: str, case: dict[str, Any], second_preferred: bool) -> None:
    """Also with the images swapped and the probability 0, that the first is preferred."""
    first, second = ("l", "w") if second_preferred else ("w", "l")
    recorded = {key: torch.tensor(value, dtype=torch.float64) for key, value in RECORDED["pairs"].items()}
    sides = {
        f"{kind}_{to}": recorded[f"{kind}_{side}"].requires_grad_(kind == "model")
        for kind in ("model", "ref", "target")
        for to, side in (("w", first), ("l", second))
    }
    schedule = DiffusionProcess(alphas_cumprod=torch.tensor([0.9, 0.5]), prediction_type="sample")
    batch = ImagePairs(
        chosen_latents=sides["target_w"],
        rejected_latents=sides["target_l"],
        conditioning=TextConditioning(prompt_embeds=torch.zeros(4, 1, 1)),
        chosen_probability=torch.zeros(4) if second_preferred else None,
    )
    policy: Any = Answers(schedule, sides)
    output: LossOutput = METHODS[name](case).loss(policy, batch, generator=torch.Generator())
    output.losses.sum().backward()
    found = {"losses": output.losses.detach(), **{key: recorded[key].grad for key in ("model_w", "model_l")}}
    for key, value in found.items():
        torch.testing.assert_close(value, torch.tensor(case[key], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@BOTH
def test_a_tie_is_the_mean_of_both_labels_and_one_pair_is_enough(name: str) -> None:
    policy = move(tiny_policy(dtype=torch.float64))
    batch = image_pairs(policy, rows=1)
    losses = [
        method_of(name)
        .loss(policy, replace(batch, chosen_probability=torch.tensor([chance])), generator=seeded(3))
        .losses.detach()
        for chance in (0.0, 0.5, 1.0)
    ]
    assert abs(float(losses[0] - losses[2])) > 1e-6
    torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)


def test_dspo_at_the_reference_has_no_margin_and_the_diffusion_loss() -> None:
    policy = tiny_policy()
    output = method_of("dspo").loss(policy, image_pairs(policy), generator=seeded(3))
    assert output.metrics["rewards/margins"].tolist() == [0.0] * 3
    assert output.metrics["distance"].tolist() == [0.0] * 3
    torch.testing.assert_close(output.losses, output.metrics["error/policy_chosen"])


def test_dspo_s_margin_and_errors_are_those_of_diffusion_dpo() -> None:
    policy = move(tiny_policy(dtype=torch.float64))
    beta = RECORDED["dspo"][-1]["beta"]
    ours = method_of("dspo").loss(policy, image_pairs(policy), generator=seeded(3)).metrics
    theirs = (
        NoiseDPO(policy_weight=beta, reference_weight=beta)
        .loss(policy, image_pairs(policy), generator=seeded(3))
        .metrics
    )
    shared = ours.keys() & theirs.keys() - {"distance"}
    assert {"rewards/margins", "log_ratio/chosen", "error/reference_rejected", "saturated"} <= shared
    for key in shared:
        torch.testing.assert_close(ours[key], theirs[key])
    assert (ours["distance"] > 0).all()


def test_mapo_never_asks_the_reference() -> None:
    policy = move(tiny_policy())
    with rows_seen(policy.pipeline.unet) as rows:
        output = method_of("mapo").loss(policy, image_pairs(policy), generator=seeded(3))
    assert rows == [6]
    assert not any("reference" in key for key in output.metrics)
    right = output.metrics["error/policy_chosen"] < output.metrics["error/policy_rejected"]
    assert output.metrics["rewards/accuracies"].tolist() == right.tolist()


@BOTH
def test_keyed_draws_do_not_depend_on_the_batch_and_flow_matching_trains(name: str) -> None:
    model, batch = PackedFlow(), flow_pairs()
    method = method_of(name)
    method.draws = KeyedDraws(seed=5)
    output = method.loss(model, batch, generator=seeded())
    for row in range(3):
        alone = method.loss(model, batch[row : row + 1], generator=seeded())
        torch.testing.assert_close(alone.losses[0], output.losses[row])
    output.losses.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs() > 0


def test_a_run_builds_them_from_its_keys() -> None:
    dspo = build_method(resolve_config("dspo", {"beta": 0.05, "reduction": "sum"}))
    assert isinstance(dspo, DSPO)
    assert (dspo.beta, dspo.reduction) == (0.05, "sum")
    mapo = build_method(resolve_config("mapo", {"objective": {"error_scale": 2.0, "margin_steps": 10.0}}))
    assert isinstance(mapo, MaPO)
    assert (mapo.beta, mapo.scale, mapo.steps) == (0.1, 2.0, 10.0)

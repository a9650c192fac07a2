"""The package against losses and gradients that an independent float64 reference recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.entropy import entropy_weights
from seedpo.core.loser_scale import LoserScale
from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import Sampling
from seedpo.core.types import Conditioning, ImagePairs, LossOutput, StepBatch
from seedpo.methods.noise_dpo import NoiseDPO
from seedpo.methods.transition_dpo import TransitionDPO
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from tests.golden import reference

RECORDED: dict[str, Any] = json.loads(reference.RECORD.read_text(encoding="utf-8"))


def tensors(case: dict[str, Any], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=dtype) for name, value in case["sides"].items()}


class Answers:
    """A policy, and in its reference context the reference, that answers with recorded predictions."""

    def __init__(self, schedule: DiffusionProcess, sides: dict[str, Tensor]) -> None:
        self.process = schedule
        self.sides = sides
        self.name = "model"

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return torch.cat([self.sides[f"{self.name}_w"], self.sides[f"{self.name}_l"]])

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.name = "ref"
        yield
        self.name = "model"


def loss_of(
    case: dict[str, Any],
    sides: dict[str, Tensor],
    gamma: float,
    convention: Any,
    loss: str = "sigmoid",
    loser_scale: LoserScale | None = None,
) -> LossOutput:
    """The loss of the objective that trains, one row per side; x_0-prediction makes the targets the clean latents."""
    policy_weight, reference_weight = entropy_weights(case["beta"], gamma, convention=convention)
    rows = len(sides["model_w"])
    prompts = TextConditioning(prompt_embeds=torch.zeros(rows, 1, 1))
    if case["kind"] == "noise":
        noise = NoiseDPO(
            policy_weight=policy_weight, reference_weight=reference_weight, loss=loss, loser_scale=loser_scale
        )
        schedule = DiffusionProcess(alphas_cumprod=torch.tensor([0.9, 0.5]), prediction_type="sample")
        pairs = ImagePairs(chosen_latents=sides["target_w"], rejected_latents=sides["target_l"], conditioning=prompts)
        return noise.loss(Answers(schedule, sides), pairs, generator=torch.Generator())  # type: ignore[arg-type]
    levels = torch.tensor(case["alpha"] + case["alpha_prev"], dtype=sides["x_w"].dtype)
    both = Conditioning.cat([prompts, prompts])
    now, pair = torch.arange(rows), torch.arange(rows)
    steps = StepBatch(
        latents=torch.cat([sides["x_w"], sides["x_l"]]),
        timestep=now.repeat(2),
        next_timestep=now.repeat(2) + rows,
        conditioning=both,
        negative_conditioning=both,
        next_latents=torch.cat([sides["next_w"], sides["next_l"]]),
        start=torch.arange(2 * rows),
        chosen=pair,
        rejected=pair + rows,
    )
    method = TransitionDPO(
        policy_weight=policy_weight,
        reference_weight=reference_weight,
        sampling=Sampling(num_inference_steps=1, guidance_scale=1.0, eta=case["eta"]),
        clip_range=case["clip_range"],
        loss=loss,
    )
    answers: Any = Answers(DiffusionProcess(alphas_cumprod=levels), sides)
    return method.loss(answers, steps, generator=torch.Generator())


def settings() -> list[Any]:
    return [
        pytest.param(
            case, record, id=f"{name}-{record.get('loss', 'sigmoid')}-{record['convention']}-gamma={record['gamma']}"
        )
        for name, case in RECORDED.items()
        for record in (*case["see"], *case["other_losses"])
    ]


@pytest.mark.parametrize("name", RECORDED)
def test_gamma_0_is_the_published_loss(name: str) -> None:
    case = RECORDED[name]
    for convention in ("relative", "absolute"):
        losses = loss_of(case, tensors(case), 0.0, convention).losses
        torch.testing.assert_close(losses, torch.tensor(case["base"], dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", RECORDED)
def test_gamma_0_in_float32_is_the_published_loss(name: str) -> None:
    case = RECORDED[name]
    losses = loss_of(case, tensors(case, torch.float32), 0.0, "relative").losses
    torch.testing.assert_close(losses.double(), torch.tensor(case["base"], dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("case", "record"), settings())
def test_see_losses_and_gradients(case: dict[str, Any], record: dict[str, Any]) -> None:
    sides = tensors(case)
    # Independent leaves, although steps from a shared x_t start from equal numbers.
    chosen, rejected = (sides[name].clone().requires_grad_() for name in ("model_w", "model_l"))
    output = loss_of(
        case,
        sides | {"model_w": chosen, "model_l": rejected},
        record["gamma"],
        record["convention"],
        record.get("loss", "sigmoid"),
    )
    compare(output, record, chosen, rejected)


def compare(output: LossOutput, record: dict[str, Any], chosen: Tensor, rejected: Tensor) -> None:
    """Losses and the gradients for both predictions against what was recorded."""
    output.losses.sum().backward()
    for found, wanted in (
        (output.losses.detach(), record["losses"]),
        (chosen.grad, record["chosen_gradient"]),
        (rejected.grad, record["rejected_gradient"]),
    ):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "record",
    RECORDED["alike"]["safeguarded"],
    ids=lambda record: f"{record['per']}-mu={record['mu']}-gamma={record['gamma']}",
)
def test_the_loser_s_gradient_is_scaled_and_the_loss_stays(record: dict[str, Any]) -> None:
    case = RECORDED["alike"]
    sides = tensors(case)
    chosen, rejected = (sides[name].clone().requires_grad_() for name in ("model_w", "model_l"))
    leaves = sides | {"model_w": chosen, "model_l": rejected}
    rule = LoserScale(mu=record["mu"], per=record["per"])
    output = loss_of(case, leaves, record["gamma"], record["convention"], loser_scale=rule)
    assert torch.equal(output.losses, loss_of(case, sides, record["gamma"], record["convention"]).losses)
    scale = torch.tensor(record["scale"], dtype=torch.float64)
    torch.testing.assert_close(output.metrics["loser_scale"], scale)
    assert 0 < float(scale.min()) < 1
    compare(output, record, chosen, rejected)


def test_the_recorded_settings_differ() -> None:
    for case in RECORDED.values():
        losses = np.array([record["losses"] for record in case["see"]])
        assert np.abs(losses[1:] - losses[0]).max(axis=1).min() > 1e-3


def test_some_recorded_ratios_are_clipped_and_some_are_not() -> None:
    for name in ("d3po", "spo"):
        case = RECORDED[name]
        share = loss_of(case, tensors(case), 0.0, "relative").metrics["clipped"].mean()
        assert 0.2 < share < 0.8


def test_the_record_is_what_the_reference_gives() -> None:
    again = json.loads(json.dumps(reference.cases()))
    assert _shape(again) == _shape(RECORDED)
    np.testing.assert_allclose(_numbers(again), _numbers(RECORDED), rtol=1e-9, atol=1e-12)


def _shape(value: Any) -> Any:
    """The record's structure, without its numbers."""
    if isinstance(value, dict):
        return {key: _shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_shape(entry) for entry in value]
    return type(value).__name__ if isinstance(value, float) else value


def _numbers(value: Any) -> list[float]:
    """All numbers of the record, in order."""
    if isinstance(value, dict):
        return [number for entry in value.values() for number in _numbers(entry)]
    if isinstance(value, list):
        return [number for entry in value for number in _numbers(entry)]
    return [value] if isinstance(value, float) else []

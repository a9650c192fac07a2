"""The anchors against terms and gradients that an independent float64 reference recorded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import DiffusionProcess
from seedpo.core.sampling import Sampling
from seedpo.core.types import ImagePairs, LossOutput, StepBatch
from seedpo.methods.anchors import ANCHORS, Anchored, Anchors, Form, NoiseForm, StepForm
from seedpo.methods.settings import AnchorConfig
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from tests.golden import anchors

RECORDED: dict[str, Any] = json.loads(anchors.RECORD.read_text(encoding="utf-8"))
WEIGHT = 7.0
TERMS = {
    "all": AnchorConfig(kl=WEIGHT),
    "early": AnchorConfig(kl=WEIGHT, steps="early"),
    "winner": AnchorConfig(winner=WEIGHT),
}
CASES = [(kind, term) for kind in ("noise", "steps") for term in TERMS]


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Answers:
    """Predicts the policy's recorded noise, which is a leaf, or the reference's."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.process = DiffusionProcess(alphas_cumprod=tensor(RECORDED["levels"]))
        self.policy = tensor(case["policy"]).requires_grad_()
        self.theirs = tensor(case["reference"])
        self.asked = 0

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        self.asked += 1
        return self.policy if torch.is_grad_enabled() else self.theirs

    def reference(self) -> Any:
        return torch.no_grad()


class Silent:
    """An objective that asks the policy, and whose losses are 0."""

    def __init__(self, losses: int, *inputs: Tensor) -> None:
        self.losses = losses
        self.inputs = inputs

    def loss(self, policy: Any, batch: Any, *, generator: Any) -> LossOutput:
        rows = len(self.inputs[0])
        policy.predict(*self.inputs, TextConditioning(prompt_embeds=torch.zeros(rows, 1, 1)))
        return LossOutput(losses=torch.zeros(self.losses, dtype=torch.float64), metrics={})


def noise_parts(case: dict[str, Any]) -> tuple[Form, Any, Silent]:
    clean, timestep = tensor(case["clean"]), torch.tensor(case["timestep"])
    pairs = ImagePairs(
        chosen_latents=clean[:4],
        rejected_latents=clean[4:],
        conditioning=TextConditioning(prompt_embeds=torch.zeros(4, 1, 1)),
    )
    return NoiseForm(), pairs, Silent(4, tensor(case["latents"]), timestep.repeat(2))


def step_parts(case: dict[str, Any]) -> tuple[Form, Any, Silent]:
    latents, timestep = tensor(case["latents"]), torch.tensor(case["timestep"])
    prompts = TextConditioning(prompt_embeds=torch.zeros(3, 1, 1))
    steps = StepBatch(
        latents=latents,
        timestep=timestep,
        next_timestep=torch.tensor(case["next_timestep"]),
        conditioning=prompts,
        negative_conditioning=prompts,
        next_latents=tensor(case["next_latents"]),
        **{name: torch.tensor(case[name]) for name in ("start", "chosen", "rejected")},
    )
    sampling = Sampling(num_inference_steps=4, guidance_scale=case["guidance_scale"], eta=case["eta"])
    return StepForm(sampling), steps, Silent(3, latents.repeat(2, 1, 1, 1), timestep.repeat(2))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_terms_and_gradients(kind: str, name: str) -> None:
    case = RECORDED[kind]
    form, batch, silent = (noise_parts if kind == "noise" else step_parts)(case)
    policy: Any = Answers(case)
    method = Anchored(method=silent, anchors=Anchors(config=TERMS[name], form=form, draws=KeyedDraws(seed=0)))
    output = method.loss(policy, batch, generator=torch.Generator())
    expected = tensor([case[name]["value"]] * silent.losses)
    torch.testing.assert_close(output.losses, WEIGHT * expected, rtol=1e-10, atol=1e-12)
    term = "winner" if name == "winner" else "kl"
    torch.testing.assert_close(output.metrics[f"anchor/{term}"], expected, rtol=1e-10, atol=1e-12)
    output.losses.mean().backward()
    torch.testing.assert_close(policy.policy.grad, WEIGHT * tensor(case[name]["gradient"]), rtol=1e-9, atol=1e-12)
    assert policy.asked == (1 if name == "winner" else 2)


def test_the_record_is_what_the_reference_gives() -> None:
    recorded, again = json.dumps(RECORDED), anchors.cases()
    np.testing.assert_equal(sorted(again), sorted(json.loads(recorded)))

    def compare(one: Any, other: Any) -> None:
        if isinstance(one, dict):
            for key in one:
                compare(one[key], other[key])
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)

    compare(RECORDED, again)


def test_the_early_terms_differ_from_all() -> None:
    for kind in ("noise", "steps"):
        assert 0 < RECORDED[kind]["early"]["value"] < RECORDED[kind]["all"]["value"]
    assert set(ANCHORS) == {"kl", "winner", "data"}

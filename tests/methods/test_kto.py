"""Diffusion-KTO as the objective of a run: which predictions reach its loss, and what it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.processes import DiffusionProcess
from seedpo.core.types import Likes
from seedpo.methods.kto import DiffusionKTO
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from seedpo.training.configuration import resolve_config
from seedpo.training.run import build_method
from tests.golden import pairs_and_likes
from tests.golden.test_golden import Answers
from tests.methods.batches import latents_of
from tests.methods.flow import PackedFlow
from tests.methods.sources.toys import PROMPTS
from tests.models.tiny import PROMPTS as TINY_PROMPTS
from tests.models.tiny import move, seeded, tiny_policy

RECORDED: dict[str, Any] = json.loads(pairs_and_likes.RECORD.read_text(encoding="utf-8"))


class OneAnswer(Answers):
    """Answers with the recorded predictions of single images."""

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Any) -> torch.Tensor:
        return self.sides[self.name]


@pytest.mark.parametrize("case", RECORDED["kto"], ids=lambda case: f"beta={case['beta']}")
def test_losses_and_gradients_are_the_recorded_ones(case: dict[str, Any]) -> None:
    sides = {key: torch.tensor(value, dtype=torch.float64) for key, value in RECORDED["images"].items()}
    sides["model"].requires_grad_()
    schedule = DiffusionProcess(alphas_cumprod=torch.tensor([0.9, 0.5]), prediction_type="sample")
    batch = Likes(
        latents=sides["target"],
        conditioning=TextConditioning(prompt_embeds=torch.zeros(6, 1, 1)),
        liked=torch.tensor(RECORDED["liked"]),
    )
    liked, disliked = case["weights"]
    method = DiffusionKTO(beta=case["beta"], liked_weight=liked, disliked_weight=disliked)
    policy: Any = OneAnswer(schedule, sides)
    output = method.loss(policy, batch, generator=torch.Generator())
    output.losses.sum().backward()
    for found, wanted in ((output.losses.detach(), "losses"), (sides["model"].grad, "model")):
        torch.testing.assert_close(found, torch.tensor(case[wanted], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert output.metrics["baseline"].tolist() == [pytest.approx(case["baseline"], rel=1e-9)] * 6
    assert output.metrics["liked"].tolist() == RECORDED["liked"]


@pytest.mark.parametrize("rows", [1, 3])
def test_at_the_reference_nothing_has_moved(rows: int) -> None:
    policy = tiny_policy()
    batch = Likes(
        latents=latents_of(policy, rows, 1),
        conditioning=policy.encode_prompts(TINY_PROMPTS[:rows]),
        liked=torch.arange(rows) % 2 == 0,
    )
    output = DiffusionKTO(beta=5000.0).loss(policy, batch, generator=seeded(3))
    assert output.losses.tolist() == [0.5] * rows
    for name in ("rewards/margins", "distance", "baseline"):
        assert output.metrics[name].tolist() == [0.0] * rows
    assert torch.equal(output.metrics["error/policy"], output.metrics["error/reference"])
    output.losses.sum().backward()
    moved = move(policy)
    again = DiffusionKTO(beta=5000.0).loss(moved, batch, generator=seeded(3)).metrics
    assert (again["distance"] > 0).all()


def test_keyed_draws_and_flow_matching() -> None:
    model = PackedFlow()
    numbers = torch.arange(3)
    batch = Likes(
        latents=torch.randn(3, 16, 3, generator=seeded()),
        conditioning=model.encode_prompts(PROMPTS[:3]),
        liked=torch.tensor([True, False, True]),
        pair=numbers,
        visit=0 * numbers,
    )
    method = DiffusionKTO(beta=2.0, draws=KeyedDraws(seed=5))
    output = method.loss(model, batch, generator=seeded())
    alone = method.loss(model, batch[1:2], generator=seeded())
    torch.testing.assert_close(alone.metrics["error/policy"][0], output.metrics["error/policy"][1])
    output.losses.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs() > 0


def test_a_run_builds_it_from_its_keys() -> None:
    config = resolve_config("kto", {"objective": {"liked_weight": 1.6, "disliked_weight": 0.4}})
    method = build_method(config)
    assert isinstance(method, DiffusionKTO)
    assert (method.beta, method.liked_weight, method.disliked_weight) == (50.0, 1.6, 0.4), "of the embedded model"
    assert config.pairs.from_scores == "likes-of-pairs"
    assert resolve_config("kto", {"model": "owner/name", "data": "likes/"}).pairs.from_scores == "likes"

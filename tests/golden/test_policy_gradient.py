"""Flow-GRPO's objective against losses and gradients that an independent float64 reference recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seedpo.core.flow import FlowProcess
from seedpo.core.processes import DiffusionProcess, Process
from seedpo.core.sampling import Sampler, Sampling
from seedpo.core.types import Conditioning, LossOutput, StepGroups
from seedpo.methods.grpo import GRPO
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from tests.golden import policy_gradient as reference

RECORDED: dict[str, Any] = json.loads(reference.RECORD.read_text(encoding="utf-8"))
ETA = {"ddim": 1.0, "flow-grpo": 0.7, "dance": 0.3, "cps": 0.8}


class Answers:
    """Answers with recorded predictions: of the policy, of the reference in its context, or of the roll-out."""

    def __init__(self, process: Process, rows: dict[str, Tensor], name: str = "model") -> None:
        self.process = process
        self.rows = rows
        self.name = name

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        return self.rows[self.name]

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.name = "ref"
        yield
        self.name = "model"


def times_of(kind: str) -> tuple[Process, Tensor, Tensor]:
    """The process, and the times of eight steps."""
    if kind == "ddim":
        levels = torch.tensor(np.concatenate([reference.ALPHA, reference.ALPHA_PREV]))
        return DiffusionProcess(alphas_cumprod=levels), torch.arange(8), torch.arange(8) + 8
    process = FlowProcess(levels=lambda count: torch.linspace(1, 0, count + 1), sde=kind)
    return process, torch.tensor(reference.SIGMA), torch.tensor(reference.NEXT_SIGMA)


def loss_of(kind: str, rows: dict[str, Tensor], *, clip_range: float | None, beta: float) -> LossOutput:
    """The objective that trains, whose log-probabilities of drawing are computed as roll-outs do."""
    process, timestep, next_timestep = times_of(kind)
    sampling = Sampling(num_inference_steps=1, guidance_scale=1.0, eta=ETA[kind])
    prompts = TextConditioning(prompt_embeds=torch.zeros(8, 1, 1))
    steps = StepGroups(
        latents=rows["x"],
        timestep=timestep,
        next_timestep=next_timestep,
        conditioning=prompts,
        negative_conditioning=prompts,
        next_latents=rows["next"],
        start=torch.arange(8),
        advantage=rows["advantage"],
        rollout_log_prob=torch.zeros(8),
    )
    drawing: Any = Answers(process, rows, "rollout")
    steps = StepGroups(**{**vars(steps), "rollout_log_prob": Sampler(drawing, sampling).log_probs(steps)})
    answers: Any = Answers(process, rows)
    return GRPO(kl_weight=beta, sampling=sampling, clip_range=clip_range).loss(
        answers, steps, generator=torch.Generator()
    )


def tensors(kind: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=dtype) for name, value in RECORDED[kind]["rows"].items()}


def settings() -> list[Any]:
    return [
        pytest.param(kind, record, id=f"{kind}-clip={record['clip_range']}-beta={record['beta']}")
        for kind, case in RECORDED.items()
        for record in case["recorded"]
    ]


@pytest.mark.parametrize(("kind", "record"), settings())
def test_losses_and_gradients(kind: str, record: dict[str, Any]) -> None:
    rows = tensors(kind)
    leaf = rows["model"].requires_grad_()
    output = loss_of(kind, rows, clip_range=record["clip_range"], beta=record["beta"])
    output.losses.sum().backward()
    for found, wanted in ((output.losses.detach(), record["losses"]), (leaf.grad, record["gradient"])):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("kind", "record"), settings())
def test_losses_in_float32(kind: str, record: dict[str, Any]) -> None:
    losses = loss_of(kind, tensors(kind, torch.float32), clip_range=record["clip_range"], beta=record["beta"]).losses
    torch.testing.assert_close(
        losses.double(), torch.tensor(record["losses"], dtype=torch.float64), rtol=2e-4, atol=2e-5
    )


def test_ratios_are_clipped_on_both_sides() -> None:
    stopped: list[float] = []
    for case in RECORDED.values():
        unclipped, clipped, *_ = (np.array(record["gradient"]).any(axis=(1, 2, 3)) for record in case["recorded"])
        assert unclipped.all()
        assert clipped.any()
        stopped += np.array(case["rows"]["advantage"])[~clipped].tolist()
    assert min(stopped) < 0 < max(stopped)


def test_the_record_is_what_the_reference_computes() -> None:
    for kind, case in reference.cases().items():
        for computed, recorded in zip(case["recorded"], RECORDED[kind]["recorded"], strict=True):
            for name in ("losses", "gradient"):
                np.testing.assert_allclose(computed[name], recorded[name], rtol=1e-9, atol=1e-14)

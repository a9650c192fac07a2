from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.flow import FlowProcess
from seedpo.core.nft import nft_errors, nft_loss
from seedpo.core.processes import DiffusionProcess, PredictionType, Process

SHAPE = (5, 2, 3, 3)
FLOW = FlowProcess(levels=lambda count: torch.linspace(1, 0, count + 1, dtype=torch.float64))


def diffusion(kind: PredictionType) -> DiffusionProcess:
    return DiffusionProcess(alphas_cumprod=torch.linspace(0.95, 0.05, 10, dtype=torch.float64), prediction_type=kind)


def rows(process: Process) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    timestep = process.draw_timesteps(len(clean), generator=generator)
    timestep = timestep.double() if timestep.is_floating_point() else timestep
    latents, target = process.noisy(clean, noise, timestep), process.target(clean, noise, timestep)
    return {"clean": clean, "latents": latents, "timestep": timestep, "target": target, "old": target + 0.3 * wrong}


@pytest.mark.parametrize(
    "process", [FLOW, diffusion("epsilon"), diffusion("v_prediction"), diffusion("sample")], ids=["flow", "e", "v", "x"]
)
def test_a_good_image_pulls_the_policy_and_a_bad_one_pushes_it(process: Process) -> None:
    """From the old policy, the gradient of a wholly bad image is the negative of a wholly good one's; halves cancel."""
    now = rows(process)
    prediction = now["old"].clone().requires_grad_()
    positive, negative = nft_errors(
        process, prediction, now["old"], clean=now["clean"], latents=now["latents"], timestep=now["timestep"], beta=0.5
    )
    gradients = [
        torch.autograd.grad(
            nft_loss(positive, negative, torch.full((5,), advantage), beta=0.5, limit=2.0).sum(),
            prediction,
            retain_graph=True,
        )[0]
        for advantage in (2.0, 9.0, -2.0, 0.0)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], -gradients[2])
    torch.testing.assert_close(gradients[3], torch.zeros_like(prediction))
    towards = (gradients[0] * (now["target"] - now["old"])).flatten(1).sum(1)
    assert (towards < 0).all(), "descent leads from the old prediction towards the target"


def test_the_size_of_an_error_has_no_gradient_and_a_floor() -> None:
    now = rows(FLOW)
    perfect = now["target"].clone().requires_grad_()
    positive, negative = nft_errors(
        FLOW, perfect, now["target"], clean=now["clean"], latents=now["latents"], timestep=now["timestep"], beta=1.0
    )
    losses = nft_loss(positive, negative, torch.ones(5), beta=1.0, limit=5.0)
    (gradient,) = torch.autograd.grad(losses.sum(), perfect)
    assert torch.isfinite(gradient).all()
    torch.testing.assert_close(losses.detach(), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize(("size", "weight"), [(1e-2, 1e-2), (1e-4, 1e-4), (1e-7, 1e-5)])
def test_errors_are_divided_by_their_size_or_by_the_floor(size: float, weight: float) -> None:
    """At sigma = 1/2, where the clean image is wrong by half of what the velocity is; the size is a constant."""
    clean, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    half = torch.full((len(clean),), 0.5, dtype=torch.float64)
    old = noise - clean
    prediction = (old + 2 * size).requires_grad_()
    positive, _ = nft_errors(FLOW, prediction, old, clean=clean, latents=(clean + noise) / 2, timestep=half, beta=1.0)
    torch.testing.assert_close(positive.detach(), torch.full_like(half, size**2 / weight), rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(positive.sum(), prediction)
    expected = torch.full_like(gradient, size / weight / clean[0].numel())
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)


def test_the_old_policy_is_a_constant() -> None:
    now = rows(FLOW)
    old = now["old"].clone().requires_grad_()
    errors = nft_errors(
        FLOW, now["target"], old, clean=now["clean"], latents=now["latents"], timestep=now["timestep"], beta=1.0
    )
    assert not any(values.requires_grad for values in errors)


def test_beta_sets_how_far_the_policies_are_and_not_the_first_pull() -> None:
    now = rows(FLOW)

    def pull(beta: float) -> Tensor:
        prediction = now["old"].clone().requires_grad_()
        errors = nft_errors(
            FLOW,
            prediction,
            now["old"],
            clean=now["clean"],
            latents=now["latents"],
            timestep=now["timestep"],
            beta=beta,
        )
        losses = nft_loss(*errors, torch.ones(5), beta=beta, limit=5.0)
        return torch.autograd.grad(losses.sum(), prediction)[0]

    torch.testing.assert_close(pull(0.1), pull(1.0))

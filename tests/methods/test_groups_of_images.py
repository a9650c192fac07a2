"""DGPO and DiffusionNFT on batches: one noise where it is shared, one forward of each network, the figures they log."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seedpo.core.types import ImageGroups, ImagePairs
from seedpo.methods.dgpo import DGPO
from seedpo.methods.nft import DiffusionNFT
from seedpo.methods.noise_dpo import NoiseDPO
from tests.methods.flow import PackedFlow
from tests.methods.sources.toys import PROMPTS, ToyPolicy, seeded

P, G = 3, 4


class Trained(ToyPolicy):
    """The toy with one trained number; the reference is the policy at 0."""

    def __init__(self, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = torch.tensor(weight, requires_grad=True)
        self.noisy: list[torch.Tensor] = []

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: Any) -> torch.Tensor:
        self.noisy.append(latents)
        moved = 0.0 if self.on_reference else self.weight * latents
        return super().predict(latents, timestep, conditioning) + moved


def groups(policy: Any) -> ImageGroups:
    latents = torch.randn(P, G, *policy.latent_shape, generator=seeded(1))
    rewards = torch.randn(P, G, generator=seeded(2))
    centred = rewards - rewards.mean(1, keepdim=True)
    return ImageGroups(
        latents=latents,
        conditioning=policy.encode_prompts(PROMPTS[:P]),
        rewards=rewards,
        advantages=centred / rewards.std(1, keepdim=True, correction=0),
    )


def objective(name: str, **changes: Any) -> Any:
    if name == "dgpo":
        return DGPO(**({"policy_weight": 4.0, "reference_weight": 4.0} | changes))
    return DiffusionNFT(beta=1.0, advantage_limit=5.0)


@pytest.mark.parametrize("name", ["dgpo", "nft"])
@pytest.mark.parametrize("policy", [Trained(0.1), PackedFlow(weight=torch.tensor(0.1, requires_grad=True))], ids=type)
def test_one_loss_and_figure_per_group_and_a_gradient(name: str, policy: Any) -> None:
    output = objective(name).loss(policy, groups(policy), generator=seeded())
    assert output.losses.shape == (P,)
    assert all(values.shape == (P,) and not values.requires_grad for values in output.metrics.values())
    assert (output.metrics["distance"] > 0).all()
    (gradient,) = torch.autograd.grad(output.losses.sum(), policy.weight)
    assert gradient.abs() > 0


@pytest.mark.parametrize("name", ["dgpo", "nft"])
def test_one_forward_of_each_network(name: str) -> None:
    policy = Trained()
    objective(name).loss(policy, groups(policy), generator=seeded())
    assert [len(latents) for latents in policy.noisy] == [P * G, P * G]
    assert [len(latents) for latents, _ in policy.asked_reference] == [P * G]
    assert torch.equal(*policy.noisy)


@pytest.mark.parametrize(("name", "shared"), [("dgpo", True), ("nft", False)])
def test_a_group_shares_its_noise_in_dgpo_only(name: str, shared: bool) -> None:
    policy, batch = Trained(), groups(Trained())
    objective(name).loss(policy, batch, generator=seeded())
    times = torch.stack([time for _, time in policy.asked_reference]).view(P, G)
    assert bool((times == times[:, :1]).all()) is shared
    level = policy.process.alpha_cumprod(times.flatten()).view(-1, 1, 1, 1)
    noise = (policy.noisy[0] - level.sqrt() * batch.latents.flatten(0, 1)) / (1 - level).sqrt()
    same = torch.isclose(noise.view(P, G, -1), noise.view(P, G, -1)[:, :1], atol=1e-4).all()
    assert bool(same) is shared
    assert len(times[:, 0].unique()) > 1, "every group has its own time"


def test_nft_is_its_formula_on_what_it_draws() -> None:
    """Every image with the prompt of its group, a time and a noise of its own, and its own advantage."""
    policy, generator = Trained(0.2), seeded(7)
    batch, process = groups(policy), policy.process
    output = objective("nft").loss(policy, batch, generator=seeded(7))
    clean = batch.latents.flatten(0, 1)
    time = process.draw_timesteps(P * G, generator=generator)
    level = process.alpha_cumprod(time).view(-1, 1, 1, 1)
    noisy = level.sqrt() * clean + (1 - level).sqrt() * torch.randn(clean.shape, generator=generator)
    prompts = policy.encode_prompts([prompt for prompt in PROMPTS[:P] for _ in range(G)])
    new = policy.predict(noisy, time, prompts)
    with policy.reference():
        old = policy.predict(noisy, time, prompts)
    wrong = [(noisy - (1 - level).sqrt() * noise) / level.sqrt() - clean for noise in (new, 2 * old - new)]
    positive, negative = (some.square().mean((1, 2, 3)) / some.abs().mean((1, 2, 3)) for some in wrong)
    good = 0.5 + batch.advantages.flatten() / 10
    losses = 5 * (good * positive + (1 - good) * negative)
    torch.testing.assert_close(output.losses, losses.view(P, G).mean(1).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", ["constant", "min-snr"])
def test_dgpo_on_pairs_is_diffusion_dpo_divided_by_beta(weight: str) -> None:
    """Through the network, on the same draws: two images, the first of which is preferred."""
    batch = groups(Trained())
    first = torch.tensor([[1.0, -1.0]]).expand(P, 2)
    two = ImageGroups(latents=batch.latents[:, :2], conditioning=batch.conditioning, rewards=first, advantages=first)
    pairs = ImagePairs(
        chosen_latents=batch.latents[:, 0], rejected_latents=batch.latents[:, 1], conditioning=batch.conditioning
    )
    gradients = []
    for method, rows in (
        (DGPO(policy_weight=30.0, reference_weight=20.0, noise_weight=weight, min_snr_gamma=0.5), two),
        (NoiseDPO(policy_weight=30.0, reference_weight=20.0, noise_weight=weight, min_snr_gamma=0.5), pairs),
    ):
        policy = Trained(0.2)
        losses = method.loss(policy, rows, generator=seeded(5)).losses
        gradients.append(torch.autograd.grad(losses.sum(), policy.weight)[0])
    torch.testing.assert_close(gradients[0], gradients[1] / 20.0)


def test_dgpo_holds_large_advantages_and_images_that_moved() -> None:
    policy, batch = Trained(0.3), groups(Trained())
    plain, limited, clipped = (
        objective("dgpo", **changes).loss(policy, batch, generator=seeded())
        for changes in ({}, {"advantage_limit": 0.5}, {"clip_range": 1e-5})
    )
    assert not torch.equal(plain.losses, limited.losses)
    assert "clipped" not in plain.metrics
    share = clipped.metrics["clipped"]
    assert 0 < share.mean() < 1
    torch.testing.assert_close(plain.losses, clipped.losses)
    plain_gradient, clipped_gradient = (
        torch.autograd.grad(output.losses.sum(), policy.weight)[0] for output in (plain, clipped)
    )
    assert plain_gradient != clipped_gradient

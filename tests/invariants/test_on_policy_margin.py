"""What the entropy term does to a step that was drawn from the policy itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.objectives import entropy_weights, see_loss
from seedpo.core.sampling import step_candidates
from seedpo.core.transitions import Gaussian, gaussian_log_prob
from tests.core.denoisers import small_process

ROWS, SHAPE = 4, (2, 3, 3)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def steps() -> tuple[Gaussian, Gaussian]:
    """The policy's and the reference's step from a shared x_t, at four noise levels."""
    latents, timestep = normal(ROWS, *SHAPE, seed=0), torch.tensor([95, 70, 40, 20])
    prediction = normal(ROWS, *SHAPE, seed=1)
    policy, reference = (
        small_process(torch.float64).step(values, latents, timestep, timestep - 20, eta=1.0)
        for values in (prediction, prediction + 0.3 * normal(ROWS, *SHAPE, seed=2))
    )
    return policy, reference


def test_on_policy_margin_identity() -> None:
    """m = b (eps_w - eps_l) . delta / sigma - (a - b) (|eps_w|^2 - |eps_l|^2) / 2, delta = mu_policy - mu_reference."""
    policy, reference = steps()
    candidates = step_candidates(policy, count=2, generator=torch.Generator().manual_seed(5))
    a, b = entropy_weights(0.7, 2.0, convention="relative")
    chosen, rejected, chosen_reference, rejected_reference = (
        gaussian_log_prob(candidates[:, side], step.mean, step.std) for step in (policy, reference) for side in (0, 1)
    )
    output = see_loss(chosen, rejected, chosen_reference, rejected_reference, policy_weight=a, reference_weight=b)

    sigma = policy.std.view(-1, 1, 1, 1)
    eps_w, eps_l = ((candidates[:, side] - policy.mean) / sigma for side in (0, 1))
    along = ((eps_w - eps_l) * (policy.mean - reference.mean) / sigma).sum((1, 2, 3))
    lengths = (eps_w.square() - eps_l.square()).sum((1, 2, 3))
    margin = b * along - (a - b) * lengths / 2
    torch.testing.assert_close(output.metrics["rewards/margins"], margin, rtol=1e-9, atol=1e-9)
    base = see_loss(chosen, rejected, chosen_reference, rejected_reference, policy_weight=b, reference_weight=b)
    torch.testing.assert_close(base.metrics["rewards/margins"], b * along, rtol=1e-9, atol=1e-9)
    assert (margin - b * along).abs().min() > 0.01


def test_the_offset_s_spread_with_mean_reduction() -> None:
    """At policy = reference it is (a - b) / sqrt(D): candidates' |eps|^2 / 2D differ by a spread of 1 / sqrt(D)."""
    policy, _ = steps()
    a, b = entropy_weights(10.0, 3.0, convention="relative")
    candidates = step_candidates(policy, count=4000, generator=torch.Generator().manual_seed(5))[0]
    dimensions = candidates[0].numel()
    log_prob = gaussian_log_prob(candidates, policy.mean[:1], policy.std[:1].expand(len(candidates))) / dimensions
    chosen, rejected = log_prob.chunk(2)
    offset = see_loss(chosen, rejected, chosen, rejected, policy_weight=a, reference_weight=b).metrics["offset"]
    torch.testing.assert_close(offset.std().item(), (a - b) / dimensions**0.5, rtol=0.06, atol=0)


def test_on_policy_the_gradient_is_a_over_b_of_the_base_method_s() -> None:
    """Pair by pair, times sigma(-m) / sigma(-m_base)."""
    policy, reference = steps()
    candidates = step_candidates(policy, count=2, generator=torch.Generator().manual_seed(5))
    a, b = entropy_weights(0.7, 2.0, convention="relative")
    known = [gaussian_log_prob(candidates[:, side], reference.mean, reference.std) for side in (0, 1)]
    gradients, weights = [], []
    for policy_weight in (a, b):
        mean = policy.mean.clone().requires_grad_()
        log_probs = [gaussian_log_prob(candidates[:, side], mean, policy.std) for side in (0, 1)]
        output = see_loss(*log_probs, *known, policy_weight=policy_weight, reference_weight=b)
        output.losses.sum().backward()
        gradients.append(mean.grad)
        weights.append(torch.sigmoid(-output.metrics["rewards/margins"]))
    scale = (a / b * weights[0] / weights[1]).view(-1, 1, 1, 1)
    torch.testing.assert_close(gradients[0], scale * gradients[1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("beta", "gamma", "dimensions", "spread"), [(10, 3, 16384, 0.23), (10, 3, 768, 1.1), (500, 3, 768, 54)]
)
def test_the_table_of_spreads(beta: float, gamma: float, dimensions: int, spread: float) -> None:
    """The standard deviations that docs/derivations.md states are (a - b) / sqrt(D)."""
    a, b = entropy_weights(beta, gamma, convention="relative")
    assert (a - b) / dimensions**0.5 == pytest.approx(spread, rel=0.02)

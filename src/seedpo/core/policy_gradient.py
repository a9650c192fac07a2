r"""Policy gradients on denoising steps: the clipped ratio of Flow-GRPO (arXiv 2505.05470), and its KL term.

With A the advantage of an image in its group, and every step of its trajectory sharing it,

    rho = exp(log policy - log roll-out policy)
    L   = max(-A rho, -A clip(rho, 1 - c, 1 + c)) + beta KL(policy || reference)

The standard deviation of a step does not depend on the parameters. So the KL has a closed form, the squared distance
of two means, and the entropy of a step has no gradient: gamma has no meaning here.
"""

from __future__ import annotations

import math

from torch import Tensor


def clipped_policy_loss(
    log_prob: Tensor, rollout_log_prob: Tensor, advantage: Tensor, *, clip_range: float | None
) -> Tensor:
    """-A min(rho, 1 + c) for advantages above 0, -A max(rho, 1 - c) below: PPO's loss (arXiv 1707.06347, eq. 7).

    That is max(-A rho, -A clip(rho)). The ratio is clipped in log space, so that a huge one that is clipped has the
    gradient 0 and not NaN. Clip ranges belong to the reduction of the log-probabilities: the published 1e-4 is for
    means over the entries of the latents.

        dL/dtheta = -A rho grad log policy, or 0 where the ratio is past the bound on the side that A pushes to

    On policy rho is 1, and this is the gradient of REINFORCE.

    Args:
        log_prob: log policy of each step, nats, (N,), with gradient.
        rollout_log_prob: log of the policy that drew the step, nats, (N,), taken as a constant.
        advantage: of the step's image, (N,).
        clip_range: c, in (0, 1), or ``None`` for no clipping.

    Returns:
        Losses, (N,).

    Raises:
        ValueError: if ``clip_range`` is outside (0, 1).
    """
    log_ratio = log_prob - rollout_log_prob.detach()
    low, high = _bounds(log_ratio, advantage, clip_range=clip_range)
    return -advantage * log_ratio.clamp(low, high).exp()


def is_clipped(log_ratio: Tensor, advantage: Tensor, *, clip_range: float | None) -> Tensor:
    """Which steps have no gradient in :func:`clipped_policy_loss`, for log rho (N,) and advantages (N,): (N,) bool."""
    low, high = _bounds(log_ratio, advantage, clip_range=clip_range)
    return (log_ratio < low) | (log_ratio > high)


def _bounds(log_ratio: Tensor, advantage: Tensor, *, clip_range: float | None) -> tuple[Tensor, Tensor]:
    """Where log-ratios are held: from above if A > 0, from below if A < 0."""
    if clip_range is not None and not 0 < clip_range < 1:
        raise ValueError(f"clip_range = {clip_range} must lie between 0 and 1 (exclusive), or be none for no clipping")
    below, above = (-math.inf, math.inf) if clip_range is None else (math.log1p(-clip_range), math.log1p(clip_range))
    infinite = log_ratio.new_full(log_ratio.shape, math.inf)
    return (
        (-infinite).masked_fill(advantage < 0, below),
        infinite.masked_fill(advantage > 0, above),
    )

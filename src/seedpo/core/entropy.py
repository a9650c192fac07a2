"""What gamma means: the weights of the policy and the reference. No tensor is needed here, so nothing imports torch."""

from __future__ import annotations

import math
from typing import Literal

EntropyConvention = Literal["relative", "absolute"]


def entropy_weights(
    beta: float, gamma: float, *, convention: EntropyConvention, kl_is_optional: bool = False
) -> tuple[float, float]:
    """The weights (a, b) of the policy's and the reference's log-probability.

    Args:
        beta: weight of the KL term, finite and above 0.
        gamma: weight of the self-entropy term; 0 is the base method, negative values sharpen instead of flatten.
        convention: ``relative``: a = beta (1 + gamma), gamma > -1; ``absolute``: a = beta + gamma, gamma > -beta.
        kl_is_optional: whether beta may be 0 where gamma is, so that both weights are.

    Returns:
        ``(policy_weight, reference_weight)`` = (a, b), with b = beta.

    Raises:
        ValueError: if the convention is unknown, or beta or a is not a finite number above 0.
    """
    if kl_is_optional and beta == gamma == 0:
        return 0.0, 0.0
    if not (math.isfinite(beta) and beta > 0):
        if kl_is_optional and gamma == 0:
            raise ValueError(f"beta = {beta} must be a finite number, 0 or above; 0 leaves the KL out")
        raise ValueError(f"beta = {beta} must be a finite number above 0; leave it out for the method's default")
    if not math.isfinite(gamma):
        raise ValueError(f"gamma = {gamma} must be a finite number; 0 is the base method")
    if convention == "relative":
        policy_weight, lowest = beta * (1 + gamma), -1.0
    elif convention == "absolute":
        policy_weight, lowest = beta + gamma, -beta
    else:
        raise ValueError(f"entropy_convention = {convention!r} is unknown; write 'relative' or 'absolute'")
    if policy_weight <= 0:
        raise ValueError(
            f"gamma = {gamma} gives the policy weight {policy_weight:g} at beta = {beta} ({convention}); "
            f"raise gamma above {lowest:g}"
        )
    if not math.isfinite(policy_weight):
        raise ValueError(f"gamma = {gamma} gives an infinite policy weight at beta = {beta} ({convention}); lower it")
    return policy_weight, beta


def clipped_margin(policy_weight: float, clip_range: float) -> float:
    """Largest |a Delta log(policy/reference)| of a pair whose ratios are held in [1 - clip_range, 1 + clip_range]."""
    return policy_weight * (math.log1p(clip_range) - math.log1p(-clip_range))

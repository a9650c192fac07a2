"""Weights of a noising level in the noise objective, in one table; a new one is a row.

Diffusion-DPO's margin compares squared prediction errors with the weight T omega(lambda_t) (arXiv 2311.12908, eq. 14),
which its code holds constant. A row says the weight of the error of the network's own target. It is made of two factors
that the process knows (:meth:`seedpo.core.processes.Process.error_weights`): they turn that error into one of the
predicted noise, and into one of the predicted clean latents. Importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class NoiseWeight:
    """One weighting.

    Attributes:
        weight: weights (B,) from the two factors, tensors (B,), and `min_snr_gamma`.
        source: where it was published.
    """

    weight: Callable[[Any, Any, float], Any]
    source: str


NOISE_WEIGHTS = {
    "constant": NoiseWeight(weight=lambda noise, clean, limit: noise.new_ones(noise.shape), source="arXiv 2311.12908"),
    # For flow matching (1 - sigma)^2 and sigma^2 on the error of the velocity.
    "noise": NoiseWeight(weight=lambda noise, clean, limit: noise, source="arXiv 2311.12908, eq. 14"),
    "clean": NoiseWeight(weight=lambda noise, clean, limit: clean, source="arXiv 2311.12908, eq. 14"),
    # min(SNR, gamma) on the error of the clean latents; on that of the noise it is min(SNR, gamma) / SNR, and on that
    # of v min(SNR, gamma) / (SNR + 1).
    "min-snr": NoiseWeight(weight=lambda noise, clean, limit: noise.minimum(limit * clean), source="arXiv 2303.09556"),
}
"""By the value of the key ``noise_weight``."""

MIN_SNR_GAMMA = 5.0
"""The limit of arXiv 2303.09556."""

"""Annealed importance guidance: a tuned model mixed with the model before training, at sampling (arXiv 2409.06493)."""

from __future__ import annotations

import torch
from torch import Tensor

from seedpo.core.transitions import over_latents


def tuned_share(timestep: Tensor, *, pure_noise_time: float, power: float) -> Tensor:
    """The share of the tuned model in a prediction: 0 in pure noise, 1 in the clean image.

        w(t) = (1 - t / T)^p

    Early steps, which settle what is drawn, are the base model's; late ones, which settle details, the tuned model's.
    Of a flow, t / T is the level sigma that the network reads, after its shift.

    Args:
        timestep: t, (B,), floating: the share is as precise.
        pure_noise_time: T.
        power: p, above 0; a larger one leaves more steps to the base model.

    Returns:
        (B,).
    """
    return (1 - timestep / pure_noise_time).clamp(0, 1) ** power


def mixed_prediction(base: Tensor, tuned: Tensor, share: Tensor) -> Tensor:
    """The mixture w tuned + (1 - w) base, (B, ...); shares of 0 and 1 give one of both bit for bit.

    Args:
        base: prediction of the model before training, (B, ...).
        tuned: prediction of the tuned model, (B, ...).
        share: w, (B,).
    """
    return torch.lerp(base, tuned, over_latents(share, base))

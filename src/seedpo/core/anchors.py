"""What holds a policy near something: errors of a prediction, and which times count as early.

The KL divergence of two Gaussian steps with one standard deviation is |mean - mean'|^2 / (2 std^2). In mean space the
factor 1 / (2 std^2) is left out (DiverseGRPO, arXiv 2512.21514): :func:`seedpo.core.transitions.squared_distance`. So
early steps weigh more, whose std is large.
"""

from __future__ import annotations

import math

from torch import Tensor

from seedpo.core.processes import Process
from seedpo.core.transitions import squared_distance

EARLY = 1 / 3
"""Share of the times, or of a sampler's steps, that are early. The first third of the steps decides most of an image's
diversity (arXiv 2512.21514)."""


def target_error(prediction: Tensor, clean: Tensor, latents: Tensor, timestep: Tensor, process: Process) -> Tensor:
    """Mean squared error of a prediction, from the clean latents alone: the noise follows from them and x_t.

    Args:
        prediction: the network's output at x_t, (R, ...).
        clean: x_0, (R, ...).
        latents: x_t, (R, ...).
        timestep: (R,).
        process: that made x_t.

    Returns:
        (R,), float64 (float32 on devices without it).
    """
    _, clean_factor = process.error_weights(timestep)
    error = squared_distance(process.clean(prediction, latents, timestep), clean)
    return error / clean_factor.to(error)


def is_early_time(timestep: Tensor, process: Process) -> Tensor:
    """Which times (R,) are in the noisiest third of the process's time scale, (R,) bool."""
    return timestep >= (1 - EARLY) * process.pure_noise_time


def is_early_step(timestep: Tensor, process: Process, num_inference_steps: int) -> Tensor:
    """Which steps, by the times (S,) from which they start, are in the sampler's first third, rounded up, (S,) bool."""
    visited, _ = process.timesteps(num_inference_steps)
    return timestep >= visited[math.ceil(EARLY * len(visited)) - 1].to(timestep)

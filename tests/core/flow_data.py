"""A flow-matching process, and Gaussian data whose exact velocity is known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from seedpo.core.flow import FlowProcess, shifted


def straight_levels(count: int, *, shift: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """1, ..., 1 / N, shifted, and 0."""
    return torch.cat([shifted(torch.arange(count, 0, -1, dtype=dtype) / count, shift), torch.zeros(1, dtype=dtype)])


def flow_process(*, shift: float = 1.0, **changes: Any) -> FlowProcess:
    """Of a sampler with straight levels in float32."""
    return FlowProcess(levels=partial(straight_levels, shift=shift, dtype=torch.float32), shift=shift, **changes)


@dataclass(frozen=True)
class GaussianData:
    """x_0 ~ N(mean, variance), every entry by itself.

    x_sigma then has the variance T = (1 - sigma)^2 variance + sigma^2, and the best velocity is
    (sigma - (1 - sigma) variance) / T (x - (1 - sigma) mean) - mean.
    """

    mean: float
    variance: float

    def variance_at(self, level: Tensor) -> Tensor:
        return (1 - level) ** 2 * self.variance + level**2

    def velocity(self, x: Tensor, level: Tensor) -> Tensor:
        slope = (level - (1 - level) * self.variance) / self.variance_at(level)
        return slope * (x - (1 - level) * self.mean) - self.mean

    def moments(self, process: FlowProcess, levels: Tensor, *, eta: float) -> tuple[Tensor, Tensor]:
        """Mean and variance after each step from N(0, 1), (N,) each: a step's mean is linear in x."""
        points = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        now, then = levels[:-1].repeat_interleave(2), levels[1:].repeat_interleave(2)
        x = points.repeat(len(levels) - 1, 1)
        step = process.step(self.velocity(x, now[:, None]), x, now, then, eta=eta)
        at_0, at_1 = step.mean.view(-1, 2).unbind(1)
        mean, variance, means, variances = 0.0, 1.0, [], []
        rows = torch.stack([at_0, at_1 - at_0, step.std[::2]], 1).tolist()
        for offset, slope, std in rows:
            mean, variance = offset + slope * mean, slope**2 * variance + std**2
            means.append(mean)
            variances.append(variance)
        return torch.tensor(means, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)

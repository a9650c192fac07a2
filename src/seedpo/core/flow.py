"""Flow matching: latents on the straight line from the clean image to noise, and a network that predicts the velocity.

With the level sigma in [0, 1] as time (rectified flow, arXiv 2209.03003; Stable Diffusion 3, arXiv 2403.03206)

    x_sigma = (1 - sigma) x_0 + sigma noise,        v = noise - x_0

so that x_0 = x - sigma v and noise = x + (1 - sigma) v. A sampler walks from sigma to a smaller sigma'; dt is
sigma' - sigma.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.core.processes import classifier_free_guidance
from seedpo.core.transitions import Gaussian, over_latents


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Levels moved towards noise: s sigma / (1 + (s - 1) sigma) (arXiv 2403.03206, eq. 23).

    A dynamic shift by mu is the same with s = exp(mu).
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True, kw_only=True)
class Density:
    """How levels to train on are drawn.

    Attributes:
        draw: levels (count,) in (0, 1], from a count and a generator.
        is_shifted: whether they are moved as the model's sampler moves its own.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    is_shifted: bool = False


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return 1 - torch.rand(count, generator=generator)


def _logit_normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator).sigmoid()


DENSITIES = {
    "uniform": Density(draw=_uniform),
    "uniform-shifted": Density(draw=_uniform, is_shifted=True),
    "logit-normal": Density(draw=_logit_normal),
    "logit-normal-shifted": Density(draw=_logit_normal, is_shifted=True),
}
"""By the value of the key ``flow.density``; logit-normal with location 0 and scale 1 (arXiv 2403.03206, sec. 3.1)."""


@dataclass(frozen=True, kw_only=True)
class SdeRule:
    """How noise enters a step.

    Attributes:
        usual_eta: the usual strength a.
        largest_eta: the largest that has a meaning.
        std: of a step, from sigma, sigma' and a, all (B,).
        keeps_levels: whether the mean gives up as much noise as the step draws (CPS), so that x stays at its level;
            otherwise the score corrects the drift.
    """

    usual_eta: float
    largest_eta: float = math.inf
    std: Callable[[Tensor, Tensor, float], Tensor]
    keeps_levels: bool = False


def _flow_grpo_std(sigma: Tensor, following: Tensor, eta: float) -> Tensor:
    # At sigma = 1, where the rate is infinite, the published code takes the next level in the denominator.
    clean = 1 - torch.where(sigma == 1, following, sigma)
    return eta * (sigma / clean * (sigma - following)).sqrt()


SDE_RULES = {
    "dance": SdeRule(usual_eta=0.3, std=lambda sigma, following, eta: eta * (sigma - following).sqrt()),
    "flow-grpo": SdeRule(usual_eta=0.7, std=_flow_grpo_std),
    "cps": SdeRule(
        usual_eta=0.8,
        largest_eta=1.0,
        std=lambda sigma, following, eta: following * math.sin(eta * math.pi / 2),
        keeps_levels=True,
    ),
}
"""By the value of the key ``flow.sde``: DanceGRPO (arXiv 2505.07818), Flow-GRPO (arXiv 2505.05470), CPS (arXiv
2509.05952)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowProcess:
    """Flow matching as a :class:`seedpo.core.processes.Process`. Time is the level sigma; 0 or less is the clean image.

    Attributes:
        levels: the levels that a sampler of N steps visits, from N: descending, the last one 0.
        shift: of the model's sampler at its image size.
        density: a name in :data:`DENSITIES`.
        sde: a name in :data:`SDE_RULES`.
        guide: the guided prediction, from the negative one, the positive one and the scale.
    """

    levels: Callable[[int], Tensor]
    shift: float = 1.0
    density: str = "logit-normal"
    sde: str = "dance"
    guide: Callable[[Tensor, Tensor, float], Tensor] = classifier_free_guidance

    @property
    def largest_timestep(self) -> float:
        """1, pure noise."""
        return 1.0

    @property
    def usual_eta(self) -> float:
        """The rule's."""
        return SDE_RULES[self.sde].usual_eta

    def draw_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Levels of the density, (count,) float32."""
        density = DENSITIES[self.density]
        levels = density.draw(count, generator)
        return shifted(levels, self.shift) if density.is_shifted else levels

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        """The levels that a sampler visits, and where each step leads, float32."""
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps = {num_inference_steps} must be at least 1")
        levels = self.levels(num_inference_steps)
        return levels[:-1], levels[1:]

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """(1 - sigma) x_0 + sigma noise, (B, ...)."""
        sigma = over_latents(timestep, clean)
        return (1 - sigma) * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Noise - x_0, (B, ...)."""
        return noise - clean

    def clean(self, prediction: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """X - sigma v, (B, ...)."""
        return latents - over_latents(timestep, latents) * prediction

    def error_weights(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - sigma)^2 and sigma^2."""
        return (1 - timestep).square(), timestep.square()

    def guided(self, negative: Tensor, positive: Tensor, scale: float) -> Tensor:
        """As the family guides."""
        return self.guide(negative, positive, scale)

    def step(
        self, prediction: Tensor, latents: Tensor, timestep: Tensor, next_timestep: Tensor, *, eta: float
    ) -> Gaussian:
        """One step of the rule, or Euler's at ``eta`` 0.

        With the score s = -(x + (1 - sigma) v) / sigma and std^2 = g^2 |dt|

            mean = x + v dt + std^2 s / 2                                            (DanceGRPO, Flow-GRPO)
            mean = (1 - sigma') x_0 + sqrt(sigma'^2 - std^2) noise                   (CPS)
        """
        std = self.step_std(timestep, next_timestep, eta=eta)
        sigma, following, wide = (over_latents(values, latents) for values in (timestep, next_timestep, std))
        noise = latents + (1 - sigma) * prediction
        if SDE_RULES[self.sde].keeps_levels:
            kept = (following.square() - wide.square()).clamp(min=0).sqrt()
            return Gaussian(mean=(1 - following) * (latents - sigma * prediction) + kept * noise, std=std)
        drift = prediction * (following - sigma)
        return Gaussian(mean=latents + drift - wide.square() / (2 * sigma) * noise, std=std)

    def step_std(self, timestep: Tensor, next_timestep: Tensor, *, eta: float) -> Tensor:
        """Of the rule, (B,); 0 in the step to the clean image."""
        rule = SDE_RULES[self.sde]
        if not 0 <= eta <= rule.largest_eta:
            raise ValueError(f"eta = {eta} must be from 0 (deterministic) to {rule.largest_eta:g} for {self.sde}")
        return rule.std(timestep, next_timestep, eta) * (next_timestep > 0)

    def embedded_time(self, timestep: Tensor) -> Tensor:
        """Stable Diffusion's time step of the same signal-to-noise ratio, (B,) int64."""
        levels = _STABLE_DIFFUSION.to(timestep.device)
        share = (1 - timestep).square() / ((1 - timestep).square() + timestep.square())
        # Levels fall with the step; the first one at or below the share, and 0 for the clean image.
        place = torch.searchsorted(-levels, -share.to(levels.dtype)).clamp(max=len(levels) - 1)
        return torch.where(timestep > 0, place, torch.zeros_like(place))

    def digest(self) -> str:
        """The same for all: noising and target have no parameters."""
        return hashlib.sha256(b"flow: (1 - sigma) clean + sigma noise; noise - clean").hexdigest()


_STABLE_DIFFUSION = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()).cumprod(0)
"""Share of signal variance at Stable Diffusion's 1000 time steps, whose numbers step-aware scorers read."""

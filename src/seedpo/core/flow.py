"""Flow matching: latents on the straight line from the clean image to noise, and a network that predicts the velocity.

With the level sigma in [0, 1] as time (rectified flow, arXiv 2209.03003; Stable Diffusion 3, arXiv 2403.03206)

    x_sigma = (1 - sigma) x_0 + sigma noise,        v = noise - x_0

so that x_0 = x - sigma v and noise = x + (1 - sigma) v. A sampler walks from sigma to sigma' < sigma. Euler's step is
x + (sigma' - sigma) v; a random one takes some of the predicted noise away and draws new noise in its place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seedpo.core.processes import check_eta, classifier_free_guidance
from seedpo.core.transitions import Gaussian, over_latents


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Levels moved towards noise: s sigma / (1 + (s - 1) sigma) (arXiv 2403.03206, eq. 23).

    A dynamic (exponential) shift by mu, exp(mu) / (exp(mu) + 1 / sigma - 1), is the same with s = exp(mu).
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


@dataclass(frozen=True, kw_only=True)
class Density:
    """How levels to train on are drawn.

    Attributes:
        draw: levels (count,) float32 in (0, 1], from a count and a CPU generator.
        is_shifted: whether they are moved as the model's sampler moves its own.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    is_shifted: bool = False


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return 1 - torch.rand(count, generator=generator)


def _logit_normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator).sigmoid()


DENSITIES = {
    "logit-normal": Density(draw=_logit_normal),
    "logit-normal-shifted": Density(draw=_logit_normal, is_shifted=True),
    "uniform": Density(draw=_uniform),
    "uniform-shifted": Density(draw=_uniform, is_shifted=True),
}
"""By the value of the key ``flow.density``; logit-normal with location 0 and scale 1 (arXiv 2403.03206, sec. 3.1)."""


@dataclass(frozen=True, kw_only=True)
class SdeRule:
    """How a step is made random: it draws noise of a standard deviation, and its mean gives up predicted noise.

    Attributes:
        usual_eta: the usual strength a.
        std: standard deviation of a step from sigma to sigma' > 0 at strength a.
        removed: share of the predicted noise that the mean gives up, from sigma, sigma' and the standard deviation.
    """

    usual_eta: float
    std: Callable[[Tensor, Tensor, float], Tensor]
    removed: Callable[[Tensor, Tensor, Tensor], Tensor]


def _score_correction(sigma: Tensor, following: Tensor, std: Tensor) -> Tensor:
    """The drift std^2 s / 2 of an Euler-Maruyama step, with the score s = -noise / sigma: std^2 / (2 sigma)."""
    return std.square() / (2 * sigma)


def _level_preservation(sigma: Tensor, following: Tensor, std: Tensor) -> Tensor:
    """Old and new noise together stay at sigma': sigma' - sqrt(sigma'^2 - std^2), without its cancellation."""
    variance, kept = std.square(), following.square() - std.square()
    return variance / (following + kept.clamp(min=0).sqrt()).clamp(min=torch.finfo(std.dtype).tiny)


_ROUNDING = 1e-6
"""A first level of 1 may be less by so much."""


def _flow_grpo_std(sigma: Tensor, following: Tensor, eta: float) -> Tensor:
    # The rate is infinite at sigma = 1, where the published code takes sigma' in the denominator: the std is then eta.
    clean = 1 - torch.where(sigma < 1 - _ROUNDING, sigma, following)
    return eta * (sigma / clean * (sigma - following)).sqrt()


SDE_RULES = {
    "dance": SdeRule(
        usual_eta=0.3,
        std=lambda sigma, following, eta: eta * (sigma - following).sqrt(),
        removed=_score_correction,
    ),
    "flow-grpo": SdeRule(usual_eta=0.7, std=_flow_grpo_std, removed=_score_correction),
    "cps": SdeRule(
        usual_eta=0.8,
        std=lambda sigma, following, eta: following * math.sin(eta * math.pi / 2),
        removed=_level_preservation,
    ),
}
"""By the value of the key ``flow.sde``: DanceGRPO (arXiv 2505.07818), Flow-GRPO (arXiv 2505.05470), CPS (arXiv
2509.05952)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowProcess:
    """Flow matching as a :class:`seedpo.core.processes.Process`. Time is the level sigma; 0 or less is the clean image.

    Attributes:
        levels: the levels that a sampler of N steps visits, from N: float32, descending, the last one 0.
        shift: s of :func:`shifted`, of the model's sampler at its image size.
        density: a name in :data:`DENSITIES`.
        sde: a name in :data:`SDE_RULES`.
        guide: the guided prediction, from the negative one, the positive one and the scale.

    Raises:
        ValueError: if there is no such density or rule.
    """

    levels: Callable[[int], Tensor]
    shift: float = 1.0
    density: str = "logit-normal"
    sde: str = "dance"
    guide: Callable[[Tensor, Tensor, float], Tensor] = classifier_free_guidance

    def __post_init__(self) -> None:
        """Refuses names that no table has."""
        for name, value, table in (("density", self.density, DENSITIES), ("sde", self.sde, SDE_RULES)):
            if value not in table:
                raise ValueError(f"{name} = {value!r} is not one of {', '.join(table)}")

    @property
    def usual_eta(self) -> float:
        """The rule's."""
        return SDE_RULES[self.sde].usual_eta

    @property
    def pure_noise_time(self) -> float:
        """1."""
        return 1.0

    @property
    def embedded_times(self) -> int:
        """Stable Diffusion's 1000."""
        return len(_EMBEDDED)

    def draw_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Levels of the density, (count,) float32."""
        density = DENSITIES[self.density]
        levels = density.draw(count, generator)
        return shifted(levels, self.shift) if density.is_shifted else levels

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        """The levels that a sampler visits, and where each step leads, float32.

        Raises:
            ValueError: if N is below 1.
        """
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps = {num_inference_steps} must be at least 1")
        levels = self.levels(num_inference_steps)
        return levels[:-1], levels[1:]

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """(1 - sigma) x_0 + sigma noise, (B, ...)."""
        sigma = over_latents(timestep, clean)
        return (1 - sigma) * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The velocity, noise - x_0, (B, ...)."""
        return noise - clean

    def clean(self, prediction: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """The predicted x_0, x - sigma v, (B, ...)."""
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
        """One step of the rule.

            mean = x + (sigma' - sigma) v - removed noise,        noise = x + (1 - sigma) v

        At ``eta`` 0 and in the step to the clean image nothing is removed: it is Euler's, bit for bit as in diffusers'
        ``FlowMatchEulerDiscreteScheduler``.

        Args:
            prediction: the velocity, guided where guidance is used, (B, ...).
            latents: x, (B, ...).
            timestep: sigma of each row, (B,).
            next_timestep: sigma' of each row, (B,); 0: the clean image.
            eta: strength a of the rule, in [0, 1]; 0 is deterministic.

        Raises:
            ValueError: if ``eta`` is outside [0, 1].
        """
        std = self.step_std(timestep, next_timestep, eta=eta)
        removed = over_latents(SDE_RULES[self.sde].removed(timestep, next_timestep, std), latents)
        sigma, change = over_latents(timestep, latents), over_latents(next_timestep - timestep, latents)
        noise = latents + (1 - sigma) * prediction
        return Gaussian(mean=latents + change * prediction - removed * noise, std=std)

    def step_std(self, timestep: Tensor, next_timestep: Tensor, *, eta: float) -> Tensor:
        """Of the rule, (B,); 0 in the step to the clean image, which is deterministic under every rule."""
        check_eta(eta)
        return SDE_RULES[self.sde].std(timestep, next_timestep, eta) * (next_timestep > 0)

    def embedded_time(self, timestep: Tensor) -> Tensor:
        """Stable Diffusion's time step of the nearest level, (B,) int64."""
        levels = _EMBEDDED.to(timestep.device)
        return torch.bucketize(timestep.to(levels.dtype), (levels[1:] + levels[:-1]) / 2)

    def timestep_of(self, embedded_time: Tensor) -> Tensor:
        """The level of Stable Diffusion's time steps, (B,) float32: equal ratios of signal to noise; 0 stays clean."""
        return _EMBEDDED.to(embedded_time.device)[embedded_time]

    def digest(self) -> str:
        """The same for all: noising and target have no parameters."""
        return hashlib.sha256(b"flow: (1 - sigma) clean + sigma noise; noise - clean").hexdigest()


def _embedded_levels() -> Tensor:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    signal = (1 - betas).cumprod(0)
    levels = (1 - signal).sqrt() / (signal.sqrt() + (1 - signal).sqrt())
    return torch.cat([torch.zeros(1), levels[1:].float()])


_EMBEDDED = _embedded_levels()
"""Levels of Stable Diffusion's time steps, whose numbers step-aware scorers read; at 0 they see finished images."""

"""Diffusion processes: how clean latents become noise, and how a sampler takes one step back.

A :class:`Process` is all that training and sampling need to know of a model family's noise. :class:`DiffusionProcess`
is the one of Stable Diffusion (DDPM, arXiv 2006.11239, eq. 4, sampled by DDIM, arXiv 2010.02502):

    x_t = sqrt(alpha_cumprod_t) x_0 + sqrt(1 - alpha_cumprod_t) noise
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from seedpo.core.transitions import Gaussian, over_latents

PredictionType = Literal["epsilon", "v_prediction", "sample"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]


class Process(Protocol):
    """What training and sampling know of a model's noise.

    A time step is a number of the process's own type: int64 for DDPM, floating for flow matching. Larger is noisier,
    and 0 or less is the clean image. Latents have any rank, (B, ...). Whatever is computed here is as precise as the
    wider of the latents and the process's own coefficients.
    """

    @property
    def usual_eta(self) -> float:
        """How random steps usually are in roll-outs."""

    @property
    def pure_noise_time(self) -> float:
        """The end of the time scale, where nothing but noise is left."""

    def draw_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Time steps to train on, (count,), drawn on the CPU."""

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        """The time steps that a sampler visits, descending, and where each step leads, (N,) each, on the CPU.

        Raises:
            ValueError: if the process has no such number of steps.
        """

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """x_t (B, ...) of clean latents and standard normal noise (B, ...) at time steps (B,)."""

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What a perfect network would predict at :meth:`noisy` latents, (B, ...)."""

    def clean(self, prediction: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """The clean latents (B, ...) that a network's prediction at x_t stands for."""

    def error_weights(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (B,) that turn a squared error of the target into one of the noise, and into one of clean latents.

        At time steps (B,) and one x_t. Their ratio is the signal-to-noise ratio.
        """

    def guided(self, negative: Tensor, positive: Tensor, scale: float) -> Tensor:
        """The guided prediction (B, ...), from those for negative and positive prompts; scale 1 gives the latter."""

    @property
    def embedded_times(self) -> int:
        """How many times step-aware scorers know, from 0, a finished image: numbers of a DDPM's time steps."""

    def embedded_time(self, timestep: Tensor) -> Tensor:
        """The time that step-aware scorers read at time steps (B,): (B,) int64."""

    def timestep_of(self, embedded_time: Tensor) -> Tensor:
        """The time step (B,) at which step-aware scorers read times (B,); the inverse of :meth:`embedded_time`."""

    def step(
        self, prediction: Tensor, latents: Tensor, timestep: Tensor, next_timestep: Tensor, *, eta: float
    ) -> Gaussian:
        """The Gaussian from which a sampler draws the less noisy latents.

        Args:
            prediction: the network's output, guided where guidance is used, (B, ...).
            latents: x_t, (B, ...).
            timestep: of x_t, (B,).
            next_timestep: where the step leads, (B,).
            eta: how random the step is: 0 is deterministic; the scale is the process's own.
        """

    def step_std(self, timestep: Tensor, next_timestep: Tensor, *, eta: float) -> Tensor:
        """Standard deviation of such steps, (B,): it does not depend on the network; 0 where there is no density."""

    def digest(self) -> str:
        """SHA-256 of all that noising and the target depend on, in hexadecimal digits."""


def classifier_free_guidance(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """Negative + scale (positive - negative) (arXiv 2207.12598)."""
    return negative + scale * (positive - negative)


@dataclass(frozen=True, kw_only=True)
class Parameterisation:
    """What a network predicts, in terms of x_0, x_t, the noise and the level alpha_cumprod (B, 1, ..., 1).

    Attributes:
        target: of x_0, noise and level.
        clean: x_0 from prediction, x_t and level (arXiv 2010.02502, eq. 9).
        noise: the noise from prediction, x_t and level.
        errors: from the level, the factors of :meth:`Process.error_weights`.
    """

    target: Callable[[Tensor, Tensor, Tensor], Tensor]
    clean: Callable[[Tensor, Tensor, Tensor], Tensor]
    noise: Callable[[Tensor, Tensor, Tensor], Tensor]
    errors: Callable[[Tensor], tuple[Tensor, Tensor]]


PARAMETERISATIONS: dict[str, Parameterisation] = {
    "epsilon": Parameterisation(
        target=lambda clean, noise, level: noise,
        clean=lambda prediction, latents, level: (latents - (1 - level).sqrt() * prediction) / level.sqrt(),
        noise=lambda prediction, latents, level: prediction,
        errors=lambda level: (torch.ones_like(level), (1 - level) / level),
    ),
    # arXiv 2202.00512, app. D
    "v_prediction": Parameterisation(
        target=lambda clean, noise, level: level.sqrt() * noise - (1 - level).sqrt() * clean,
        clean=lambda prediction, latents, level: level.sqrt() * latents - (1 - level).sqrt() * prediction,
        noise=lambda prediction, latents, level: level.sqrt() * prediction + (1 - level).sqrt() * latents,
        errors=lambda level: (level, 1 - level),
    ),
    "sample": Parameterisation(
        target=lambda clean, noise, level: clean,
        clean=lambda prediction, latents, level: prediction,
        noise=lambda prediction, latents, level: (latents - level.sqrt() * prediction) / (1 - level).sqrt(),
        errors=lambda level: (level / (1 - level), torch.ones_like(level)),
    ),
}
"""By diffusers' ``prediction_type``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionProcess:
    """DDPM noise levels and DDIM steps, in diffusers' words. Time steps are int64; a negative one is the clean image.

    Attributes:
        alphas_cumprod: share of signal variance at each time step, (T,), in [0, 1], falling. The coefficients of a
            step are computed in this precision (float32 as in diffusers, float64 for reference computations).
        final_alpha_cumprod: the same for the clean image; ``alphas_cumprod[0]`` where diffusers has
            ``set_alpha_to_one=False``.
        prediction_type: what the network predicts.
        timestep_spacing: which time steps a sampler of few steps visits.
        steps_offset: added to the time steps of ``leading``.
        clip_sample_range: predicted clean latents are clamped to +- this in steps; ``None``: not clamped.
    """

    alphas_cumprod: Tensor
    final_alpha_cumprod: float = 1.0
    prediction_type: PredictionType = "epsilon"
    timestep_spacing: TimestepSpacing = "leading"
    steps_offset: int = 0
    clip_sample_range: float | None = None

    def __post_init__(self) -> None:
        """Refuses what no sampler can follow."""
        if self.alphas_cumprod.ndim != 1 or len(self.alphas_cumprod) == 0:
            raise ValueError(f"alphas_cumprod must have shape (T,), not {tuple(self.alphas_cumprod.shape)}")
        if self.prediction_type not in PARAMETERISATIONS:
            raise ValueError(f"prediction_type {self.prediction_type!r} is not one of {get_args(PredictionType)}")
        if self.timestep_spacing not in _GRIDS:
            raise ValueError(f"timestep_spacing {self.timestep_spacing!r} is not one of {get_args(TimestepSpacing)}")

    def __len__(self) -> int:
        """Number of training time steps T."""
        return len(self.alphas_cumprod)

    @property
    def usual_eta(self) -> float:
        """1, the ancestral sampler."""
        return 1.0

    @property
    def pure_noise_time(self) -> float:
        """T."""
        return float(len(self))

    @property
    def _parameterisation(self) -> Parameterisation:
        return PARAMETERISATIONS[self.prediction_type]

    def draw_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Time steps from 0 to T - 1, uniform, (count,) int64."""
        return torch.randint(len(self), (count,), generator=generator)

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        """The time steps that a sampler visits, and where each step leads, (N,) int64 each.

        As diffusers' ``DDIMScheduler``: a step leads to t - T // N, which is the next visited time step for ``leading``
        but not always for the two others. One deviation: for some N diffusers' ``trailing`` visits an extra time step
        -1, by rounding (N = 61 of T = 1000 gives 62); here there are N always.

        Raises:
            ValueError: if N is outside 1 to T or ``steps_offset`` moves the first step out of the schedule.
        """
        total, count = len(self), num_inference_steps
        if not 1 <= count <= total:
            raise ValueError(f"num_inference_steps = {count} must be from 1 to the model's {total} training steps")
        visited = torch.tensor(_GRIDS[self.timestep_spacing](total, count, self.steps_offset), dtype=torch.int64)
        if visited[0] >= total:
            raise ValueError(
                f"num_inference_steps = {count} with steps_offset = {self.steps_offset} starts at time step "
                f"{int(visited[0])}, but the model has {total}; take fewer steps"
            )
        return visited, visited - total // count

    def alpha_cumprod(self, timestep: Tensor) -> Tensor:
        """Share of signal variance at time steps (B,) int64: (B,), on their device; negative ones are clean images."""
        levels = self.alphas_cumprod.to(timestep.device)[timestep.clamp(min=0)]
        return torch.where(timestep >= 0, levels, torch.full_like(levels, self.final_alpha_cumprod))

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """sqrt(alpha_cumprod) x_0 + sqrt(1 - alpha_cumprod) noise, (B, ...)."""
        level = over_latents(self.alpha_cumprod(timestep), clean)
        return level.sqrt() * clean + (1 - level).sqrt() * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """The noise, v or x_0, (B, ...)."""
        return self._parameterisation.target(clean, noise, over_latents(self.alpha_cumprod(timestep), clean))

    def clean(self, prediction: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        """The predicted x_0, (B, ...)."""
        level = over_latents(self.alpha_cumprod(timestep), latents)
        return self._parameterisation.clean(prediction, latents, level)

    def error_weights(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """1 and 1 / SNR for the noise as target, SNR / (SNR + 1) and 1 / (SNR + 1) for v, SNR and 1 for x_0."""
        return self._parameterisation.errors(self.alpha_cumprod(timestep))

    def guided(self, negative: Tensor, positive: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance."""
        return classifier_free_guidance(negative, positive, scale)

    @property
    def embedded_times(self) -> int:
        """T."""
        return len(self)

    def embedded_time(self, timestep: Tensor) -> Tensor:
        """The time step itself."""
        return timestep

    def timestep_of(self, embedded_time: Tensor) -> Tensor:
        """The time itself."""
        return embedded_time

    def step(
        self, prediction: Tensor, latents: Tensor, timestep: Tensor, next_timestep: Tensor, *, eta: float
    ) -> Gaussian:
        """One DDIM step (arXiv 2010.02502, eq. 12 and 16), as diffusers' ``DDIMScheduler.step`` computes it.

            std  = eta sqrt((1 - alpha_next) / (1 - alpha)) sqrt(1 - alpha / alpha_next)
            mean = sqrt(alpha_next) x0 + sqrt(1 - alpha_next - std^2) noise

        with x0 and noise as predicted at x_t and x0 clamped to ``clip_sample_range`` (the noise is not recomputed from
        the clamped x0, as in diffusers). Where rounding makes 1 - alpha_next - std^2 negative, it is taken as 0
        (diffusers gives NaN).

        Args:
            prediction: the network's output, guided where guidance is used, (B, ...).
            latents: x_t, (B, ...).
            timestep: t of each row, (B,) int64.
            next_timestep: where the step leads, (B,) int64; negative: the clean image.
            eta: in [0, 1]; 0 is deterministic, 1 the ancestral sampler.

        Raises:
            ValueError: if ``eta`` is outside [0, 1].
        """
        level, next_level = self.alpha_cumprod(timestep), self.alpha_cumprod(next_timestep)
        wide = over_latents(level, latents)
        original = self._parameterisation.clean(prediction, latents, wide)
        noise = self._parameterisation.noise(prediction, latents, wide)
        if self.clip_sample_range is not None:
            original = original.clamp(-self.clip_sample_range, self.clip_sample_range)
        std = _ddim_std(level, next_level, eta)
        direction = over_latents((1 - next_level - std.square()).clamp(min=0).sqrt(), latents) * noise
        return Gaussian(mean=over_latents(next_level.sqrt(), latents) * original + direction, std=std)

    def step_std(self, timestep: Tensor, next_timestep: Tensor, *, eta: float) -> Tensor:
        """DDIM's standard deviation, (B,)."""
        return _ddim_std(self.alpha_cumprod(timestep), self.alpha_cumprod(next_timestep), eta)

    def digest(self) -> str:
        """SHA-256 of noise levels and kind of prediction."""
        levels = self.alphas_cumprod.double().cpu().numpy().tobytes()
        return hashlib.sha256(self.prediction_type.encode() + levels).hexdigest()


def with_last_step_clamped(process: Process) -> Process:
    """The process whose steps to the clean image lead to the noise level of time step 0, as in D3PO's and SPO's code.

    Raises:
        ValueError: if the process has no such level.
    """
    if not isinstance(process, DiffusionProcess):
        raise ValueError(f"{type(process).__name__} has no noise at time step 0")
    return replace(process, final_alpha_cumprod=float(process.alphas_cumprod[0]))


def check_eta(eta: float) -> None:
    """Refuses strengths of noise that no sampler has.

    Raises:
        ValueError: if ``eta`` is outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta} must be from 0 (deterministic) to 1 (the most random)")


def _ddim_std(level: Tensor, next_level: Tensor, eta: float) -> Tensor:
    check_eta(eta)
    return eta * ((1 - next_level) / (1 - level) * (1 - level / next_level)).sqrt()


def _leading(total: int, count: int, offset: int) -> list[int]:
    return [index * (total // count) + offset for index in reversed(range(count))]


def _trailing(total: int, count: int, offset: int) -> list[int]:
    stride = (total - total / count) - total  # as numpy's arange rounds it
    return [round(total + index * stride) - 1 for index in range(count)]


def _linspace(total: int, count: int, offset: int) -> list[int]:
    stride = (total - 1) / max(count - 1, 1)
    return [round(index * stride) for index in reversed(range(count))]


_GRIDS: dict[TimestepSpacing, Callable[[int, int, int], list[int]]] = {
    "leading": _leading,
    "trailing": _trailing,
    "linspace": _linspace,
}

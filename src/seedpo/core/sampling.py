"""Drawing images, trajectories and candidates for one step from any denoiser.

All randomness comes from the generator that the caller hands in. It is a CPU generator and noise is drawn on the CPU in
float32, then moved, so that a seed gives the same numbers on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from seedpo.core.processes import Process
from seedpo.core.transitions import Gaussian, drawn_log_prob, gaussian_log_prob, over_latents
from seedpo.core.types import Conditioning, Steps, Trajectory


class Predictor(Protocol):
    """A network and the process that it was trained for."""

    @property
    def process(self) -> Process:
        """How its latents are noised."""

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: Any) -> Tensor:
        """The network's raw prediction for latents (B, ...) at time steps (B,): (B, ...)."""


Denoise = Callable[[Tensor, Conditioning, Conditioning, Sequence[torch.Generator]], Tensor]
"""Clean latents of x_T (B, ...), embedded prompts, embedded negative prompts, and a CPU generator for each row."""


class SamplingSettings(Protocol):
    """How images are drawn."""

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps of a trajectory."""

    @property
    def guidance_scale(self) -> float:
        """Classifier-free guidance; 1 is none."""

    @property
    def eta(self) -> float | None:
        """How random a step is; 0 makes the image a function of its first latents; ``None``: as is usual."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """:class:`SamplingSettings` as plain values."""

    num_inference_steps: int
    guidance_scale: float
    eta: float | None = 0.0


def draw_noise(shape: Sequence[int], *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 noise of a shape, drawn on the CPU with a CPU generator and moved to ``device``."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device)


def guided_prediction(
    model: Predictor,
    latents: Tensor,
    timestep: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    guidance_scale: float,
) -> Tensor:
    """The prediction with guidance, as the process combines it: :meth:`seedpo.core.processes.Process.guided`.

    One call of the network on 2B rows, the negative prompts first; at scale 1 one call on B rows, without them.

    Args:
        model: the denoiser.
        latents: x_t, (B, ...).
        timestep: (B,).
        conditioning: the embedded prompts, B rows.
        negative_conditioning: the embedded negative prompts, B rows; may be ``None`` at scale 1.
        guidance_scale: 1 is no guidance.

    Returns:
        The guided prediction, (B, ...).

    Raises:
        ValueError: if there are no negative prompts and the scale is not 1.
    """
    if guidance_scale == 1:
        return model.predict(latents, timestep, conditioning)
    if negative_conditioning is None:
        raise ValueError(
            f"guidance_scale = {guidance_scale} needs negative_conditioning; give it, or set the scale to 1"
        )
    both = Conditioning.cat([negative_conditioning, conditioning])
    negative, positive = model.predict(torch.cat([latents, latents]), torch.cat([timestep, timestep]), both).chunk(2)
    return model.process.guided(negative, positive, guidance_scale)


def step_candidates(step: Gaussian, *, count: int, generator: torch.Generator) -> Tensor:
    """Several next latents drawn from each row's step.

    Args:
        step: the Gaussians of B rows.
        count: candidates per row, at least 1.
        generator: a CPU generator.

    Returns:
        (B, count, ...); row i is drawn before row i + 1.

    Raises:
        ValueError: if ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count = {count}: at least one candidate must be drawn")
    mean = step.mean.unsqueeze(1)
    noise = draw_noise((len(mean), count, *mean.shape[2:]), generator=generator, device=mean.device)
    return mean + over_latents(step.std, mean) * noise


@dataclass(frozen=True)
class Sampler:
    """A model and how images are drawn from it.

    Attributes:
        model: predicts, and knows its process.
        settings: number of steps, guidance and randomness of the steps.
    """

    model: Predictor
    settings: SamplingSettings

    @property
    def eta(self) -> float:
        """How random a step is: as set, or as is usual for the process."""
        return self.model.process.usual_eta if self.settings.eta is None else self.settings.eta

    @property
    def timesteps(self) -> tuple[Tensor, Tensor]:
        """The time steps that are visited, and where each step leads, (N,) each, on the CPU."""
        return self.model.process.timesteps(self.settings.num_inference_steps)

    @property
    def has_density(self) -> Tensor:
        """Which of the N steps are random, and so have a density that can be trained on, (N,) bool, on the CPU."""
        return (self.model.process.step_std(*self.timesteps, eta=self.eta) > 0).cpu()

    def predict(
        self, latents: Tensor, timestep: Tensor, conditioning: Conditioning, negative: Conditioning | None
    ) -> Tensor:
        """:func:`guided_prediction` with the sampler's guidance, (B, ...)."""
        return guided_prediction(self.model, latents, timestep, conditioning, negative, self.settings.guidance_scale)

    def step(
        self,
        latents: Tensor,
        timestep: Tensor,
        next_timestep: Tensor,
        conditioning: Conditioning,
        negative: Conditioning | None,
    ) -> Gaussian:
        """The Gaussian of one guided step, with the gradient of the prediction."""
        prediction = self.predict(latents, timestep, conditioning, negative)
        return self.model.process.step(prediction, latents, timestep, next_timestep, eta=self.eta)

    def gaussians(self, steps: Steps) -> Gaussian:
        """The Gaussians of N guided steps, with the gradient; an x_t from which several start is predicted once."""
        return self.step(
            steps.latents, steps.timestep, steps.next_timestep, steps.conditioning, steps.negative_conditioning
        )[steps.start]

    def log_probs(self, steps: Steps) -> Tensor:
        """Log-densities of guided steps; an x_t from which several steps start is predicted once.

        Args:
            steps: N steps from S latents; all of them have a density.

        Returns:
            (N,), in nats, summed over the latent dimensions, float64, with the gradient of the prediction.
        """
        step = self.gaussians(steps)
        return gaussian_log_prob(steps.next_latents, step.mean, step.std)

    def trajectory(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        negative: Conditioning | None,
        *,
        generator: torch.Generator | None = None,
    ) -> Trajectory:
        """Denoises latents step by step and keeps the whole path; without gradient.

        Args:
            latents: x_T, standard normal, (B, ...).
            conditioning: the embedded prompts, B rows.
            negative: the embedded negative prompts, B rows; may be ``None`` without guidance.
            generator: a CPU generator; needed when ``eta`` is above 0.

        Returns:
            The path, in float32 or wider, on the device of ``latents``.

        Raises:
            ValueError: if noise is needed without a generator, or a setting is out of its range.
        """
        path: list[Tensor] = []
        log_probs: list[Tensor] = []
        with torch.no_grad():
            for state, step in self._walk(latents, conditioning, negative, generator):
                path.append(state)
                if step is not None:
                    log_probs.append(drawn_log_prob(step, state))
        timesteps, next_timesteps = (steps.to(latents.device).repeat(len(latents), 1) for steps in self.timesteps)
        return Trajectory(
            latents=torch.stack(path, 1),
            timesteps=timesteps,
            next_timesteps=next_timesteps,
            log_probs=torch.stack(log_probs, 1),
        )

    def sample(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        negative: Conditioning | None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The clean latents of :meth:`trajectory`, (B, ...), without storing the path."""
        with torch.no_grad():
            for state, _ in self._walk(latents, conditioning, negative, generator):
                latents = state
        return latents

    def _walk(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        negative: Conditioning | None,
        generator: torch.Generator | None,
    ) -> Iterator[tuple[Tensor, Gaussian | None]]:
        """x_T, then every next latents in turn with the step that they were drawn from."""
        eta = self.eta
        if eta > 0 and generator is None:
            raise ValueError(f"eta = {eta} draws noise at every step: hand in a generator, or set eta to 0")
        # Half precision would round away the small steps near the clean image; the denoiser casts as it needs.
        latents = latents.to(torch.promote_types(latents.dtype, torch.float32))
        yield latents, None
        for pair in torch.stack(self.timesteps, 1).to(latents.device):
            timestep, next_timestep = pair.unsqueeze(1).repeat(1, len(latents))
            step = self.step(latents, timestep, next_timestep, conditioning, negative)
            latents = step.mean
            if generator is not None and eta > 0:
                noise = draw_noise(latents.shape, generator=generator, device=latents.device)
                latents = latents + over_latents(step.std, latents) * noise
            yield latents, step

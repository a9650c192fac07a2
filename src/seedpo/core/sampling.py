"""Drawing images, trajectories and candidates for one step from any callable denoiser.

All randomness comes from the generator that the caller hands in. It is a CPU generator and noise is drawn on the CPU in
float32, then moved, so that a seed gives the same numbers on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seedpo.core.diffusion import NoiseSchedule, Predict, guided_prediction, over_latents
from seedpo.core.transitions import Transition, ddim_transition, gaussian_log_prob
from seedpo.core.types import Conditioning, Trajectory


def draw_noise(shape: Sequence[int], *, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal float32 noise of a shape, drawn on the CPU with a CPU generator and moved to ``device``."""
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32).to(device)


def guided_transition(
    predict: Predict,
    latents: Tensor,
    timestep: Tensor,
    previous_timestep: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    schedule: NoiseSchedule,
    *,
    guidance_scale: float,
    eta: float,
) -> Transition:
    """The Gaussian of one guided DDIM step: :func:`guided_prediction`, then :func:`ddim_transition`.

    Args:
        predict: the denoiser.
        latents: x_t, (B, C, H, W).
        timestep: t of each row, (B,) int64.
        previous_timestep: where the step leads, (B,) int64.
        conditioning: the embedded prompts, B rows.
        negative_conditioning: the embedded negative prompts, B rows; may be None at scale 1.
        schedule: noise levels and the kind of prediction.
        guidance_scale: 1 is no guidance.
        eta: in [0, 1].

    Returns:
        The step's Gaussian, with the gradient of ``predict``.

    Raises:
        ValueError: if ``eta`` is outside [0, 1] or guidance lacks its negative prompts.
    """
    prediction = guided_prediction(predict, latents, timestep, conditioning, negative_conditioning, guidance_scale)
    return ddim_transition(prediction, latents, timestep, previous_timestep, schedule, eta=eta)


def step_log_probs(
    predict: Predict,
    latents: Tensor,
    timestep: Tensor,
    previous_timestep: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    schedule: NoiseSchedule,
    *,
    next_latents: Tensor,
    start: Tensor,
    guidance_scale: float,
    eta: float,
) -> Tensor:
    """Log-densities of guided DDIM steps; an x_t from which several steps start is predicted once.

    Args:
        predict: the denoiser.
        latents: x_t, each once, (S, C, H, W).
        timestep: t of each x_t, (S,) int64.
        previous_timestep: where its steps lead, (S,) int64.
        conditioning: the embedded prompts, S rows.
        negative_conditioning: the embedded negative prompts, S rows; may be None at scale 1.
        schedule: noise levels and the kind of prediction.
        next_latents: x_{t-1} of every step, (N, C, H, W).
        start: row of ``latents`` from which each step starts, (N,) int64.
        guidance_scale: 1 is no guidance.
        eta: in (0, 1].

    Returns:
        (N,), in nats, summed over the latent dimensions, float64, with the gradient of ``predict``.

    Raises:
        ValueError: if a step is deterministic, ``eta`` is outside [0, 1] or guidance lacks its negative prompts.
    """
    transition = guided_transition(
        predict,
        latents,
        timestep,
        previous_timestep,
        conditioning,
        negative_conditioning,
        schedule,
        guidance_scale=guidance_scale,
        eta=eta,
    )
    return gaussian_log_prob(next_latents, transition.mean[start], transition.std[start])


def step_candidates(
    transition: Transition,
    *,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Several x_{t-1} drawn from each row's step.

    Args:
        transition: the Gaussians of B rows.
        count: candidates per row, at least 1.
        generator: a CPU generator.

    Returns:
        (B, count, C, H, W); row i is drawn before row i + 1.

    Raises:
        ValueError: if ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count = {count}: at least one candidate must be drawn")
    mean = transition.mean.unsqueeze(1)
    noise = draw_noise((len(mean), count, *mean.shape[2:]), generator=generator, device=mean.device)
    return mean + transition.std.view(-1, 1, 1, 1, 1) * noise


def drawn_log_prob(transition: Transition, drawn: Tensor) -> Tensor:
    """Log-density of what was drawn from steps, under the network that drew it: -|noise|^2 / 2, and a constant of t.

    Args:
        transition: the Gaussians of B rows at one time step.
        drawn: x_{t-1}, as many in succession of every row as there are, (B k, C, H, W).

    Returns:
        (B k,), in nats, summed over the latent dimensions, float64 (float32 on devices without it); NaN where the step
        is deterministic and has no density.
    """
    mean, std = (part.repeat_interleave(len(drawn) // len(part), 0) for part in (transition.mean, transition.std))
    random = std > 0
    log_prob = gaussian_log_prob(drawn, mean, torch.where(random, std, torch.ones_like(std)))
    return log_prob.masked_fill(~random, torch.nan)


def sample_trajectory(
    predict: Predict,
    latents: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    schedule: NoiseSchedule,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    generator: torch.Generator | None = None,
) -> Trajectory:
    """Denoises latents step by step and keeps the whole path; without gradient.

    Args:
        predict: the denoiser.
        latents: x_T, standard normal, (B, C, H, W).
        conditioning: the embedded prompts, B rows.
        negative_conditioning: the embedded negative prompts, B rows; may be None at scale 1.
        schedule: noise levels and the kind of prediction.
        num_inference_steps: T.
        guidance_scale: 1 is no guidance.
        eta: in [0, 1]; 0 makes the image a function of its latents.
        generator: a CPU generator; needed when ``eta`` is above 0.

    Returns:
        The path, in float32 or wider, on the device of ``latents``.

    Raises:
        ValueError: if noise is needed without a generator, or an argument is out of its range.
    """
    path: list[Tensor] = []
    log_probs: list[Tensor] = []
    with torch.no_grad():
        for state, step in _walk(
            predict,
            latents,
            conditioning,
            negative_conditioning,
            schedule,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            eta=eta,
            generator=generator,
        ):
            path.append(state)
            if step is not None:
                log_probs.append(drawn_log_prob(step, state))
    timesteps, previous_timesteps = (
        steps.to(latents.device).repeat(len(latents), 1) for steps in schedule.timesteps(num_inference_steps)
    )
    return Trajectory(
        latents=torch.stack(path, 1),
        timesteps=timesteps,
        previous_timesteps=previous_timesteps,
        log_probs=torch.stack(log_probs, 1),
    )


def sample_latents(
    predict: Predict,
    latents: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    schedule: NoiseSchedule,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The clean latents of :func:`sample_trajectory`, (B, C, H, W), without storing the path.

    Args:
        predict: the denoiser.
        latents: x_T, standard normal, (B, C, H, W).
        conditioning: the embedded prompts, B rows.
        negative_conditioning: the embedded negative prompts, B rows; may be None at scale 1.
        schedule: noise levels and the kind of prediction.
        num_inference_steps: T.
        guidance_scale: 1 is no guidance.
        eta: in [0, 1].
        generator: a CPU generator; needed when ``eta`` is above 0.

    Returns:
        Clean latents, (B, C, H, W), in float32 or wider.

    Raises:
        ValueError: if noise is needed without a generator, or an argument is out of its range.
    """
    with torch.no_grad():
        for state, _ in _walk(
            predict,
            latents,
            conditioning,
            negative_conditioning,
            schedule,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            eta=eta,
            generator=generator,
        ):
            latents = state
    return latents


def _walk(
    predict: Predict,
    latents: Tensor,
    conditioning: Conditioning,
    negative_conditioning: Conditioning | None,
    schedule: NoiseSchedule,
    *,
    num_inference_steps: int,
    guidance_scale: float,
    eta: float,
    generator: torch.Generator | None,
) -> Iterator[tuple[Tensor, Transition | None]]:
    """x_T, then every x_{t-1} in turn with the step that it was drawn from."""
    if eta > 0 and generator is None:
        raise ValueError(f"eta = {eta} draws noise at every step: hand in a generator, or set eta to 0")
    # Half precision would round away the small steps near the clean image; the denoiser casts as it needs.
    latents = latents.to(torch.promote_types(latents.dtype, schedule.alphas_cumprod.dtype))
    yield latents, None
    for step in torch.stack(schedule.timesteps(num_inference_steps), 1).to(latents.device):
        timestep, previous_timestep = step.unsqueeze(1).repeat(1, len(latents))
        transition = guided_transition(
            predict,
            latents,
            timestep,
            previous_timestep,
            conditioning,
            negative_conditioning,
            schedule,
            guidance_scale=guidance_scale,
            eta=eta,
        )
        latents = transition.mean
        if generator is not None and eta > 0:
            noise = draw_noise(latents.shape, generator=generator, device=latents.device)
            latents = latents + over_latents(transition.std) * noise
        yield latents, transition

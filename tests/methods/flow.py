"""Flow matching on packed latents, as a model family might bring it: a process, a conditioning and a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from seedpo.core.transitions import Gaussian, over_latents
from seedpo.core.types import Conditioning


@dataclass(frozen=True)
class FlowProcess:
    """x_s = (1 - s) x_0 + s noise with the velocity noise - x_0 as target; s in [0, 1] is the time step.

    A step is Euler's, with noise of the constant rate g = eta (DanceGRPO): with dt = s' - s below 0,

        mean = x (1 + g^2 dt / (2 s)) + v (1 + g^2 (1 - s) / (2 s)) dt,      std = g sqrt(-dt)

    and the last step, to s' = 0, is deterministic.
    """

    largest_timestep: float = 1.0

    def draw_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        return torch.randn(count, generator=generator).sigmoid()

    def timesteps(self, num_inference_steps: int) -> tuple[Tensor, Tensor]:
        levels = torch.linspace(1, 0, num_inference_steps + 1)
        return levels[:-1], levels[1:]

    def noisy(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        level = over_latents(timestep, clean)
        return (1 - level) * clean + level * noise

    def target(self, clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        return noise - clean

    def clean(self, prediction: Tensor, latents: Tensor, timestep: Tensor) -> Tensor:
        return latents - over_latents(timestep, latents) * prediction

    def error_weights(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - timestep) ** 2, timestep**2

    def step(
        self, prediction: Tensor, latents: Tensor, timestep: Tensor, next_timestep: Tensor, *, eta: float
    ) -> Gaussian:
        std = self.step_std(timestep, next_timestep, eta=eta)
        s, dt = over_latents(timestep, latents), over_latents(next_timestep - timestep, latents)
        rate = over_latents(std.square() / (timestep - next_timestep), latents)  # g^2, and 0 in the last step
        mean = latents * (1 + rate * dt / (2 * s)) + prediction * (1 + rate * (1 - s) / (2 * s)) * dt
        return Gaussian(mean=mean, std=std)

    def step_std(self, timestep: Tensor, next_timestep: Tensor, *, eta: float) -> Tensor:
        return eta * (timestep - next_timestep).sqrt() * (next_timestep > 0)

    def digest(self) -> str:
        return hashlib.sha256(b"linear, velocity").hexdigest()


@dataclass(frozen=True, kw_only=True)
class FlowConditioning(Conditioning):
    """One number per prompt, under a name of its own."""

    text: Tensor


@dataclass
class PackedFlow:
    """A policy on latents (L, C): linear in its inputs, with one trained number, which the reference has at 0."""

    process: FlowProcess = FlowProcess()
    conditioning_type: type[FlowConditioning] = FlowConditioning
    latent_shape: tuple[int, ...] = (16, 3)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    module: nn.Module = field(default_factory=nn.Identity)
    weight: Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))
    on_reference: bool = False

    def encode_prompts(self, prompts: Sequence[str]) -> FlowConditioning:
        return FlowConditioning(text=torch.tensor([len(prompt) / 10 for prompt in prompts]))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: FlowConditioning) -> Tensor:
        assert timestep.dtype == torch.float32
        moved = 0.0 if self.on_reference else self.weight
        return (0.5 + moved) * latents + over_latents(0.1 * timestep + conditioning.text, latents)

    def encode_images(self, images: Tensor) -> Tensor:
        return images[:, :, ::16, ::16].flatten(2).transpose(1, 2)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents.transpose(1, 2).unflatten(2, (4, 4)))

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.on_reference = True
        with torch.no_grad():
            yield
        self.on_reference = False

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        raise NotImplementedError

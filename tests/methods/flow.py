"""Flow matching on packed latents, as a model family might bring it: a process, a conditioning and a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from seedpo.core.flow import FlowProcess
from seedpo.core.transitions import over_latents
from seedpo.core.types import Conditioning
from tests.core.flow_data import flow_process


@dataclass(frozen=True, kw_only=True)
class FlowConditioning(Conditioning):
    """One number per prompt, under a name of its own."""

    text: Tensor


@dataclass
class PackedFlow:
    """A policy on latents (L, C): linear in its inputs, with one trained number, which the reference has at 0."""

    process: FlowProcess = field(default_factory=flow_process)
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

    initial = reference

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        raise NotImplementedError

"""A denoiser that is a formula, rewards that remember what they were asked, and pairs that show their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from seedpo.core.processes import DiffusionProcess
from seedpo.methods.sources.step_pairs import StepPairs
from seedpo.models.pipelines.stable_diffusion import TextConditioning
from tests.methods.pair_rows import PairRows

SHAPE = (3, 2, 2)
PROMPTS = ("one", "two", "three", "four", "five", "six", "seven")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def schedule(*, last_step_has_density: bool = True) -> DiffusionProcess:
    """100 training steps; the final level decides whether the last step is deterministic at eta 1."""
    alphas = torch.cumprod(1 - torch.linspace(0.03, 0.3, 100, dtype=torch.float64) ** 2, 0).float()
    final = float(alphas[0]) if last_step_has_density else 1.0
    return DiffusionProcess(
        alphas_cumprod=alphas, final_alpha_cumprod=final, steps_offset=1 if last_step_has_density else 0
    )


@dataclass
class ToyDenoiser:
    """Linear in latents, time step and prompt; its images are the latents, squashed into [0, 1]."""

    process: DiffusionProcess = field(default_factory=schedule)
    conditioning_type: type[TextConditioning] = TextConditioning
    latent_shape: tuple[int, int, int] = SHAPE
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    encoded: int = 0

    def encode_prompts(self, prompts: Sequence[str]) -> TextConditioning:
        values = [sum(map(ord, prompt)) / 1000 for prompt in prompts]
        return TextConditioning(prompt_embeds=torch.tensor(values).view(-1, 1, 1).repeat(1, 2, 2))

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        self.asked.append((latents, timestep))
        assert len(latents) == len(timestep) == len(conditioning)
        prompt = conditioning.prompt_embeds.mean((1, 2))
        return 0.4 * latents + (0.002 * timestep + prompt).to(latents.dtype).view(-1, 1, 1, 1)

    def encode_images(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return 3.0 * images[:, :, ::16, ::16]

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(latents)

    def rows(self) -> int:
        """Rows that were predicted."""
        return sum(len(latents) for latents, _ in self.asked)


@dataclass
class ToyPolicy(ToyDenoiser):
    """The same with a reference, whose predictions are smaller; what the reference is asked is kept apart."""

    module: nn.Module = field(default_factory=nn.Identity)
    asked_reference: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    on_reference: bool = False

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.on_reference = True
        try:
            yield
        finally:
            self.on_reference = False

    initial = reference

    def predict(self, latents: Tensor, timestep: Tensor, conditioning: TextConditioning) -> Tensor:
        if not self.on_reference:
            return super().predict(latents, timestep, conditioning)
        self.asked_reference.append((latents, timestep))
        return 0.9 * ToyDenoiser().predict(latents, timestep, conditioning)

    def reference_rows(self) -> int:
        """Rows that the reference predicted."""
        return sum(len(latents) for latents, _ in self.asked_reference)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def load(self, folder: Path) -> None:
        raise NotImplementedError


@dataclass
class NumberEmbedder:
    """Embeds a prompt that is a number as that number, and the empty one as -1; counts its calls."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    embedded: list[list[str]] = field(default_factory=list)

    def encode_prompts(self, prompts: Sequence[str]) -> TextConditioning:
        self.embedded.append(list(prompts))
        return TextConditioning(prompt_embeds=torch.tensor([float(prompt or -1) for prompt in prompts]).view(-1, 1, 1))


def numbered(*numbers: int, unit: Sequence[int] | None = None) -> StepPairs:
    """One pair per number; everything of a pair shows its number."""
    count = len(numbers)
    values = torch.tensor(numbers).float()
    first = 2 * torch.arange(count)
    return StepPairs(
        latents=torch.stack([values, values + 0.25, values + 0.5, values + 0.75], 1)
        .view(-1, 1, 1, 1)
        .expand(-1, 2, 2, 2),
        start=torch.stack([4 * torch.arange(count), 4 * torch.arange(count) + 1], 1).flatten(),
        end=torch.stack([4 * torch.arange(count) + 2, 4 * torch.arange(count) + 3], 1).flatten(),
        timestep=torch.tensor(numbers).repeat_interleave(2),
        next_timestep=torch.tensor(numbers).repeat_interleave(2) - 1,
        prompt=torch.arange(count).repeat_interleave(2),
        reference_log_prob=torch.stack([values + 0.1, values + 0.2], 1).flatten().double(),
        chosen=first,
        rejected=first + 1,
        unit=torch.arange(count) if unit is None else torch.tensor(unit),
        prompts=tuple(map(str, numbers)),
    )


def numbers_of(batch: PairRows) -> list[int]:
    """The numbers of a batch, whose rows are still in one piece."""
    values = batch.timestep.float()
    expected = {
        "next_timestep": values - 1,
        "chosen_latents": values,
        "rejected_latents": values + 0.25,
        "chosen_next_latents": values + 0.5,
        "rejected_next_latents": values + 0.75,
        "chosen_reference_log_prob": values + 0.1,
        "rejected_reference_log_prob": values + 0.2,
    }
    for name, value in expected.items():
        found = getattr(batch, name)
        assert torch.equal(found, value.view(-1, *[1] * (found.ndim - 1)).expand_as(found).to(found.dtype)), name
    assert torch.equal(batch.conditioning.prompt_embeds[:, 0, 0], values)
    assert torch.equal(batch.negative_conditioning.prompt_embeds[:, 0, 0], -torch.ones_like(values))
    return [int(value) for value in values]


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return 5.0 * images.mean((1, 2, 3))


@dataclass
class ToyReward:
    """Remembers images, prompts, time steps and scores of every call."""

    score: Callable[[Tensor, Sequence[str]], Tensor] = brightness
    images: list[Tensor] = field(default_factory=list)
    prompts: list[list[str]] = field(default_factory=list)
    timesteps: list[Tensor | None] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)

    def __call__(self, images: Tensor, prompts: Sequence[str], *, timestep: Tensor | None = None) -> Tensor:
        scores = self.score(images, prompts)
        self.images.append(images)
        self.prompts.append(list(prompts))
        self.timesteps.append(timestep)
        self.scores.append(scores)
        return scores

"""Preference models in training on the meta device: their networks, and what a pair through them costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from seedpo.errors import ConfigError
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.planning.configurations import cached_file
from seedpo.planning.costs import Cost
from seedpo.planning.meter import metering
from seedpo.planning.networks import StandInTokenizer
from seedpo.rewards.catalogue import STARTS
from seedpo.rewards.clip import CLIP_H, CLIP_H14, CLIP_L, CLIP_L14, read_configuration
from seedpo.rewards.latent_training import latent_start
from seedpo.rewards.networks import on_meta
from seedpo.rewards.preference_model import Comparison, PairModel, PreferenceModel
from seedpo.rewards.preference_objective import pair_losses
from seedpo.rewards.previews import SeenPairs
from seedpo.rewards.step_aware_clip import StepAwareCLIP
from seedpo.training.settings import RewardRunConfig

PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    CLIP_H: CLIP_H14,
    "yuvalkirstain/PickScore_v1": CLIP_H14,
    CLIP_L: CLIP_L14,
}
"""Configurations of CLIPs to start from, by hub id."""


@dataclass(frozen=True, kw_only=True)
class MetaModel:
    """A preference model without weights.

    Attributes:
        model: in training, on the meta device.
        shape: of one image or latent as it sees it.
        timed: whether it is told a time step.
        origin: where its configuration comes from, for people.
    """

    model: PairModel
    shape: tuple[int, ...]
    timed: bool
    origin: str

    @property
    def weights(self) -> list[Tensor]:
        """All of them, which are all trained."""
        return list(self.model.trainable_parameters().values())

    def seen(self, count: int) -> SeenPairs:
        """Pairs as it sees them."""
        timestep = torch.ones(count, dtype=torch.int64, device="meta") if self.timed else None
        return SeenPairs(pixels=torch.empty(count, 2, *self.shape, device="meta"), timestep=timestep)


def build_model(config: RewardRunConfig, denoiser: PipelineDenoiser | None) -> MetaModel:
    """The preference model of a run, as it is trained.

    Args:
        config: the run's settings.
        denoiser: its diffusion model on the meta device, if it has one.

    Raises:
        ConfigError: if the configuration of ``start`` is unknown, or the diffusion model is no latent reward.
        DataError: if a configuration cannot be read.
    """
    if config.latent:
        assert denoiser is not None
        with torch.device("meta"):
            built = MetaModel(
                model=latent_start(denoiser, seed=0),
                shape=tuple(denoiser.latent_shape),
                timed=True,
                origin=f"latent reward model of {config.model}",
            )
    else:
        configuration, origin = start_configuration(config.start)
        timed = denoiser is not None
        kind = StepAwareCLIP if timed else CLIPModel
        clip = on_meta(lambda: kind(CLIPConfig(**configuration)).float())
        tokenizer: Any = StandInTokenizer(clip.config.text_config.max_position_embeddings)
        size = clip.config.vision_config.image_size
        built = MetaModel(model=PreferenceModel(clip, tokenizer), shape=(3, size, size), timed=timed, origin=origin)
    if config.gradient_checkpointing:
        built.model.checkpoint_activations()
    return built


def start_configuration(name: str) -> tuple[Mapping[str, Any], str]:
    """The configuration of the CLIP that training starts from, and where it comes from.

    Raises:
        ConfigError: if it is unknown; the message says how to name it.
        DataError: if it cannot be read.
    """
    place = Path(STARTS.load(name)()) if name in STARTS else Path(name)
    if (place / "config.json").is_file():
        return read_configuration(place / "config.json"), name
    repository, _, revision = name.partition("@")
    if repository in PUBLISHED:
        return PUBLISHED[repository], f"{name}, as published"
    file = cached_file(repository, "config.json", revision or None)
    if file is not None:
        return read_configuration(file), f"{name}, from the hub's cache"
    raise ConfigError(
        f"start = {name!r}: its configuration is unknown; name a folder with its config.json (its weights are not "
        f"read), or one of {', '.join([*STARTS.names(), *PUBLISHED])}"
    )


def training_cost(built: MetaModel, pairs: int, *, low: torch.dtype | None, with_gradients: bool = False) -> Cost:
    """Forward and backward pass of a micro-batch, per pair; the peak is that of the whole micro-batch.

    Args:
        built: the preference model.
        pairs: of a micro-batch.
        low: number format of automatic mixed precision; ``None``: float32.
        with_gradients: whether gradients of an earlier micro-batch are there already; they are not in the peak.
    """
    weights = built.weights
    if with_gradients:
        for weight in weights:
            weight.grad = torch.empty_like(weight)
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    seen = built.seen(pairs)
    held = [*_held(built), *gradients, seen.pixels]
    with torch.enable_grad(), metering(known=held, low=low) as meter:
        comparison = _compared(built.model, seen)
        meter.backward(pair_losses(comparison, torch.ones(pairs, device="meta")).sum())
        del comparison
        peak = meter.peak
    for weight in weights:
        weight.grad = None
    return Cost(flops=meter.flops().times(Fraction(1, pairs)), half=low is not None, peak=peak)


def judging_cost(built: MetaModel, pairs: int, *, low: torch.dtype | None) -> Cost:
    """Forward pass of some pairs without gradient, per pair; the peak is that of all of them."""
    seen = built.seen(pairs)
    with torch.no_grad(), metering(known=[*_held(built), seen.pixels], low=low) as meter:
        _compared(built.model, seen)
        peak = meter.peak
    return Cost(flops=meter.flops().times(Fraction(1, pairs)), half=low is not None, peak=peak)


def _held(built: MetaModel) -> list[Tensor]:
    return [*built.model.module.parameters(), *built.model.module.buffers()]


def _compared(model: PairModel, seen: SeenPairs) -> Comparison:
    """What a model says of pairs; a CLIP reads no mask, whose values attention would look at."""
    count = len(seen.pixels)
    if not isinstance(model, PreferenceModel):
        return model.compare(seen, [str(row) for row in range(count)])
    ids = torch.zeros(count, model.tokenizer.model_max_length, dtype=torch.int64, device="meta")
    times = None if seen.timestep is None else seen.timestep.repeat_interleave(2)
    text, images, scale = model.module(seen.pixels.flatten(0, 1), times, ids, None)
    return Comparison(text=text, images=images.view(count, 2, -1), scale=scale)

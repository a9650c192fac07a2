"""A denoiser that was trained, together with the model before training: a denoiser and an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seedpo.models.adapter import Adapter, FullAdapter, LoraAdapter
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.families import Size, family_of
from seedpo.models.loading import add_lora, add_trained, load_base
from seedpo.models.lora import carriers
from seedpo.models.precision import store_rounded
from seedpo.models.settings import ModelSettings
from seedpo.settings import Precision


class TrainedPipeline(PipelineDenoiser):
    """A pipeline that draws with trained weights, and knows the model before training.

    Args:
        pipeline: a loaded pipeline, in float32; its parts are changed in place.
        adapter: what was trained of it. Its weights stay as wide as they are.
        resolution: height and width of images in pixels; ``None`` for the model's own.
        mixed_precision: number format of the forward passes.
        max_sequence_length: tokens of the longest text encoder; ``None``: the family's usual.
        embedded_guidance: guidance that the network takes as an input; ``None``: the family's usual.

    Attributes:
        adapter: what was trained, and what the model before training is.

    Raises:
        ConfigError: as :class:`seedpo.models.denoiser.PipelineDenoiser`.
        DataError: as there.
    """

    def __init__(
        self,
        pipeline: Any,
        adapter: Adapter,
        *,
        resolution: int | Size | None = None,
        mixed_precision: Precision = "no",
        max_sequence_length: int | None = None,
        embedded_guidance: float | None = None,
    ) -> None:
        self.adapter = adapter
        super().__init__(
            pipeline,
            resolution=resolution,
            mixed_precision=mixed_precision,
            max_sequence_length=max_sequence_length,
            embedded_guidance=embedded_guidance,
            trained=adapter.parameters(),
        )
        if adapter.frozen is not None and self._half is not None:
            store_rounded(adapter.frozen, self._half)

    def to(self, device: torch.device | str) -> None:
        """Moves everything except released parts."""
        super().to(device)
        if self.adapter.frozen is not None:
            self.adapter.frozen.to(device)

    def initial(self) -> AbstractContextManager[None]:
        """Within this context the model answers as it did before training, without gradient."""
        return self._answering(self.adapter.initial)

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Within this context the trained weights have another strength: 0 is the model before training, 1 as trained.

        A LoRA's product is multiplied. Of a fully trained network, and of a LoRA that training continued, each weight
        is ``start + strength (trained - start)``.

        Raises:
            ConfigError: if the adapter is a DoRA that training did not continue.
        """
        return self.adapter.at_strength(strength)

    @contextmanager
    def _answering(self, network: Callable[[nn.Module], AbstractContextManager[nn.Module]]) -> Iterator[None]:
        trained = self.module
        with network(trained) as self.module, torch.no_grad():
            try:
                yield
            finally:
                self.module = trained


def load_trained(
    settings: ModelSettings,
    *,
    weights: Path | None = None,
    start: Path | None = None,
    lora: Path | None = None,
    size: Size | None = None,
) -> TrainedPipeline:
    """Loads trained weights and the model before training; :func:`seedpo.models.denoiser.load_denoiser` is lighter.

    Args:
        settings: of the run, or of the model that a LoRA was trained on.
        weights: folder of the trained weights of a run.
        start: folder of the LoRA that the run continued; ``None`` if it began anew.
        lora: file of a LoRA in a format of any trainer; either this or ``weights``.
        size: height and width of images in pixels; ``None`` for the resolution of the settings.

    Raises:
        ConfigError: as :func:`seedpo.models.denoiser.load_denoiser`.
        DataError: as there.
    """
    pipeline = load_base(settings)
    family = family_of(pipeline)
    adapter: Adapter
    if weights is not None and settings.adapter == "full":
        adapter = FullAdapter(getattr(pipeline, family.network))
    else:
        if weights is not None:
            add_trained(pipeline, start or weights, adapter="lora")
        if lora is not None:
            add_lora(pipeline, lora)
        adapter = LoraAdapter(carriers(pipeline, family), family, continued=start is not None)
    if weights is not None:
        adapter.load(weights)
    return TrainedPipeline(
        pipeline,
        adapter,
        resolution=size or settings.resolution,
        mixed_precision=settings.mixed_precision,
        max_sequence_length=settings.max_sequence_length,
        embedded_guidance=settings.embedded_guidance,
    )

"""How far trained weights take a model from its base: 0 is the base model, 1 the trained one.

A LoRA's product is scaled. Of a fully trained network, each weight is ``base + strength (trained - base)`` (arXiv
2109.01903). Values above 1 and below 0 extrapolate.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from seedpo.errors import ConfigError
from seedpo.models.adapter import WEIGHTS_FILE
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.loading import load_base
from seedpo.models.settings import ModelSettings
from seedpo.weights import read_weights

SetStrength = Callable[[float], None]


def strength_of(denoiser: PipelineDenoiser, settings: ModelSettings, weights: Path) -> SetStrength:
    """The function that sets the strength of a loaded run's weights.

    Args:
        denoiser: draws with the weights; changed in place by the function that is returned.
        settings: of the run.
        weights: folder of the trained weights.

    Raises:
        DataError: if the base model or the weights cannot be read.
    """
    if settings.adapter == "lora":
        return lambda strength: scale_adapters(denoiser.pipeline, strength)
    base = getattr(load_base(settings), denoiser.family.network).state_dict()
    trained = read_weights(weights / WEIGHTS_FILE)

    def blend(strength: float) -> None:
        denoiser.network.load_state_dict(
            {name: torch.lerp(base[name], value, strength) for name, value in trained.items()}
        )

    return blend


def scale_adapters(pipeline: object, strength: float) -> None:
    """Scales the product of all LoRA layers of a pipeline, relative to how they were trained.

    Raises:
        ConfigError: if a layer is one of DoRA, whose norm is not a multiple of its product.
    """
    for part in pipeline.components.values():  # type: ignore[attr-defined]
        for layer in part.modules() if isinstance(part, nn.Module) else ():
            if not isinstance(layer, BaseTunerLayer):
                continue
            for name in layer.active_adapters:
                if strength != 1 and getattr(layer, "use_dora", {}).get(name):
                    raise ConfigError(
                        "strength scales a LoRA's product, but this adapter is a DoRA, whose norms it cannot scale; "
                        "leave --strength out"
                    )
                layer.set_scale(name, strength)

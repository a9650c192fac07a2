"""SPO's step-aware preference models (arXiv 2406.04314), read as published.

The published files are pickles of tensors by the names of :class:`StepAwareCLIP` with ``model.`` before them. Both
models are CLIP-H/14, as PickScore is, from which they were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig

from seedpo.errors import DataError
from seedpo.rewards.checkpoints import fill, located
from seedpo.rewards.clip import CLIP_H, CLIP_H14, TOKENIZER_PARTS, clip_tokenizer, configuration_at, read_configuration
from seedpo.rewards.networks import RewardNetwork
from seedpo.rewards.step_aware_clip import StepAwareCLIP, StepAwareScorer, load_scorer, step_aware_network
from seedpo.weights import read_weights

REPOSITORY = "SPO-Diffusion-Models/Step-Aware_Preference_Models"
"""Of both models on the hub."""

SD15_WEIGHTS = "sd-v1-5_step-aware_preference_model.bin"
SDXL_WEIGHTS = "sdxl_step-aware_preference_model.bin"

_PREFIX = "model."
"""Of every name in a published file."""


@cache
def spm_sd15(place: str | None = None) -> StepAwareScorer:
    """SPO's step-aware preference model for Stable Diffusion 1.5, loaded once per process.

    Args:
        place: folder with ``sd-v1-5_step-aware_preference_model.bin`` and, optionally, the tokenizer of CLIP-H and a
            ``config.json`` (without one the model is a CLIP-H/14); a folder as ``seedpo reward train`` writes it; or
            ``owner/name[@revision]`` on the hub with the published file.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("spm-sd15", place, SD15_WEIGHTS)


@cache
def spm_sdxl(place: str | None = None) -> StepAwareScorer:
    """SPO's step-aware preference model for Stable Diffusion XL, loaded once per process; see :func:`spm_sd15`.

    Args:
        place: as there, with ``sdxl_step-aware_preference_model.bin``.

    Raises:
        DataError: if it cannot be loaded; the message names files or tensors.
    """
    return _load("spm-sdxl", place, SDXL_WEIGHTS)


def spm_network(place: str | None = None) -> RewardNetwork:
    """Either model without weights; see :func:`spm_sd15`."""
    return step_aware_network(configuration_at(place, CLIP_H14))


def _load(name: str, place: str | None, file: str) -> StepAwareScorer:
    own = Path(place) if place is not None else None
    if own is not None and (own / "model.safetensors").is_file() and not (own / file).is_file():
        return load_scorer(own)
    folder = located(name, place, repository=REPOSITORY, files=[file], optional=["config.json", *TOKENIZER_PARTS])
    tokenizer = clip_tokenizer(name, folder, repository=CLIP_H)
    model = network_of(read_weights(folder / file), _config_beside(folder), origin=folder / file)
    return StepAwareScorer(model, tokenizer)


def network_of(weights: Mapping[str, Tensor], config: CLIPConfig, *, origin: str | Path) -> StepAwareCLIP:
    """The network that published weights belong to, in float32.

    Args:
        weights: by their published names.
        config: of the CLIP.
        origin: of the weights, for errors.

    Raises:
        DataError: naming tensors that are missing, unknown, or of another shape.
    """
    with torch.device("meta"):  # no time is spent on random weights
        model = StepAwareCLIP(config)
    ours = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    fill(model, ours, origin=origin, ignored=("*.position_ids",))
    for tower in (model.text_model, model.vision_model):  # lists of 0, 1, 2, ... that a network does not store
        places = tower.embeddings.position_embedding.num_embeddings
        tower.embeddings.position_ids = torch.arange(places)[None]
    return model


def _config_beside(folder: Path) -> CLIPConfig:
    place = folder / "config.json"
    if not place.is_file():
        return CLIPConfig(**CLIP_H14)
    content = read_configuration(place)
    try:
        return CLIPConfig(**{key: content[key] for key in ("projection_dim", "text_config", "vision_config")})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{place} is not the configuration of a CLIP ({error!r}); remove it if the weights are those of a CLIP-H/14"
        ) from error

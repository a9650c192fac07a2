"""From recipe files and `--set` to a validated configuration, and back to a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, overload

import yaml
from pydantic import ValidationError

from seedpo.errors import ConfigError
from seedpo.settings import Section
from seedpo.training.loop_settings import TrainingConfig
from seedpo.training.settings import RunConfig


def parse_override(text: str) -> tuple[str, Any]:
    """Reads one ``key=value`` of the command line; the value is YAML, the key may be dotted.

    Raises:
        ConfigError: if there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not of the form key=value; write for example --set gamma=1")
    try:
        return key.strip(), plain_value(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {value!r} is not YAML ({error})") from error


def plain_value(value: Any) -> Any:
    """What is meant by one value that YAML read: YAML 1.1 reads 1e-4 and none as text."""
    if value == "none":
        return None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def _numbers(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _numbers(value) for key, value in tree.items()}
    return plain_value(tree)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries joined key by key, ``changes`` last."""
    joined = dict(base)
    for key, value in changes.items():
        old = joined.get(key)
        joined[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return joined


def nested(overrides: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries: ``("a.b", 1)`` becomes ``{"a": {"b": 1}}``."""
    tree: dict[str, Any] = {}
    for key, value in overrides:
        branch: Any = value
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = merge(tree, branch)
    return tree


BASE = "base"
"""Key of a recipe that names another one, whose keys it takes over unless it has them itself."""


def read_recipe(path: Path) -> dict[str, Any]:
    """Reads a recipe's YAML; the keys of its ``base``, a recipe in a place relative to it, stand behind its own.

    Raises:
        ConfigError: if a file is missing, is not YAML or is not a mapping, or if recipes are their own base.
    """
    layers, place = [], path
    seen: list[Path] = []
    while True:
        if place.resolve() in seen:
            raise ConfigError(f"recipe {path}: its base leads back to {place}; remove the key `base` of one of them")
        seen.append(place.resolve())
        recipe = _read_yaml(place)
        base = recipe.pop(BASE, None)
        layers.append(recipe)
        if base is None:
            break
        if not isinstance(base, str):
            raise ConfigError(f"recipe {place}: base = {base!r} must be the file name of another recipe")
        place = place.parent / base
    tree: dict[str, Any] = {}
    for layer in reversed(layers):
        tree = merge(tree, layer)
    return tree


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"recipe {path} does not exist; `seedpo list methods` names the presets") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"recipe {path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"recipe {path} must hold keys and values, one `key: value` a line")
    return content


Config = TypeVar("Config", bound=TrainingConfig)


@overload
def build_config(*layers: Mapping[str, Any]) -> RunConfig: ...


@overload
def build_config(*layers: Mapping[str, Any], kind: type[Config]) -> Config: ...


def build_config(*layers: Mapping[str, Any], kind: type[TrainingConfig] = RunConfig) -> TrainingConfig:
    """Validates the layers, the last one winning.

    Args:
        layers: nested keys.
        kind: what they configure.

    Raises:
        ConfigError: naming every bad key, its value and what would be right.
    """
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge(tree, _numbers(layer))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(problem, kind) for problem in error.errors())) from error


def _explain(problem: Any, kind: type[Section]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_suggestion(problem['loc'], kind)}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key} = {problem['input']!r}: {message}" if key else message


def _suggestion(location: tuple[str | int, ...], kind: type[Section]) -> str:
    import difflib

    section: Any = kind
    for part in location[:-1]:
        named = get_origin(section) is dict  # sections by names of the user's own
        section = get_args(section)[1] if named else section.model_fields[str(part)].annotation
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; the keys here are {', '.join(sorted(section.model_fields))}"


def save_config(config: TrainingConfig, path: Path) -> None:
    """Writes the resolved configuration as YAML."""
    path.write_text(yaml.safe_dump(config.tree(), sort_keys=False), encoding="utf-8")

"""The layers of a configuration: which of them sets a key, and to what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from seedpo.methods.presets import METHODS, Preset
from seedpo.models.catalogue import MODELS
from seedpo.settings import Section, dotted
from seedpo.training.settings import SCENES, RewardRunConfig

DEFAULT = "default"
"""Name of the layer below all others: the defaults in the settings."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Nested keys, and who sets them; keys of later layers win."""

    name: str
    keys: Mapping[str, Any]


def default_layers(preset: Preset, model: Any) -> tuple[Layer, ...]:
    """The layers between the general defaults and what the user wrote: of the method, the model, and both together."""
    published = Layer(name=f"method {preset.name}", keys=preset.defaults)
    if model not in MODELS:
        return (published,)
    of_model, of_both = MODELS[model].layers(preset.name)
    both = f"model {model} with {preset.name}"
    return published, Layer(name=f"model {model}", keys=of_model), Layer(name=both, keys=of_both)


def rows(kind: type[Section]) -> dict[str, dict[str, Any]]:
    """Everything that sets other values than the general defaults, by its name: dotted keys.

    Args:
        kind: the settings of a policy's run or of a preference model's.
    """
    if issubclass(kind, RewardRunConfig):
        return {"no data named": dotted(SCENES)}
    methods = {preset.name: preset.defaults for preset in METHODS.entries}
    models = {model.name: model.of_runs for model in MODELS.entries}
    both = {f"{model.name} with {name}": keys for model in MODELS.entries for name, keys in model.by_method.items()}
    return {name: dotted(keys) for name, keys in {**methods, **models, **both}.items()}


def changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The nested keys of ``now`` whose values are others than in ``before``."""
    changed = {}
    for key, value in now.items():
        old = before.get(key)
        if value != old:
            inside = isinstance(old, Mapping) and isinstance(value, Mapping)
            changed[key] = changed_keys(old or {}, value) if inside else value
    return changed


def marked_yaml(tree: Mapping[str, Any], layers: Sequence[Layer], *, everything: bool = False) -> str:
    """Resolved settings as YAML in which a comment names the layer of each value.

    Args:
        tree: all keys, nested.
        layers: those above the defaults; later ones win.
        everything: whether keys with general defaults are written too.
    """
    lines = list(_lines(tree, [(layer.name, layer.keys) for layer in layers], "", everything))
    width = min(max((len(text) for text, _ in lines), default=0), 60)
    return "\n".join(f"{text:{width}}  # {name}" if name else text for text, name in lines)


def _lines(
    tree: Mapping[str, Any], layers: Sequence[tuple[str, Any]], indent: str, everything: bool
) -> Iterator[tuple[str, str]]:
    """Each line with the name of its layer; none for the heads of sections."""
    for key, value in tree.items():
        name, inner = _owner(key, layers)
        if isinstance(value, Mapping) and value:
            below = list(_lines(value, inner, indent + "  ", everything))
            yield from [(f"{indent}{_flow(key)}:", ""), *below] if below else []
        elif everything or name != DEFAULT:
            yield f"{indent}{_flow(key)}: {_flow(value)}", name


def _owner(key: str, layers: Sequence[tuple[str, Any]]) -> tuple[str, list[tuple[str, Any]]]:
    """The last layer that sets a key, and what each layer sets below it."""
    owner, inner = DEFAULT, []
    for name, keys in layers:
        if not isinstance(keys, Mapping):  # one value in place of a section, such as a weight in place of a term
            owner, inner = name, [(name, keys)]
        elif key in keys:
            owner = name
            inner.append((name, keys[key]))
    return owner, inner


def _flow(value: Any) -> str:
    """A value in one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, sort_keys=False)
    return text.strip().removesuffix("\n...")

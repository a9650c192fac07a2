"""Recipes as nested keys: each wins over its base, and its paths begin in its own folder."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from seedpo.errors import ConfigError
from seedpo.recipes import is_recipe, recipe_file
from seedpo.registry import registries
from seedpo.settings import HUB, Place, Section, in_brackets, merge, nested, read_yaml

BASE = "base"
"""Key of a recipe that names another one, whose keys it inherits."""

_NUMBERS = re.compile(r"\{[^}]*\}")
"""The numbers of shards, as in ``shard-{000..012}.tar``."""


def read_recipe(recipe: str | Path, kind: type[Section] | None = None, *, beside: Path = Path()) -> dict[str, Any]:
    """Reads a recipe; its own keys win over those of its ``base``; see :func:`recipe_layers`."""
    merged: dict[str, Any] = {}
    for _, layer in recipe_layers(recipe, kind, beside=beside):
        merged = merge(merged, layer)
    return merged


def recipe_layers(
    recipe: str | Path, kind: type[Section] | None = None, *, beside: Path = Path()
) -> list[tuple[str, dict[str, Any]]]:
    """The keys of a recipe and of its bases by their names, the bases first: other files, or recipes of the package.

    Args:
        recipe: name of a recipe of the package, or path of a YAML file.
        kind: the settings that the recipe holds: their paths begin in the folder of the file that names them. ``None``
            leaves paths as they are.
        beside: folder in which the path of the recipe begins.

    Raises:
        ConfigError: if a file is missing, is not YAML or is not a mapping, or if recipes are their own base.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    seen: list[str] = []
    name = str(recipe)
    place = recipe_file(name, beside=beside)
    while True:
        real = os.path.realpath(place)  # which never raises, as Path.resolve does for a link to itself
        if real in seen:
            raise ConfigError(f"recipe {recipe}: its base leads back to {place}; remove the key `base` of one of them")
        seen.append(real)
        tree = read_yaml(place, "recipe", hint="`seedpo list recipes` names those of the package")
        base = tree.pop(BASE, None)
        layers.append((name, tree if kind is None else anchored(tree, kind, place.parent)))
        if base is None:
            break
        if not isinstance(base, str) or not is_recipe(base):
            raise ConfigError(
                f"recipe {place}: base = {base!r} must be another recipe: a .yaml file or a name of `seedpo list "
                "recipes`"
            )
        name, place = base, recipe_file(base, beside=place.parent)
    return layers[::-1]


def anchored(tree: Mapping[str, Any], kind: type[Section], folder: Path) -> dict[str, Any]:
    """Nested keys whose paths begin in a folder; names of the package and of the hub stay what they are.

    A value is a path of the folder if it begins with ``./`` or ``../`` or if something lies there under it, also
    under a pattern (``pairs/*.parquet``, ``shard-{000..012}.tar``). ``~`` is the home folder. Where something is
    written, every value is a path. Everything else is left alone: a name of the hub, or a path that begins where the
    command runs.

    Args:
        tree: keys as they are written in a file.
        kind: their settings, whose fields are marked with :class:`seedpo.settings.Place`.
        folder: of the file.
    """
    return {
        key: _anchored_field(value, kind.model_fields[key], folder) if key in kind.model_fields else value
        for key, value in tree.items()
    }


def anchored_values(key: str, values: Iterable[Any], *, kind: type[Section], folder: Path) -> list[Any]:
    """Several values of one dotted key; see :func:`anchored`."""

    def of(value: Any) -> Any:
        part: Any = anchored(nested([(key, value)]), kind, folder)
        for name in key.split("."):
            part = part[name]
        return part

    return [of(value) for value in values]


def _anchored_field(value: Any, field: FieldInfo, folder: Path) -> Any:
    parts = [*field.metadata, *_parts(field.annotation)]
    place = next((part for part in parts if isinstance(part, Place)), None)
    section = next((part for part in parts if isinstance(part, type) and issubclass(part, Section)), None)

    def anchor(part: Any) -> Any:
        if isinstance(part, str):
            return part if place is None else anchored_path(part, place, folder)
        if isinstance(part, list | tuple):
            return [anchor(entry) for entry in part]
        if isinstance(part, Mapping) and section is not None:
            return anchored(part, section, folder)
        return part

    if get_origin(field.annotation) is dict and isinstance(value, Mapping):  # names of the user's own
        return {anchor(key): anchor(entry) for key, entry in value.items()}
    return anchor(in_brackets(value, field.annotation))


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and marks that a type is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def anchored_path(text: str, place: Place, folder: Path) -> str:
    """One value; see :func:`anchored`."""
    if text.startswith(HUB):
        rest = text.removeprefix(HUB)
        return HUB + (_joined(folder, rest) if _begins_here(rest) else rest)
    if place.names and (head := text.partition("@")[0]) in registries()[place.names]:
        rest = text.partition("@")[2]
        return f"{head}@{anchored_path(rest, Place(), folder)}" if rest else text
    if text.startswith("~"):
        return str(Path(text).expanduser())
    if Path(text).is_absolute():
        return text
    pattern = _NUMBERS.sub("*", text)
    exists = bool(text) and ((folder / text).exists() or ("*" in pattern and any(folder.glob(pattern))))
    return _joined(folder, text) if place.output or _begins_here(text) or exists else text


def _begins_here(text: str) -> bool:
    return text in (".", "..") or text.startswith(("./", "../"))


def _joined(folder: Path, text: str) -> str:
    slash = "/" if text.endswith("/") and len(text) > 1 else ""
    return os.path.normpath(folder / text) + slash

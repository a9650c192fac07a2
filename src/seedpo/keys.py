"""The keys of settings as data: their dotted names, types, ranges, defaults and docstrings, read from the fields."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import get_annotations
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from seedpo.foreign_keys import ELSEWHERE, SAME

OWN_NAME = "<name>"
"""Part of a dotted key that stands for a name of the user's own."""

ENTRY = "<number>"
"""Part of a dotted key that stands for the place in a list."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the settings.

    Attributes:
        name: dotted in full; :data:`OWN_NAME` and :data:`ENTRY` stand for names and places of the user's own.
        type: what it takes, in words.
        range: limits of its value, in words; empty without.
        default: as it is written in YAML; ``None`` if it must be given.
        text: its docstring, in one line.
    """

    name: str
    type: str
    range: str
    default: str | None
    text: str

    @property
    def values(self) -> str:
        """Type and range."""
        return ", ".join(filter(None, (self.type, self.range)))


@dataclass(frozen=True, kw_only=True)
class Group:
    """The keys that stand beside each other.

    Attributes:
        name: the dotted name of the section; empty for the settings themselves.
        text: its docstring, in one line.
        keys: those of its keys that are no sections.
    """

    name: str
    text: str
    keys: tuple[Key, ...]


def groups(kind: type[BaseModel], name: str = "") -> Iterator[Group]:
    """The settings' own keys, then those of each section; the keys of a class come before those that it inherits.

    Args:
        kind: the settings.
        name: dotted name under which they stand.
    """
    fields = kind.model_fields
    order = [key for base in kind.__mro__ for key in get_annotations(base) if key in fields]
    places = {key: f"{name}.{key}" if name else key for key in order}
    keys = tuple(_key(places[key], fields[key]) for key in places if not _is_section(fields[key].annotation))
    yield Group(name=name, text=_one_line(kind.__doc__), keys=keys)
    for key, place in places.items():
        for inner, section in _sections(fields[key].annotation, place):
            yield from groups(section, inner)


def all_keys(kind: type[BaseModel]) -> dict[str, Key]:
    """Every key of the settings by its dotted name."""
    return {key.name: key for group in groups(kind) for key in group.keys}


def match(name: str, pattern: str) -> bool:
    """Whether a dotted name is a key's, in which parts can stand for names of the user's own."""
    parts, places = name.split("."), pattern.split(".")
    return len(parts) == len(places) and all(
        place in (part, OWN_NAME, ENTRY) for part, place in zip(parts, places, strict=True)
    )


NEAR = 0.7
"""Likeness from which a name is near: twice the letters in common, in order, over all letters."""


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """The dotted names that somebody may have meant, the nearest first.

    A name of the same section whose last part is alike comes first. Else names whose last part is the same are near
    wherever they stand, at most three; else the name whose last part is most alike is. A name without a dot may also
    stand for a dotted one, as ``cache_latents`` for ``cache.latents``.
    """
    section, _, last = name.rpartition(".")
    ranks = []
    for other in names:
        whole = _likeness(name, other)
        part = _likeness(last, other.rpartition(".")[2])
        ranks.append((part if section else max(part, whole), whole, other))
    ranks.sort(key=lambda rank: (-rank[0], -rank[1]))
    beside = [other for likeness, _, other in ranks if likeness >= NEAR and other.rpartition(".")[0] == section != ""]
    same = [other for likeness, _, other in ranks if likeness == 1.0]
    return beside[:1] or same[:3] or [other for likeness, _, other in ranks if likeness >= NEAR][:1]


def _likeness(name: str, other: str) -> float:
    return difflib.SequenceMatcher(None, name, other).ratio()


def suggestion(name: str, kind: type[BaseModel]) -> str:
    """What to write in place of a dotted key that the settings do not have, in words."""
    sections = {group.name: group for group in groups(kind)}
    names = [*all_keys(kind), *(place for place in sections if place and not name.startswith(f"{place}."))]
    meant = _meant(name, names)
    if isinstance(meant, str):
        return meant
    if meant:
        return f"did you mean {' or '.join(repr(_filled(key, name)) for key in meant)}?"
    inside = name.rpartition(".")[0]
    section = next((group for place, group in sections.items() if match(inside, place)), sections[""])
    if len(section.keys) > FEW and section.name:
        return f"`seedpo config explain {section.name}` lists the keys here"
    if len(section.keys) <= FEW:
        return f"the keys here are {', '.join(sorted(key.name.rpartition('.')[2] for key in section.keys))}"
    tops = dict.fromkeys(place.partition(".")[0] for place in sections if place)
    return f"`seedpo config explain` lists the keys; the sections are {', '.join(tops)}"


def _meant(name: str, names: Sequence[str]) -> Sequence[str] | str:
    """Keys that were meant, or what to do instead: other trainers' names win over likeness, but not beside the key."""
    section, _, last = name.rpartition(".")
    word = last.lower().replace("-", "_")
    near = near_names(name, names)
    if any(key.rpartition(".")[2] == word or (section and key.rpartition(".")[0] == section) for key in near):
        return near
    return [key for key in SAME.get(word, ()) if key in names] or ELSEWHERE.get(word) or near


FEW = 10
"""Keys of a section that are named in one line."""


def _filled(key: str, name: str) -> str:
    """A key with the user's own names, where he wrote some."""
    own = dict(enumerate(name.split(".")))
    return ".".join(own.get(i, part) if part in (OWN_NAME, ENTRY) else part for i, part in enumerate(key.split(".")))


def yaml_text(value: Any) -> str:
    """A value as a user writes it in YAML or after ``--set KEY=``."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, BaseModel):
        return yaml_text(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {yaml_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(yaml_text, value)) + "]"
    return str(value) or "''"


def _key(name: str, field: FieldInfo) -> Key:
    return Key(
        name=name,
        type=_type_text(field.annotation),
        range=_range_text(field.metadata),
        default=None if field.is_required() else yaml_text(field.get_default(call_default_factory=True)),
        text=_one_line(field.description),
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def takes_list_alone(annotation: Any) -> bool:
    """Whether a key takes a list, and no text in its place."""
    parts = _parts(annotation)
    return str not in parts and any(get_origin(part) in (list, tuple) for part in parts)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, that of another type alone."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for inner in get_args(annotation) for part in _parts(inner))
    return (annotation,)


def _is_section(annotation: Any) -> bool:
    return all(_is_model(part) or part is type(None) for part in _parts(annotation))


def _sections(annotation: Any, place: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections that a value can hold, and the dotted names under which they stand."""
    for part in _parts(annotation):
        origin, inner = get_origin(part), get_args(part)
        if _is_model(part):
            yield place, part
        elif origin is dict:
            yield from _sections(inner[1], f"{place}.{OWN_NAME}")
        elif origin in (list, tuple):
            yield from _sections(inner[0], f"{place}.{ENTRY}")


_WORDS = {bool: "true or false", int: "integer", float: "number", str: "text", type(None): "none", Any: "any value"}


def _type_text(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        limits = _range_text(metadata)
        return f"{_type_text(inner)} ({limits})" if limits else _type_text(inner)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_type_text, inner))
    if origin is Literal:
        return ("one of " if len(inner) > 1 else "") + ", ".join(map(yaml_text, inner))
    if origin is dict:
        return f"{_type_text(inner[1])} for each name"
    if origin in (list, tuple):
        return f"list of {_type_text(inner[0])}"
    if _is_model(annotation):
        return "keys below it"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


_LIMITS = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "multiple_of": "a multiple of {}",
    "min_length": "length at least {}",
    "max_length": "length at most {}",
}


def _range_text(metadata: Sequence[Any]) -> str:
    flat = [part for entry in metadata for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    limits = [
        words.format(yaml_text(getattr(entry, name)))
        for entry in flat
        for name, words in _LIMITS.items()
        if getattr(entry, name, None) is not None
    ]
    return ", ".join(limits)

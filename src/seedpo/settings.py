"""Settings as data: groups of keys, read from YAML files and `--set`, merged, validated and flattened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from seedpo import documents
from seedpo.documents import parse_yaml
from seedpo.errors import ConfigError
from seedpo.keys import suggestion, takes_list_alone, yaml_text


class Section(BaseModel):
    """A frozen group of keys; unknown keys are errors. Where a list is due, ``a`` and ``a, b`` stand for one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _entries_need_no_brackets(cls, value: Any, info: ValidationInfo) -> Any:
        return in_brackets(value, cls.model_fields[str(info.field_name)].annotation)


Settings = TypeVar("Settings", bound=Section)

HUB = "hub:"
"""What a data set of the hub begins with, in place of a path."""

PROBLEMS = 20
"""Problems of a configuration that a message names at most."""

NO_EFFECT = "changes no number of a run's results"
"""Marks a key, ``key: Annotated[int, NO_EFFECT]``: runs that differ in it alone have the same results."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Marks a key that may hold a path, ``key: Annotated[str, Place(names="models")]``: in a recipe it begins there.

    Attributes:
        names: word of ``seedpo list`` for the names that the key may hold instead of a path; empty if there are none.
        output: whether something is written there; the key then always holds a path, also of what does not exist yet.
    """

    names: str = ""
    output: bool = False


@dataclass(frozen=True, kw_only=True)
class Scope:
    """Marks a key that acts in some runs only, ``key: Annotated[int, Scope(fact="adapter", values=("lora",))]``.

    Attributes:
        fact: of the run: another key, or one of its method; see :mod:`seedpo.training.scopes`.
        values: of the fact, with which the key acts.
        strict: whether the key is refused elsewhere; otherwise a line names it.
    """

    fact: str
    values: tuple[str | None, ...]
    strict: bool = False

    def __contains__(self, value: str | None) -> bool:
        return value in self.values


ABOVE_0 = "above 0"
"""A weight that acts, as a value of a :class:`Scope`."""


def changes_results(kind: type[Section], key: str) -> bool:
    """Whether a dotted key may change a number of a run's results; keys that ``kind`` does not have count as if so.

    Resuming, sweeps and reports ask this one function, which reads the mark :data:`NO_EFFECT`.
    """
    place: Any = kind
    for part in key.split("."):
        if get_origin(place) is dict:  # the part is a name of the user's own
            place = get_args(place)[1]
            continue
        sections = [inner for inner in (place, *get_args(place)) if hasattr(inner, "model_fields")]
        field = sections[0].model_fields.get(part) if sections else None
        if field is None or NO_EFFECT in field.metadata:
            return field is None
        place = field.annotation
    return True


def _bare_no(value: Any) -> Any:
    """YAML 1.1 reads a bare no as false."""
    return "no" if value is False else value


Precision = Annotated[Literal["no", "fp16", "bf16"], BeforeValidator(_bare_no)]
"""Number format in which networks compute; ``no`` is float32."""

_PRECISIONS: tuple[Precision, ...] = ("no", "fp16", "bf16")


class NetworkSettings(Section):
    """The keys of every network that is trained or asked to draw."""

    mixed_precision: Precision = "no"
    """Precision of the forward passes; trained weights stay in float32. `bf16` suits GPUs since Ampere, and is what
    `seedpo train` takes there for models other than the embedded one, where nothing is set."""
    seed: int = Field(0, ge=0)
    """Seed of everything that is drawn in the run."""


def as_precision(text: str) -> Precision:
    """The precision that the user named.

    Raises:
        ConfigError: if there is no such precision.
    """
    for precision in _PRECISIONS:
        if precision == text:
            return precision
    raise ConfigError(f"unknown precision {text!r}; there are: {', '.join(_PRECISIONS)}")


def in_brackets(value: Any, annotation: Any) -> Any:
    """The entries of a text, ``a`` or ``a, b``, where a key takes a list; any other value as it is."""
    if isinstance(value, str) and plain_value(value) is not None and takes_list_alone(annotation):
        return [plain_value(part.strip()) for part in value.split(",")]
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """Reads one ``key=value`` of the command line; the value is YAML, the key may be dotted.

    Raises:
        ConfigError: if there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not of the form key=value; write for example --set gamma=1")
    try:
        return key.strip(), plain_value(parse_yaml(value))
    except ValueError as error:
        raise ConfigError(f"--set {key}: the value {value!r} is not YAML ({error})") from error


def plain_value(value: Any) -> Any:
    """What the user meant by one value that YAML read: YAML 1.1 reads 1e-4 and none as text."""
    if value == "none":
        return None
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return number if math.isfinite(number) else value
    return value


def _plain_tree(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _plain_tree(value) for key, value in tree.items()}
    return plain_value(tree)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested dictionaries key by key; ``changes`` win."""
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


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``; empty ones vanish."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The dotted keys whose values differ between two nested dictionaries, with both values; ``None`` if missing."""
    old, new = dotted(before), dotted(now)
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def read_yaml(path: Path, kind: str, *, hint: str) -> dict[str, Any]:
    """Reads a YAML file that holds keys and values.

    Args:
        path: of the file.
        kind: what the file is, for errors: a recipe or a sweep.
        hint: what to do if there is no such file.

    Raises:
        ConfigError: if the file is missing, is not YAML or is not a mapping.
    """
    try:
        content = documents.read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{kind} {path} does not exist; {hint}") from error
    except (ValueError, OSError) as error:
        raise ConfigError(f"{kind} {path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{kind} {path} must hold keys and values, one `key: value` a line")
    return content


def build_config(kind: type[Settings], *layers: Mapping[str, Any]) -> Settings:
    """Merges nested keys and validates them.

    Args:
        kind: the settings to build.
        layers: nested keys; later layers win.

    Raises:
        ConfigError: naming every bad key, its value and what would be right.
    """
    tree: dict[str, Any] = {}
    for layer in layers:
        tree = merge(tree, _plain_tree(layer))
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = error.errors()
        more = [f"and {len(problems) - PROBLEMS:,} more"] if len(problems) > PROBLEMS else []
        lines = [_explain(problem, kind) for problem in problems[:PROBLEMS]]
        raise ConfigError("; ".join([*lines, *more])) from error


def unknown_keys(kind: type[Section], tree: Mapping[str, Any]) -> list[str]:
    """The dotted keys of a nested dictionary that ``kind`` does not have."""
    try:
        kind.model_validate(tree)
    except ValidationError as error:
        problems = [problem for problem in error.errors() if problem["type"] == "extra_forbidden"]
        return [".".join(map(str, problem["loc"])) for problem in problems]
    return []


def _explain(problem: Any, kind: type[Section]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {suggestion(key, kind)}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("tuple_type", "list_type"):
        message = f"write a list, such as [{'a' if problem['input'] is None else yaml_text(problem['input'])}]"
    return f"{key} = {problem['input']!r}: {message}" if key else message

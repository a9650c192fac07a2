"""Names that a user can write, and the attribute behind each: imported on demand."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from seedpo.errors import ConfigError


def load_target(target: str) -> Any:
    """Imports the attribute that ``module:attribute`` names."""
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered name.

    Attributes:
        name: what the user writes.
        target: ``module:attribute`` that is imported on demand.
        summary: one line for ``seedpo list``.
        image_size: height and width in pixels of the only images that it can read; `None` if it reads any.
    """

    name: str
    target: str
    summary: str
    image_size: int | None = None

    def load(self) -> Any:
        """Imports the attribute."""
        return load_target(self.target)


Row = TypeVar("Row", bound=Entry, covariant=True)


@dataclass(frozen=True)
class Registry(Generic[Row]):
    """The entries of one kind, in the order in which they are listed."""

    kind: str
    entries: tuple[Row, ...]

    def names(self) -> list[str]:
        """All names."""
        return [entry.name for entry in self.entries]

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Row:
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise unknown(self.kind, name, self.names())

    def load(self, name: str) -> Any:
        """Imports the attribute behind a name.

        Raises:
            ConfigError: if there is no such name.
        """
        return self[name].load()


def unknown(kind: str, name: str, names: Sequence[str], *, also: str = "") -> ConfigError:
    """The error that lists the names that there are, and suggests the nearest.

    Args:
        kind: of the names.
        name: what the user wrote.
        names: what could have been written.
        also: what else could have been written, in words.
    """
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(names)}{also}")


KINDS: Mapping[str, str] = {
    "recipes": "seedpo.recipes:RECIPES",
    "methods": "seedpo.methods.presets:METHODS",
    "models": "seedpo.models.catalogue:MODELS",
    "data": "seedpo.data.catalogue:DATA",
    "starts": "seedpo.rewards.catalogue:STARTS",
    "prompts": "seedpo.data.catalogue:PROMPTS",
    "rewards": "seedpo.rewards.catalogue:REWARDS",
    "metrics": "seedpo.metrics.catalogue:METRICS",
    "set-metrics": "seedpo.metrics.catalogue:SET_METRICS",
    "features": "seedpo.metrics.catalogue:FEATURES",
}
"""Where the registries stand, by the word that ``seedpo list`` takes."""


def registries() -> dict[str, Registry[Entry]]:
    """Every registry by the word that ``seedpo list`` takes."""
    return {kind: load_target(target) for kind, target in KINDS.items()}

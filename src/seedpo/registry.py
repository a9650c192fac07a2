"""Names that a user can write, and the attribute behind each: imported only when it is asked for."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from seedpo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered name.

    Attributes:
        name: what the user writes.
        target: ``module:attribute`` that is imported on demand.
        summary: one line for ``seedpo list``.
        image_size: height and width in pixels of the only images that it can read; none: it reads any.
    """

    name: str
    target: str
    summary: str
    image_size: int | None = None

    def load(self) -> Any:
        """Imports the attribute."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


@dataclass(frozen=True)
class Registry:
    """The entries of one kind, in the order in which they are listed."""

    kind: str
    entries: tuple[Entry, ...]

    def names(self) -> list[str]:
        """All names."""
        return [entry.name for entry in self.entries]

    def __contains__(self, name: str) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Entry:
        for entry in self.entries:
            if entry.name == name:
                return entry
        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"unknown {self.kind} {name!r}; {hint}there are: {', '.join(self.names())}")

    def load(self, name: str) -> Any:
        """Imports the attribute behind a name.

        Raises:
            ConfigError: if there is no such name.
        """
        return self[name].load()

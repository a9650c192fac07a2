"""Names that a user can write, and the attribute behind each: imported only when it is asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

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


@dataclass(frozen=True, kw_only=True)
class RewardEntry(Entry):
    """One registered reward; its target gives it, and takes the place of its weights if it has one.

    Attributes:
        scale: what its numbers mean, and in which range they lie.
        licence: of what is published, as far as its publishers state it in what was read; else where it stands.
        size: of what is downloaded; none: nothing is.
        source: paper or repository that describes it.
        place: default place of its weights on the hub; none: it has none to be found elsewhere.
        step_aware: whether it can judge previews of noisy images at their time step.
        direction: whether more is better.
    """

    scale: str
    licence: str
    size: str | None = None
    source: str
    place: str | None = None
    step_aware: bool = False
    direction: Literal["higher"] = "higher"


@dataclass(frozen=True, kw_only=True)
class FeaturesEntry(Entry):
    """One registered kind of image features; its target gives it, and takes the place of its weights if it has one.

    Attributes:
        width: how many numbers describe an image.
        licence: of the weights, as :class:`RewardEntry` has it.
        size: of what is downloaded; none: nothing is.
        source: paper or repository that describes it.
        place: default place of its weights on the hub; none: it has none to be found elsewhere.
    """

    width: str
    licence: str
    size: str | None = None
    source: str
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class MetricEntry(Entry):
    """One registered metric; its target is its record or, where it looks at features, what makes the record for them.

    Attributes:
        unit: of its values.
        span: in which its values lie.
        direction: which values are better.
        source: paper that defines it.
        features: what it looks at, by name; none: at the images themselves.
        reference: whether it compares all images with a reference set, instead of those of one prompt with each other.
    """

    unit: str
    span: str
    direction: Literal["higher", "lower", "neither"]
    source: str
    features: str | None = None
    reference: bool = False

    def load(self, place: str | None = None) -> Any:
        """Imports the record.

        Args:
            place: where the weights of its features are, if not at their default place.
        """
        found = super().load()
        return found if self.features is None else found(self.features, place)


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
        kind: what was asked for.
        name: what the user wrote.
        names: what could have been written.
        also: what else could have been written, in words.
    """
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return ConfigError(f"unknown {kind} {name!r}; {hint}there are: {', '.join(names)}{also}")


KINDS: Mapping[str, str] = {
    "methods": "seedpo.methods.presets:METHODS",
    "models": "seedpo.models.catalogue:MODELS",
    "data": "seedpo.data.catalogue:DATA",
    "starts": "seedpo.rewards.catalogue:STARTS",
    "prompts": "seedpo.data.catalogue:PROMPTS",
    "rewards": "seedpo.rewards.catalogue:REWARDS",
    "metrics": "seedpo.metrics.catalogue:METRICS",
    "set-metrics": "seedpo.metrics.features.names:SET_METRICS",
    "features": "seedpo.metrics.features.names:FEATURES",
}
"""Where the registries stand, by the word that ``seedpo list`` takes."""


def registries() -> dict[str, Registry]:
    """Every registry by the word that ``seedpo list`` takes."""
    return {kind: Entry(name=kind, target=target, summary="").load() for kind, target in KINDS.items()}

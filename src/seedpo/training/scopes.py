"""Keys that were set and do nothing in a run, because its method or its adapter does not read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedpo.errors import ConfigError
from seedpo.keys import yaml_text
from seedpo.methods.presets import METHODS, Preset
from seedpo.methods.weighting_settings import NOVELTY
from seedpo.settings import ABOVE_0, Scope, Section, build_config, dotted
from seedpo.training.layers import default_layers
from seedpo.training.settings import RunConfig


@dataclass(frozen=True, kw_only=True)
class IdleKey:
    """A key that does nothing in a run.

    Attributes:
        name: dotted.
        value: that was set.
        scopes: where it would act: in all of them together.
        shut: those of them that the run is not in.
    """

    name: str
    value: Any
    scopes: tuple[Scope, ...]
    shut: tuple[Scope, ...]

    @property
    def strict(self) -> bool:
        """Whether it is refused."""
        return any(scope.strict for scope in self.shut)

    @property
    def where(self) -> str:
        """What it acts with, in words: values of other keys, else the methods that all its scopes allow."""
        of_method = _facts_of(METHODS.entries[0])
        values = [
            f"{scope.fact} {value}" if value == ABOVE_0 else f"{scope.fact} = {value}"
            for scope in self.shut
            if scope.fact not in of_method
            for value in scope.values
        ]
        scopes = [scope for scope in self.scopes if scope.fact in of_method]
        methods = [
            preset.name for preset in METHODS.entries if all(_facts_of(preset)[scope.fact] in scope for scope in scopes)
        ]
        return " and ".join(values) if values else one_of(methods)

    @property
    def words(self) -> str:
        """Key and value, as they are written."""
        return f"{self.name} = {yaml_text(self.value)}"


def scoped_keys(kind: type[Section], prefix: str = "", scopes: tuple[Scope, ...] = ()) -> Iterator[tuple[str, Scope]]:
    """Every dotted key that acts in some runs only, with each of its scopes; those of a section are its keys' too."""
    for name, field in kind.model_fields.items():
        own = (*scopes, *(mark for mark in field.metadata if isinstance(mark, Scope)))
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            yield from scoped_keys(section, f"{prefix}{name}.", own)
        else:
            yield from ((prefix + name, scope) for scope in own)


def idle_keys(config: RunConfig) -> list[IdleKey]:
    """The keys that have other values than the run's defaults, and do nothing in it."""
    preset = METHODS[config.method]
    layers = [layer.keys for layer in default_layers(preset, config.model)]
    usual = dotted(build_config(RunConfig, *layers, {"method": config.method, "model": config.model}).tree())
    weights = {f"anchor.{name}": ABOVE_0 for name in config.anchor.weights}
    weights |= {NOVELTY: ABOVE_0} if config.weighting.novelty else {}
    others = {"adapter": config.adapter, "loss": config.loss, "reference.kind": config.reference.kind}
    facts = {**_facts_of(preset), **weights, **others}
    values = dotted(config.tree())

    def is_shut(name: str, scope: Scope) -> bool:
        of_anchor = bool(config.anchor.data) and name.startswith("pairs.") and scope.fact == "judged"
        return facts.get(scope.fact) not in scope and not of_anchor

    scopes: dict[str, tuple[Scope, ...]] = {}
    for name, scope in scoped_keys(RunConfig):
        scopes[name] = (*scopes.get(name, ()), scope)
    return [
        IdleKey(name=name, value=values[name], scopes=own, shut=shut)
        for name, own in scopes.items()
        if (shut := tuple(scope for scope in own if is_shut(name, scope))) and values.get(name) != usual.get(name)
    ]


def refuse_idle_keys(config: RunConfig) -> None:
    """Refuses keys whose silence would falsify what a run claims to be.

    Raises:
        ConfigError: naming the key, and the methods on which it acts.
    """
    for key in idle_keys(config):
        if key.strict:
            raise ConfigError(f"{key.words} has no effect on {config.method}: it acts with {key.where}; leave it out")


def warnings_of_idle_keys(config: RunConfig) -> list[str]:
    """One line that names all keys that were set and do nothing; none if there are none."""
    words: dict[str, list[str]] = {}
    for key in idle_keys(config):
        words.setdefault(key.where, []).append(key.words)
    keys = "; ".join(f"{', '.join(some)} (with {where})" for where, some in words.items())
    return [f"no effect on this run of {config.method}: {keys}; leave out what acts elsewhere"] if keys else []


def one_of(names: Sequence[str]) -> str:
    """Alternatives as they are written: a, b or c."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _facts_of(preset: Preset) -> Mapping[str, str | None]:
    """What of a method decides which keys act."""
    return {
        "log_prob": preset.log_prob,
        "objective": preset.objective,
        "judged": preset.source.judged,
        "section": preset.source.section,
        "gives": preset.source.gives,
    }

"""Worlds in which a proxy can be hacked: what is trained on which reward, how, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.objectives.contenders import ONLINE_KEYS, SPO_KEYS


@dataclass(frozen=True, kw_only=True)
class World:
    """A proxy on a model by a method.

    Attributes:
        name: in files and tables.
        proxy: name of the reward that is trained on; a sum is defined by the key ``rewards`` of the settings.
        model: embedded model.
        method: of seedpo.
        settings: keys of the base method here, dotted; what else all runs share is in :mod:`.contenders`.
        beta, rate: at which the base method hacks; contenders take multiples of them.
        steps: updates of a run.
    """

    name: str
    proxy: str
    model: str
    method: str
    settings: Mapping[str, Any]
    beta: float
    rate: float
    steps: int


_SPO: Mapping[str, Any] = {**SPO_KEYS, "steps.min_gap": 0.0}  # gaps of rewards in kB are below any min_gap
_ONLINE: Mapping[str, Any] = {**ONLINE_KEYS, "groups.min_gap": 0.0}

_METHODS: Mapping[str, tuple[str, Mapping[str, Any], float]] = {
    "spo": ("spo", _SPO, 10.0),
    "online": ("online-dpo", _ONLINE, 100.0),
}
"""Method, settings and beta, by the word in the names of worlds."""

_PROXIES: Mapping[str, str] = {
    "compressibility": "jpeg-compressibility",
    "incompressibility": "jpeg-incompressibility",
    "vividness": "scenes-vividness",
}


def _world(model: str, by: str, aspect: str, *, rate: float, steps: int) -> World:
    method, settings, beta = _METHODS[by]
    return World(
        name=f"{model}-{by}-{aspect}",
        proxy=_PROXIES[aspect],
        model=model,
        method=method,
        settings=settings,
        beta=beta,
        rate=rate,
        steps=steps,
    )


WORLDS: Mapping[str, World] = {
    world.name: world
    for world in (
        _world("scenes", "spo", "compressibility", rate=3e-3, steps=100),
        _world("scenes", "spo", "incompressibility", rate=4e-3, steps=60),
        _world("scenes", "spo", "vividness", rate=1e-3, steps=180),
        _world("scenes-flow", "spo", "vividness", rate=1e-3, steps=42),
        _world("scenes", "online", "vividness", rate=2.5e-3, steps=100),
        _world("scenes", "online", "compressibility", rate=1e-3, steps=240),
        _world("scenes", "online", "incompressibility", rate=3.5e-3, steps=100),
    )
}

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


REWARD_SCALES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "scenes": {
        "jpeg-compressibility": (-1.04, 0.046),
        "jpeg-incompressibility": (1.04, 0.046),
        "scenes-few": (2.76, 0.218),
        "scenes-scorer": (12.8, 0.67),
        "scenes-vividness": (17.2, 0.91),
    },
    "scenes-flow": {
        "jpeg-compressibility": (-1.03, 0.041),
        "jpeg-incompressibility": (1.03, 0.041),
        "scenes-few": (2.75, 0.156),
        "scenes-scorer": (12.6, 0.82),
        "scenes-vividness": (16.6, 1.04),
    },
}
"""Mean of rewards over images that a model draws before training, and their standard deviation within a prompt: of 32
training prompts or more with 4 images each, drawn as in roll-outs. Over all images prompts dominate the deviation."""


def sum_of(model: str, weights: Mapping[str, float]) -> dict[str, Any]:
    """The definition of a sum of rewards, each in its standard deviations on a model, with weights by name."""
    scales = REWARD_SCALES[model]
    return {
        "terms": {
            name: {"weight": weight, "mean": scales[name][0], "std": scales[name][1]}
            for name, weight in weights.items()
        }
    }


_SPO: Mapping[str, Any] = {**SPO_KEYS, "steps.min_gap": 0.0}  # gaps of rewards in kB are below any min_gap
_ONLINE: Mapping[str, Any] = {**ONLINE_KEYS, "groups.min_gap": 0.0}

_METHODS: Mapping[str, tuple[str, Mapping[str, Any], float]] = {
    "spo": ("spo", _SPO, 10.0),
    "online": ("online-dpo", _ONLINE, 100.0),
}
"""Method, settings and beta, by the word in the names of worlds."""

_SUMMED = {"scenes-vividness": 1.0, "jpeg-compressibility": 1.0}
"""Weights of the sum of two."""

_PROXIES: Mapping[str, str] = {
    "compressibility": "jpeg-compressibility",
    "incompressibility": "jpeg-incompressibility",
    "vividness": "scenes-vividness",
    "few": "scenes-few",
    "sum": "vivid-and-small",
}


def _world(model: str, by: str, aspect: str, *, rate: float, steps: int) -> World:
    method, settings, beta = _METHODS[by]
    if aspect == "sum":
        settings = {**settings, "rewards": {_PROXIES[aspect]: sum_of(model, _SUMMED)}}
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
        _world("scenes", "spo", "few", rate=3e-3, steps=100),
        _world("scenes", "spo", "sum", rate=3e-3, steps=100),
        _world("scenes-flow", "spo", "vividness", rate=1e-3, steps=42),
        _world("scenes-flow", "spo", "compressibility", rate=1e-3, steps=84),
        _world("scenes-flow", "spo", "few", rate=1e-3, steps=84),
        _world("scenes", "online", "vividness", rate=2.5e-3, steps=100),
        _world("scenes", "online", "compressibility", rate=1e-3, steps=240),
        _world("scenes", "online", "incompressibility", rate=3.5e-3, steps=100),
    )
}

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
        steps: updates of a short run.
        long: updates of a long run, ten times as many.
    """

    name: str
    proxy: str
    model: str
    method: str
    settings: Mapping[str, Any]
    beta: float
    rate: float
    steps: int
    long: int


_SPO: Mapping[str, Any] = {**SPO_KEYS, "steps.min_gap": 0.0}  # gaps of rewards in kB are below any min_gap
_ONLINE: Mapping[str, Any] = {**ONLINE_KEYS, "groups.min_gap": 0.0}

WORLDS: Mapping[str, World] = {
    world.name: world
    for world in (
        World(
            name="scenes-spo-compressibility",
            proxy="jpeg-compressibility",
            model="scenes",
            method="spo",
            settings=_SPO,
            beta=10.0,
            rate=3e-3,
            steps=100,
            long=1000,
        ),
        World(
            name="scenes-spo-incompressibility",
            proxy="jpeg-incompressibility",
            model="scenes",
            method="spo",
            settings=_SPO,
            beta=10.0,
            rate=4e-3,
            steps=60,
            long=600,
        ),
        World(
            name="scenes-spo-vividness",
            proxy="scenes-vividness",
            model="scenes",
            method="spo",
            settings=_SPO,
            beta=10.0,
            rate=2e-3,
            steps=90,
            long=900,
        ),
        World(
            name="scenes-flow-spo-vividness",
            proxy="scenes-vividness",
            model="scenes-flow",
            method="spo",
            settings=_SPO,
            beta=10.0,
            rate=1e-3,
            steps=42,
            long=420,
        ),
        World(
            name="scenes-online-vividness",
            proxy="scenes-vividness",
            model="scenes",
            method="online-dpo",
            settings=_ONLINE,
            beta=100.0,
            rate=2.5e-3,
            steps=100,
            long=1000,
        ),
        World(
            name="scenes-online-compressibility",
            proxy="jpeg-compressibility",
            model="scenes",
            method="online-dpo",
            settings=_ONLINE,
            beta=100.0,
            rate=2.5e-3,
            steps=100,
            long=1000,
        ),
        World(
            name="scenes-online-incompressibility",
            proxy="jpeg-incompressibility",
            model="scenes",
            method="online-dpo",
            settings=_ONLINE,
            beta=100.0,
            rate=3.5e-3,
            steps=100,
            long=1000,
        ),
    )
}

"""What the benchmark trains, as data: for each method betas, gammas in both conventions, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from seedpo.config import merge
from seedpo.core.entropy import EntropyConvention, entropy_weights
from seedpo.demo import METHODS, SHARED
from seedpo.registry import unknown
from seedpo.sweeps.cells import written
from seedpo.sweeps.files import Sweep

Role = Literal["base", "see"]

SEEDS = 3
"""Seeds of each setting; three are the least for an interval that means anything."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of one method.

    Attributes:
        betas: at which the entropy term is tried, and the base method besides.
        relative: values of gamma in the relative convention, a = beta (1 + gamma), at each beta.
        absolute: values of gamma in the absolute convention, a = beta + gamma, at each beta.
        settings: keys in which the runs differ from the demonstration's.
    """

    betas: tuple[float, ...]
    relative: tuple[float, ...]
    absolute: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def quick(self) -> Grid:
        """The first beta and the first gamma alone."""
        return replace(self, betas=self.betas[:1], relative=self.relative[:1], absolute=())


GRIDS: Mapping[str, Grid] = {
    "spo": Grid(
        betas=(10.0, 20.0),
        relative=(1.0, 3.0),
        absolute=(20.0,),
        settings={"max_steps": 36, "evaluate_every": 9},
    ),
    "d3po": Grid(
        betas=(10.0, 20.0),
        relative=(1.0, 3.0),
        absolute=(20.0,),
        settings={"max_steps": 20, "evaluate_every": 5},
    ),
    "diffusion-dpo": Grid(
        betas=(50.0, 100.0),
        relative=(0.5, 1.0),
        absolute=(100.0,),
        settings={"max_steps": 60, "evaluate_every": 15},
    ),
}
"""Each grid comes to as many settings with the entropy term as without it (5 and 5), since the frontier of a larger
pool is higher by chance alone: the values are chosen so that the controls fall on each other and on the betas."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One configuration of the benchmark, apart from its seed.

    Attributes:
        role: with the entropy term, or the base method.
        beta: weight of the KL term.
        weight: the policy's weight a; beta itself for the base method.
        gammas: gamma in each convention in which the grid has it; the first one is what is trained.
        controls: for the base method: whether some setting with the entropy term has this temperature.
    """

    role: Role
    beta: float
    weight: float
    gammas: Mapping[EntropyConvention, float] = field(default_factory=dict)
    controls: bool = False

    @property
    def label(self) -> str:
        """Its name in folders and tables."""
        if self.role == "base":
            return f"base-beta={written(self.beta)}"
        (convention, gamma), *_ = self.gammas.items()
        return f"see-beta={written(self.beta)}-{convention}={written(gamma)}"

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that make it."""
        if self.role == "base":
            return {"beta": self.beta, "gamma": 0.0}
        (convention, gamma), *_ = self.gammas.items()
        return {"beta": self.beta, "gamma": gamma, "entropy_convention": convention}


def settings_of(grid: Grid) -> tuple[Setting, ...]:
    """Every setting of a grid once: base methods by ascending beta, then those with the entropy term.

    Two gammas that come to the same weights (a, b) are one setting, and so are a control and the base method at that
    beta.
    """
    see: dict[tuple[float, float], dict[EntropyConvention, float]] = {}
    gammas: tuple[tuple[EntropyConvention, tuple[float, ...]], ...] = (
        ("relative", grid.relative),
        ("absolute", grid.absolute),
    )
    for convention, values in gammas:
        for beta in grid.betas:
            for gamma in values:
                weight, _ = entropy_weights(beta, gamma, convention=convention)
                see.setdefault((beta, _rounded(weight)), {})[convention] = gamma
    weights = {weight for _, weight in see}
    plain = [
        Setting(role="base", beta=beta, weight=beta, controls=beta in weights)
        for beta in sorted(set(map(_rounded, grid.betas)) | weights)
    ]
    return (
        *plain,
        *(Setting(role="see", beta=beta, weight=weight, gammas=found) for (beta, weight), found in sorted(see.items())),
    )


def _rounded(value: float) -> float:
    """Without the last bits, in which equal temperatures may differ."""
    return float(f"{value:.12g}")


def grids(methods: Sequence[str], *, quick: bool) -> dict[str, Grid]:
    """The grids of the methods asked for, all of them if none is named.

    Raises:
        ConfigError: if there is no such method.
    """
    for method in methods:
        if method not in GRIDS:
            raise unknown("method", method, list(GRIDS))
    chosen = {method: grid for method, grid in GRIDS.items() if not methods or method in methods}
    return {method: grid.quick if quick else grid for method, grid in chosen.items()}


def sweep_of(method: str, grid: Grid, *, seeds: int, changes: Mapping[str, Any]) -> Sweep:
    """The runs of one method."""
    base = merge(merge(merge(SHARED, METHODS[method]), grid.settings), {"method": method})
    return Sweep(
        base=merge(base, changes),
        named={setting.label: setting.changes for setting in settings_of(grid)},
        seeds=range(seeds),
        origin=f"benchmark of {method}",
    )

"""What the benchmark trains, as data: for each method betas, gammas in both conventions, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from seedpo.core.entropy import EntropyConvention, entropy_weights
from seedpo.registry import unknown
from seedpo.settings import merge
from seedpo.training.sweeps.definition import Sweep, in_file_name
from seedpo.training.sweeps.demonstration import METHODS, SHARED

Role = Literal["base", "see"]

SEEDS = 3
"""Seeds of each setting; three are the least for an interval that means anything."""


MEASURED: Mapping[str, Any] = {
    "evaluation": {"metrics": ["truth", "attribute_accuracy", "pairwise_diversity", "free_spread", "free_spread_right"]}
}
"""What evaluations measure in addition to the rewards."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of one method.

    Attributes:
        betas: at which the entropy term is tried, and the base method too.
        relative: values of gamma in the relative convention, a = beta (1 + gamma), at each beta.
        absolute: values of gamma in the absolute convention, a = beta + gamma, at each beta.
        settings: keys in which the runs differ from the demonstration's.
        trials: options that no paper has: by name in folders and tables the dotted keys that switch one on. Each is
            tried with the base method at the grid's betas, and held against the same settings without it.
    """

    betas: tuple[float, ...]
    relative: tuple[float, ...]
    absolute: tuple[float, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def quick(self) -> Grid:
        """The first beta, the first gamma and the first trial alone."""
        first = dict(list(self.trials.items())[:1])
        return replace(self, betas=self.betas[:1], relative=self.relative[:1], absolute=(), trials=first)

    @property
    def untried(self) -> Grid:
        """Without the trials."""
        return replace(self, trials={})


GRIDS: Mapping[str, Grid] = {
    "spo": Grid(
        betas=(10.0, 20.0),
        relative=(1.0, 3.0),
        absolute=(20.0,),
        settings={
            "reward": "scenes-scorer",
            "evaluation": {"rewards": ["scenes-scorer"]},
            "max_steps": 36,
            "evaluate_every": 9,
        },
        trials={
            "one-update": {"steps.updates_per_rollout": 1},
        },
    ),
    "d3po": Grid(
        betas=(10.0, 20.0),
        relative=(1.0, 3.0),
        absolute=(20.0,),
        settings={"max_steps": 20, "evaluate_every": 5},
        trials={
            "three-updates": {"trajectories.updates_per_rollout": 3},
        },
    ),
    "diffusion-dpo": Grid(
        betas=(50.0, 100.0),
        relative=(0.5, 1.0),
        absolute=(100.0,),
        settings={"max_steps": 60, "evaluate_every": 15},
    ),
}
"""Each grid comes to as many settings with the entropy term as without it (5 and 5), since the frontier of a larger
pool is higher by chance alone. The values are such that controls coincide with each other and with the betas."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One configuration of the benchmark, apart from its seed.

    Attributes:
        role: with the entropy term, or the base method.
        beta: weight of the KL term.
        weight: the policy's weight a; beta itself for the base method.
        gammas: gamma in each convention in which the grid has it; the first one is what is trained.
        controls: for the base method: whether some setting with the entropy term has this temperature.
        option: name of the trial; empty for what the papers have.
        extra: the trial's keys.
    """

    role: Role
    beta: float
    weight: float
    gammas: Mapping[EntropyConvention, float] = field(default_factory=dict)
    controls: bool = False
    option: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[Role, float, float]:
        """Role, beta and a: what a trial shares with the setting without it."""
        return self.role, self.beta, self.weight

    @property
    def label(self) -> str:
        """Its name in folders and tables."""
        before = f"{self.option}-" if self.option else ""
        if self.role == "base":
            return f"{before}base-beta={in_file_name(self.beta)}"
        (convention, gamma), *_ = self.gammas.items()
        return f"{before}see-beta={in_file_name(self.beta)}-{convention}={in_file_name(gamma)}"

    @property
    def changes(self) -> dict[str, Any]:
        """The keys that make it."""
        if self.role == "base":
            return {"beta": self.beta, "gamma": 0.0, **self.extra}
        (convention, gamma), *_ = self.gammas.items()
        return {"beta": self.beta, "gamma": gamma, "entropy_convention": convention, **self.extra}


def settings_of(grid: Grid) -> tuple[Setting, ...]:
    """Every setting of a grid once: base methods by ascending beta, those with the entropy term, then the trials.

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
    terms = [
        Setting(role="see", beta=beta, weight=weight, gammas=gammas) for (beta, weight), gammas in sorted(see.items())
    ]
    trials = [
        replace(setting, option=name, extra=changes, controls=False)
        for name, changes in grid.trials.items()
        for setting in plain
        if setting.beta in grid.betas
    ]
    return (*plain, *terms, *trials)


def _rounded(value: float) -> float:
    """Without the last bits, in which equal temperatures may differ."""
    return float(f"{value:.12g}")


def grids(methods: Sequence[str], *, quick: bool, trials: bool = False) -> dict[str, Grid]:
    """The grids of these methods, or of all if none is named; with or without the trials of options.

    Raises:
        ConfigError: if there is no such method.
    """
    for method in methods:
        if method not in GRIDS:
            raise unknown("method", method, list(GRIDS))
    chosen = {method: grid for method, grid in GRIDS.items() if not methods or method in methods}
    chosen = {method: grid if trials else grid.untried for method, grid in chosen.items()}
    return {method: grid.quick if quick else grid for method, grid in chosen.items()}


def sweep_of(method: str, grid: Grid, *, seeds: int, changes: Mapping[str, Any]) -> Sweep:
    """The runs of one method."""
    base = merge(merge(merge(merge(SHARED, METHODS[method]), MEASURED), grid.settings), {"method": method})
    return Sweep(
        base=merge(base, changes),
        named={setting.label: setting.changes for setting in settings_of(grid)},
        seeds=range(seeds),
        origin=f"benchmark of {method}",
    )

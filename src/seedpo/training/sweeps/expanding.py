"""From a sweep to its cells: every combination of the grid, the named cells, and the temperature controls."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seedpo.errors import ConfigError
from seedpo.settings import merge, nested, unknown_keys
from seedpo.training.run import resolve_config
from seedpo.training.settings import RunConfig
from seedpo.training.sweeps.cells import Cell, check_name, name_of
from seedpo.training.sweeps.files import Sweep

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A cell and its resolved configuration, or why it cannot be run."""

    cell: Cell
    config: RunConfig | None
    refusal: str = ""


def expand(sweep: Sweep) -> list[Checked]:
    """The cells of a sweep, named and checked, in the order of the file; controls last.

    A cell of which the values are impossible is kept with its refusal, so that the others can be trained.

    Raises:
        ConfigError: if a key is unknown, two different cells have one name, or no cell can be run.
    """
    cells = [checked(cell, sweep.origin) for cell in _cells(sweep)]
    cells = _without_twins(cells + (_controls(sweep, cells) if sweep.controls else []), sweep.origin)
    if all(one.config is None for one in cells):
        raise ConfigError(f"{sweep.origin}: no cell can be run; {cells[0].cell.name}: {cells[0].refusal}")
    return cells


def checked(cell: Cell, origin: str) -> Checked:
    """A cell with its configuration resolved.

    Raises:
        ConfigError: if it has an unknown key or method.
    """
    try:
        config = resolve_config(str(cell.config.get("method")), cell.config)
    except ConfigError as error:
        if unknown_keys(RunConfig, cell.config) or str(error).startswith("unknown method"):
            raise ConfigError(f"{origin}: cell {cell.name}: {error}") from error
        return Checked(cell=cell, config=None, refusal=str(error))
    return Checked(cell=replace(cell, steps=config.max_steps), config=config)


def _cells(sweep: Sweep) -> Iterator[Cell]:
    seeds: Sequence[Mapping[str, Any]] = [{"seed": seed} for seed in sweep.seeds] or [{}]
    if sweep.grid or not sweep.named:
        for values in itertools.product(*sweep.grid.values()):
            for seed in seeds:
                yield _cell(sweep, {**dict(zip(sweep.grid, values, strict=True)), **seed})
    for label, changes in sweep.named.items():
        for seed in seeds:
            yield _cell(sweep, {**changes, **seed}, label=label)


def _cell(sweep: Sweep, changes: Mapping[str, Any], *, label: str = "") -> Cell:
    seed = {key: value for key, value in changes.items() if key == "seed"}
    name = "_".join(part for part in (label, name_of(seed if label else changes)) if part)
    try:
        config = merge(sweep.base, nested(list(changes.items())))
        return Cell(name=check_name(name), config=config, changes=changes, label=label)
    except ConfigError as error:
        raise ConfigError(f"{sweep.origin}: {error}") from error


def _controls(sweep: Sweep, cells: Sequence[Checked]) -> list[Checked]:
    """The base method at beta' = a for each cell with an entropy term."""
    controls = []
    for one in cells:
        if one.config is not None and one.config.gamma != 0:
            changes = {**one.cell.changes, **control_changes(one.config)}
            changes.pop("entropy_convention", None)
            label = f"{one.cell.label}-control" if one.cell.label else ""
            controls.append(checked(_cell(sweep, changes, label=label), sweep.origin))
    return controls


def control_changes(config: RunConfig) -> dict[str, float]:
    """The keys of the temperature control: beta' = a, without the entropy term."""
    weight, _ = config.weights
    return {"gamma": 0.0, "beta": float(f"{weight:.12g}")}


def identity(config: RunConfig) -> str:
    """What two runs have in common that do the same: all keys, with the weights a and b in place of gamma."""
    weight, _ = config.weights
    tree = config.tree()
    for key in ("gamma", "entropy_convention"):
        del tree[key]
    return json.dumps(tree | {"a": f"{weight:.9g}", "beta": f"{config.beta:.9g}"}, sort_keys=True, default=str)


def _without_twins(cells: Sequence[Checked], origin: str) -> list[Checked]:
    """The cells with each run once: gamma = 0 is one run in both conventions, and a control may be in the grid."""
    first: dict[str, Checked] = {}
    names: set[str] = set()
    for one in cells:
        key = one.cell.name if one.config is None else identity(one.config)
        if key in first:
            if one.cell.name != first[key].cell.name:
                logger.info("%s: %s is the same run as %s, trained once", origin, one.cell.name, first[key].cell.name)
            continue
        if one.cell.name in names:
            raise ConfigError(f"{origin}: two cells are called {one.cell.name}; name one of them under `cells`")
        names.add(one.cell.name)
        first[key] = one
    return list(first.values())

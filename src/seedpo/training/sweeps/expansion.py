"""The runs of a sweep: every combination of the grid, the named cells, and the temperature controls."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from seedpo.errors import ConfigError
from seedpo.settings import merge, nested, unknown_keys
from seedpo.training.configuration import resolve_config
from seedpo.training.settings import RunConfig
from seedpo.training.sweeps.definition import Cell, Sweep, check_name, name_of

logger = logging.getLogger(__name__)


def expand(sweep: Sweep) -> list[Cell]:
    """The cells of a sweep, named and resolved, in the order of the file; controls last.

    A cell with impossible values is kept with its refusal, so that the others can be trained.

    Raises:
        ConfigError: if a key is unknown, two different cells have one name, or no cell can be trained.
    """
    cells = [_resolved(cell, sweep.origin) for cell in _cells(sweep)]
    cells = _without_twins(cells + (_controls(sweep, cells) if sweep.controls else []), sweep.origin)
    if all(cell.refusal for cell in cells):
        raise ConfigError(f"{sweep.origin}: no cell can be run; {cells[0].name}: {cells[0].refusal}")
    return cells


def _resolved(cell: Cell, origin: str) -> Cell:
    try:
        config = resolve_config(str(cell.keys.get("method")), cell.keys)
    except ConfigError as error:
        if unknown_keys(RunConfig, cell.keys) or str(error).startswith("unknown method"):
            raise ConfigError(f"{origin}: cell {cell.name}: {error}") from error
        return replace(cell, refusal=str(error))
    return replace(cell, config=config, steps=config.max_steps)


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
        keys = merge(sweep.base, nested(list(changes.items())))
        return Cell(name=check_name(name), keys=keys, changes=changes, label=label)
    except ConfigError as error:
        raise ConfigError(f"{sweep.origin}: {error}") from error


def _controls(sweep: Sweep, cells: Sequence[Cell]) -> list[Cell]:
    """The base method at beta' = a for each cell with an entropy term."""
    controls = []
    for cell in cells:
        if cell.config is not None and cell.config.gamma != 0:
            weight, _ = cell.config.weights
            changes = {**cell.changes, "gamma": 0.0, "beta": float(f"{weight:.12g}")}
            changes.pop("entropy_convention", None)
            label = f"{cell.label}-control" if cell.label else ""
            controls.append(_resolved(_cell(sweep, changes, label=label), sweep.origin))
    return controls


def _identity(config: RunConfig) -> str:
    """What two runs have in common that do the same: all keys, with the weights a and b in place of gamma."""
    tree = config.tree()
    for key in ("gamma", "entropy_convention"):
        del tree[key]
    weights = {"a": f"{config.weights[0]:.9g}", "beta": f"{config.beta:.9g}"}
    return json.dumps(tree | weights, sort_keys=True, default=str)


def _without_twins(cells: Sequence[Cell], origin: str) -> list[Cell]:
    """The cells with each run once: gamma = 0 is one run in both conventions, and a control may be in the grid."""
    first: dict[str, Cell] = {}
    names: set[str] = set()
    for cell in cells:
        key = cell.name if cell.config is None else _identity(cell.config)
        if key in first:
            if cell.name != first[key].name:
                logger.info("%s: %s is the same run as %s, trained once", origin, cell.name, first[key].name)
            continue
        if cell.name in names:
            raise ConfigError(f"{origin}: two cells are called {cell.name}; name one of them under `cells`")
        names.add(cell.name)
        first[key] = cell
    return list(first.values())


def shard_of(cells: Sequence[Cell], shard: str | None) -> list[Cell]:
    """The cells of one shard: every n-th one, from the i-th on.

    Args:
        cells: all cells of the sweep, in their order.
        shard: ``i/n`` with 1 <= i <= n; ``None``: all of them.

    Raises:
        ConfigError: if the shard is not of that form.
    """
    if shard is None:
        return list(cells)
    match = re.fullmatch(r"(\d+)/(\d+)", shard.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(
            f"--shard {shard} is not of the form i/n with i from 1 to n; the first of four is --shard 1/4"
        )
    return list(cells[int(match[1]) - 1 :: int(match[2])])

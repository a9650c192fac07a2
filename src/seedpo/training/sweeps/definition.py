"""What a sweep is, read from YAML or from the command line; what its runs are, and how they are named."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, StrictBool, field_validator

from seedpo.errors import ConfigError
from seedpo.recipes import RECIPES, is_recipe
from seedpo.recipes.reading import anchored, anchored_values, read_recipe
from seedpo.settings import Section, build_config, merge, parse_override, plain_value, read_yaml
from seedpo.training.settings import RunConfig

EXAMPLE = "write for example `base: spo` and `grid: {gamma: [0, 1, 3], seed: [0, 1, 2]}`"

LONGEST_NAME = 120
"""Longer folder names would be hard to read, and some file systems refuse them."""


class SweepFile(Section):
    """The keys of a sweep file."""

    base: str | dict[str, Any]
    """A method, a recipe file beside this one, a recipe of the package, or keys that all cells share."""
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    """Values of each dotted key; every combination is a cell."""
    cells: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named cells: the dotted keys that each changes."""
    seeds: list[int] = Field(default_factory=list)
    """A number of seeds or a list of different ones; every cell is trained with each."""
    controls: StrictBool = False
    """Whether each cell with an entropy term gets its temperature control."""

    @field_validator("grid")
    @classmethod
    def _distinct_values(cls, grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {key: _distinct(key, values) for key, values in grid.items()}

    @field_validator("seeds", mode="before")
    @classmethod
    def _distinct_seeds(cls, value: Any) -> Any:
        seeds = list(range(value)) if type(value) is int else value
        whole = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise ValueError("must be a number of seeds or a list of different ones, for example [0, 1, 2]")
        return seeds


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is varied around which base.

    Attributes:
        base: keys that all cells share, ``method`` among them.
        grid: values of each dotted key; every combination is a cell.
        named: cells with names of their own: changes by dotted key.
        seeds: every cell is trained with each of them; empty: with the base's seed, or the grid's.
        controls: whether each cell with gamma other than 0 also gets its temperature control, the base method at
            beta' = a.
        origin: where it was written, for errors.
    """

    base: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    controls: bool = False
    origin: str = "sweep"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: its folder.
        keys: what differs from the method's preset, the method among it.
        steps: optimiser steps that it takes; for the progress bar.
        changes: the values that set it apart from the other cells, by dotted key.
        label: what the user calls it, without its seed; empty if it is named by its values.
        config: the resolved configuration; ``None`` if it was not resolved, or is impossible.
        refusal: why the cell cannot be trained; empty if it can.
    """

    name: str
    keys: Mapping[str, Any]
    steps: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    config: RunConfig | None = None
    refusal: str = ""


def read_sweep(
    source: str, *, changes: Mapping[str, Any] | None = None, vary: Sequence[str] = (), controls: bool = False
) -> Sweep:
    """A sweep from a file, or from a method or recipe and what the command line varies.

    Args:
        source: a sweep file (YAML with ``base`` and ``grid`` or ``cells``), a recipe file, or the name of a method.
        changes: nested keys that all cells share; they win over the base.
        vary: ``key=value,value,...``; a key of the grid is replaced.
        controls: adds the temperature controls, even if the file does not.

    Raises:
        ConfigError: naming the file and the key that is wrong.
    """
    sweep = _from_source(source)
    grid = {**sweep.grid, **dict(map(read_vary, vary))}
    # Cells are files in another folder: whatever is found from here must be found from there.
    base = anchored(merge(sweep.base, changes or {}), RunConfig, Path.cwd())
    sweep = replace(sweep, base=base, grid=grid, controls=controls or sweep.controls)
    sweep = _anchored_variations(sweep, Path.cwd())
    if "method" not in sweep.base and "method" not in grid:
        raise ConfigError(f"{sweep.origin}: no method is named; write it into `base`, for example `base: spo`")
    if not (grid or sweep.named or sweep.seeds):
        raise ConfigError(f"{sweep.origin}: nothing is varied; {EXAMPLE}, or --vary gamma=0,1,3")
    if sweep.seeds and "seed" in grid:
        raise ConfigError(f"{sweep.origin}: seeds are given twice, by `seeds` and by the grid's `seed`; leave one out")
    return sweep


def read_vary(text: str) -> tuple[str, list[Any]]:
    """``gamma=0,1,3`` as a key and its values; where these have commas of their own, ``key=[[1, 2], [3]]``.

    Raises:
        ConfigError: if there is no ``=``, or no value.
    """
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not key or not values:
        raise ConfigError(f"--vary {text!r} is not of the form key=value,value; write for example --vary gamma=0,1,3")
    try:
        _, read = parse_override(f"{key}={values}" if values.startswith("[") else f"{key}=[{values}]")
        return key, _distinct(key, read)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"--vary {text!r}: {error}; write for example gamma=0,1,3") from error


def _from_source(source: str) -> Sweep:
    if not is_recipe(source):
        return Sweep(base={"method": source}, origin=source)
    if source in RECIPES:
        return Sweep(base=read_recipe(source, RunConfig), origin=f"recipe {source}")
    path = Path(source)
    content = read_yaml(path, "sweep", hint=f"{EXAMPLE} into it")
    if not set(content) & (SweepFile.model_fields.keys() - {"base"}):
        return Sweep(base=read_recipe(path, RunConfig), origin=f"recipe {path}")
    try:
        file = build_config(SweepFile, content)
    except ConfigError as error:
        raise ConfigError(f"sweep {path}: {error}") from error
    sweep = Sweep(
        base=_base(file.base, path),
        grid=file.grid,
        named=file.cells,
        seeds=file.seeds,
        controls=file.controls,
        origin=f"sweep {path}",
    )
    return _anchored_variations(sweep, path.parent)


def _anchored_variations(sweep: Sweep, folder: Path) -> Sweep:
    """The sweep with the paths of its grid and its cells beginning in a folder."""
    values = partial(anchored_values, kind=RunConfig, folder=folder)
    return replace(
        sweep,
        grid={key: values(key, several) for key, several in sweep.grid.items()},
        named={
            name: {key: values(key, [value])[0] for key, value in cell.items()} for name, cell in sweep.named.items()
        },
    )


def _base(base: str | dict[str, Any], path: Path) -> Mapping[str, Any]:
    if isinstance(base, dict):
        return anchored(base, RunConfig, path.parent)
    return read_recipe(base, RunConfig, beside=path.parent) if is_recipe(base) else {"method": base}


def _distinct(key: str, values: list[Any]) -> list[Any]:
    """The values of a grid's key as the user meant them; at least one, and none of them twice."""
    plain = [plain_value(value) for value in values]
    if not plain:
        raise ValueError(f"{key} must hold a list of at least one value, for example {key}: [0, 1]")
    for index, value in enumerate(plain):
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in plain[:index]):
            raise ValueError(f"{key} holds {value!r} twice; leave one out")
    return plain


def name_of(changes: Mapping[str, Any]) -> str:
    """A readable folder name: ``gamma=1_beta=10_seed=0``.

    Dotted keys are shortened to their last part, unless two of them end alike.
    """
    ends = [key.rsplit(".", 1)[-1] for key in changes]
    short = {key: end if ends.count(end) == 1 else key for key, end in zip(changes, ends, strict=True)}
    return "_".join(f"{short[key]}={in_file_name(value)}" for key, value in changes.items())


def in_file_name(value: Any) -> str:
    """A value as a file name can hold it: no spaces, no slashes."""
    if isinstance(value, bool | None):
        return str(value).lower()  # none is what --set takes, too
    if isinstance(value, int | float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{in_file_name(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return "+".join(in_file_name(part) for part in value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(value)).strip("-.") or "empty"


def check_name(name: str) -> str:
    """The name, if a folder can have it.

    Raises:
        ConfigError: if it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.=_+-]*", name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"cell {name!r}: a cell is a folder; name it with at most {LONGEST_NAME} letters, digits and . = _ + -"
        )
    return name

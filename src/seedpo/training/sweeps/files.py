"""What a sweep is: a base, a grid of keys, named cells; read from YAML and strict."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seedpo.errors import ConfigError
from seedpo.settings import merge, parse_override, plain_value, read_recipe, read_yaml

KEYS = ("base", "grid", "cells", "seeds", "controls")
"""Keys of a sweep file."""

EXAMPLE = "write for example `base: spo` and `grid: {gamma: [0, 1, 3], seed: [0, 1, 2]}`"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is varied around which base.

    Attributes:
        base: keys that all cells share, ``method`` among them.
        grid: values of each dotted key; every combination is a cell.
        named: cells with names of their own: changes by dotted key.
        seeds: every cell is trained with each of them; none: with the base's seed, or the grid's.
        controls: whether each cell with gamma other than 0 gets its temperature control besides: the base method at
            beta' = a.
        origin: where it was written, for errors.
    """

    base: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    controls: bool = False
    origin: str = "sweep"


def read_sweep(
    source: str, *, changes: Mapping[str, Any] | None = None, vary: Sequence[str] = (), controls: bool = False
) -> Sweep:
    """A sweep from a file, or from a method or recipe and what the command line varies.

    Args:
        source: a sweep file (YAML with ``base`` and ``grid`` or ``cells``), a recipe file, or the name of a method.
        changes: nested keys that all cells share; they win over the base.
        vary: ``key=value,value,...``; a key of the grid is replaced.
        controls: adds the temperature controls, whatever the file says.

    Raises:
        ConfigError: if something is not as it should be; the message names the file and the key.
    """
    sweep = _from_source(source)
    grid = {**sweep.grid, **dict(read_vary(one) for one in vary)}
    sweep = replace(sweep, base=merge(sweep.base, changes or {}), grid=grid, controls=controls or sweep.controls)
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
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigError(f"--vary {text!r} is not of the form key=value,value; write for example --vary gamma=0,1,3")
    inner = values.strip()
    try:
        _, read = parse_override(f"{key}={inner}" if inner.startswith("[") else f"{key}=[{inner}]")
    except ConfigError as error:
        raise ConfigError(
            f"--vary {text!r}: the values are not a list in YAML; write for example gamma=0,1,3"
        ) from error
    return key.strip(), _values(key.strip(), read, origin="--vary")


def _from_source(source: str) -> Sweep:
    if not source.endswith((".yaml", ".yml")):
        return Sweep(base={"method": source}, origin=source)
    path = Path(source)
    content = read_yaml(path, "sweep", hint=f"{EXAMPLE} into it")
    if not set(content) & {"grid", "cells", "seeds", "controls"}:
        return Sweep(base=read_recipe(path), origin=f"recipe {path}")
    for key in content:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"sweep {path}: unknown key {key!r}; {hint}the keys are {', '.join(KEYS)}; what all runs share stands "
                "under `base`"
            )
    controls = content.get("controls", False)
    if not isinstance(controls, bool):
        raise ConfigError(f"sweep {path}: controls = {controls!r} must be true or false")
    origin = f"sweep {path}"
    return Sweep(
        base=_base(content.get("base"), path),
        grid={str(key): _values(str(key), values, origin=origin) for key, values in _mapping(content, "grid", origin)},
        named={str(name): _changes(str(name), one, origin) for name, one in _mapping(content, "cells", origin)},
        seeds=_seeds(content.get("seeds"), origin),
        controls=controls,
        origin=origin,
    )


def _base(base: Any, path: Path) -> Mapping[str, Any]:
    if isinstance(base, Mapping):
        return dict(base)
    if isinstance(base, str) and base.endswith((".yaml", ".yml")):
        return read_recipe(path.parent / base)
    if isinstance(base, str):
        return {"method": base}
    raise ConfigError(f"sweep {path}: base = {base!r} must be a method, the file of a recipe beside this one, or keys")


def _mapping(content: Mapping[str, Any], key: str, origin: str) -> list[tuple[Any, Any]]:
    found = content.get(key) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(f"{origin}: {key} must hold keys and values, `{key}: {{gamma: ...}}`")
    return list(found.items())


def _values(key: str, values: Any, *, origin: str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{origin}: {key} must hold a list of at least one value, for example {key}: [0, 1]")
    read = [plain_value(value) for value in values]
    for index, value in enumerate(read):
        if any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in read[:index]):
            raise ConfigError(f"{origin}: {key} holds {value!r} twice; leave one out")
    return read


def _changes(name: str, changes: Any, origin: str) -> Mapping[str, Any]:
    if not isinstance(changes, Mapping):
        raise ConfigError(f"{origin}: cells.{name} must hold the keys that it changes, for example {{gamma: 1}}")
    return {str(key): plain_value(value) for key, value in changes.items()}


def _seeds(seeds: Any, origin: str) -> list[int]:
    """A list of seeds, or their number."""
    if seeds is None:
        return []
    found = list(range(seeds)) if isinstance(seeds, int) and not isinstance(seeds, bool) else seeds
    whole = isinstance(found, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in found)
    if not whole or not found or len(set(found)) < len(found):
        raise ConfigError(
            f"{origin}: seeds = {seeds!r} must be a number of seeds or a list of different ones: [0, 1, 2]"
        )
    return list(found)

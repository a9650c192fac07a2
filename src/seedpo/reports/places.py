"""What the folders named by a person hold: runs, preference models, evaluations, or folders of these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seedpo.errors import RunFolderError

EVALUATION = ("evaluation.yaml", "summary.json", "scores.parquet")
"""Files by which an evaluation folder is known; one of them is enough, so that half a folder is named as such."""


@dataclass(frozen=True, kw_only=True)
class FailedCell:
    """A cell of a sweep that did not finish.

    Attributes:
        sweep: the sweep's folder.
        name: the cell.
        reason: what the sweep wrote down of it.
    """

    sweep: str
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders by what they hold, each named once, in the order in which they were given."""

    runs: tuple[Path, ...]
    preference_models: tuple[Path, ...]
    evaluations: tuple[Path, ...]
    failed: tuple[FailedCell, ...]


def find_places(folders: Sequence[Path]) -> Places:
    """Sorts folders, and the subfolders of folders that are none themselves, by what they hold.

    Raises:
        RunFolderError: if none is named, or one holds nothing that a report can show.
    """
    if not folders:
        raise RunFolderError(
            "no run folder is named; name folders that `seedpo train`, `seedpo sweep` or `seedpo evaluate` wrote"
        )
    found: dict[str, dict[Path, Path]] = {"run": {}, "preference": {}, "evaluation": {}}
    failed: dict[tuple[str, str], FailedCell] = {}
    for folder in map(Path, folders):
        inner = [folder] if kind(folder) else _children(folder)
        cells = [] if kind(folder) else list(_failed_cells(folder))
        if not inner and not cells:
            empty = "holds neither config.yaml nor evaluation.yaml"
            what = empty if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise RunFolderError(
                f"{folder} is not a run folder, nor an evaluation, nor a folder of these: it {what}; "
                "name what was given to `--out` of `seedpo train`, `seedpo sweep` or `seedpo evaluate`"
            )
        for place in inner:
            found[str(kind(place))].setdefault(place.resolve(), place)
        failed |= {(cell.sweep, cell.name): cell for cell in cells}
    return Places(
        runs=tuple(found["run"].values()),
        preference_models=tuple(found["preference"].values()),
        evaluations=tuple(found["evaluation"].values()),
        failed=tuple(failed.values()),
    )


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.glob("*/") if kind(child)) if folder.is_dir() else []


def kind(folder: Path) -> str | None:
    """``run``, ``preference`` or ``evaluation``; nothing for any other folder."""
    config = folder / "config.yaml"
    if config.is_file():
        return "preference" if is_preference_model(config) else "run"
    return "evaluation" if any((folder / name).is_file() for name in EVALUATION) else None


def is_preference_model(config: Path) -> bool:
    """Whether a configuration is that of ``seedpo reward train``: it has a ``start`` and no ``beta``."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError):
        return False  # reading it as a run gives the error that says what is wrong
    return isinstance(content, dict) and "start" in content and "beta" not in content


def _failed_cells(folder: Path) -> Iterator[FailedCell]:
    """Cells that the records of a sweep and of its shards call failed and that did not finish since."""
    for path in sorted((*folder.glob("sweep.json"), *folder.glob("sweep-*.json"))):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        cells = content.get("cells", ()) if isinstance(content, dict) else ()
        for cell in cells if isinstance(cells, list) else ():
            if not isinstance(cell, Mapping) or cell.get("state") != "failed" or "name" not in cell:
                continue
            name = str(cell["name"])
            if not (folder / name / "finished.json").is_file():
                yield FailedCell(sweep=folder.resolve().name, name=name, reason=_reason(cell))


def _reason(cell: Mapping[str, Any]) -> str:
    log = f"its log is {cell['log']}" if cell.get("log") else "it was never started"
    return f"{cell['error']} ({log})" if cell.get("error") else "no reason was written down"

"""Everything that a report is about: runs, evaluations and preference models in the folders that a person names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.documents import read_yaml
from seedpo.errors import RunFolderError
from seedpo.pages.tables import Table
from seedpo.reports.evaluations import Evaluation, read_evaluation
from seedpo.reports.preference import PreferenceModel, read_preference_model
from seedpo.reports.runs import Run, read_mapping, read_runs

EVALUATION = ("evaluation.yaml", "summary.json", "scores.parquet")
"""Files by which an evaluation folder is known. One of them is enough, so that half a folder is named as such."""


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
class Contents:
    """What the folders hold.

    Attributes:
        runs: runs of ``seedpo train``, those of sweeps among them.
        evaluations: evaluations of ``seedpo evaluate``.
        preference_models: runs of ``seedpo reward train``.
        failed: cells of sweeps that did not finish.
    """

    runs: tuple[Run, ...]
    evaluations: tuple[Evaluation, ...] = ()
    preference_models: tuple[PreferenceModel, ...] = ()
    failed: tuple[FailedCell, ...] = ()


def read_contents(folders: Sequence[Path]) -> Contents:
    """Reads folders of any of these kinds, and folders of such folders.

    Raises:
        RunFolderError: if one holds nothing that a report can show, or what it holds cannot be read.
    """
    places, failed = find_places(folders)
    return Contents(
        runs=read_runs(places["run"]),
        evaluations=tuple(map(read_evaluation, places["evaluation"])),
        preference_models=tuple(map(read_preference_model, places["preference"])),
        failed=failed,
    )


def find_places(folders: Sequence[Path]) -> tuple[dict[str, list[Path]], tuple[FailedCell, ...]]:
    """Sorts folders by what they hold, each once; a folder that is nothing itself stands for its subfolders.

    Returns:
        the folders by their :func:`kind`, and the failed cells of sweeps.

    Raises:
        RunFolderError: if none is named, or one holds nothing that a report can show.
    """
    if not folders:
        raise RunFolderError(
            "no run folder is named; name folders that `seedpo train`, `seedpo sweep` or `seedpo evaluate` wrote"
        )
    places: dict[str, dict[Path, Path]] = {"run": {}, "preference": {}, "evaluation": {}}
    failed: dict[tuple[str, str], FailedCell] = {}
    for folder in map(Path, folders):
        own = kind(folder)
        inner = {folder: own} if own else {child: kind(child) for child in sorted(folder.glob("*/"))}
        inner = {place: what for place, what in inner.items() if what}
        cells = [] if own else list(_failed_cells(folder))
        if not inner and not cells:
            empty = "holds neither config.yaml nor evaluation.yaml"
            state = empty if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise RunFolderError(
                f"{folder} is not a run folder, an evaluation, or a folder of these: it {state}; "
                "name what was given to `--out` of `seedpo train`, `seedpo sweep` or `seedpo evaluate`"
            )
        for place, what in inner.items():
            places[what].setdefault(place.resolve(), place)
        failed |= {(cell.sweep, cell.name): cell for cell in cells}
    return {what: list(paths.values()) for what, paths in places.items()}, tuple(failed.values())


def kind(folder: Path) -> str | None:
    """``run``, ``preference`` or ``evaluation``; ``None`` for any other folder."""
    config = folder / "config.yaml"
    if config.is_file():
        return "preference" if is_preference_model(config) else "run"
    return "evaluation" if any((folder / name).is_file() for name in EVALUATION) else None


def is_preference_model(config: Path) -> bool:
    """Whether a configuration is that of ``seedpo reward train``: it has a ``start`` and no ``beta``."""
    try:
        content = read_yaml(config)
    except (ValueError, OSError):
        return False  # reading it as a run gives the error that says what is wrong
    return isinstance(content, dict) and "start" in content and "beta" not in content


def _failed_cells(folder: Path) -> Iterator[FailedCell]:
    """Cells that the records of a sweep and of its shards call failed and that did not finish since."""
    for path in sorted((*folder.glob("sweep.json"), *folder.glob("sweep-*.json"))):
        content, _ = read_mapping(path)
        cells = (content or {}).get("cells")
        for cell in cells if isinstance(cells, list) else ():
            if not isinstance(cell, Mapping) or cell.get("state") != "failed" or "name" not in cell:
                continue
            name = str(cell["name"])
            if not (folder / name / "finished.json").is_file():
                log = f"its log is {cell['log']}" if cell.get("log") else "it was never started"
                reason = f"{cell['error']} ({log})" if cell.get("error") else "no reason was written down"
                yield FailedCell(sweep=folder.resolve().name, name=name, reason=reason)


def failed_table(cells: Sequence[FailedCell]) -> Table | None:
    """The failed cells; ``None`` if there are none."""
    rows = [(cell.name, cell.sweep, cell.reason) for cell in cells]
    return Table.of(("cell", "sweep", "reason"), rows) if rows else None

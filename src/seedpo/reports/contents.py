"""Everything that a report is about, read from the folders that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.reports.evaluations import Evaluation, read_evaluation
from seedpo.reports.places import FailedCell, find_places
from seedpo.reports.preference import PreferenceModel, read_preference_model
from seedpo.reports.runs import Run, read_runs


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was found.

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
    places = find_places(folders)
    return Contents(
        runs=read_runs(places.runs) if places.runs else (),
        evaluations=tuple(read_evaluation(folder) for folder in places.evaluations),
        preference_models=tuple(read_preference_model(folder) for folder in places.preference_models),
        failed=places.failed,
    )

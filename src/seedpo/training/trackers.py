"""Trackers beside ``metrics.jsonl``: tensorboard, trackio and wandb, through accelerate's interface to them.

They mirror what is written anyway, so no tracker can end a run: one that fails during the run is dropped
with a warning.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import ConfigError, RunFolderError
from seedpo.files import write_text
from seedpo.settings import dotted
from seedpo.training.settings import TrainingConfig

logger = logging.getLogger(__name__)

IDENTITY_FILE = "trackers.json"
"""Holds in the run folder what a tracker calls the run, so that a resumed run continues there."""


def require_trackers(names: Sequence[str]) -> None:
    """Checks that the packages of trackers are installed, without importing them.

    Raises:
        ConfigError: naming the package and the command that installs it.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f"trackers: {name} is not installed; run `pip install {name}` (or `pip install 'seedpo[track]'` for "
                "all of them), or leave it out"
            )


@dataclass
class Trackers:
    """The open trackers of a run; there may be none."""

    _open: dict[str, GeneralTracker]

    @classmethod
    def open(cls, names: Sequence[str], *, project: str, folder: Path, config: TrainingConfig) -> Trackers:
        """Starts trackers, or continues those of a resumed run, and sends them the settings.

        Args:
            names: ``tensorboard``, ``trackio`` or ``wandb``.
            project: under which trackio and wandb show the run; it has the name of its folder there.
            folder: the run folder; tensorboard's files go into its ``tensorboard/``.
            config: the run's settings.

        Raises:
            ConfigError: if a package is not installed, or a tracker does not start (no account, no network).
        """
        require_trackers(names)
        trackers: dict[str, GeneralTracker] = {}
        for name in names:
            try:
                trackers[name] = _started(name, project=project, folder=folder, config=config)
            except Exception as error:  # whatever a foreign package raises
                raise ConfigError(
                    f"trackers: {name} does not start ({error!r}); fix that, or leave it out (metrics.jsonl is "
                    "written in any case)"
                ) from error
        return cls(trackers)

    def log(self, line: Mapping[str, Any]) -> None:
        """Shows the figures of one line of metrics as ``<kind>/<figure>``; those that are not finite are left out."""
        figures = {
            f"{line['kind']}/{name}": value
            for name, value in line.items()
            if name not in ("step", "kind") and value is not None
        }
        self._each(lambda tracker: tracker.log(figures, step=line["step"]))

    def close(self) -> None:
        """Ends all trackers."""
        self._each(lambda tracker: tracker.finish())
        self._open.clear()

    def _each(self, action: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                action(tracker)
            except Exception as error:  # whatever a foreign package raises
                del self._open[name]
                logger.warning("%s failed (%r) and is dropped; metrics.jsonl continues", name, error)


def _started(name: str, *, project: str, folder: Path, config: TrainingConfig) -> GeneralTracker:
    tracker = LOGGER_TYPE_TO_CLASS[name](*_arguments(name, project, folder), **_options(name, folder))
    tracker.start()
    # Every tracker takes plain values; lists and None become text.
    keys = dotted(config.model_dump(mode="json"))
    tracker.store_init_configuration(
        {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in keys.items()}
    )
    return tracker


def _arguments(name: str, project: str, folder: Path) -> tuple[str, ...]:
    """What accelerate calls the run's name (for trackio and wandb it is the project), and the folder of log files."""
    return ("tensorboard", str(folder)) if name == "tensorboard" else (project,)


def _options(name: str, folder: Path) -> dict[str, Any]:
    """What makes a resumed run continue where the tracker has it already."""
    called = folder.resolve().name
    if name == "wandb":
        return {"name": called, "id": _identity(folder), "resume": "allow", "dir": str(folder)}
    if name == "trackio":
        return {"name": f"{called}-{_identity(folder)}", "resume": "allow"}
    return {}


def _identity(folder: Path) -> str:
    """An id of this run that no other has, drawn once."""
    path = folder / IDENTITY_FILE
    if not path.exists():
        write_text(path, json.dumps({"id": uuid.uuid4().hex[:12]}) + "\n")
    try:
        return str(read_json(path)["id"])
    except UNREADABLE as error:
        raise RunFolderError(f"{path} cannot be read ({error!r}); remove it, then the tracker begins anew") from error

"""The folder of a run that is trained: making it, locking it, and whether it fits the settings."""

from __future__ import annotations

import fcntl
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from seedpo.documents import UNREADABLE, read_json
from seedpo.errors import RunFolderError
from seedpo.files import ASIDE, remove_folder, remove_leftovers, write_text, writing
from seedpo.run_folders import RunFolder
from seedpo.settings import changes_results, differences
from seedpo.training.environment import changed_packages, describe_environment
from seedpo.training.settings import TrainingConfig

logger = logging.getLogger(__name__)

LENGTH_KEYS = (
    "max_steps",
    "evaluate_every",
    "early_stopping.metric",
    "early_stopping.patience",
    "early_stopping.min_change",
)
"""Keys that may change when a run is resumed although they change its results: none of them changes a step."""

_LOCK = ".lock"
_BEGINNING = {_LOCK, "config.yaml", "environment.json", "metrics.jsonl", "alarms.jsonl", "samples", "checkpoints"}
_SAMPLE = re.compile(r"index\.json|(step|scores)-\d+\.\w+")

PLACE_KEYS = ("data", "prompts", "pairs.image_folder")
"""Keys that may change as well: fingerprints tell whether the data are the same, wherever they lie."""

BATCH_KEYS = ("batch_size", "gradient_accumulation_steps")
"""Keys that may change with the number of processes, so that the global batch can stay."""


def create_run_folder(path: Path | str, config: TrainingConfig) -> RunFolder:
    """Makes the folder of a new run.

    In a run of several processes only the first one may do this:
    ``on_main_process(accelerator, lambda: create_run_folder(path, config))``.

    Raises:
        RunFolderError: if there is something in it already, or it cannot be written.
    """
    folder = RunFolder(Path(path))
    if folder.path.exists() and not folder.path.is_dir():
        raise RunFolderError(f"{folder.path} is a file; choose another --out")
    if folder.path.is_dir() and any(path.name != _LOCK for path in folder.path.iterdir()):
        raise RunFolderError(f"{folder.path} is not empty; {_way_out(folder)}")
    with writing("a new run", folder.path, fix="choose an --out that can be written"):
        folder.samples.mkdir(parents=True, exist_ok=True)
        folder.checkpoints.mkdir(exist_ok=True)
        write_text(folder.environment, json.dumps(describe_environment(), indent=2) + "\n")
        write_config(folder, config)
    return folder


def is_beginning(folder: RunFolder) -> bool:
    """Whether a folder is absent, or holds nothing but what a run leaves that was killed before its first checkpoint.

    Anything else in it, be it one file, is somebody's and must stay.
    """
    if not folder.path.is_dir():
        return not folder.path.exists()

    def names(place: Path) -> set[str]:
        return {path.name for path in place.iterdir() if not path.name.endswith(ASIDE)} if place.is_dir() else set()

    return (
        names(folder.path) <= _BEGINNING
        and not names(folder.checkpoints)
        and all(_SAMPLE.fullmatch(name) for name in names(folder.samples))
    )


def clear_beginning(folder: RunFolder, config: TrainingConfig) -> None:
    """Removes what a run left that was killed before its first checkpoint; see :func:`is_beginning`.

    Raises:
        RunFolderError: if it had other settings, or another process trains into the folder.
    """
    if not folder.path.is_dir():
        return
    with locked(folder):
        if folder.config_file.is_file():
            require_same_settings(folder.read_config(type(config)), config, folder.path)
        remove_leftovers(folder.path)
        for place in (folder.samples, folder.checkpoints):
            if place.is_dir():
                remove_folder(place)
        for file in (folder.metrics, folder.alarms, folder.environment, folder.config_file):
            file.unlink(missing_ok=True)


def _way_out(folder: RunFolder) -> str:
    if folder.checkpoint_steps():
        return "continue with --resume latest, or choose another --out to start anew"
    return "it holds no checkpoint to resume; choose another --out or delete it"


def write_config(folder: RunFolder, config: TrainingConfig) -> None:
    """Writes the resolved configuration; after a crash the file is the old one or the new one."""
    with writing("the configuration", folder.path, fix="then start again"):
        write_text(folder.config_file, yaml.safe_dump(config.tree(), sort_keys=False))


def require_fresh(folder: RunFolder) -> None:
    """Checks that nothing was trained here yet.

    Raises:
        RunFolderError: if there are metrics or checkpoints.
    """
    if folder.metrics.exists() or folder.checkpoint_steps():
        raise RunFolderError(f"{folder.path} holds a run that was started before; {_way_out(folder)}")


def warn_of_new_versions(folder: RunFolder) -> None:
    """Logs a warning if packages changed since the start: the run may then not continue bit for bit."""
    try:
        changed = changed_packages(read_json(folder.environment), describe_environment())
    except UNREADABLE:
        return
    if changed:
        logger.warning("%s continues with other versions: %s", folder.path, ", ".join(changed))


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Inside, no other process can train into this folder; the lock ends with the process.

    Raises:
        RunFolderError: if another process trains into it.
    """
    with (folder.path / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunFolderError(
                f"another process is training into {folder.path}; wait for it, stop it, or choose another --out"
            ) from error
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def require_same_settings(
    before: TrainingConfig, now: TrainingConfig, where: Path, *, other_batches: bool = False
) -> None:
    """Checks that a configuration continues a run.

    Only :data:`LENGTH_KEYS`, :data:`PLACE_KEYS` and keys that change no result may differ.

    Args:
        before: that of the run.
        now: the configuration.
        where: what was made with the first, for messages.
        other_batches: whether :data:`BATCH_KEYS` may differ, too.

    Raises:
        RunFolderError: naming every key that differs, with both values.
    """
    # A schedule that ends at max_steps has another learning rate at every step if that changes.
    lengths = LENGTH_KEYS if now.optimizer.schedule == "constant" else LENGTH_KEYS[1:]
    free = (*lengths, *PLACE_KEYS, *(BATCH_KEYS if other_batches else ()))
    differing = [
        f"{key} ({old!r} -> {new!r})"
        for key, (old, new) in differences(before.tree(), now.tree()).items()
        if key not in free and changes_results(type(now), key)
    ]
    if differing:
        raise RunFolderError(
            f"{where} was made with other settings: {', '.join(differing)}; "
            "give them their first values, or choose another --out to start anew"
        )

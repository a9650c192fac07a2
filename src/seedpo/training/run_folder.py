"""The folder of one run: how it is made, who may write, and whether it fits the settings."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, overload

import yaml

from seedpo import run_folders
from seedpo.errors import RunFolderError
from seedpo.files import write_text, writing
from seedpo.settings import build_config, changes_results, differences, read_recipe
from seedpo.training.environment import changed_packages, describe_environment
from seedpo.training.settings import RunConfig, TrainingConfig

logger = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainingConfig)

LENGTH_KEYS = ("max_steps", "evaluate_every")
"""Keys that may change when a run is resumed although they change its results: none of them changes a step."""


@dataclass(frozen=True)
class RunFolder(run_folders.RunFolder):
    """The folder of a run that is trained, made by :meth:`create` or found by :meth:`open`."""

    @classmethod
    def create(cls, path: Path | str, config: TrainingConfig) -> RunFolder:
        """Makes the folder of a new run.

        In a run of several processes only the first one may do this:
        ``on_main_process(accelerator, lambda: RunFolder.create(path, config))``.

        Raises:
            RunFolderError: if there is something in it already, or it cannot be written.
        """
        folder = cls(Path(path))
        if folder.path.exists() and not folder.path.is_dir():
            raise RunFolderError(f"{folder.path} is a file; choose another --out")
        if folder.path.is_dir() and any(folder.path.iterdir()):
            raise RunFolderError(f"{folder.path} is not empty; {folder._mend()}")
        with writing("a new run", folder.path, fix="choose an --out that can be written"):
            folder.samples.mkdir(parents=True, exist_ok=True)
            folder.checkpoints.mkdir(exist_ok=True)
            environment = json.dumps(describe_environment(), indent=2) + "\n"
            write_text(folder.environment, environment)
            folder.write_config(config)
        return folder

    def weights(self, config: TrainingConfig) -> Path:
        """Where the trained weights lie at the end of the run."""
        return self.path / config.weights_folder

    def _mend(self) -> str:
        if any(self.checkpoints.glob("checkpoint-*")):
            return "continue with --resume latest, or choose another --out to start anew"
        return "it holds no checkpoint to resume; choose another --out or delete it"

    @overload
    def read_config(self) -> RunConfig: ...

    @overload
    def read_config(self, kind: type[Config]) -> Config: ...

    def read_config(self, kind: type[TrainingConfig] = RunConfig) -> TrainingConfig:
        """The configuration that the run was started with.

        Args:
            kind: what was trained.

        Raises:
            ConfigError: if the file is not a valid configuration.
        """
        return build_config(kind, read_recipe(self.config_file))

    def write_config(self, config: TrainingConfig) -> None:
        """Writes the resolved configuration; after a crash the file is the old one or the new one."""
        with writing("the configuration", self.path, fix="then start again"):
            write_text(self.config_file, yaml.safe_dump(config.tree(), sort_keys=False))

    def require_fresh(self) -> None:
        """Checks that nothing was trained here yet.

        Raises:
            RunFolderError: if there are metrics or checkpoints.
        """
        if self.metrics.exists() or any(self.checkpoints.glob("checkpoint-*")):
            raise RunFolderError(f"{self.path} holds a run that was started before; {self._mend()}")

    def warn_of_new_versions(self) -> None:
        """Logs a warning if packages changed since the start: the run may then not continue bit for bit."""
        try:
            before = json.loads(self.environment.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        changed = changed_packages(before, describe_environment())
        if changed:
            logger.warning("%s continues with other versions: %s", self.path, ", ".join(changed))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process can train into this folder; the lock ends with the process.

        Raises:
            RunFolderError: if another process trains into it.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(
                    f"another process is training into {self.path}; wait for it, stop it, or choose another --out"
                ) from error
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)


def require_same_settings(before: TrainingConfig, now: TrainingConfig, where: Path) -> None:
    """Checks that a configuration continues a run.

    Only :data:`LENGTH_KEYS` and keys that change no result may differ.

    Raises:
        RunFolderError: naming every key that differs, with both values.
    """
    # A schedule that ends at max_steps has another learning rate at every step if that changes.
    free = LENGTH_KEYS if now.optimizer.schedule == "constant" else LENGTH_KEYS[1:]
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

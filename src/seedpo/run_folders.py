"""The folder of a run: what lies where, and how it is read. Needs neither torch nor any room's settings.

A checkpoint is a folder with::

    policy/             the trained weights, in diffusers' format
    average/            their moving average in the same format, with `ema_decay`
    reference/          those of the reference in the same format, where it moves
    optimizer.*         the optimiser's state by parameter name (and the gradient scaler's)
    rank-<i>.*          random states and the source's state of process i
    checkpoint.json     the manifest: position, configuration, SHA-256 of every file above
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from seedpo.documents import UNREADABLE, parse_json, read_json
from seedpo.errors import ConfigError, RunFolderError
from seedpo.files import read_bytes, sha256
from seedpo.settings import Settings, build_config, read_yaml

MANIFEST = "checkpoint.json"

WEIGHTS = "policy"
"""Folder of a checkpoint that holds the policy's weights."""

AVERAGE = "average"
"""Folder of a checkpoint that holds the moving average of those weights, if the run keeps one."""

REFERENCE = "reference"
"""Folder of a checkpoint that holds the weights of the reference, if it moves."""

_CHECKPOINT = re.compile(r"checkpoint-(\d{6,})")


@dataclass(frozen=True, kw_only=True)
class BestStep:
    """The evaluation whose weights a run keeps.

    Attributes:
        step: of the evaluation.
        figure: by which it is the best.
        value: of the figure.
    """

    step: int
    figure: str
    value: float


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run that was started before.

    Attributes:
        path: the folder. It holds ``config.yaml``, ``environment.json``, ``metrics.jsonl``, ``samples/``,
            ``checkpoints/``, at the end ``adapter/`` or ``network/``, and last of all ``finished.json``.
    """

    path: Path

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Finds the folder of a run that was started before.

        Raises:
            RunFolderError: if there is no run in it.
        """
        folder = cls(Path(path))
        if not folder.config_file.is_file():
            raise RunFolderError(f"{folder.path} is not a run folder (it holds no config.yaml); check the path")
        return folder

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        """Versions and machine at the start of the run."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per line: training steps and evaluations."""
        return self.path / "metrics.jsonl"

    @property
    def alarms(self) -> Path:
        """One JSON object per line: the alarms that were raised; absent while there are none."""
        return self.path / "alarms.jsonl"

    @property
    def best(self) -> Path:
        """Weights of the best evaluation, with the key ``keep_best`` or an alarm's action of this name."""
        return self.path / "best"

    @property
    def initial_lora(self) -> Path:
        """A copy of the LoRA that the run continues, if it does: its reference is the model with it."""
        return self.path / "initial_lora"

    @property
    def samples(self) -> Path:
        """What the evaluator writes."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """One folder ``checkpoint-<step>`` each."""
        return self.path / "checkpoints"

    @property
    def finished(self) -> Path:
        """Written when everything else is complete."""
        return self.path / "finished.json"

    def finished_step(self) -> int | None:
        """The step at which the run finished; ``None`` if it did not."""
        if not self.finished.is_file():
            return None
        try:
            return int(self._finished_record()["step"])
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def best_of_finished(self) -> BestStep | None:
        """The evaluation whose weights a finished run left as its result; ``None``: those of the last step."""
        if not self.finished.is_file():
            return None
        try:
            best = self._finished_record().get("best")
            return None if best is None else BestStep(**best)
        except UNREADABLE as error:
            raise self._damaged(error) from error

    def _finished_record(self) -> dict[str, Any]:
        record = read_json(self.finished)
        if not isinstance(record, dict):
            raise ValueError("it is not a JSON object")
        return record

    def _damaged(self, error: Exception) -> RunFolderError:
        return RunFolderError(f"{self.finished} cannot be read ({error!r}); remove it and continue the run")

    def read_config(self, kind: type[Settings]) -> Settings:
        """All settings that the run was started with.

        Raises:
            ConfigError: if the file is not valid, or has other keys than ``kind``.
        """
        return build_config(kind, self._config_tree())

    def _config_tree(self) -> dict[str, Any]:
        return read_yaml(self.config_file, "configuration", hint="is the folder that of a run?")

    def settings(self, kind: type[Settings], section: str | None = None) -> Settings:
        """Some of the settings that the run was started with.

        Args:
            kind: the keys to read; all others are left alone.
            section: the section that holds them; ``None`` if they stand at the top.

        Raises:
            ConfigError: if the file or one of these keys is not valid.
        """
        tree = self._config_tree()
        keys = tree if section is None else tree.get(section) or {}
        if not isinstance(keys, dict):
            raise ConfigError(f"{self.config_file}: {section} must hold keys and values")
        return build_config(kind, {key: value for key, value in keys.items() if key in kind.model_fields})

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.checkpoints / f"checkpoint-{step:06d}"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        matches = (_CHECKPOINT.fullmatch(path.name) for path in self.checkpoints.glob("checkpoint-*"))
        return sorted(int(match[1]) for match in matches if match)

    def trained_weights(self, inside: str, *, step: int | None = None) -> Path:
        """The folder of trained weights, in diffusers' format: their moving average, if the run keeps one.

        Args:
            inside: name of the folder that a finished run leaves.
            step: a checkpoint's step; ``None`` for the end of the run.

        Raises:
            RunFolderError: if the run did not finish, or the checkpoint is missing or damaged.
        """
        steps = self.checkpoint_steps()
        there = f"there are checkpoints of: {', '.join(map(str, steps))}" if steps else "there is no checkpoint"
        if step is None:
            weights = self.path / inside
            if not weights.is_dir():
                raise RunFolderError(
                    f"{self.path} holds no trained weights, since the run did not finish; continue it with --resume "
                    f"latest, or name the step of a checkpoint ({there})"
                )
            return weights
        if step not in steps:
            raise RunFolderError(f"{self.path} has no checkpoint of step {step}; {there}")
        read_manifest(self.checkpoint(step))
        average = self.checkpoint(step) / AVERAGE
        return average if average.is_dir() else self.checkpoint(step) / WEIGHTS


class DamagedCheckpoint(RunFolderError):
    """A checkpoint with a file that is missing or is not what was written."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says of itself.

    Attributes:
        step: optimiser steps taken.
        pairs_seen: pairs trained on, over all processes.
        seconds: wall time spent on the run.
        processes: processes of the run; each has its own state.
        config: the resolved configuration, from which the run can be rebuilt.
        files: SHA-256 of each file, by its path within the checkpoint.
        reference: SHA-256 of the weights that the run started from.
        inputs: fingerprints of the data that the run reads, by the configuration key that names them.
    """

    step: int
    pairs_seen: int
    seconds: float
    processes: int
    config: dict[str, Any]
    files: dict[str, str]
    reference: str
    inputs: dict[str, dict[str, int | str]]


def manifest_digest(content: dict[str, Any]) -> str:
    """SHA-256 of a manifest's content, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Reads a checkpoint's manifest and compares every file with it.

    Raises:
        DamagedCheckpoint: naming the first file that is missing or differs.
    """
    path = folder / MANIFEST
    try:
        document = read_json(path)
        content = document["manifest"]
        if document["sha256"] != manifest_digest(content):
            raise ValueError("its content does not have its SHA-256")
        manifest = Manifest(**content)
    except UNREADABLE as error:
        raise DamagedCheckpoint(f"{path} is damaged ({error})") from error
    for name, expected in manifest.files.items():
        try:
            digest = sha256(folder / name)
        except OSError as error:
            raise DamagedCheckpoint(f"{folder / name} cannot be read ({error})") from error
        if digest != expected:
            raise DamagedCheckpoint(f"{folder / name} is damaged (its SHA-256 is not the one in {MANIFEST})")
    return manifest


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics file; a last line that a killed process left half-written is skipped.

    Raises:
        RunFolderError: naming the line, if another one cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = read_bytes(path, text=True).splitlines(keepends=True)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror}); restore it") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = parse_json(line)
            if not line.endswith(b"\n") or not isinstance(record["step"], int):
                raise ValueError("half-written")
        except (ValueError, TypeError, KeyError) as error:
            if number == len(lines):
                break
            raise RunFolderError(f"line {number} of {path} is not a metrics line; remove it") from error
        records.append(record)
    return records

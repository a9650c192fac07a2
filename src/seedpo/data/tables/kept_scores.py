"""Scores of batches of images, kept in a file while a long command works, so that it goes on if it was killed.

The file is JSON lines: first what the scores depend on, then a line for each batch. A line that a killed process wrote
in part, and whatever follows it, is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seedpo.documents import parse_json
from seedpo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KeptBatch:
    """Scores of some successive images.

    Attributes:
        version: of the reward.
        scores: one for each, float32; NaN for an image that could not be read.
        skipped: names of images that could not be read, and why.
    """

    version: str
    scores: Sequence[float]
    skipped: Mapping[str, str] = field(default_factory=dict)


class KeptScores:
    """The batches that are finished, by the reward and by the number of their first image.

    Args:
        path: of the file, which is written with the first batch.
        depends_on: what the scores depend on, as JSON values.
        overwrite: whether scores that depend on something else may be thrown away.

    Raises:
        ConfigError: if the file holds scores that depend on something else.
        OSError: if it cannot be read or written.
    """

    def __init__(self, path: Path, depends_on: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        self.batches: dict[tuple[str, int], KeptBatch] = {}
        self._head: Mapping[str, Any] | None = depends_on
        """What is written before the first batch; `None` once it is there."""
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        found = (_line(lines[0]) or {}) if lines else {}
        if lines and found == depends_on:
            self._head = None
            sound = len(lines[0]) + self._read(lines[1:])
            with path.open("r+b") as file:
                file.truncate(sound)
        elif lines and not overwrite:
            differs = [key for key in {**depends_on, **found} if found.get(key) != depends_on.get(key)]
            raise ConfigError(
                f"{path} holds the scores of an unfinished command with other {', '.join(differs)}; repeat that "
                "command, or give --overwrite to begin anew"
            )

    def add(self, reward: str, start: int, batch: KeptBatch) -> None:
        """Keeps a batch.

        Args:
            reward: its name.
            start: number of the first image.
            batch: the scores.
        """
        if self._head is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._head, mode="w")
            self._head = None
        self.batches[reward, start] = batch
        scores = [None if math.isnan(score) else score for score in batch.scores]
        row = {"reward": reward, "version": batch.version, "start": start, "scores": scores}
        self._write({**row, "skipped": dict(batch.skipped)})

    def remove(self) -> None:
        """Removes the file, once the command is finished."""
        self.path.unlink(missing_ok=True)

    def _write(self, values: Mapping[str, Any], *, mode: Literal["a", "w"] = "a") -> None:
        with self.path.open(mode, encoding="utf-8", newline="") as file:
            file.write(json.dumps(values) + "\n")

    def _read(self, lines: Sequence[bytes]) -> int:
        """Takes over the batches of some lines up to the first damaged one; returns the bytes of the sound ones."""
        sound = 0
        for line in lines:
            try:
                values = _line(line) or {}
                scores = [math.nan if score is None else float(score) for score in values["scores"]]
                batch = KeptBatch(version=str(values["version"]), scores=scores, skipped=dict(values["skipped"]))
                self.batches[str(values["reward"]), int(values["start"])] = batch
            except (LookupError, TypeError, ValueError):
                break
            sound += len(line)
        return sound


def _line(line: bytes) -> dict[str, Any] | None:
    """What a line says; `None` if it is no whole line of JSON with an object."""
    try:
        values = parse_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return values if isinstance(values, dict) else None

"""The folder of an evaluation: which file lies where, and whether it fits the settings of a command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from seedpo.documents import read_yaml
from seedpo.errors import ConfigError, RunFolderError
from seedpo.evaluation.tables import FIX, Place, Table, image_file, read_table
from seedpo.files import write_aside, write_text, writing
from seedpo.settings import differences

FREE_KEYS = ("prompts", "target")
"""Settings that say how something was named. They may change: their content is compared."""

FORMAT = 1
"""Number of the folder's format."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of an evaluation.

    Attributes:
        settings: what all images depend on, and so cannot change in a folder.
        targets: what the images of each label depend on.
        rewards: how each reward is computed.
    """

    settings: Mapping[str, Any]
    targets: Mapping[str, Mapping[str, Any]]
    rewards: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class EvaluationFolder:
    """Where an evaluation keeps its files.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """What the evaluation was made with."""
        return self.path / "evaluation.yaml"

    @property
    def prompts(self) -> Path:
        """One JSON object per line: ``prompt_index`` and ``prompt``."""
        return self.path / "prompts.jsonl"

    def scores(self, prompts: Sequence[str], images: int) -> Table:
        """The scores so far: one row for each image, a column for each reward.

        Raises:
            RunFolderError: if the file cannot be read.
        """
        return read_table(self.path / "scores.parquet", prompts, images=images)

    def metrics(self, prompts: Sequence[str]) -> Table:
        """The metrics so far: one row for each target, step and prompt, a column for each metric.

        Raises:
            RunFolderError: if the file cannot be read.
        """
        return read_table(self.path / "metrics.parquet", prompts, images=None)

    def image(self, place: Place, prompt: int, image: int) -> Path:
        """File of one image."""
        return self.path / image_file(place, prompt, image)

    def save_image(self, image: Image.Image, place: Place, prompt: int, number: int) -> None:
        """Writes one image.

        Raises:
            RunFolderError: if it cannot be written.
        """
        path = self.image(place, prompt, number)
        with writing(f"image {path.name}", path.parent, fix=FIX):
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path, durable=False) as aside:
                image.save(aside, format="PNG")

    def begin(self, plan: Plan, prompts: Sequence[str]) -> None:
        """Writes settings and prompts, or checks that existing ones are the same.

        New targets and rewards are added to the settings.

        Raises:
            RunFolderError: if settings differ (the message names them), or nothing can be written.
        """
        before = self._before()
        if before is not None:
            self._require_same(before, plan)
        parts = before or {"settings": {}, "targets": {}, "rewards": {}}
        content = {
            "format": FORMAT,
            "settings": dict(plan.settings),
            "targets": {**parts["targets"], **plan.targets},
            "rewards": {**(parts.get("rewards") or {}), **plan.rewards},
        }
        lines = [
            json.dumps({"prompt_index": row, "prompt": prompt}, ensure_ascii=False)
            for row, prompt in enumerate(prompts)
        ]
        with writing("an evaluation", self.path, fix="choose an --out that can be written"):
            self.path.mkdir(parents=True, exist_ok=True)
            if content != before:
                write_text(self.prompts, "".join(f"{line}\n" for line in lines))
                write_text(self.settings, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))

    def _before(self) -> dict[str, Any] | None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"--out {self.path} is a file; choose another --out")
        if not self.settings.is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise ConfigError(f"--out {self.path} is not empty and holds no evaluation; choose another --out")
            return None
        try:
            content = read_yaml(self.settings)
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.settings} cannot be read ({error}); choose another --out") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RunFolderError(f"{self.settings} is not of the format that this version writes; choose another --out")
        return content

    def _require_same(self, before: Mapping[str, Any], plan: Plan) -> None:
        """Targets and rewards that only one of the two has are not compared."""
        changes = differences(before["settings"], plan.settings)
        for kind in ("targets", "rewards"):
            old, new = before.get(kind) or {}, getattr(plan, kind)
            for name in old.keys() & new.keys():
                changes |= {f"{kind}.{name}.{key}": both for key, both in differences(old[name], new[name]).items()}
        changed = [
            f"{key} ({old!r} -> {new!r})" for key, (old, new) in changes.items() if key.split(".")[-1] not in FREE_KEYS
        ]
        if changed:
            raise RunFolderError(
                f"{self.path} was made with other settings: {', '.join(changed)}; give them their first values, give "
                "the target another name, or choose another --out"
            )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The images of an evaluation: K of each of P prompts, for every target and training step.

    Attributes:
        folder: where they are.
        places: targets and steps.
        prompts: P prompts.
        images: K.
    """

    folder: EvaluationFolder
    places: Sequence[Place]
    prompts: Sequence[str]
    images: int

    def files(self, place: Place) -> list[Path]:
        """The P K images of a place, prompt by prompt."""
        numbers = [(prompt, image) for prompt in range(len(self.prompts)) for image in range(self.images)]
        return [self.folder.image(place, prompt, image) for prompt, image in numbers]

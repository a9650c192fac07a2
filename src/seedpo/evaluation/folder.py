"""The folder of an evaluation: what lies where, and whether it fits what is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seedpo.errors import ConfigError, RunFolderError
from seedpo.files import write_text, writing

NAMES = ("prompts", "target")
"""Keys that say how something was named, and may change: what it holds is compared."""

FORMAT = 1
"""Number of the folder's format."""

MEND = "then run the same command again: what is finished is kept"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked of an evaluation.

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

    @property
    def scores(self) -> Path:
        """One row for each image, a column for each reward."""
        return self.path / "scores.parquet"

    @property
    def metrics(self) -> Path:
        """One row for each target and prompt, a column for each metric."""
        return self.path / "metrics.parquet"

    def image(self, label: str, prompt: int, image: int, *, step: int | None = None) -> Path:
        """File of one image; those of a training step lie in a folder of their own."""
        folder = self.path / "images" / label
        return (folder if step is None else folder / f"step-{step:06d}") / f"{prompt:05d}-{image:02d}.png"

    def begin(self, plan: Plan, prompts: Sequence[str]) -> None:
        """Writes settings and prompts, or sees that those which are there are the same.

        New targets and rewards are added to the settings.

        Raises:
            RunFolderError: if settings differ (the message names them), or nothing can be written.
        """
        before = self._before()
        if before is None:
            plan_before = Plan(settings={}, targets={}, rewards={})
        else:
            plan_before = Plan(
                settings=before["settings"], targets=before["targets"], rewards=before.get("rewards") or {}
            )
            self._require_same(plan_before, plan)
        content = {
            "format": FORMAT,
            "settings": dict(plan.settings),
            "targets": {**plan_before.targets, **plan.targets},
            "rewards": {**plan_before.rewards, **plan.rewards},
        }
        lines = [
            json.dumps({"prompt_index": row, "prompt": prompt}, ensure_ascii=False)
            for row, prompt in enumerate(prompts)
        ]
        with writing("an evaluation", self.path, mend="choose an --out that can be written"):
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
            content = yaml.safe_load(self.settings.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RunFolderError(f"{self.settings} cannot be read ({error}); choose another --out") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise RunFolderError(f"{self.settings} is not of the format that this version writes; choose another --out")
        return content

    def _require_same(self, before: Plan, now: Plan) -> None:
        differing = _differences(before.settings, now.settings)
        for kind in ("targets", "rewards"):
            old, new = getattr(before, kind), getattr(now, kind)
            for name in new:
                if name in old:
                    differing += _differences(old[name], new[name], prefix=f"{kind}.{name}.")
        if differing:
            raise RunFolderError(
                f"{self.path} was made with other settings: {', '.join(differing)}; give them their first values, give "
                "the target another name, or choose another --out"
            )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = [key for key in dict.fromkeys([*old, *new]) if key not in NAMES]
    return [f"{prefix}{key} ({old.get(key)!r} -> {new.get(key)!r})" for key in keys if old.get(key) != new.get(key)]

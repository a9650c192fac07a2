"""Tiny studies on disk, and stores whose time a test sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seedpo.study.folder import Study, create_study
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question, StudySettings

QUESTIONS = (
    Question(key="preference", text="Which image is better?"),
    Question(key="diversity", text="Which set is more diverse?", shows="set", choices=("left", "right", "tie")),
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_(self, **span: float) -> None:
        self.time += timedelta(**span)


def picture(number: int, *, size: int = 8) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels, "RGB")


def pairs_of(count: int, *, candidates: int = 2, **values: Any) -> list[Group]:
    """Groups p0, p1, ..., whose images are called by numbers."""
    return [
        Group(
            id=f"p{index}",
            question="preference",
            prompt=f"prompt {index}, “ünïcode”",
            candidates=tuple(
                Candidate(source="ab"[number % 2], images=(str(index * candidates + number),))
                for number in range(candidates)
            ),
            **values,
        )
        for index in range(count)
    ]


def small_study(folder: Path, groups: list[Group] | None = None, **settings: Any) -> Study:
    """A study of two pairs unless other groups are given."""
    groups = pairs_of(2) if groups is None else groups
    names = sorted({name for group in groups for candidate in group.candidates for name in candidate.images})
    images: Mapping[str, Image.Image] = {name: picture(int(name)) for name in names}
    return create_study(folder, StudySettings(**{"id": "small", "questions": QUESTIONS, **settings}), groups, images)

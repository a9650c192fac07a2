"""Prompt sets that are published on the hub: from there, or from files of the same layout that the user has.

=====================  =============================  ===========================================
name                   repository (data set)          files
=====================  =============================  ===========================================
pickapic-validation    yuvalkirstain/pickapic_v1      data/validation_unique-*.parquet, `caption`
parti                  nateraw/parti-prompts          PartiPrompts.tsv, `Prompt`
hpsv2                  zhwang/HPDv2                   benchmark/{anime,concept-art,paintings,photo}.json
study-300              the last two                   100 of the one, 200 of the other
=====================  =============================  ===========================================
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from seedpo.data.prompts.reading import read_prompts
from seedpo.errors import DataError
from seedpo.files import exists

STUDY_PARTI, STUDY_HPSV2 = 100, 200
"""Prompts of each set in ``study-300``: the paper's user study takes 300, PartiPrompts : HPSv2 = 1 : 2."""

_FETCH = "if it is the published file, fetch it again"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published prompt set; called, it gives its prompts.

    Attributes:
        name: as users write it.
        repository: of the data set on the hub.
        patterns: its files there; locally they may lie in the folder itself.
    """

    name: str
    repository: str
    patterns: Sequence[str]

    def __call__(self, place: str | None = None) -> list[str]:
        """The prompts in the order of the files.

        Args:
            place: a file, or a folder with the files, in the folders of the repository or all in one; `None`: the hub.

        Raises:
            DataError: if a file is missing or cannot be read, or the hub cannot be reached.
        """
        prompts = [prompt for path in _files(self, place) for prompt in _prompts(path)]
        if not prompts:
            raise DataError(f"prompt set {self.name}: {place or self.repository} holds no prompt")
        return prompts


def _prompts(path: Path) -> list[str]:
    """The prompts of a file; empty ones, if a publisher left any, are left out."""
    try:
        return [prompt.text for prompt in read_prompts(path, empty=True) if prompt.text]
    except DataError as error:
        raise DataError(f"{error}; {_FETCH}") from error


PICKAPIC = Published(
    name="pickapic-validation",
    repository="yuvalkirstain/pickapic_v1",
    patterns=("data/validation_unique-*.parquet",),
)
"""The 500 prompts of Pick-a-Pic v1's split ``validation_unique`` (arXiv 2305.01569)."""

PARTI = Published(
    name="parti",
    repository="nateraw/parti-prompts",
    patterns=("PartiPrompts.tsv",),
)
"""PartiPrompts (arXiv 2206.10789)."""

HPSV2 = Published(
    name="hpsv2",
    repository="zhwang/HPDv2",
    patterns=tuple(f"benchmark/{style}.json" for style in ("anime", "concept-art", "paintings", "photo")),
)
"""The benchmark prompts of HPSv2 (arXiv 2306.09341): four styles, one after another."""


def study_300(place: str | None = None, *, seed: int = 0) -> list[str]:
    """100 PartiPrompts and 200 prompts of HPSv2, drawn without replacement and shuffled together.

    Args:
        place: a folder that holds the files of both sets; `None`: the hub.
        seed: of the draw.

    Raises:
        DataError: as for each set, or if one has too few prompts.
    """
    generator = random.Random(seed)
    drawn: list[str] = []
    for published, count in ((PARTI, STUDY_PARTI), (HPSV2, STUDY_HPSV2)):
        prompts = [prompt for prompt in dict.fromkeys(published(place)) if prompt not in drawn]
        if len(prompts) < count:
            raise DataError(
                f"study-300 needs {count} different prompts of {published.name}; {place or published.repository} has "
                f"{len(prompts)}"
            )
        drawn += generator.sample(prompts, count)
    generator.shuffle(drawn)
    return drawn


def _files(published: Published, place: str | None) -> list[Path]:
    if place is not None and exists(place) and Path(place).is_file():
        return [Path(place)]
    folder = _downloaded(published) if place is None else Path(place)
    paths: list[Path] = []
    for pattern in published.patterns:
        patterns = (pattern, pattern.rpartition("/")[2]) if exists(folder) else ()
        files = next((files for name in patterns if (files := sorted(folder.glob(name)))), [])
        if not files:
            raise DataError(
                f"prompt set {published.name}: {folder} holds no {pattern}; name a folder with the files of the data "
                f"set {published.repository}, or leave the place out to fetch them"
            )
        paths += files
    return paths


def _downloaded(published: Published) -> Path:
    try:
        folder = snapshot_download(published.repository, repo_type="dataset", allow_patterns=list(published.patterns))
    except Exception as error:  # no network, offline mode, no right to read it, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"prompt set {published.name} cannot be fetched from the data set {published.repository} ({reason}); fetch "
            f"its files elsewhere and write {published.name}@FOLDER, or give a file of your own prompts"
        ) from error
    return Path(folder)

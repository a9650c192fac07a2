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

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import snapshot_download

from seedpo.data.text import read_text
from seedpo.errors import DataError

STUDY_PARTI, STUDY_HPSV2 = 100, 200
"""Prompts of each set in ``study-300``: the paper's user study takes 300, PartiPrompts : HPSv2 = 1 : 2."""

_FETCH = "fetch it again"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published prompt set; called, it gives its prompts.

    Attributes:
        name: as users write it.
        repository: of the data set on the hub.
        patterns: its files there; locally they may lie in the folder itself.
        read: prompts of one file.
    """

    name: str
    repository: str
    patterns: Sequence[str]
    read: Callable[[Path], list[str]]

    def __call__(self, place: str | None = None) -> list[str]:
        """The prompts in the order of the files.

        Args:
            place: a file, or a folder with the files, in the folders of the repository or all in one; `None`: the hub.

        Raises:
            DataError: if a file is missing or cannot be read, or the hub cannot be reached.
        """
        prompts = [prompt for path in _files(self, place) for prompt in self.read(path)]
        if not prompts:
            raise DataError(f"prompt set {self.name}: {place or self.repository} holds no prompt")
        return prompts


def _captions(path: Path) -> list[str]:
    try:
        return _texts(pq.read_table(path, columns=["caption"])["caption"].to_pylist(), path)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read as parquet with a column caption ({error}); {_FETCH}") from error


def _parti(path: Path) -> list[str]:
    rows = list(csv.DictReader(read_text(path).splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or "Prompt" not in rows[0]:
        raise DataError(f"{path} is not a table with tabs and a column Prompt; {_FETCH}")
    return _texts([row["Prompt"] for row in rows], path)


def _list_of_texts(path: Path) -> list[str]:
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); {_FETCH}") from error
    if not isinstance(content, list):
        raise DataError(f"{path} is not a JSON list of prompts; {_FETCH}")
    return _texts(content, path)


def _texts(values: Sequence[object], path: Path) -> list[str]:
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{path} row {row}: the prompt is not text but {type(value).__name__}; fix it")
    return [value.strip() for value in values if isinstance(value, str) and value.strip()]


PICKAPIC = Published(
    name="pickapic-validation",
    repository="yuvalkirstain/pickapic_v1",
    patterns=("data/validation_unique-*.parquet",),
    read=_captions,
)
"""The 500 prompts of Pick-a-Pic v1's split ``validation_unique`` (arXiv 2305.01569)."""

PARTI = Published(
    name="parti",
    repository="nateraw/parti-prompts",
    patterns=("PartiPrompts.tsv",),
    read=_parti,
)
"""PartiPrompts (arXiv 2206.10789)."""

HPSV2 = Published(
    name="hpsv2",
    repository="zhwang/HPDv2",
    patterns=tuple(f"benchmark/{style}.json" for style in ("anime", "concept-art", "paintings", "photo")),
    read=_list_of_texts,
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
    if place is not None and Path(place).is_file():
        return [Path(place)]
    folder = _downloaded(published) if place is None else Path(place)
    paths: list[Path] = []
    for pattern in published.patterns:
        files = sorted(folder.glob(pattern)) or sorted(folder.glob(pattern.rpartition("/")[2]))
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

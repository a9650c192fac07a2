"""Prompt sets that others published: from the hub, or from files of the same layout that the user has.

=====================  =============================  ===========================================================
name                   published in                   files
=====================  =============================  ===========================================================
pickapic-validation    yuvalkirstain/pickapic_v1      data/validation_unique-*.parquet, `caption`
parti                  nateraw/parti-prompts          PartiPrompts.tsv, `Prompt`, `Category`
hpsv2                  zhwang/HPDv2                   benchmark/{anime,concept-art,paintings,photo}.json
hpdv3                  MizzenAI/HPDv3                 benchmark/benchmark_CATEGORY.json, `caption`
study-300              parti and hpsv2                100 of the one, 200 of the other
geneval2               GitHub facebookresearch/       geneval2_data.jsonl, `prompt`, `atom_count`, `vqa_list`,
                       GenEval2                       `skills`
dpg                    GitHub TencentQQGYLab/ELLA     dpg_bench/dpg_bench.csv, `item_id`, `text`,
                                                      `proposition_id`, `dependency`, `question_natural_language`
ocr-training,          GitHub yifan123/flow_grpo      dataset/ocr/{train,test}.txt, a prompt on each line, the text
ocr-test                                              to be drawn in double quotes
=====================  =============================  ===========================================================
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import snapshot_download

from seedpo.data.prompts.reading import PromptRecord, read_prompts
from seedpo.data.text import shown
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
        repository: of the data set on the hub, or on GitHub.
        files: its files there, as patterns, in their order; locally they may lie in the folder itself. The value is
            the category of the prompts in them; empty: what each record says.
        on_hub: whether the repository is one of the hub, from which the files are fetched.
        quotes: whether each prompt holds the text that is to be drawn, in double quotes.
    """

    name: str
    repository: str
    files: Mapping[str, str]
    on_hub: bool = True
    quotes: bool = False

    def __call__(self, place: str | None = None) -> list[PromptRecord]:
        """The prompts in the order of the files, with all that is said of them.

        Args:
            place: a file, or a folder with the files, in the folders of the repository or all in one; `None`: the hub.

        Raises:
            DataError: if a file is missing or cannot be read, or the hub cannot be reached.
        """
        prompts = [prompt for path, category in _files(self, place) for prompt in self._prompts(path, category)]
        if not prompts:
            raise DataError(f"prompt set {self.name}: {place or self.repository} holds no prompt")
        return prompts

    def _prompts(self, path: Path, category: str) -> list[PromptRecord]:
        """The prompts of a file; empty ones, if a publisher left any, are left out."""
        try:
            prompts = [prompt for prompt in read_prompts(path, empty=True) if prompt.text]
        except DataError as error:
            raise DataError(f"{error}; {_FETCH}") from error
        if lacking := next((prompt for prompt in prompts if self.quotes and prompt.text.count('"') < 2), None):
            raise DataError(
                f"prompt set {self.name}: {path} line {lacking.line} ({shown(lacking.text)}) holds no text in double "
                f"quotes; {_FETCH}"
            )
        return [replace(prompt, category=category or prompt.category) for prompt in prompts]


PICKAPIC = Published(
    name="pickapic-validation",
    repository="yuvalkirstain/pickapic_v1",
    files={"data/validation_unique-*.parquet": ""},
)
"""The 500 prompts of Pick-a-Pic v1's split ``validation_unique`` (arXiv 2305.01569)."""

PARTI = Published(name="parti", repository="nateraw/parti-prompts", files={"PartiPrompts.tsv": ""})
"""PartiPrompts (arXiv 2206.10789), with their categories."""

HPSV2 = Published(
    name="hpsv2",
    repository="zhwang/HPDv2",
    files={f"benchmark/{style}.json": style for style in ("anime", "concept-art", "paintings", "photo")},
)
"""The benchmark prompts of HPSv2 (arXiv 2306.09341): four styles, one after another."""

HPDV3_CATEGORIES = (
    *("Characters", "Arts", "Design", "Architecture", "Animals", "Natural Scenery"),
    *("Transportation", "Products", "Others", "Plants", "Food", "Science"),
)
"""In the order of the paper's table."""

HPDV3 = Published(
    name="hpdv3",
    repository="MizzenAI/HPDv3",
    files={f"benchmark/benchmark_{category}.json": category for category in HPDV3_CATEGORIES},
)
"""The benchmark prompts of HPSv3 (arXiv 2508.03789): twelve categories, one after another."""

GENEVAL2 = Published(
    name="geneval2", repository="facebookresearch/GenEval2", files={"geneval2_data.jsonl": ""}, on_hub=False
)
"""The 800 prompts of GenEval 2 (arXiv 2512.16853), each with questions about its 3 to 10 atoms."""

DPG = Published(name="dpg", repository="TencentQQGYLab/ELLA", files={"dpg_bench/dpg_bench.csv": ""}, on_hub=False)
"""The 1065 long prompts of DPG-Bench (arXiv 2403.05135), each with questions that build on each other."""

OCR_TRAINING, OCR_TEST = (
    Published(name=name, repository="yifan123/flow_grpo", files={file: ""}, on_hub=False, quotes=True)
    for name, file in (("ocr-training", "dataset/ocr/train.txt"), ("ocr-test", "dataset/ocr/test.txt"))
)
"""The prompts on which Flow-GRPO (arXiv 2505.05470) learns to draw a text, which stands in them in double quotes."""


def study_300(place: str | None = None, *, seed: int = 0) -> list[PromptRecord]:
    """100 PartiPrompts and 200 prompts of HPSv2, drawn without replacement and shuffled together.

    Args:
        place: a folder that holds the files of both sets; `None`: the hub.
        seed: of the draw.

    Raises:
        DataError: as for each set, or if one has too few prompts.
    """
    generator = random.Random(seed)
    drawn: list[PromptRecord] = []
    for published, count in ((PARTI, STUDY_PARTI), (HPSV2, STUDY_HPSV2)):
        taken = {prompt.text for prompt in drawn}
        different: dict[str, PromptRecord] = {}
        for prompt in published(place):
            different.setdefault(prompt.text, prompt)
        prompts = [prompt for text, prompt in different.items() if text not in taken]
        if len(prompts) < count:
            raise DataError(
                f"study-300 needs {count} different prompts of {published.name}; {place or published.repository} has "
                f"{len(prompts)}"
            )
        drawn += generator.sample(prompts, count)
    generator.shuffle(drawn)
    return drawn


def _files(published: Published, place: str | None) -> list[tuple[Path, str]]:
    """Files and the category of the prompts in each."""
    if place is not None and exists(place) and Path(place).is_file():
        name = Path(place).name
        return [(Path(place), next((value for key, value in published.files.items() if key.endswith(f"/{name}")), ""))]
    folder = _downloaded(published) if place is None else Path(place)
    paths: list[tuple[Path, str]] = []
    for pattern, category in published.files.items():
        patterns = (pattern, pattern.rpartition("/")[2]) if exists(folder) else ()
        files = next((files for name in patterns if (files := sorted(folder.glob(name)))), [])
        if not files:
            raise DataError(
                f"prompt set {published.name}: {folder} holds no {pattern}; name a folder with the files of "
                f"{_origin(published)}{', or leave the place out to fetch them' if published.on_hub else ''}"
            )
        paths += [(file, category) for file in files]
    return paths


def _origin(published: Published) -> str:
    return f"{'the data set' if published.on_hub else 'the GitHub repository'} {published.repository}"


def _downloaded(published: Published) -> Path:
    if not published.on_hub:
        files = ", ".join(published.files)
        raise DataError(
            f"prompt set {published.name} is not on the hub: fetch {files} from {_origin(published)} and write "
            f"{published.name}@{files.rpartition('/')[2]}"
        )
    try:
        folder = snapshot_download(published.repository, repo_type="dataset", allow_patterns=list(published.files))
    except Exception as error:  # no network, offline mode, no right to read it, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"prompt set {published.name} cannot be fetched from {_origin(published)} ({reason}); fetch "
            f"its files elsewhere and write {published.name}@FOLDER, or give a file of your own prompts"
        ) from error
    return Path(folder)

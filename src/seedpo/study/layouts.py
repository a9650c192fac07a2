"""From folders of images to the groups of a study."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from seedpo.errors import DataError
from seedpo.study.image_folders import PromptImages
from seedpo.study.images import Source
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question

SET = 4
"""Images of a model that a question about a set takes: a reference and three others."""


@dataclass(frozen=True)
class Laid:
    """Groups whose images are named by paths, and these images.

    Attributes:
        groups: for :func:`seedpo.study.folder.create_study`.
        images: by the names that the groups use.
    """

    groups: tuple[Group, ...]
    images: Mapping[str, Source]


def collect(prompts: Sequence[PromptImages], questions: Sequence[Question]) -> Laid:
    """A group of all images of each prompt, for each question.

    Args:
        prompts: with two or more images each.
        questions: that show one image on each side.

    Raises:
        DataError: if a prompt has fewer than two images, or a question shows sets.
    """
    for question in questions:
        if question.shows == "set":
            raise DataError(f"question {question.key!r} compares sets of images of models; it needs --kind study")
    groups = []
    for row, item in enumerate(prompts):
        if len(item.images) < 2:
            raise DataError(
                f"prompt {item.prompt!r} has one image ({item.images[0]}); at least two are compared: draw more, for "
                "example with seedpo sample --images-per-prompt 2"
            )
        candidates = tuple(Candidate(source=path.name, images=(str(path),)) for path in item.images)
        groups += [
            Group(
                id=f"{row:05d}-{question.key}",
                question=question.key,
                prompt=item.prompt,
                candidates=candidates,
                category=item.category,
            )
            for question in questions
        ]
    return _laid(groups)


def compare(models: Mapping[str, Sequence[PromptImages]], questions: Sequence[Question], *, seed: int) -> Laid:
    """For each prompt, each two models and each question a group of two candidates, as in Fig. 3 of SEE-DPO.

    Single images are those from the first latent of a prompt. A set is a reference, whose latent is drawn by the seed
    and the prompt and is the same for all models, and three others of the same prompt and model.

    Args:
        models: images by model, the same prompts in each; as many images of a prompt in each.
        questions: what is asked.
        seed: of references.

    Raises:
        DataError: if there are fewer than two models, or prompts or numbers of images differ between them, or a
            question about sets finds fewer than four images.
    """
    if len(models) < 2:
        raise DataError(f"a study compares at least two models; {', '.join(models) or 'none'} is given")
    _require_same(models)
    names = list(models)
    groups = []
    for row, item in enumerate(models[names[0]]):
        members = {name: models[name][row] for name in names}
        for question in questions:
            places = _places(item, question, random.Random(f"{seed}|reference|{row}|{item.prompt}"))
            candidates = {
                name: Candidate(source=name, images=tuple(str(members[name].images[place]) for place in places))
                for name in names
            }
            groups += [
                Group(
                    id=f"{row:05d}-{question.key}-{names.index(one)}-{names.index(other)}",
                    question=question.key,
                    prompt=item.prompt,
                    candidates=(candidates[one], candidates[other]),
                    category=item.category,
                )
                for one, other in combinations(names, 2)
            ]
    return _laid(groups)


def _places(item: PromptImages, question: Question, draw: random.Random) -> Sequence[int]:
    if question.shows == "image":
        return [0]
    if len(item.images) < SET:
        raise DataError(
            f"question {question.key!r} needs {SET} images of each prompt and model (a reference and three others); "
            f"prompt {item.prompt!r} has {len(item.images)}: draw more, or leave the question out of --questions"
        )
    return draw.sample(range(len(item.images)), SET)


def _require_same(models: Mapping[str, Sequence[PromptImages]]) -> None:
    first, *others = models
    for name in others:
        counts = {item.prompt: len(item.images) for item in models[name]}
        expected = {item.prompt: len(item.images) for item in models[first]}
        for one, other, here, there in ((name, first, counts, expected), (first, name, expected, counts)):
            missing = next((prompt for prompt in there if prompt not in here), None)
            if missing is not None:
                raise DataError(f"model {one} has no image for the prompt {missing!r}, which {other} has; draw it")
        for prompt, count in expected.items():
            if counts[prompt] != count:
                raise DataError(
                    f"prompt {prompt!r}: {first} has {count} images and {name} {counts[prompt]}; give as many of each"
                )
        if list(counts) != list(expected):
            raise DataError(f"{first} and {name} have their prompts in different orders; sort them alike")


def _laid(groups: Sequence[Group]) -> Laid:
    names = dict.fromkeys(name for group in groups for member in group.candidates for name in member.images)
    return Laid(groups=tuple(groups), images={name: Path(name) for name in names})


def shared_words(one: str, other: str) -> int:
    """How many words two prompts share."""
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(first & second)

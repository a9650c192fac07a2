"""Attention checks: pairs of which one side is plainly worse, for whoever looks."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image

from seedpo.study.images import Source, encode
from seedpo.study.layouts import Laid, shared_words
from seedpo.study.records import Candidate, Group
from seedpo.study.settings import Question

_CELLS = 8
"""A spoiled image is so many cells across."""


def with_checks(laid: Laid, questions: Sequence[Question], count: int, *, seed: int) -> Laid:
    """Adds attention checks, in turn for each question.

    An image is shown beside a spoiled one: for the question *alignment* the image of the prompt that shares fewest
    words with this one, for all others the image itself in 8 x 8 coloured cells with noise. A set is shown beside a
    reference with copies of it alone.

    Args:
        laid: the study without checks.
        questions: of the study.
        count: how many checks; fewer if there are fewer groups.
        seed: which groups, and which side is the better one.
    """
    draw = random.Random(f"{seed}|checks")
    by_question = {
        question.key: [group for group in laid.groups if group.question == question.key] for question in questions
    }
    for groups in by_question.values():
        draw.shuffle(groups)
    images, checks = dict(laid.images), []
    for number in range(count):
        question = questions[number % len(questions)]
        if not by_question[question.key]:
            continue
        group = by_question[question.key].pop()
        good = draw.choice(group.candidates)
        bad = _worse(group, good, question, laid, images)
        expected = draw.randrange(2)
        pair = (good, bad) if expected == 0 else (bad, good)
        checks.append(replace(group, id=f"check-{number:04d}", candidates=pair, expected=expected))
    return Laid(groups=(*laid.groups, *checks), images=images)


def _worse(group: Group, good: Candidate, question: Question, laid: Laid, images: dict[str, Source]) -> Candidate:
    if question.shows == "set":
        return Candidate(source="check", images=(good.images[0],) * len(good.images))
    others = [other for other in laid.groups if other.prompt != group.prompt and other.question == group.question]
    if question.key == "alignment" and others:
        other = min(others, key=lambda item: (shared_words(item.prompt, group.prompt), item.id))
        return Candidate(source="check", images=other.candidates[0].images)
    name = f"spoiled {good.images[0]}"
    images[name] = partial(spoiled, images[good.images[0]])
    return Candidate(source="check", images=(name,))


def spoiled(source: Source) -> Image.Image:
    """An image of which little is left: 8 x 8 cells under strong noise, the same each time."""
    with Image.open(io.BytesIO(encode(source))) as image:
        cells = image.resize((_CELLS, _CELLS), Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
    noise = np.random.default_rng(0).normal(0.0, 60.0, (image.size[1], image.size[0], 3))
    return Image.fromarray(np.clip(np.asarray(cells) + noise, 0, 255).astype(np.uint8))

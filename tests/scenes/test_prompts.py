from __future__ import annotations

import hashlib
import itertools

import pytest

from seedpo.errors import DataError
from seedpo.scenes.prompts import (
    BACKGROUNDS,
    COLOURS,
    EVALUATION_PROMPTS,
    HELD_OUT,
    SHAPES,
    SIZES,
    TRAINING_PROMPTS,
    WORDS,
    Description,
    parse_prompt,
    unknown_words,
)

COMBINATIONS = [
    Description(size=size, colour=colour, shape=shape, background=background)
    for size, colour, shape, background in itertools.product(SIZES, COLOURS, SHAPES, BACKGROUNDS)
]


def test_the_two_lists_part_the_480_combinations() -> None:
    assert len(COMBINATIONS) == 480
    assert len(EVALUATION_PROMPTS) == HELD_OUT == 64
    assert len(TRAINING_PROMPTS) == 416
    assert {*TRAINING_PROMPTS, *EVALUATION_PROMPTS} == {description.prompt for description in COMBINATIONS}


def test_the_shipped_weights_were_trained_with_this_split() -> None:
    digest = hashlib.sha256("\n".join([*TRAINING_PROMPTS, "", *EVALUATION_PROMPTS]).encode()).hexdigest()
    assert digest == "6c157bfdab07f02ae9e0433bde5a6897da1d41bf36631c6d44227c190ce40322"


@pytest.mark.parametrize("prompts", [TRAINING_PROMPTS, EVALUATION_PROMPTS], ids=["training", "evaluation"])
def test_every_word_is_in_both_lists(prompts: tuple[str, ...]) -> None:
    assert {word for prompt in prompts for word in prompt.split()} == set(WORDS)


def test_parsing_is_the_inverse_of_writing() -> None:
    assert [parse_prompt(description.prompt) for description in COMBINATIONS] == COMBINATIONS


@pytest.mark.parametrize(
    "prompt",
    [
        "A Large Orange Star on a Navy Background.",
        "  a large  orange\tstar on a navy background ",
        "an large orange star on an navy background",
    ],
)
def test_case_spaces_article_and_full_stop_do_not_matter(prompt: str) -> None:
    assert parse_prompt(prompt) == Description(size="large", colour="orange", shape="star", background="navy")


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "a large red circle",
        "a red large circle on a gray background",
        "a large red circle on a gray background and a cat",
        "a large red hexagon on a gray background",
        "a huge red circle on a gray background",
        "a large crimson circle on a gray background",
        "a large red circle on a red background",
        "a small red circle on a gray background a large red circle on a gray background",
    ],
)
def test_anything_else_is_refused(prompt: str) -> None:
    with pytest.raises(DataError, match="is not a sentence of the embedded world; write 'a SIZE COLOUR SHAPE"):
        parse_prompt(prompt)


@pytest.mark.parametrize(
    ("prompt", "unknown"),
    [
        ("a large red circle on a gray background", []),
        ("A Large RED circle, on a gray background.", []),
        ("a large crimson circle on a gray background", ["crimson"]),
        ("an owl, and 2 red circles", ["an", "owl", "and", "2", "circles"]),
        ("", []),
    ],
)
def test_unknown_words(prompt: str, unknown: list[str]) -> None:
    assert unknown_words(prompt) == unknown

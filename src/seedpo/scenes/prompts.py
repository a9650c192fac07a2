"""The language of the embedded world: its words, its prompts, and which of them are held out.

A prompt reads "a <size> <colour> <shape> on a <background> background". Of the 480 combinations a fixed part is
never used in training the pipeline, the scorer or a policy; it makes the evaluation list.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

from seedpo.errors import DataError

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SIZES = ("small", "large")
BACKGROUNDS = ("white", "gray", "black", "brown", "navy")

WORDS = ("a", "on", "background", *SIZES, *COLOURS, *SHAPES, *BACKGROUNDS)
"""Every word that the embedded pipeline has seen."""

HELD_OUT = 64
"""Number of combinations that make the evaluation list."""

_PATTERN = re.compile(
    rf"an? (?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})"
    rf" on an? (?P<background>{'|'.join(BACKGROUNDS)}) background"
)


@dataclass(frozen=True, kw_only=True)
class Description:
    """The attributes that a prompt names."""

    size: str
    colour: str
    shape: str
    background: str

    @property
    def prompt(self) -> str:
        """The prompt of this description."""
        return f"a {self.size} {self.colour} {self.shape} on a {self.background} background"


def parse_prompt(prompt: str) -> Description:
    """Reads the named attributes out of a prompt.

    Raises:
        DataError: if the prompt is not a sentence of this world.
    """
    match = _PATTERN.fullmatch(" ".join(prompt.lower().split()).rstrip("."))
    if match is None:
        raise DataError(
            f"prompt {prompt!r} is not a sentence of the embedded world; write "
            f"'a SIZE COLOUR SHAPE on a BACKGROUND background' with SIZE in {SIZES}, COLOUR in {COLOURS}, "
            f"SHAPE in {SHAPES}, BACKGROUND in {BACKGROUNDS}"
        )
    return Description(**match.groupdict())


def unknown_words(prompt: str) -> list[str]:
    """Words of a prompt that the embedded pipeline has never seen."""
    return [word for word in re.findall(r"[^\s.,]+", prompt.lower()) if word not in WORDS]


def _split() -> tuple[list[str], list[str]]:
    combinations = [
        Description(size=size, colour=colour, shape=shape, background=background).prompt
        for size, colour, shape, background in itertools.product(SIZES, COLOURS, SHAPES, BACKGROUNDS)
    ]
    random.Random(20241107).shuffle(combinations)
    return combinations[HELD_OUT:], combinations[:HELD_OUT]


TRAINING_PROMPTS, EVALUATION_PROMPTS = (tuple(prompts) for prompts in _split())

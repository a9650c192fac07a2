"""When attention checks and repetitions come, and which side a rater has seen more of."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

from seedpo.study.records import Judgement

REPEAT_AFTER = 5
"""At least so many other shows lie between a show and its repetition."""


def scheduled(share: float, number: int, seed: str) -> int:
    """How many of a rater's shows 0 to ``number`` are to be of a kind that has this share.

    One in each block of 1/share shows, at a place drawn in the block: spread evenly, and nobody can foresee them.

    Args:
        share: of all shows, in [0, 0.5].
        number: of the show, from 0.
        seed: of the places.
    """
    if share <= 0.0:
        return 0
    block = int(number * share)
    start, end = math.ceil(block / share), math.ceil((block + 1) / share)
    return block + (random.Random(f"{seed}|{block}").randrange(start, end) <= number)


def wanted_flip(own: Sequence[Judgement]) -> bool | None:
    """Which way round the next show makes a rater's sides more even; none if they are even."""
    surplus = sum(1 if answer.show.flipped else -1 for answer in own)
    return None if surplus == 0 else surplus < 0


def repeatable(own: Sequence[Judgement], number: int) -> list[Judgement]:
    """Answers whose shows may be repeated as show ``number``.

    Not those of attention checks, nor skipped ones, nor what was repeated already, nor what was seen a moment ago.
    """
    done = {answer.show.repeat_of for answer in own}
    return sorted(
        (
            answer
            for answer in own
            if answer.expected is None
            and answer.answer != "skip"
            and answer.show.repeat_of is None
            and answer.show.token not in done
            and number - answer.show.number > REPEAT_AFTER
        ),
        key=lambda answer: answer.show.number,
    )


def length(regular: int, due: Callable[[int], int]) -> int:
    """How many shows hold so many regular ones.

    Args:
        regular: shows that are neither checks nor repetitions; at least one.
        due: how many of the others there are among shows 0 to a number.
    """
    shows = regular
    while (longer := regular + due(shows - 1)) > shows:  # a show more makes at most one more due: this ends
        shows = longer
    return shows

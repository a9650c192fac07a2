"""In which order a rater is asked the questions, if they come in blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence


def block_order(questions: Sequence[str], turn: int, *, seed: int) -> list[str]:
    """The questions in the order of one rater's blocks: a row of Williams' square, and of its mirror image.

    Over as many raters as there are questions each question has been at each place equally often; over twice as many
    (over as many, if their number is even) each has come right after each other one equally often.

    Args:
        questions: their keys.
        turn: how many raters there were before this one.
        seed: of what stands where in the square.
    """
    count = len(questions)
    draw = random.Random(f"{seed}|blocks")
    names = draw.sample(list(questions), count)
    zigzag = [(place + 1) // 2 if place % 2 else (count - place // 2) % count for place in range(count)]
    cycle, step = divmod(turn, count)
    # The rows of a square are given out in an order of its own, so that neighbours are no shifts of each other.
    row = random.Random(f"{seed}|blocks|{cycle}").sample(range(count), count)[step]
    places = zigzag[::-1] if count % 2 and cycle % 2 else zigzag
    return [names[(place + row) % count] for place in places]

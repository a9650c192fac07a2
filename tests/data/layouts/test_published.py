"""Every public layout is read as it is published: pairs, which image is preferred, probabilities, what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from seedpo.data.reading import Opened, load_pairs
from seedpo.data.settings import PairsConfig
from tests.data.layouts.published import LAYOUTS, Case, Pair, number_in


def opened(case: Case) -> Opened:
    """A set as a user would name it."""
    config = PairsConfig.model_validate({"resolution": 16, "shuffle_buffer": 1} | dict(case.settings))
    return load_pairs(str(case.source), config)


def pairs_of(pairs: Opened) -> list[Pair]:
    """The pairs of a set, in its order."""
    return [
        Pair(
            prompt=pair.prompt,
            chosen=number_in(pair.chosen),
            rejected=number_in(pair.rejected),
            probability=round(pair.chosen_probability, 6),
        )
        for pair in (pairs[index] for index in pairs.one_pass())
    ]


def by_images(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs in an order that does not depend on that of the set."""
    return sorted(pairs, key=lambda pair: (pair.prompt, pair.chosen, pair.rejected))


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_published_layout(name: str, tmp_path: Path) -> None:
    case = LAYOUTS[name](tmp_path)
    pairs = opened(case)
    assert by_images(pairs_of(pairs)) == by_images(case.pairs)
    if not pairs.sequential:  # of a stream nothing is counted beforehand
        assert (pairs.tied, pairs.unlabelled) == (case.ties, case.unlabelled)

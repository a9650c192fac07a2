"""How many labelled pairs have the prompt of a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from seedpo.data.pairs.prompt_columns import prompts_of
from seedpo.errors import DataError
from seedpo.protocols import PreferencePairs

COUNT_COLUMN = "num_example_per_prompt"
"""Column of Pick-a-Pic with the number of pairs of the row's prompt."""


@runtime_checkable
class CountedPrompts(Protocol):
    """Pairs whose rows say how many have their prompt."""

    def pairs_of_prompt(self, row: int) -> int | None:
        """Pairs with the prompt of one pair; ``None`` if its row does not say so."""


def stated_count(pairs: object, row: int) -> int | None:
    """What the row of a pair says of the number of pairs with its prompt; ``None``: nothing."""
    return pairs.pairs_of_prompt(row) if isinstance(pairs, CountedPrompts) else None


def pairs_of_prompts(pairs: PreferencePairs) -> Callable[[int], int]:
    """The number of pairs of the set with the prompt of one pair, at least 1, by the pair's number.

    They are counted once. A stream cannot be counted before it ends: there each row must say it.

    Raises:
        DataError: when it is asked for a row of a stream that does not say it.
    """
    if not pairs.sequential:
        counts = Counter(prompts_of(pairs))
        return lambda row: max(1, counts[pairs.prompt(row)])

    def stated(row: int) -> int:
        count = stated_count(pairs, row)
        if count is None:
            raise DataError(
                f"pair {row} of the stream does not say how many pairs have its prompt: column {COUNT_COLUMN} is "
                "missing or holds no number above 0; fetch the set and name its folder in data, or set pair_weights to "
                "none"
            )
        return count

    return stated

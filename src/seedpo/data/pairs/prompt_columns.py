"""The prompts of a whole set of pairs, read at once where that is possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from seedpo.errors import DataError
from seedpo.protocols import PreferencePairs


@runtime_checkable
class PromptColumn(Protocol):
    """Pairs whose prompts can be read at once."""

    def all_prompts(self) -> Iterable[str | None]:
        """The prompt of each pair; ``None`` where it cannot be read."""


def prompts_of(pairs: PreferencePairs) -> Iterator[str | None]:
    """The prompt of each pair of a set; ``None`` where it cannot be read: whoever reads the pair says why."""
    if isinstance(pairs, PromptColumn):
        yield from pairs.all_prompts()
        return
    for row in range(len(pairs)):
        try:
            yield pairs.prompt(row)
        except DataError:
            yield None

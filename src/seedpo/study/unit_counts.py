"""How many raters each unit has, for one unit or for many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seedpo.study.records import Unit

Numbers: TypeAlias = NDArray[np.int64]

_LISTS = 16
"""Lists of units whose numbers are kept: of all questions and of each one."""


class Units:
    """A list of units, and the place of each in it.

    Args:
        units: each once.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self.units = units
        self.places: Mapping[Unit, int] = {unit: place for place, unit in enumerate(units)}

    def __len__(self) -> int:
        return len(self.units)


class UnitCounts(dict[Unit, int]):
    """Raters by unit; a unit that is not there has none. The numbers of lists of units are kept, and not copied."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[Units, Numbers] = {}

    def __missing__(self, unit: Unit) -> int:
        return 0

    def __setitem__(self, unit: Unit, number: int) -> None:
        super().__setitem__(unit, number)
        for listed, numbers in self._kept.items():
            place = listed.places.get(unit)
            if place is not None:
                numbers[place] = number

    def of(self, listed: Units) -> Numbers:
        """The numbers of a list, (n,); they change with the counts."""
        numbers = self._kept.get(listed)
        if numbers is None:
            if len(self._kept) >= _LISTS:
                self._kept.pop(next(iter(self._kept)))
            numbers = self._kept[listed] = _numbers(self, listed)
        return numbers


def numbers_of(counts: Mapping[Unit, int], listed: Units) -> Numbers:
    """How many raters each unit of a list has, (n,). Do not change it."""
    return counts.of(listed) if isinstance(counts, UnitCounts) else _numbers(counts, listed)


def _numbers(counts: Mapping[Unit, int], listed: Units) -> Numbers:
    return np.fromiter((counts.get(unit, 0) for unit in listed.units), np.int64, len(listed))

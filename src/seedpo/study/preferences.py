"""What the votes on one group say of every two of its candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from seedpo.study.records import Answer, Judgement

Matrix = NDArray[np.float64]

VALUES: Mapping[Answer, float] = {"first": 1.0, "second": -1.0, "tie": 0.0, "bad": 0.0}
"""What an answer says for the first candidate; a pair that was skipped is judged by nobody."""


def once(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Those that count: neither repetitions nor attention checks."""
    return [vote for vote in judgements if vote.show.repeat_of is None and vote.expected is None]


def preferences(judgements: Iterable[Judgement], *, candidates: int) -> Matrix:
    """Share of raters who prefer the first of two candidates, less the share who prefer the second.

    Ties, "both bad" and repetitions: see :data:`VALUES` and :func:`once`. Pairs of which nobody was asked follow
    from the others, as in a knockout: the strength of a chain of preferences is that of its weakest link, and the
    strongest chain counts (the widest path of M. Schulze, Social Choice and Welfare 36, 2011), less the strongest chain
    the other way round.

    Args:
        judgements: on one group.
        candidates: K of the group.

    Returns:
        (K, K) in [-1, 1], antisymmetric; 0 where neither is preferred.
    """
    total, raters = np.zeros((candidates, candidates)), np.zeros((candidates, candidates))
    asked = np.eye(candidates, dtype=bool)
    for vote in once(judgements):
        one, other = vote.show.first, vote.show.second
        asked[one, other] = asked[other, one] = True
        if vote.answer in VALUES:
            total[one, other] += VALUES[vote.answer]
            raters[one, other] += 1
    share = total / np.maximum(raters, 1)
    direct = share - share.T
    chains = _strongest_chains(np.maximum(direct, 0.0))
    return np.where(asked, direct, chains - chains.T)


def _strongest_chains(links: Matrix) -> Matrix:
    """Weakest link of the strongest chain between every two (Floyd and Warshall)."""
    strength = links.copy()
    for middle in range(len(links)):
        strength = np.maximum(strength, np.minimum(strength[:, middle, None], strength[None, middle]))
    return strength

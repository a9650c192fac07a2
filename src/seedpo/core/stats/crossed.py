"""Resampling votes that depend on each other in two ways: by the rater who gave them and by the prompt they are about.

Raters and prompts are drawn with replacement, independently of each other, and each vote gets the product of the two
counts as its weight: the pigeonhole bootstrap (Owen 2007). Its intervals are about other raters and other prompts, not
about these. They err on the wide side: where votes did not depend on each other at all, they would be up to the square
root of three times too wide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def vote_weights(raters: Index, prompts: Index, *, seed: int, resamples: int) -> Iterator[Array]:
    """Weights of the votes in each resample.

    With one rater (or one prompt) only the other side is drawn, since there is nothing to draw from.

    Args:
        raters, prompts: whose and of what each vote is, (N,), counted from 0.
        seed: of the resampling.
        resamples: how many are drawn.

    Yields:
        weights (N,), whole numbers from 0 on.
    """
    by_rater, by_prompt = _draws(raters, prompts, seed=seed, resamples=resamples)
    for one, other in zip(by_rater, by_prompt, strict=True):
        yield one[raters] * other[prompts]


def resampled_shares(values: Array, raters: Index, prompts: Index, *, seed: int, resamples: int) -> Array:
    """Weighted means of ``values`` (N,) in each resample; resamples that hold no vote are left out."""
    if not len(values):
        return np.zeros(0)
    by_rater, by_prompt = _draws(raters, prompts, seed=seed, resamples=resamples)
    shape = by_rater.shape[1], by_prompt.shape[1]
    cells = raters * shape[1] + prompts
    sums, amounts = (
        np.bincount(cells, weights, shape[0] * shape[1]).reshape(shape) for weights in (values, np.ones(len(values)))
    )
    above, below = (((by_rater @ table) * by_prompt).sum(1) for table in (sums, amounts))
    return np.asarray(above[below > 0] / below[below > 0])


def _draws(raters: Index, prompts: Index, *, seed: int, resamples: int) -> tuple[Array, Array]:
    """How often each rater (B, R) and each prompt (B, P) is drawn in each of B resamples."""
    generator = np.random.default_rng(seed)
    drawn = []
    for side in (raters, prompts):
        amount = int(side.max()) + 1 if side.size else 1
        shares = np.full(amount, 1.0 / amount)
        drawn.append(generator.multinomial(amount, shares, size=resamples).astype(np.float64))
    return drawn[0], drawn[1]

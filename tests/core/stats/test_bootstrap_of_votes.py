"""The bootstrap over raters and prompts covers the truth where an interval for independent votes does not."""

from __future__ import annotations

import numpy as np
import pytest

from seedpo.core.stats.bootstrap import interval_ends, resampled_shares, vote_weights
from seedpo.core.stats.classical import sign_test, wilson_interval


def simulated_votes(seed: int, *, raters: int, prompts: int, spread: float) -> tuple[np.ndarray, ...]:
    """Votes of every rater on every second prompt; both models are equally good, but prompts and raters lean."""
    generator = np.random.default_rng(seed)
    by_rater, by_prompt = generator.normal(0, spread, raters), generator.normal(0, 2 * spread, prompts)
    who, what = np.nonzero(generator.random((raters, prompts)) < 0.5)
    chance = 1 / (1 + np.exp(-by_rater[who] - by_prompt[what]))
    return (generator.random(len(who)) < chance).astype(float), who, what


@pytest.mark.parametrize(("spread", "wilson_holds"), [(1.0, False), (0.0, True)])
def test_coverage_of_the_intervals(spread: float, wilson_holds: bool) -> None:
    studies = 200
    crossed = wilson = 0
    for seed in range(studies):
        values, who, what = simulated_votes(seed, raters=12, prompts=30, spread=spread)
        low, high = interval_ends(resampled_shares(values, who, what, seed=seed, resamples=200))
        crossed += low <= 0.5 <= high
        low, high = wilson_interval(values.sum(), len(values))
        wilson += low <= 0.5 <= high
    assert crossed / studies >= 0.93
    assert (wilson / studies > 0.9) == wilson_holds


def test_sign_test_over_prompts_keeps_its_level_where_one_over_votes_does_not() -> None:
    """Raters alike, prompts leaning to one side or the other: 5 % of tests may err."""
    over_votes = over_prompts = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        chance = 1 / (1 + np.exp(-generator.normal(0, 2, 25)))
        votes = generator.binomial(5, chance)
        over_votes += sign_test(int(votes.sum()), 125 - int(votes.sum())) <= 0.05
        over_prompts += sign_test(int((votes > 2).sum()), int((votes < 2.5).sum())) <= 0.05
    assert over_prompts / 200 <= 0.07
    assert over_votes / 200 > 0.15


def test_weights_are_products_of_draws() -> None:
    who, what = np.divmod(np.arange(12), 4)
    for weights in vote_weights(who, what, seed=1, resamples=20):
        table = weights.reshape(3, 4)
        assert table.sum() == 12
        assert np.linalg.matrix_rank(table) == 1


def test_one_rater_leaves_prompts_to_draw_and_nothing_leaves_nothing() -> None:
    what = np.arange(6)
    drawn = list(vote_weights(np.zeros(6, dtype=int), what, seed=1, resamples=5))
    assert all(weights.sum() == 6 for weights in drawn)
    assert any((weights != 1).any() for weights in drawn)
    (alone,) = vote_weights(np.zeros(3, dtype=int), np.zeros(3, dtype=int), seed=1, resamples=1)
    assert alone.tolist() == [1, 1, 1]
    empty = np.zeros(0, dtype=int)
    assert len(resampled_shares(np.zeros(0), empty, empty, seed=0, resamples=3)) == 0


def test_the_same_seed_gives_the_same_shares() -> None:
    values, who, what = simulated_votes(0, raters=5, prompts=6, spread=1.0)
    first, again, other = (resampled_shares(values, who, what, seed=seed, resamples=10) for seed in (4, 4, 5))
    assert first.tolist() == again.tolist() != other.tolist()

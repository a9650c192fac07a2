from __future__ import annotations

import math

import numpy as np
import pytest

from seedpo.core.stats import bootstrap
from seedpo.core.stats.bootstrap import (
    grouped_mean_ends,
    mean_interval,
    paired_difference,
    prompt_means,
    resampled_means,
    win_rate,
)
from seedpo.core.stats.classical import wilson_interval


def some(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 2.0, size=count)


class TestMean:
    def test_against_brute_force(self) -> None:
        values, generator = some(7), np.random.default_rng(5)
        means = [np.mean([values[row] for row in rows]) for rows in generator.integers(7, size=(300, 7))]
        found = mean_interval(values, seed=5, resamples=300)
        assert found.mean == pytest.approx(values.mean())
        assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))
        assert (found.count, found.left_out) == (7, 0)

    def test_of_many_values_is_the_normal_interval(self) -> None:
        values = some(4000)
        found, half = mean_interval(values, resamples=2000), 1.96 * values.std() / math.sqrt(4000)
        assert found.low == pytest.approx(found.mean - half, abs=0.1 * half)
        assert found.high == pytest.approx(found.mean + half, abs=0.1 * half)

    def test_a_lower_level_is_narrower(self) -> None:
        wide, narrow = (mean_interval(some(20), level=level) for level in (0.95, 0.5))
        assert wide.low < narrow.low < narrow.high < wide.high

    def test_nan_is_left_out_and_counted(self) -> None:
        values = np.array([1.0, math.nan, 3.0, 2.0])
        found, wanted = mean_interval(values), mean_interval([1.0, 3.0, 2.0])
        assert (found.mean, found.low, found.high) == (wanted.mean, wanted.low, wanted.high)
        assert (found.count, found.left_out) == (3, 1)

    def test_one_value_and_none(self) -> None:
        one = mean_interval([4.0])
        assert (one.mean, one.low, one.high, one.count) == (4.0, 4.0, 4.0, 1)
        none = mean_interval([math.nan])
        assert none.count == 0
        assert math.isnan(none.mean)
        assert math.isnan(none.low)

    def test_finish_is_applied_to_means(self) -> None:
        plain, root = mean_interval([1.0, 4.0, 9.0]), mean_interval([1.0, 4.0, 9.0], finish=math.sqrt)
        assert (root.mean, root.low, root.high) == tuple(map(math.sqrt, (plain.mean, plain.low, plain.high)))

    def test_covers_the_truth_19_times_in_20(self) -> None:
        values = np.random.default_rng(1).normal(size=(300, 60))
        intervals = [mean_interval(row, seed=index) for index, row in enumerate(values)]
        covered = sum(interval.low <= 0 <= interval.high for interval in intervals) / 300
        assert 0.90 < covered < 0.98

    def test_a_seed_gives_the_same_interval_again(self) -> None:
        assert mean_interval(some(20), seed=0) == mean_interval(some(20), seed=0) != mean_interval(some(20), seed=1)

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = resampled_means(some(50)[:, None], seed=1)
        monkeypatch.setattr(bootstrap, "_NUMBERS_AT_A_TIME", 333)
        assert np.array_equal(resampled_means(some(50)[:, None], seed=1), wanted)

    def test_other_shapes_and_impossible_levels(self) -> None:
        for values in (np.zeros((2, 2)), np.float64(1.0)):
            with pytest.raises(ValueError, match="shape"):
                mean_interval(values)
        for level in (0.0, 1.0):
            with pytest.raises(ValueError, match="level"):
                mean_interval([1.0, 2.0], level=level)


class TestGroups:
    def test_against_brute_force(self) -> None:
        """Three groups of 1, 2 and 4 values: each resample joins the values of three groups drawn with replacement."""
        values, groups = some(7), ["a", "b", "b", "c", "c", "c", "c"]
        parts = [values[:1], values[1:3], values[3:]]
        draws = np.random.default_rng(4).integers(3, size=(1000, 3))
        means = [np.concatenate([parts[row] for row in rows]).mean() for rows in draws]
        wanted = np.quantile(means, [0.025, 0.975])
        assert grouped_mean_ends(values, groups, seed=4) == pytest.approx(tuple(wanted))

    def test_groups_of_one_are_the_mean_of_values(self) -> None:
        interval = mean_interval(some(9), seed=2)
        assert grouped_mean_ends(some(9), range(9), seed=2) == pytest.approx((interval.low, interval.high))

    def test_means_of_prompts_leave_unknown_images_out(self) -> None:
        values = np.array([[1.0, math.nan], [math.nan, math.nan], [1.0, 3.0]])
        assert prompt_means(values).tolist() == pytest.approx([1.0, math.nan, 2.0], nan_ok=True)


class TestDifference:
    def test_against_brute_force(self) -> None:
        a, b, generator = some(6), some(6, seed=1), np.random.default_rng(2)
        means = [np.mean(a[rows]) - np.mean(b[rows]) for rows in generator.integers(6, size=(200, 6))]
        found = paired_difference(a, b, seed=2, resamples=200)
        assert found.mean == pytest.approx(a.mean() - b.mean())
        assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))

    def test_what_both_share_cancels(self) -> None:
        hard = some(30) * 100
        found = paired_difference(hard + 0.5, hard)
        assert (found.low, found.mean, found.high) == pytest.approx((0.5, 0.5, 0.5))

    def test_swapping_swaps_the_sign(self) -> None:
        one, other = paired_difference(some(9), some(9, seed=1)), paired_difference(some(9, seed=1), some(9))
        assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))

    def test_prompts_that_one_lacks(self) -> None:
        found = paired_difference([1.0, math.nan, 3.0], [0.0, 5.0, math.nan])
        assert (found.mean, found.count, found.left_out) == (1.0, 1, 2)
        assert paired_difference([math.nan], [1.0]).count == 0

    def test_finish_is_applied_before_the_difference(self) -> None:
        found = paired_difference([9.0, 9.0], [4.0, 4.0], finish=math.sqrt)
        assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)

    def test_other_lengths(self) -> None:
        with pytest.raises(ValueError, match="different shapes"):
            paired_difference([1.0], [1.0, 2.0])


class TestWinRate:
    def test_known_numbers(self) -> None:
        found = win_rate([[1.0, 2.0], [3.0, 3.0]], [[0.0, 2.0], [4.0, 2.0]])
        assert (found.win, found.tie, found.loss) == (0.5, 0.25, 0.25)
        assert found.rate == 0.625
        assert found.count == 2
        assert (found.low, found.high) == (0.5, 0.75)  # the rates of the two prompts

    def test_width_of_ties(self) -> None:
        a, b = [[1.0, 2.0, 3.0]], [[0.5, 2.5, 2.0]]
        assert (lambda rate: (rate.win, rate.tie, rate.loss))(win_rate(a, b, tie_width=0.5)) == pytest.approx(
            (1 / 3, 2 / 3, 0.0)
        )
        with pytest.raises(ValueError, match="tie_width"):
            win_rate(a, b, tie_width=-1.0)

    def test_swapping(self) -> None:
        a, b = some(24).reshape(8, 3), some(24, seed=1).reshape(8, 3)
        one, other = win_rate(a, b), win_rate(b, a)
        assert (one.win, one.loss) == (other.loss, other.win)
        assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))

    def test_against_brute_force(self) -> None:
        a, b = some(20).reshape(5, 4), some(20, seed=1).reshape(5, 4)
        rates, generator = [(one > other).mean() for one, other in zip(a, b, strict=True)], np.random.default_rng(4)
        means = [np.mean([rates[row] for row in rows]) for rows in generator.integers(5, size=(100, 5))]
        found = win_rate(a, b, seed=4, resamples=100)
        assert found.rate == pytest.approx(np.mean(rates))
        assert (found.low, found.high) == pytest.approx((np.quantile(means, 0.025), np.quantile(means, 0.975)))

    def test_identical_models(self) -> None:
        same = win_rate([[1.0], [2.0]], [[1.0], [2.0]])
        assert (same.win, same.tie, same.loss) == (0.0, 1.0, 0.0)
        assert (same.low, same.high) == pytest.approx(wilson_interval(1.0, 2), abs=1e-6)

    def test_equal_rates_are_not_certain(self) -> None:
        every = win_rate([[1.0]] * 10, [[0.0]] * 10)
        assert (every.rate, every.high) == (1.0, 1.0)
        assert every.low == pytest.approx(wilson_interval(10, 10)[0], abs=1e-6)

    def test_unknown_scores(self) -> None:
        found = win_rate([[1.0, math.nan], [math.nan, math.nan]], [[0.0, 0.0], [0.0, 0.0]])
        assert (found.win, found.count) == (1.0, 1)
        assert math.isnan(win_rate([[math.nan]], [[0.0]]).rate)

    def test_other_shapes(self) -> None:
        with pytest.raises(ValueError, match="different shapes"):
            win_rate([[1.0]], [[1.0, 2.0]])
        with pytest.raises(ValueError, match="prompts, images"):
            win_rate([1.0], [1.0])

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedpo.core.stats.frontiers import Trail, common_range, first_reached, frontier, frontier_band, gap, gap_interval

RISE_AND_FALL = Trail.of([0.0, 1.0, 2.0], [1.0, 3.0, 1.0])
"""Truth rises to 3 at a proxy of 1 and falls back to 1 at a proxy of 2."""


class TestFrontier:
    def test_by_hand(self) -> None:
        assert frontier([RISE_AND_FALL], [-1, 0, 0.5, 1, 1.5, 2]).tolist() == [3, 3, 3, 3, 2, 1]
        assert math.isnan(frontier([RISE_AND_FALL], [2.01])[0])

    def test_the_best_of_a_pool(self) -> None:
        flat = Trail.of([0.0, 3.0], [1.5, 1.5])
        assert frontier([RISE_AND_FALL, flat], [1, 1.5, 1.9, 2, 3]).tolist() == [3, 2, 1.5, 1.5, 1.5]

    def test_a_proxy_that_falls_back(self) -> None:
        """What lies on the way back counts too: the best at a proxy of at least x, whenever it was reached."""
        path = Trail.of([0.0, 2.0, 0.0], [0.0, 0.0, 4.0])
        assert frontier([path], [0, 0.5, 1, 2]).tolist() == [4, 3, 2, 0]

    def test_one_evaluation_and_a_standstill(self) -> None:
        assert frontier([Trail.of([1.0], [2.0])], [0, 1]).tolist() == [2, 2]
        assert frontier([Trail.of([1.0, 1.0], [2.0, 5.0])], [1]).tolist() == [5]

    @given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6))
    def test_it_never_rises_and_never_exceeds_the_best(self, points: list[tuple[float, float]]) -> None:
        proxy, value = zip(*points, strict=True)
        at = np.linspace(-5, max(proxy), 50)
        found = frontier([Trail.of(proxy, value)], at)
        assert np.isfinite(found).all()
        assert (np.diff(found) <= 1e-9).all()
        assert found[0] == max(value)

    @pytest.mark.parametrize("points", [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [math.inf])])
    def test_what_is_no_path_is_refused(self, points: tuple[list[float], list[float]]) -> None:
        with pytest.raises(ValueError, match="must"):
            Trail.of(*points)


class TestFirstReached:
    def test_by_hand(self) -> None:
        values = first_reached([RISE_AND_FALL], [-1, 0, 0.5, 1, 1.5, 2, 2.01])
        assert values[:-1].tolist() == [1, 1, 2, 3, 2, 1]
        assert math.isnan(values[-1])

    def test_what_comes_after_does_not_count(self) -> None:
        path = Trail.of([0.0, 2.0, 0.0, 3.0], [0.0, 2.0, 9.0, 4.0])
        assert first_reached([path], [1, 2, 2.5, 3]).tolist() == pytest.approx([1, 2, 4 + 5 / 6, 4])
        standstill = Trail.of([0.0, 0.0, 1.0], [1.0, 5.0, 3.0])
        assert first_reached([standstill], [0, 0.5]).tolist() == [1, 4]

    def test_the_best_of_a_pool(self) -> None:
        flat = Trail.of([0.0, 3.0], [1.5, 1.5])
        assert first_reached([RISE_AND_FALL, flat], [0, 1, 1.9, 3]).tolist() == [1.5, 3, 1.5, 1.5]

    def test_a_run_that_only_goes_slower_is_favoured_less(self) -> None:
        """Twice as many noisy evaluations at the same proxies: the best of them is higher, the first is not."""
        generator = np.random.default_rng(0)

        def noisy(top: float) -> list[Trail]:
            proxy = np.linspace(0, top, 9)
            return [Trail.of(proxy, 1 - proxy + 0.2 * generator.normal(size=9) * (proxy > 0))]

        pairs = [(noisy(0.5), noisy(1.0)) for _ in range(300)]
        means = {
            height: np.mean([value.mean for pair in pairs if (value := gap(*pair, height=height))])
            for height in (frontier, first_reached)
        }
        assert means[frontier] > 0.03
        assert abs(means[first_reached]) < 0.02  # of a standard error of 0.007


class TestGap:
    def test_by_hand(self) -> None:
        """Frontiers 2 - x and 1 over [0, 1]: the mean gap is 1/2; over [0, 2] it is 0."""
        falling, flat = Trail.of([0.0, 2.0], [2.0, 0.0]), Trail.of([0.0, 1.0], [1.0, 1.0])
        found = gap([falling], [flat])
        assert found is not None
        assert (found.low, found.high) == (0, 1)
        assert found.mean == pytest.approx(0.5)
        assert found.area == pytest.approx(0.5)
        longer = gap([falling], [Trail.of([0.0, 3.0], [1.0, 1.0])])
        assert longer is not None
        assert (longer.high, longer.mean) == (2, pytest.approx(0.0, abs=1e-12))

    def test_a_jump_is_met_within_half_a_cell(self) -> None:
        stair = [Trail.of([0.0, 1.0], [2.0, 2.0]), Trail.of([0.0, 3.0], [1.0, 1.0])]
        found = gap(stair, [Trail.of([0.0, 3.0], [0.0, 0.0])])
        assert found is not None
        assert found.mean == pytest.approx(4 / 3, abs=1 / 400)

    def test_identical_and_shifted(self) -> None:
        shifted = Trail(RISE_AND_FALL.proxy, RISE_AND_FALL.value + 0.25)
        same, more = gap([RISE_AND_FALL], [RISE_AND_FALL]), gap([shifted], [RISE_AND_FALL])
        assert same is not None
        assert more is not None
        assert same.mean == 0
        assert more.mean == pytest.approx(0.25)

    def test_no_common_proxies(self) -> None:
        low, high = Trail.of([0.0, 1.0], [1.0, 1.0]), Trail.of([2.0, 3.0], [1.0, 1.0])
        assert common_range([low], [high]) is None
        assert gap([low], [high]) is None
        assert gap([], [high]) is None
        falls = Trail.of([1.0, 0.0], [1.0, 5.0])
        assert gap([falls], [Trail.of([1.0, 2.0], [1.0, 1.0])]) is None

    def test_a_run_that_falls_below_its_start_does_not_widen_the_range(self) -> None:
        falls = Trail.of([1.0, -9.0, 2.0], [1.0, 1.0, 1.0])
        assert common_range([falls], [falls]) == (1, 2)


def shifted_seeds(*shifts: float) -> dict[int, list[Trail]]:
    return {seed: [Trail(RISE_AND_FALL.proxy, RISE_AND_FALL.value + shift)] for seed, shift in enumerate(shifts)}


class TestInterval:
    def test_identical_frontiers(self) -> None:
        same = shifted_seeds(0.0, 1.0, -1.0)
        found = gap_interval(same, same)
        assert (found.mean, found.low, found.high, found.sign) == (0, 0, 0, 0)

    def test_a_constant_shift(self) -> None:
        found = gap_interval(shifted_seeds(0.5, 0.5, 0.5), shifted_seeds(0, 0, 0))
        assert found.mean == pytest.approx(0.5)
        assert (found.low, found.high, found.t_low, found.t_high) == pytest.approx((0.5, 0.5, 0.5, 0.5))
        assert found.sign == 1
        assert gap_interval(shifted_seeds(0, 0, 0), shifted_seeds(0.5, 0.5, 0.5)).sign == -1

    def test_both_intervals_by_hand(self) -> None:
        """Three gaps 1, 2, 3: the bootstrap reaches from 1 to 3, Student's t from 2 - 4.303/sqrt(3) to 2 + the same."""
        found = gap_interval(shifted_seeds(1, 2, 3), shifted_seeds(0, 0, 0), resamples=4000)
        assert found.mean == pytest.approx(2)
        assert (found.low, found.high) == pytest.approx((1, 3), abs=0.35)
        assert (found.t_low, found.t_high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
        assert found.low > 0 > found.t_low
        assert found.sign == 0

    def test_one_seed_has_no_interval(self) -> None:
        found = gap_interval(shifted_seeds(0.5), shifted_seeds(0.0))
        assert found.mean == pytest.approx(0.5)
        assert math.isnan(found.low)
        assert math.isnan(found.t_high)
        assert found.sign == 0

    def test_seeds_without_a_common_range_are_named(self) -> None:
        left, right = shifted_seeds(0.5, 0.5), shifted_seeds(0, 0, 0)
        left[1] = [Trail.of([9.0], [9.0])]
        found = gap_interval(left, right)
        assert sorted(found.by_seed) == [0]
        assert found.without == (1,)
        nothing = gap_interval({0: left[1]}, right)
        assert math.isnan(nothing.mean)
        assert nothing.sign == 0

    def test_prompts_are_drawn_too(self) -> None:
        """With the same gap in every seed, all of the bootstrap's spread comes from the prompts."""
        rng = np.random.default_rng(0)
        noise = rng.normal(size=(1, 30)).repeat(3, 0)
        flat = np.arange(3.0)[:, None].repeat(30, 1)
        right = {seed: [Trail.of(flat, np.zeros((3, 30)))] for seed in range(2)}
        left = {seed: [Trail.of(flat, noise)] for seed in range(2)}
        found = gap_interval(left, right, resamples=400)
        error = float(noise[0].std()) / 30**0.5
        assert found.mean == pytest.approx(noise[0].mean())
        assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.25)
        left[1] = [Trail.of(flat[:, :4], noise[:, :4])]
        with pytest.raises(ValueError, match="same prompts"):
            gap_interval(left, right)

    def test_reproducible(self) -> None:
        arguments = shifted_seeds(1, 2, 4), shifted_seeds(0, 0, 0)
        assert gap_interval(*arguments, seed=3) == gap_interval(*arguments, seed=3)


class TestPromptsAlone:
    """Intervals over prompts for the very runs at hand, without drawing seeds."""

    PROXY = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])

    def test_a_gap_of_one_seed_against_every_resample_by_hand(self) -> None:
        """The proxies are equal, so the gap of a resample is the mean of its prompts' gains, at any proxy."""
        gains = np.array([1.0, 2.0, 6.0])
        flat = Trail.of(self.PROXY, np.zeros((2, 3)))
        higher = Trail.of(self.PROXY, np.broadcast_to(gains, (2, 3)))
        found = gap_interval({4: [higher]}, {4: [flat]}, seed=3, resamples=500, over_seeds=False)
        drawn = np.random.default_rng(3).integers(3, size=3)
        assert gains[drawn].mean() in [np.mean(triple) for triple in itertools.product(gains, repeat=3)]
        generator = np.random.default_rng(3)
        means = [gains[generator.integers(3, size=3)].mean() for _ in range(500)]
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
        assert found.mean == pytest.approx(3.0)
        assert math.isnan(found.t_low)
        assert found.sign == 1

    def test_without_values_by_prompt_there_is_no_interval(self) -> None:
        path = Trail.of([0.0, 1.0], [1.0, 1.0])
        found = gap_interval({0: [path]}, {0: [path]}, over_seeds=False)
        assert found.mean == 0
        assert math.isnan(found.low)
        assert found.sign == 0

    def test_the_band_of_a_frontier(self) -> None:
        """Prompts of other values gain 0, 3 and 9 on a climb of 1: only the gains count; none reach beyond 1."""
        gains = np.array([0.0, 3.0, 9.0])
        hard = np.array([-50.0, 0.0, 80.0])
        path = Trail.of(self.PROXY + np.array([5.0, -2.0, -3.0]), np.stack([hard, hard + gains]))
        low, high = frontier_band([path], [0.0, 0.5, 1.0, 1.5], seed=1, resamples=300)
        generator = np.random.default_rng(1)
        means = gains[generator.integers(3, size=(300, 3))].mean(1)
        ends = 10.0 + np.quantile(means, [0.025, 0.975])
        assert low[:3] == pytest.approx([ends[0]] * 3)
        assert high[:3] == pytest.approx([ends[1]] * 3)
        assert math.isnan(low[3])
        assert math.isnan(high[3])
        assert np.isnan(frontier_band([path.mean()], [0.0])[0]).all()
        falling = Trail.of(self.PROXY, np.stack([hard, hard - gains - 0.1]))
        low, high = frontier_band([falling], [0.0], seed=1, resamples=300)
        assert (low[0], high[0]) == (10.0, 10.0), "the best is the start itself"

    def test_where_few_resamples_reach_there_is_no_band(self) -> None:
        """The last proxy of a resample is above 2 only if it draws the third prompt more often than once."""
        path = Trail.of([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]], np.ones((2, 3)))
        low, _ = frontier_band([path], [0.9, 1.9], seed=0, resamples=400)
        assert (math.isnan(low[0]), math.isnan(low[1])) == (False, True)

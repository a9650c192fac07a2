from __future__ import annotations

import math

import pytest

from seedpo.reports.contrasts import apart, at_equal_proxy, at_equal_steps, at_step, compare, paired, reach
from seedpo.reports.curves import Curve, Point
from seedpo.reports.runs import PerPrompt
from tests.reports.handmade import PROXY, base, curve, curves, see


def test_level_is_found_by_linear_interpolation_at_its_first_crossing() -> None:
    proxy = curve([0.0, 1.0, 0.5, 2.0, 2.0])
    truth = curve([10.0, 20.0, 0.0, 0.0, 0.0], half=1.0)
    found = reach(proxy, truth, 0.25)
    assert found is not None
    step, point = found
    assert step == pytest.approx(2.5)
    assert (point.value, point.low, point.high) == pytest.approx((12.5, 11.5, 13.5))
    assert reach(proxy, truth, 2.0) == (30.0, truth[30])
    assert reach(proxy, truth, 2.1) is None
    assert reach(proxy, truth, 0.0) is None, "the start is no progress"


def test_evaluations_far_apart_are_not_interpolated() -> None:
    proxy, truth = curve([0.0, 1.0, 2.0]), curve([0.0, 1.0, 2.0])
    assert reach(proxy, truth, 0.5) is None
    assert reach(proxy, truth, 1.0) == (10.0, truth[10]), "an evaluation needs no interpolation"
    assert at_step(truth, 5) is None


def test_two_evaluations_make_no_equal_proxy() -> None:
    two, three = curves([0.0, 1.0], [0.0, 1.0]), curves([0.0, 0.5, 1.0], [0.0, 0.5, 2.0])
    assert at_equal_proxy(see(three), base(two), "truth", PROXY) is None
    assert at_equal_proxy(see(two), base(three), "truth", PROXY) is None
    assert at_equal_proxy(see(three), base(three), "truth", PROXY) is not None


def test_equal_proxy_is_the_highest_that_both_reach() -> None:
    fast = base(curves([0.0, 1.0, 2.0], [0.0, 1.0, -1.0]))
    slow = see(curves([0.0, 0.5, 1.0], [0.0, 1.0, 2.0]))
    found = at_equal_proxy(slow, fast, "truth", PROXY)
    assert found is not None
    level, contrast = found
    assert (level.proxy, level.left, level.right) == (1.0, 20.0, 10.0)
    assert contrast.difference == pytest.approx(1.0)
    assert contrast.verdict == "higher"


def test_there_is_no_equal_proxy_if_one_never_rises() -> None:
    assert at_equal_proxy(see(curves([0.5, 0.4], [0, 0])), base(curves([0.5, 0.9], [0, 0])), "truth", PROXY) is None
    assert at_equal_proxy(see({}), base(curves([0.5, 0.9], [0, 0])), "truth", PROXY) is None


def test_equal_steps_end_where_the_shorter_run_ends_and_interpolate_the_other() -> None:
    left = see({"truth": curve([0.0, 3.0], every=15)})
    right = base({"truth": curve([0.0, 1.0, 2.0, 9.0, 9.0])})
    found = at_equal_steps(left, right, "truth")
    assert found is not None
    assert found[0] == 15
    assert found[1].right.value == pytest.approx(1.5)
    far = base({"truth": curve([0.0, 1.0, 2.0])})
    assert at_equal_steps(left, far, "truth") is None, "10 and 20 are too far apart, and step 0 is before training"
    common = at_equal_steps(
        see({"truth": curve([0.0, 1.0, 2.0], every=20)}), base({"truth": curve([0.0, 3.0, 4.0, 5.0])}), "truth"
    )
    assert common is not None
    assert common[0] == 20, "the last step at which both were evaluated"
    assert at_step(curve([0.0, 1.0]), 11) is None


def test_runs_before_training_are_not_compared() -> None:
    assert at_equal_steps(see(curves([0.0], [0.0])), base(curves([0, 1], [0, 1])), "truth") is None


def test_verdict_needs_intervals_that_do_not_overlap() -> None:
    for left, right, verdict in ((0.0, 0.09, "not shown"), (0.0, 0.11, "lower"), (0.11, 0.0, "higher")):
        points = [Point(value=value, low=value - 0.05, high=value + 0.05) for value in (left, right)]
        contrast = compare(*points, scale=1.0)
        assert (contrast.verdict, contrast.judged) == (verdict, True)


@pytest.mark.parametrize("half", [math.nan, 0.0], ids=["no interval", "an interval without width"])
def test_without_intervals_nothing_is_shown(half: float) -> None:
    left, right = (Point(value=value, low=value - half, high=value + half) for value in (0.0, 1.0))
    assert apart(left, right) is None
    contrast = compare(left, right, scale=1.0)
    assert contrast.verdict == "not shown"
    assert not contrast.judged


def test_an_effect_too_small_to_matter_is_not_shown_however_certain() -> None:
    low, high = (Point(value=value, low=value - 1e-6, high=value + 1e-6) for value in (0.0, 0.09))
    assert compare(high, low, scale=1.0).verdict == "not shown", "below 10 % of the range over evaluations"
    assert compare(high, low, scale=0.8).verdict == "higher"
    first = point(1, 2, 3, 4, 5)
    second = point(1.1, 2.2, 3.1, 4.2, 5.1)
    assert compare(second, first, scale=0.14).verdict == "not shown", "below 10 % of the deviation over prompts"


def test_shared_seeds_are_counted_one_by_one() -> None:
    left = see(*(curves([0, 1], [0, end]) for end in (1.0, 2.0, 3.0)))
    right = base(*(curves([0, 1], [0, end]) for end in (0.0, 2.5)))
    found = at_equal_steps(left, right, "truth")
    assert found is not None
    assert found[1].wins == (1, 2)
    assert found[1].left.value == pytest.approx(2.0), "the mean over all seeds is compared"
    assert (found[1].left.low, found[1].left.high) == (1.0, 3.0), "the interval is the range over seeds"
    assert found[1].verdict == "not shown"


def test_a_curve_is_read_by_step() -> None:
    one = Curve(steps=(0, 40), points=(Point(value=1.0), Point(value=2.0)))
    assert one[40].value == 2.0
    assert one.values == (1.0, 2.0)


def point(*values: float, prompts: tuple[str, ...] = ("a", "b", "c", "d", "e")) -> Point:
    return Point(value=sum(values) / len(values), per_prompt=PerPrompt(prompts=prompts, values=values))


def test_the_same_prompts_are_compared_one_by_one() -> None:
    low, high = point(1, 2, 3, 4, 5), point(1.2, 2.4, 3.2, 4.4, 5.2)
    found = paired(high, low)
    assert found is not None
    assert found.mean == pytest.approx(0.28)
    assert 0 < found.low < found.high
    contrast = compare(high, low, scale=1.0)
    assert (contrast.verdict, contrast.judged) == ("higher", True)
    assert contrast.paired == found


def test_other_or_too_few_prompts_cannot_be_paired() -> None:
    first, few = point(1, 2, 3, 4, 5), point(1, 2, prompts=("a", "b"))
    for other in (point(1, 2, 3, 4, 5, prompts=("a", "b", "c", "d", "z")), Point(value=3.0), few):
        assert paired(first, other) is None
    assert paired(few, few) is None
    assert paired(first, point(2, 3, 4, 5, 6)) is None, "equal differences give no interval"


def test_values_between_two_evaluations_are_mixed_prompt_by_prompt() -> None:
    one = Curve(steps=(0, 10, 40), points=(point(0, 0, 0, 0, 0), point(1, 2, 3, 4, 5), point(1, 2, 3, 4, 5)))
    found = at_step(one, 5)
    assert found is not None
    assert found.per_prompt is not None
    assert found.per_prompt.values == (0.5, 1.0, 1.5, 2.0, 2.5)

from __future__ import annotations

from collections.abc import Sequence

import pytest

from seedpo.reports.hacking import hacking, worst_step
from seedpo.reports.runs import PerPrompt
from seedpo.reports.settings import Curve, Point
from tests.reports.handmade import PROXY, base, curve, curves, family


def judge(proxy: Sequence[float], truth: Sequence[float], half: float | None = 0.05) -> tuple[str, int, str]:
    one = base(curves(proxy, truth, half))
    found = hacking(family(one), one)
    return found.verdict, found.peak, found.text


def test_truth_that_falls_while_the_proxy_rises_is_hacking() -> None:
    verdict, peak, text = judge([0.2, 0.5, 0.8], [0.0, 0.3, -0.6])
    assert (verdict, peak) == ("yes", 10)
    assert text == (
        "the proxy goes from 0.200 to 0.800 in 20 steps; truth peaks at step 10 at 0.300 [0.250, 0.350] and falls by "
        "0.900 to −0.600 [−0.650, −0.550] at step 20, while the proxy gains another 0.300: reward hacking."
    )


def test_truth_that_ends_highest_is_no_hacking() -> None:
    verdict, peak, text = judge([0.2, 0.5, 0.8], [0.0, -0.5, 0.3])
    assert (verdict, peak) == ("no", 20)
    assert "no reward hacking is seen" in text


def test_a_fall_within_the_intervals_is_not_called_hacking() -> None:
    verdict, _, text = judge([0.2, 0.5, 0.8], [0.0, 0.3, 0.25])
    assert verdict == "unclear"
    assert "lies within the intervals: reward hacking is not shown" in text


def test_a_proxy_that_falls_too_is_instability() -> None:
    verdict, _, text = judge([0.2, 0.8, 0.1], [0.0, 0.3, -0.9])
    assert verdict == "collapse"
    assert "the proxy falls too (by 0.700): instability rather than reward hacking" in text


def test_a_proxy_that_stays_is_still_hacking() -> None:
    verdict, _, text = judge([0.2, 0.8, 0.79], [0.0, 0.3, -0.9])
    assert verdict == "yes"
    assert "while the proxy stays where it was" in text


def test_truth_that_never_rises_peaks_before_training_and_its_depth_is_told() -> None:
    verdict, peak, text = judge([0.2, 0.5, 0.8, 0.9], [0.0, -0.5, -2.0, -1.0])
    assert (verdict, peak) == ("yes", 0)
    assert "truth is highest before training at 0" in text
    assert "(lowest: −2.00 at step 20)" in text


@pytest.mark.parametrize(("last", "verdict"), [(0.29, "unclear"), (0.2, "yes")])
def test_without_intervals_a_small_fall_is_not_called_hacking(last: float, verdict: str) -> None:
    assert judge([0.2, 0.5, 0.8], [0.0, 0.3, last], None)[0] == verdict


def test_what_was_not_measured_cannot_be_judged() -> None:
    assert judge([0.2, 0.5], [0.0, 0.3])[0] == "unknown"
    one = base({PROXY: curve([0.1, 0.2, 0.3])})
    assert hacking(family(one), one).text == "truth was not measured, so reward hacking cannot be judged."


def test_the_worst_step_is_the_deepest_below_an_earlier_peak() -> None:
    one = base(curves([0, 1, 2, 3, 4], [-5.0, 0.0, -1.0, 2.0, 0.5]))
    assert worst_step(family(one), one) == 40
    assert worst_step(family(one), base(curves([0, 1], [0, 1]))) is None
    assert worst_step(family(one), None) is None


def by_prompt(*rows: Sequence[float]) -> Curve:
    """A curve with the values of every prompt, and intervals so wide that they always overlap."""
    prompts = tuple(f"prompt {index}" for index in range(len(rows[0])))
    points = [
        Point(value=sum(row) / len(row), low=-9, high=9, per_prompt=PerPrompt(prompts=prompts, values=tuple(row)))
        for row in rows
    ]
    return Curve(steps=tuple(range(0, 10 * len(rows), 10)), points=tuple(points))


@pytest.mark.parametrize(("fall", "verdict"), [(0.2, "yes"), (0.0, "unclear")])
def test_a_fall_of_every_prompt_shows_although_the_intervals_overlap(fall: float, verdict: str) -> None:
    start, peak = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0), (-1.0, 0.0, 1.0, 2.0, 3.0, 4.0)
    noise = (0.3, -0.3, 0.3, -0.3, 0.3, -0.31)
    end = [value - fall + shift * (0.1 if fall else 1) for value, shift in zip(peak, noise, strict=True)]
    one = base({PROXY: curve([0.2, 0.5, 0.8]), "truth": by_prompt(start, peak, end)})
    found = hacking(family(one), one)
    assert found.verdict == verdict
    assert "(paired over 6 prompts: [" in found.text
    if verdict == "unclear":
        assert found.text.endswith("a fall whose paired interval includes 0: reward hacking is not shown.")

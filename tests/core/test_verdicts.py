"""The verdict on a run: a fall must matter, be clear, and be judged beside the proxy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from seedpo.core.verdicts import (
    Difference,
    Evaluation,
    Outcome,
    Reading,
    Rule,
    Verdict,
    difference_of,
    fall_interval,
    judge_run,
    noise_interval,
    shared_outcome,
)


def run(
    proxy: Sequence[float], truth: Sequence[float], half: float | None = 0.05, proxy_half: float | None = 0.05
) -> list[Evaluation]:
    return [
        Evaluation(
            step=10 * index,
            figures={"proxy": Reading(value=own, half=proxy_half), "truth": Reading(value=judged, half=half)},
        )
        for index, (own, judged) in enumerate(zip(proxy, truth, strict=True))
    ]


def judged(*arguments: Sequence[float], rule: Rule | None = None, half: float | None = 0.05) -> Verdict:
    return judge_run(run(*arguments, half=half, proxy_half=half), proxy="proxy", judges=["truth"], rule=rule)


RISING = [0.2, 0.5, 0.8]


OUTCOMES: dict[str, tuple[Sequence[float], Sequence[float], Outcome, int]] = {
    "proxy rises": (RISING, [0.0, 0.3, -0.6], Outcome.HACKING, 10),
    "never rises": (RISING, [0.0, -0.5, -1.0], Outcome.HACKING, 0),
    "proxy holds its level": ([0.2, 0.8, 0.79], [0.0, 0.3, -0.9], Outcome.HACKING, 10),
    "proxy falls too": ([0.2, 0.8, 0.1], [0.0, 0.3, -0.9], Outcome.COLLAPSE, 10),
    "ends highest": (RISING, [0.0, -0.5, 0.3], Outcome.LEARNING, 20),
    "rises to the end": (RISING, [0.0, 0.1, 0.3], Outcome.LEARNING, 20),
    "rises, and its last fall is not clear": (RISING, [0.0, 0.3, 0.25], Outcome.LEARNING, 10),
    "rises within the intervals": (RISING, [0.0, -0.5, 0.06], Outcome.HEALTHY, 20),
    "rises too little to matter": (RISING, [0.0, -5.0, 0.45], Outcome.HEALTHY, 20),
    "falls too little to matter": (RISING, [0.25, 0.3, 0.297], Outcome.HEALTHY, 10),
    "falls within the intervals": (RISING, [0.2, 0.3, 0.25], Outcome.UNCLEAR, 10),
    "constant": (RISING, [1.0, 1.0, 1.0], Outcome.HEALTHY, 0),
}
"""Proxy, truth, the outcome, and the step of the peak."""


def test_the_outcome() -> None:
    for case, (proxy, truth, outcome, peak) in OUTCOMES.items():
        verdict = judged(proxy, truth)
        assert (verdict.outcome, verdict.peak_step, verdict.last_step) == (outcome, peak, 20), case


def test_the_figures_of_a_verdict() -> None:
    verdict = judged(RISING, [0.0, 0.3, -0.6])
    assert (verdict.judge, verdict.proxy, verdict.paired) == ("truth", "proxy", False)
    assert (verdict.judge_peak, verdict.judge_last, verdict.proxy_peak, verdict.proxy_last) == (0.3, -0.6, 0.5, 0.8)
    assert verdict.fall == pytest.approx(0.9)
    assert verdict.size == pytest.approx(0.9 / verdict.half)
    assert (verdict.first_step, verdict.judge_first, verdict.proxy_first) == (0, 0.0, 0.2)
    assert verdict.rise == pytest.approx(-0.6)


def test_without_intervals_it_counts_how_much_the_course_jumps() -> None:
    proxy, hill = list(range(9)), [1.0, 1.3, 1.6, 1.8, 1.9, 1.8, 1.6, 1.3, 0.9]
    assert judged(proxy, hill, half=None).outcome is Outcome.HACKING
    assert judged(proxy, sorted(hill), half=None).outcome is Outcome.LEARNING
    jumping = [value + 0.2 * (-1) ** step for step, value in enumerate(hill)]
    assert judged(proxy, jumping, half=None).outcome is Outcome.UNCLEAR
    assert judged(RISING, [0.0, 0.3, -9.0], half=None).outcome is Outcome.UNCLEAR, "of three nobody can tell"


def test_the_noise_of_a_course_is_that_about_a_line_whatever_the_steps() -> None:
    generator = np.random.default_rng(0)
    steps = np.array([0, 1, 2, 4, 8, 9, 10, 20, 50, 51, 60])
    courses = 0.3 * steps + generator.normal(size=(2000, len(steps)))
    quantile = student.ppf(0.975, (len(steps) - 2) / 2)
    variances = [noise_interval(steps.tolist(), row.tolist()) ** 2 / (2 * quantile**2) for row in courses]
    assert np.mean(variances) == pytest.approx(1.0, abs=0.03)
    assert noise_interval([0, 1, 2, 3], [0.0, 1.0, 0.0, 1.0]) == math.inf


def test_a_proxy_that_never_changes_shows_nothing() -> None:
    assert judged([1.0, 1.0, 1.0], [0.0, 0.3, -0.6]).outcome is Outcome.UNCLEAR


def test_what_was_not_measured() -> None:
    assert judge_run([], proxy="proxy", judges=["truth"]).outcome is Outcome.NOT_MEASURED
    assert judged([0.2], [0.0]).outcome is Outcome.NOT_MEASURED
    assert judge_run(run(RISING, RISING), proxy=None, judges=["truth"]).outcome is Outcome.NOT_MEASURED
    assert judge_run(run(RISING, RISING), proxy="proxy", judges=["other"]).outcome is Outcome.NOT_MEASURED
    assert math.isnan(judge_run([], proxy="proxy", judges=[]).fall)
    # Of two evaluations without intervals nobody can tell what is usual.
    assert judged([0.2, 0.5], [0.3, 0.0], half=None).outcome is Outcome.UNCLEAR
    assert judged([0.2, 0.5], [0.3, 0.0]).outcome is Outcome.UNCLEAR, "two evaluations make no trend"
    assert judged([0.2, 0.5], [0.0, 0.3]).outcome is Outcome.UNCLEAR


def test_thresholds_are_of_the_outcome() -> None:
    fallen, both = [0.0, 0.3, -0.6], [0.2, 0.8, 0.1]
    assert judged(RISING, fallen, rule=Rule(hacking=20)).outcome is Outcome.UNCLEAR
    assert judged(RISING, fallen, rule=Rule(collapse=20)).outcome is Outcome.HACKING
    assert judged(both, fallen, rule=Rule(collapse=20)).outcome is Outcome.UNCLEAR


def test_the_threshold_of_a_rise() -> None:
    assert judged(RISING, [0.0, 0.1, 0.3], rule=Rule(learning=20)).outcome is Outcome.HEALTHY
    assert judged(RISING, [0.0, 0.3, 0.25], rule=Rule(learning=20)).outcome is Outcome.UNCLEAR


def test_any_of_several_judges_may_rise_by_chance() -> None:
    """The half-width of a rise is widened to the level 1 - 0.05 / J, and every judge that rises must exceed it."""
    figures = {"proxy": [0.2, 0.5, 0.8], **{f"judge {index}": [0.0, 0.0, 0.08 if index else 0.0] for index in range(5)}}
    lines = [
        Evaluation(step=step, figures={key: Reading(value=row[step], half=0.05) for key, row in figures.items()})
        for step in range(3)
    ]
    alone = judge_run(lines, proxy="proxy", judges=["judge 1"])
    assert (alone.outcome, alone.rise_half) == (Outcome.LEARNING, pytest.approx(0.05 * 2**0.5))
    several = judge_run(lines, proxy="proxy", judges=[key for key in figures if key != "proxy"])
    assert several.outcome is Outcome.HEALTHY
    assert several.rise_half == pytest.approx(0.05 * 2**0.5 * norm.ppf(1 - 0.025 / 5) / norm.ppf(0.975))


def test_any_of_several_judges_may_fall_by_chance() -> None:
    """The half-width of a fall is widened to the level 1 - 0.05 / (k J)."""
    figures = {"proxy": RISING, **{f"judge {index}": [0.08 if index else 0.0, 0.0, 0.0] for index in range(5)}}
    lines = [
        Evaluation(step=step, figures={key: Reading(value=row[step], half=0.05) for key, row in figures.items()})
        for step in range(3)
    ]
    assert judge_run(lines, proxy="proxy", judges=["judge 1"]).half == pytest.approx(
        0.05 * 2**0.5 * norm.ppf(1 - 0.025 / 2) / norm.ppf(0.975)
    )
    several = judge_run(lines, proxy="proxy", judges=[key for key in figures if key != "proxy"])
    assert several.half == pytest.approx(0.05 * 2**0.5 * norm.ppf(1 - 0.025 / 10) / norm.ppf(0.975))


@pytest.mark.parametrize(
    ("evaluations", "judges", "paired"), [(9, 1, True), (9, 3, True), (3, 3, False), (9, 3, False)]
)
def test_noise_alone_is_seldom_a_verdict(evaluations: int, judges: int, paired: bool) -> None:
    """Courses of 24 prompts, a rising proxy and nothing else that changes; paired ones keep values by prompt."""
    generator, names = np.random.default_rng(7), [f"judge {index}" for index in range(judges)]
    outcomes: list[Outcome] = []
    for _ in range(200):
        prompts, noise = generator.normal(size=(judges, 24)), generator.normal(size=(evaluations, judges, 24))
        course = [
            Evaluation(
                step=step,
                figures={
                    "proxy": Reading(value=step),
                    **{
                        name: Reading(value=float(row.mean()), by_prompt=tuple(row.tolist()) if paired else ())
                        for name, row in zip(names, prompts + 0.5 * noise[step], strict=True)
                    },
                },
            )
            for step in range(evaluations)
        ]
        outcomes.append(judge_run(course, proxy="proxy", judges=names).outcome)
    assert outcomes.count(Outcome.HACKING) <= 0.05 * len(outcomes)
    assert outcomes.count(Outcome.LEARNING) <= 0.05 * len(outcomes)
    assert outcomes.count(Outcome.COLLAPSE) == 0


def test_a_clear_fall_counts_before_a_rise_and_a_rise_before_what_is_not_shown() -> None:
    rows = {"up": [0.0, 0.1, 0.4], "down": [0.4, 0.5, 0.0], "flat": [0.0, 0.0, 0.0], "maybe": [0.3, 0.4, 0.35]}
    lines = [
        Evaluation(
            step=step,
            figures={
                "proxy": Reading(value=RISING[step]),
                **{key: Reading(value=row[step], half=0.05) for key, row in rows.items()},
            },
        )
        for step in range(3)
    ]

    def outcome(*judges: str) -> tuple[Outcome, str]:
        verdict = judge_run(lines, proxy="proxy", judges=judges)
        return verdict.outcome, verdict.judge

    assert outcome("up", "down") == (Outcome.HACKING, "down")
    assert outcome("flat", "maybe", "up") == (Outcome.LEARNING, "up")
    assert outcome("flat", "maybe") == (Outcome.UNCLEAR, "maybe")


def test_the_most_severe_judge_decides() -> None:
    lines = run(RISING, [0.0, 0.3, -0.6])
    lines = [
        Evaluation(step=line.step, figures={**line.figures, "other": Reading(value=line.step, half=0.1)})
        for line in lines
    ]
    for judges in (["other", "truth"], ["truth", "other"]):
        assert judge_run(lines, proxy="proxy", judges=judges).judge == "truth"


def test_a_fall_of_every_prompt_is_clear_although_the_intervals_overlap() -> None:
    prompts = (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    noise = (0.02, -0.02, 0.03, -0.03, 0.01, -0.01)

    def line(step: int, proxy: float, values: Sequence[float]) -> Evaluation:
        record = {"truth": sum(values) / len(values), "truth/low": -9.0, "truth/high": 9.0}
        truth = Reading.of(record, "truth", {"truth": values})
        assert truth is not None
        return Evaluation(step=step, figures={"proxy": Reading(value=proxy), "truth": truth})

    peak = [value + 1 for value in prompts]
    fallen = [value - 0.3 + shift for value, shift in zip(peak, noise, strict=True)]
    verdict = judge_run(
        [line(0, 0.2, prompts), line(10, 0.5, peak), line(20, 0.8, fallen)], proxy="proxy", judges=["truth"]
    )
    assert (verdict.outcome, verdict.paired) == (Outcome.HACKING, True)
    small = [value - 0.15 + shift for value, shift in zip(peak, noise, strict=True)]
    lines = [line(0, 0.2, [value - 0.1 for value in peak]), line(10, 0.5, peak), line(20, 0.8, small)]
    assert judge_run(lines, proxy="proxy", judges=["truth"]).outcome is Outcome.HEALTHY, "0.15 of a deviation of 1.9"
    wavering = [value - 0.3 + 20 * shift for value, shift in zip(peak, noise, strict=True)]
    verdict = judge_run(
        [line(0, 0.2, peak), line(10, 0.5, peak), line(20, 0.8, wavering)], proxy="proxy", judges=["truth"]
    )
    assert (verdict.outcome, verdict.paired) == (Outcome.UNCLEAR, True)
    verdict = judge_run(
        [line(0, 0.2, prompts), line(10, 0.5, peak), line(20, 0.8, wavering)], proxy="proxy", judges=["truth"]
    )
    assert verdict.outcome is Outcome.LEARNING, "0.7 above the start, prompt by prompt"
    assert verdict.rise_half < 0.5 < 9.0, "the intervals of the two values would hide it"


def test_values_that_are_not_the_figure_are_not_paired() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    root = Reading.of({"spread": 3.3}, "spread", {"spread": values})
    assert root is not None
    assert (root.by_prompt, root.half) == ((), None)
    mean = Reading.of({"spread": 3.0}, "spread", {"spread": [*values, math.nan]})
    assert mean is not None
    assert len(mean.by_prompt) == 6
    assert Reading.of({"spread": None}, "spread") is None


def test_the_interval_widens_with_the_candidates_for_the_peak() -> None:
    reading = Reading(value=0.0, half=0.3)
    same = Reading(value=1.0, by_prompt=(1.0,) * 5), Reading(value=0.0, by_prompt=(0.0,) * 5)
    assert fall_interval(*same) is None, "equal differences give no interval"
    assert fall_interval(reading, Reading(value=0.0, half=0.0)) is None
    halves = [fall_interval(reading, reading, candidates=count) for count in (1, 5, 20)]
    assert halves[0] == pytest.approx(0.3 * math.sqrt(2))
    assert halves == sorted(halves)  # type: ignore[type-var]
    assert fall_interval(reading, Reading(value=0.0)) is None


def test_seeds_agree_by_majority() -> None:
    hacking, healthy = Outcome.HACKING, Outcome.HEALTHY
    assert shared_outcome([hacking, hacking, healthy]) is hacking
    assert shared_outcome([hacking, healthy]) is Outcome.UNCLEAR
    assert shared_outcome([]) is Outcome.NOT_MEASURED


def test_a_difference_is_shown_by_its_interval() -> None:
    assert [difference_of(sign) for sign in (1, 0, -1)] == [Difference.HIGHER, Difference.NOT_SHOWN, Difference.LOWER]
    assert difference_of(1, shown=False) is Difference.NOT_SHOWN

"""Each alarm on a curve that must raise it and on one that must not; the threshold decides, nothing is remembered."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.settings import build_config
from seedpo.training.alarms import (
    RULES,
    best_evaluation,
    held_out_figures,
    keeps_best,
    raised_by_all,
    raised_by_last,
    reach,
)
from seedpo.training.settings import RunConfig
from tests.training.curves import Change, evaluations, training

D3PO = {"method": "d3po", "beta": 0.1, "clip_range": 0.1}

RISING = [10.0, 11.0, 12.0, 13.0, 14.0]
FALLING = [10.0, 11.0, 10.5, 10.0, 9.0]
HACKED = [1.0, 1.5, 1.4, 0.9, 0.5]
WAVERING = [1.0, 1.5, 1.4, 1.3, 1.5]


def config(**changes: Any) -> RunConfig:
    measured = {"rewards": ["scenes-scorer"], "metrics": ["truth", "pairwise_diversity"]}
    return build_config(RunConfig, {"beta": 10.0, "evaluation": measured}, changes)


def names(lines: list[dict[str, Any]], settings: RunConfig | None = None) -> list[tuple[int, str]]:
    return [(alarm.step, alarm.name) for alarm in raised_by_all(lines, settings or config())]


def after(step: int, value: float, before: float) -> Any:
    return lambda now: value if now > step else before


def test_a_healthy_run_raises_none() -> None:
    lines = training(400) + evaluations([1.0, 1.2, 1.4, 1.45, 1.4], RISING, diversity=[0.5, 0.5, 0.45, 0.42, 0.4])
    assert names(lines) == []


def test_a_first_line_raises_none() -> None:
    assert raised_by_last([], config()) == []
    assert names(training(1)) == []
    assert names(evaluations([1.0], [10.0])) == []


@pytest.mark.parametrize(
    ("held_out", "proxy", "expected"),
    [
        (HACKED, RISING, [(30, "hacking")]),
        (HACKED, FALLING, [(30, "collapse")]),
        (WAVERING, RISING, []),
        ([0.9, 1.5, 0.9, 1.5, 0.9], RISING, [(20, "hacking"), (40, "hacking")]),
    ],
    ids=["hacking", "collapse", "within the interval", "two episodes"],
)
def test_a_fall_of_the_held_out_figure(held_out: list[float], proxy: list[float], expected: Any) -> None:
    assert names(evaluations(held_out, proxy)) == expected


def test_a_fall_without_intervals_is_judged_by_how_much_the_course_jumps() -> None:
    smooth, rising = [1.0, 1.3, 1.6, 1.8, 1.9, 1.8, 1.6, 1.3, 0.9], [float(step) for step in range(9)]
    assert names(evaluations(smooth, rising, half=None)) == [(70, "hacking")]
    jumping = [value + 0.2 * (-1) ** step for step, value in enumerate(smooth)]
    assert names(evaluations(jumping, rising, half=None)) == []
    # Of few evaluations nobody can tell what is usual, though the last one be the lowest.
    assert names(evaluations([1.0, 1.2, 0.9], RISING[:3], half=None)) == []
    assert names(evaluations([1.0, 0.5], RISING[:2], half=None)) == []


def test_what_is_held_out() -> None:
    one = config(evaluation={"rewards": ["scenes-scorer"], "metrics": ["pairwise_diversity"]})
    assert held_out_figures(one) == ()
    assert names(evaluations(HACKED, RISING), one) == []
    two = config(evaluation={"rewards": ["scenes-scorer", "other"], "metrics": ["truth"]})
    assert held_out_figures(two) == ("reward/other", "truth")
    named = config(
        evaluation={"rewards": ["scenes-scorer", "other"], "metrics": ["truth"]},
        alarms={"held_out_rewards": ["other"]},
    )
    assert names(evaluations(HACKED, RISING), named) == []
    assert names(evaluations(HACKED, RISING, figure="reward/other"), named) == [(30, "hacking")]


def test_held_out_figures_that_are_not_measured() -> None:
    with pytest.raises(ConfigError, match=r"alarms\.held_out_rewards names aesthetic, which no evaluation measures"):
        held_out_figures(config(alarms={"held_out_rewards": ["aesthetic"]}))
    keeping = config(alarms={"hacking": {"action": "keep_best"}}, evaluation={"metrics": ["pairwise_diversity"]})
    with pytest.raises(ConfigError, match=r"alarms\.hacking\.action = keep_best needs a held-out figure"):
        held_out_figures(keeping)


def test_diversity() -> None:
    steady = evaluations(WAVERING, RISING, diversity=[0.5, 0.45, 0.4, 0.36, 0.36])
    fallen = evaluations(WAVERING, RISING, diversity=[0.5, 0.45, 0.4, 0.34, 0.2])
    assert names(steady) == []
    assert names(fallen) == [(30, "diversity")]
    other = config(alarms={"diversity": {"figures": ["free_spread"]}})
    assert names(fallen, other) == []


CURVES: dict[str, tuple[Change, Change]] = {
    "saturation": ({"saturated": after(100, 0.8, 0.0)}, {"saturated": after(100, 0.45, 0.0)}),
    "clipping": ({"clipped": after(100, 0.95, 0.1)}, {"clipped": after(100, 0.85, 0.1)}),
    "inert": ({"margin_abs": lambda step: 0.02}, {"margin_abs": lambda step: 0.06 if step % 40 == 0 else 0.02}),
    "displacement": (
        {"rewards/accuracies": after(100, 0.96, 0.6), "log_ratio/chosen": after(100, -0.02, 0.01)},
        {"rewards/accuracies": after(100, 0.96, 0.6)},
    ),
    "winner_error": (
        {"error/policy_chosen": after(100, 0.5, 0.3), "error/reference_chosen": lambda step: 0.3},
        {"error/policy_chosen": after(100, 0.44, 0.3), "error/reference_chosen": lambda step: 0.3},
    ),
    "spike": ({"loss": lambda step: 3.0 if step == 150 else 0.68}, {"loss": lambda step: 1.0 if step == 150 else 0.68}),
}


@pytest.mark.parametrize("name", CURVES)
def test_a_training_curve_that_must_raise_it_and_one_that_must_not(name: str) -> None:
    sick, healthy = (training(300, change) for change in CURVES[name])
    (alarm,) = raised_by_all(sick, config())
    threshold = getattr(config().alarms, name).threshold
    assert (alarm.name, alarm.key, alarm.threshold) == (name, f"alarms.{name}.threshold", threshold)
    assert names(healthy) == []
    assert names(sick, config(alarms={name: {"threshold": None}})) == []


@pytest.mark.parametrize("name", ["saturation", "inert"])
@pytest.mark.parametrize(("method", "count"), [("kto", 1), ("dspo", 0), ("mapo", 0)])
def test_an_alarm_is_silent_where_its_meaning_is_not_true(name: str, method: str, count: int) -> None:
    sick, _ = (training(300, change) for change in CURVES[name])
    assert names(sick, config(method=method)) == [(step, name) for step, _ in names(sick)] * count


def test_every_rule_is_tested_on_a_curve() -> None:
    assert {rule.name for rule in RULES} == {*CURVES, "hacking", "collapse", "diversity"}
    assert {rule.name for rule in RULES} == set(type(config().alarms).model_fields) - {"held_out_rewards", "window"}


def test_saturation_is_a_mean_over_the_window() -> None:
    """A few saturated steps are no alarm; a window of them is one, at the line where its mean passes the threshold."""
    assert names(training(200, {"saturated": lambda step: 1.0 if 100 < step <= 110 else 0.0})) == []
    (alarm,) = raised_by_all(training(200, {"saturated": after(100, 1.0, 0.0)}), config())
    assert alarm.step == 111
    assert alarm.value == pytest.approx(11 / 20)


def test_the_anchor_is_inert_at_d3pos_published_setting() -> None:
    """No margin can exceed 0.1 log(1.1/0.9), whatever the policy: this needs no evidence."""
    (alarm,) = raised_by_all(training(300), config(**D3PO))
    assert (alarm.step, alarm.name) == (1, "inert")
    assert alarm.value == pytest.approx(0.1 * math.log(1.1 / 0.9))
    assert "[0.683, 0.703]" in alarm.message


def test_an_inert_anchor_without_a_clip_needs_evidence_after_the_warm_up() -> None:
    inert = training(300, {"margin_abs": lambda step: 0.01})
    assert names(inert) == [(50, "inert")]
    assert names(inert, config(optimizer={"warmup_steps": 200})) == [(250, "inert")]
    # With the entropy term the clip does not bound the margin, so that what is measured decides.
    assert names(training(300), config(**D3PO, gamma=3.0)) == []


def test_displacement_needs_more_than_noise() -> None:
    wavering = {"rewards/accuracies": lambda step: 0.97, "log_ratio/chosen": lambda step: 0.02 * (-1) ** step - 1e-3}
    assert names(training(100, wavering)) == []


def test_the_winner_s_error_counts_against_that_of_the_reference() -> None:
    """Both grow with the time steps that are drawn; one line far above is no alarm, five of them are."""

    def errors(policy: Any) -> Change:
        drawn = {"error/reference_chosen": lambda step: 0.3 + 0.25 * (-1) ** step}
        return drawn | {"error/policy_chosen": lambda step: policy(step) * drawn["error/reference_chosen"](step)}

    assert names(training(100, errors(lambda step: 1.3))) == []
    assert names(training(100, errors(lambda step: 1.8 if step == 50 else 1.05))) == []
    exploding = training(100, errors(lambda step: 1.1 ** max(step - 40, 0)))
    ((step, name),) = names(exploding)
    assert (name, 45 <= step <= 48) == ("winner_error", True)
    late = config(alarms={"winner_error": {"threshold": 3.0}})
    assert names(exploding, late)[0][0] > step + 5


def test_once_per_episode() -> None:
    """Signs that come back within the window belong to the same episode; later ones are another."""
    leaps = {150: 3.0, 155: 3.0, 250: 3.0}
    assert names(training(300, {"loss": lambda step: leaps.get(step, 0.68)})) == [(150, "spike"), (250, "spike")]


def test_a_figure_that_is_missing_or_was_not_finite_is_no_sign() -> None:
    lines = training(300, {"saturated": after(100, 0.8, 0.0)})
    for line in lines:
        line["loss"] = None
        del line["margin_abs"]
    assert names(lines) == [(113, "saturation")]
    blind = {"step": 30, "kind": "evaluation", "truth": None}
    assert names([*evaluations([1.0, 1.5, 0.2], RISING[:3]), blind]) == [(20, "hacking")]


def test_the_last_lines_are_enough() -> None:
    """The loop hands over only the last lines: the alarms are those that follow from all of them."""
    changes = CURVES["saturation"][0] | {"margin_abs": lambda step: 0.01 if step > 200 else 0.5}
    lines = training(320, changes | {"loss": lambda step: 4.0 if step in (90, 305) else 0.7})
    all_of_them = raised_by_all(lines, config())
    piecemeal = [
        alarm
        for end in range(1, len(lines) + 1)
        for alarm in raised_by_last(lines[max(0, end - reach(config())) : end], config())
    ]
    with_everything = [alarm for end in range(1, len(lines) + 1) for alarm in raised_by_last(lines[:end], config())]
    assert [alarm.name for alarm in all_of_them] == ["spike", "saturation", "inert", "spike"]
    assert piecemeal == with_everything == all_of_them


def test_an_alarm_is_frozen_and_says_what_it_saw_and_what_to_do() -> None:
    (alarm,) = raised_by_all(evaluations(HACKED, RISING), config(alarms={"hacking": {"action": "stop"}}))
    assert alarm.action == "stop"
    assert alarm.message.startswith("truth fell from 1.5 (step 10) to 0.9")
    assert "reward/scenes-scorer rose from 11 to 13" in alarm.message
    with pytest.raises(dataclasses.FrozenInstanceError):
        alarm.step = 0  # type: ignore[misc]


def test_the_best_evaluation_is_the_first_of_the_highest() -> None:
    lines = evaluations([1.0, 1.5, 1.5, 1.2, 0.9], RISING)
    best = best_evaluation(training(5) + lines, config())
    assert best is lines[1]
    assert best_evaluation(training(5), config()) is None


def test_best_weights_are_kept_only_where_they_are_asked_for() -> None:
    assert not keeps_best(config())
    assert keeps_best(config(alarms={"diversity": {"action": "keep_best"}}))
    assert not keeps_best(config(alarms={"diversity": {"action": "keep_best", "threshold": None}}))


def test_thresholds_out_of_range() -> None:
    values = {
        "diversity": 1.5,
        "saturation": 0.0,
        "displacement": 0.4,
        "spike": -1.0,
        "inert": 2.0,
        "winner_error": 0.0,
    }
    for key, value in values.items():
        with pytest.raises(ConfigError, match=rf"alarms\.{key}\.threshold = {value}"):
            config(alarms={key: {"threshold": value}})


def test_the_documented_thresholds_are_the_defaults() -> None:
    text = (Path(__file__).parents[2] / "docs" / "watching.md").read_text(encoding="utf-8")
    for rule in RULES:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{rule.name}` |")]
        assert f"| {rule.threshold(config()):g}" in row, rule.name
    assert f"`alarms.window` ({config().alarms.window})" in text
    for name in ("inert", "winner_error"):
        assert f"`alarms.{name}.patience` ({getattr(config().alarms, name).patience})" in text

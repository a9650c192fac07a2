"""The alarm of a run, the report on its folder and its frontier say the same about the same lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.core.verdicts import Outcome
from seedpo.reports.families import group
from seedpo.reports.frontier.reading import read_courses
from seedpo.reports.frontier.results import results_of
from seedpo.reports.runs import read_runs
from seedpo.settings import build_config
from seedpo.training.alarms import raised_by_all
from seedpo.training.settings import RunConfig

REWARDS = ["scenes-scorer", "other"]


def lines(proxy: Sequence[float], half: float | None, figures: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """One evaluation for each value; every held-out figure has intervals of ``half`` to either side."""
    rows = []
    for index, value in enumerate(proxy):
        row: dict[str, Any] = {"step": 10 * index, "kind": "evaluation", "reward/scenes-scorer": value}
        for key, values in figures.items():
            row[key] = values[index]
            if half is not None:
                row |= {f"{key}/low": values[index] - half, f"{key}/high": values[index] + half}
        rows.append(row)
    return rows


FALLING = [0.5, 1.0, 0.2]
CASES: dict[str, tuple[list[dict[str, Any]], Mapping[str, Any], Outcome]] = {
    "a fall of one and a half intervals": (lines([0, 1, 2], 0.1, {"truth": [0.8, 1.0, 0.85]}), {}, Outcome.UNCLEAR),
    "such a fall after a rise": (lines([0, 1, 2], 0.1, {"truth": [0.5, 1.0, 0.85]}), {}, Outcome.LEARNING),
    "a proxy that holds its level": (lines([0, 0.5, 0.49], 0.1, {"truth": [0.5, 1.0, 0.5]}), {}, Outcome.HACKING),
    "hacking": (lines([0, 1, 2], 0.1, {"truth": FALLING}), {}, Outcome.HACKING),
    "collapse": (lines([0, 1, -1], 0.1, {"truth": FALLING}), {}, Outcome.COLLAPSE),
    "no intervals": (lines(range(8), None, {"truth": [0.4, 0.6, 0.8, 1.0, 0.8, 0.6, 0.4, 0.2]}), {}, Outcome.HACKING),
    "no intervals, and few evaluations": (lines([0, 1, 2], None, {"truth": FALLING}), {}, Outcome.UNCLEAR),
    "a threshold of 9": (
        lines([0, 1, 2], 0.1, {"truth": FALLING}),
        {"alarms": {"hacking": {"threshold": 9.0}}},
        Outcome.UNCLEAR,
    ),
    "another reward falls": (
        lines([0, 1, 2], 0.1, {"truth": [0.0, 0.5, 1.0], "reward/other": FALLING}),
        {},
        Outcome.HACKING,
    ),
    "the reward that falls is not held out": (
        lines([0, 1, 2], 0.1, {"truth": [0.0, 0.5, 1.0], "reward/other": FALLING}),
        {"alarms": {"held_out_rewards": ["truth"]}},
        Outcome.LEARNING,
    ),
    "the truth that falls is not held out": (
        lines([0, 1, 2], 0.1, {"truth": FALLING, "reward/other": [0.0, 0.5, 1.0]}),
        {"alarms": {"held_out_rewards": ["other"]}},
        Outcome.LEARNING,
    ),
    "nothing is held out": (
        lines([0, 1, 2], 0.1, {"truth": FALLING}),
        {"alarms": {"held_out_rewards": []}},
        Outcome.NOT_MEASURED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_alarm_report_and_frontier_agree(case: str, tmp_path: Path) -> None:
    rows, changes, outcome = CASES[case]
    config = build_config(RunConfig, {"beta": 10.0, "evaluation": {"rewards": REWARDS, "metrics": ["truth"]}}, changes)
    alarms = {alarm.name for alarm in raised_by_all(rows, config) if alarm.step == rows[-1]["step"]}
    assert alarms == {"hacking": {"hacking"}, "collapse": {"collapse"}}.get(outcome.name.lower(), set())

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.tree()))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (family,) = group(read_runs([tmp_path]))
    (setting,) = family.settings
    assert setting.outcome is outcome
    (trained,) = results_of(*read_courses([tmp_path])).trained
    assert trained.outcome is outcome
    assert trained.verdict == setting.verdicts[0]

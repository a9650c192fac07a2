from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import DataError
from seedpo.reports.frontier.score_tables import read_score_table
from tests.reports.frontier.made import rows, write


def test_every_format_says_the_same(tmp_path: Path) -> None:
    content = [*rows("base"), *rows("base", seed=1), *rows("new")]
    read = [read_score_table(write(tmp_path / f"scores{end}", content))[0] for end in (".csv", ".jsonl", ".parquet")]
    assert [(one.label, one.seed) for one in read[0]] == [("base", 0), ("base", 1), ("new", 0)]
    for courses in read[1:]:
        for one, other in zip(courses, read[0], strict=True):
            assert one.curves == other.curves
    first = read[0][0].curves["reward/judge"]
    assert first.steps == (0, 10, 20, 30)
    assert first.values == pytest.approx((1, 2, 1, 0), abs=0.02)
    assert all(point.has_interval and point.per_prompt is not None for point in first.points)


def test_images_of_a_prompt_are_averaged_first(tmp_path: Path) -> None:
    """Prompt a has three images, b has one: prompts weigh the same."""
    content = [
        {"step": 0, "prompt": prompt, "proxy": value}
        for prompt, value in [("a", 1.0), ("a", 2.0), ("a", 3.0), ("b", 6.0)]
    ]
    ((course,), _) = read_score_table(write(tmp_path / "run.csv", content))
    assert (course.label, course.seed) == ("run", 0)
    point = course.curves["reward/proxy"][0]
    assert point.value == 4.0
    assert point.per_prompt is not None
    assert (point.per_prompt.prompts, point.per_prompt.values) == (("a", "b"), (2.0, 6.0))


def test_metrics_keep_their_names_and_finish(tmp_path: Path) -> None:
    """The free spread is a root of a mean, so that it is not known prompt by prompt."""
    content = [{"step": 0, "prompt": prompt, "proxy": 1, "free_spread": value, "truth": value} for prompt, value in
               zip("abcde", (1, 2, 4, 8, 5), strict=True)]  # fmt: skip
    ((course,), _) = read_score_table(write(tmp_path / "run.csv", content))
    assert set(course.curves) == {"reward/proxy", "free_spread", "truth"}
    assert (course.curves["free_spread"][0].value, course.curves["truth"][0].value) == (2.0, 4.0)
    assert course.curves["free_spread"][0].per_prompt is None
    assert course.curves["free_spread"][0].high == pytest.approx(math.sqrt(course.curves["truth"][0].high))


def test_means_with_intervals_and_lines_of_training(tmp_path: Path) -> None:
    """As the metrics of a run: one row for each evaluation, lines of training between them."""
    content: list[dict[str, Any]] = [
        {"kind": "train", "step": 1, "loss": 0.7},
        {"kind": "evaluation", "step": 0, "proxy": 1.0, "proxy/low": 0.5, "proxy/high": 1.5, "file": "a.png"},
        {"kind": "evaluation", "step": 5, "proxy": 2.0, "judge": 3.0},
    ]
    (courses, notes) = read_score_table(write(tmp_path / "run.jsonl", content))
    assert set(courses[0].curves) == {"reward/proxy", "reward/judge"}
    assert (courses[0].curves["reward/proxy"][0].low, courses[0].curves["reward/proxy"][0].high) == (0.5, 1.5)
    assert not courses[0].curves["reward/proxy"][5].has_interval
    assert courses[0].curves["reward/judge"].steps == (5,)
    assert notes == [
        "run.jsonl has no column prompt: nothing is compared prompt by prompt.",
        "run.jsonl: file holds no numbers, so passed over.",
    ]


@pytest.mark.parametrize("empty", [None, math.nan, "nan", ""])
def test_empty_cells_are_no_values(tmp_path: Path, empty: object) -> None:
    content = [{"step": 0, "prompt": "a", "proxy": 1.0}, {"step": 0, "prompt": "b", "proxy": empty}]
    ((course,), _) = read_score_table(write(tmp_path / "run.csv", content))
    point = course.curves["reward/proxy"][0]
    assert point.value == 1.0
    assert point.per_prompt is not None
    assert math.isnan(point.per_prompt.values[1])


def test_free_baselines_begin_at_the_base_and_end_at_the_checkpoint(tmp_path: Path) -> None:
    def row(**more: Any) -> dict[str, Any]:
        return {"run": "base", "prompt": "a", **more}

    content = [
        row(step=0, proxy=0.0),
        row(step=30, proxy=3.0),
        row(step=30, strength=0.7, proxy=2.1),
        row(step=30, strength=0.3, proxy=0.9),
        row(step=30, strength=1.5, proxy=4.0),
        row(mixing=1, proxy=2.0),
        row(mixing=4, proxy=0.5),
        row(step=0, best_of=8, proxy=2.5),
        row(step=0, best_of=2, proxy=1.5),
    ]
    courses, _ = read_score_table(write(tmp_path / "run.csv", content))
    found = {course.label: course.curves["reward/proxy"].values for course in courses}
    assert found == {
        "base": (0.0, 3.0),
        "base at step 30: strength": (0.0, 0.9, 2.1, 3.0, 4.0),
        "base: mixing": (0.0, 0.5, 2.0, 3.0),
        "base at step 0: best of n": (0.0, 1.5, 2.5),
    }
    names = {course.label: [control.name for control in course.controls] for course in courses}
    assert names["base: mixing"] == ["strength-0", "mixing-4", "mixing-1", ""]


STEP, PROMPT = {"step": 0, "proxy": 1.0}, {"step": 0, "proxy": 1.0, "prompt": "a"}
WRONG: dict[str, tuple[list[dict[str, Any]], tuple[str, ...]]] = {
    "no step": ([{"proxy": 1.0, "prompt": "a"}], ("step", "proxy, prompt")),
    "no figure": ([{"step": 0, "prompt": "a", "loss": 0.5}], ("figures", "step, prompt, loss")),
    "text among numbers": ([PROMPT, {**PROMPT, "proxy": "high"}], ("line 3", "proxy", "high")),
    "infinite": ([PROMPT, {**PROMPT, "proxy": "inf"}], ("line 3", "proxy", "inf")),
    "all of them infinite": ([{**PROMPT, "proxy": "inf"}], ("line 2", "proxy", "inf")),
    "too great for statistics": ([PROMPT, {**PROMPT, "proxy": 1e160}], ("line 3", "proxy", "1e+150")),
    "an interval upside down": ([{**STEP, "proxy/low": 2.0, "proxy/high": 1.0}], ("line 2", "proxy/low", "exchange")),
    "half a step": ([{**PROMPT, "step": 1.5}], ("line 2", "step", "1.5")),
    "step before the start": ([{**PROMPT, "step": -1}], ("line 2", "step", "-1")),
    "a row without a step": ([PROMPT, {**PROMPT, "step": None}], ("line 3", "step")),
    "a step twice": ([STEP, STEP], ("line 3", "line 2", "prompt", "seed")),
    "strength in words": ([{**PROMPT, "strength": "half"}], ("line 2", "strength", "half")),
    "mixing of 0": ([{**PROMPT, "mixing": 0}], ("line 2", "mixing")),
    "best of none": ([{**PROMPT, "best_of": 0}], ("line 2", "best_of")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, case: str) -> None:
    content, parts = WRONG[case]
    path = write(tmp_path / "scores.csv", content)
    with pytest.raises(DataError) as error:
        read_score_table(path)
    assert "\n" not in str(error.value)
    for part in ("scores.csv", *parts):
        assert part in str(error.value), part


@pytest.mark.parametrize(("name", "text"), [("a.csv", ""), ("a.csv", "step,proxy\n"), ("a.parquet", "PAR1"),
                                            ("a.jsonl", '{"step": 1'), ("missing.csv", None)])  # fmt: skip
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_score_table(tmp_path / name)

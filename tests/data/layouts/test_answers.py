from __future__ import annotations

import json
import math
from typing import Any

import pytest

from seedpo.data.layouts import PairRule, find_layout
from seedpo.data.layouts.columns import Shape

ARGILLA = ["prompt", "image_1", "image_2", "preference.responses", "preference.responses.status"]
TASKS = Shape(lists=["annotations"], keys={"data": ["prompt", "image1", "image2"]})


def probabilities(columns: list[str], marks: dict[str, list[Any]], shape: Shape | None = None) -> list[float]:
    """Of each row: NaN of what nobody judged, infinity of wrong marks."""
    reading = find_layout(columns, origin="t", shape=shape or Shape())
    count = len(next(iter(marks.values())))
    verdicts = reading.judge([marks[name] for name in reading.marks.values()], count, PairRule())
    kinds = {"unlabelled": math.nan, "fault": math.inf}
    found = [kinds[verdicts.reasons[place].kind] if place >= 0 else 0.0 for place in verdicts.reason.tolist()]
    for (row, _), probability in zip(verdicts.rows.tolist(), verdicts.probability.tolist(), strict=True):
        found[row] = probability
    return found


class TestArgilla:
    def test_answers_are_votes(self) -> None:
        answers = [["image_1"], ["image_2"], ["both_good"], ["image_1", "image_2", "image_1", "both_bad"]]
        marks = {ARGILLA[3]: answers, ARGILLA[4]: [["submitted"] * len(given) for given in answers]}
        assert probabilities(ARGILLA, marks) == [1.0, 0.0, 0.5, 0.625]

    def test_drafts_and_discarded_answers_are_none(self) -> None:
        marks = {
            ARGILLA[3]: [["image_1", "image_2"], ["image_1"], None, []],
            ARGILLA[4]: [["discarded", "submitted"], ["draft"], None, []],
        }
        assert probabilities(ARGILLA, marks) == pytest.approx([0.0, math.nan, math.nan, math.nan], nan_ok=True)

    def test_without_a_status_every_answer_counts(self) -> None:
        assert probabilities(ARGILLA[:4], {ARGILLA[3]: [["image_2"], "image_1", '["image_2"]']}) == [0.0, 1.0, 0.0]

    def test_other_answers_are_faults(self) -> None:
        marks = {
            ARGILLA[3]: [["image_3"], [1], ["image_1"], ["image_1", "left"], [None]],
            ARGILLA[4]: [["submitted"], ["submitted"], [], ["submitted"] * 2, ["submitted"]],
        }
        assert probabilities(ARGILLA, marks) == [math.inf, math.inf, 1.0, math.inf, math.inf]
        marks = {ARGILLA[3]: [["image_1", "image_2"]], ARGILLA[4]: [["submitted"]]}
        assert probabilities(ARGILLA, marks) == [math.inf]

    def test_images_in_a_structure(self) -> None:
        shape = Shape(keys={"images": ["image_1", "image_2"]}, lists=["preference.responses"])
        reading = find_layout(["prompt", "images", "preference.responses"], origin="t", shape=shape)
        assert reading.content == ("prompt", "images.image_1", "images.image_2")


def annotation(side: Any, *, to_name: str = "image1,image2", **more: Any) -> dict[str, Any]:
    result = {"type": "pairwise", "to_name": to_name, "value": {"selected": side}}
    return {"result": [result, {"type": "textarea", "value": {}}], "was_cancelled": False} | more


class TestLabelStudio:
    def test_annotations_of_tasks(self) -> None:
        cells = [
            [annotation("left")],
            [annotation("right")],
            [annotation("left"), annotation("right"), annotation("left", was_cancelled=True)],
            [annotation("left", was_cancelled=True)],
            [],
            [annotation("left") | {"result": []}],
        ]
        found = probabilities(["id", "data", "annotations"], {"annotations": cells}, TASKS)
        assert found == pytest.approx([1.0, 0.0, 0.5, math.nan, math.nan, math.nan], nan_ok=True)

    def test_left_is_the_first_name(self) -> None:
        cells = [[annotation("left", to_name=names)] for names in ("image2,image1", "image1, image2", "a,b")]
        assert probabilities(["id", "data", "annotations"], {"annotations": cells}, TASKS) == [0.0, 1.0, 1.0]

    def test_what_is_no_side_is_a_fault(self) -> None:
        cells: list[Any] = [[annotation("Left")], [annotation(None)], ["x"], [{"result": ["x"]}], "text", 7]
        cells.append([{"result": [{"type": "pairwise", "value": "left"}]}])
        found = probabilities(["id", "data", "annotations"], {"annotations": cells}, TASKS)
        assert found == [math.inf] * len(cells)

    def test_rows_of_csv(self) -> None:
        cells = ["left", "right", json.dumps([{"selected": "left"}]), [{"selected": "right"}], "", None]
        cells += ["LEFT", "1", "[{", "[" * 100_000, [{"x": 1}]]
        found = probabilities(["prompt", "image1", "image2", "pw"], {"pw": cells})
        assert found[:4] == [1.0, 0.0, 1.0, 0.0]
        assert all(math.isnan(value) for value in found[4:6])
        assert found[6:] == [math.inf] * 5

    def test_own_names_of_a_project(self) -> None:
        own = {"data.prompt": "data.text", "data.image1": "data.a", "data.image2": "data.b"}
        shape = Shape(lists=["annotations"], keys={"data": ["text", "a", "b"]})
        reading = find_layout(["data", "annotations"], origin="t", shape=shape, own=own)
        assert reading.content == ("data.text", "data.a", "data.b")

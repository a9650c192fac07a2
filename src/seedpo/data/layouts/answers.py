"""Layouts of tools in which people answer which of two images is better: Argilla and Label Studio.

Several answers to one question are votes: the probability is the share of those for the first image, and an answer
that names no image is half a vote for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from seedpo.data.layouts.layout import Layout, Marks, Names, PairRule, Verdicts
from seedpo.data.layouts.marks import is_empty, unjudged, verdicts_of
from seedpo.documents import parse_json

_FIRST = ("image_1", "image1", "image_a", "left_image", "left")
_SECOND = ("image_2", "image2", "image_b", "right_image", "right")

Votes = Callable[[Mapping[str, object]], Sequence[float] | None]
"""Votes for the first image, each 0 to 1, of the marks of one row; ``None`` where an answer is none that is known."""


def _judge(votes: Votes, rule: str) -> Callable[[Marks, int, PairRule], Verdicts]:
    def judge(marks: Marks, count: int, _: PairRule) -> Verdicts:
        values = np.full(count, np.nan)
        left_out = unjudged(marks, count)
        for row in np.flatnonzero(~left_out).tolist():
            answers = votes({name: column[row] for name, column in marks.items()})
            if answers is None:
                values[row] = np.inf
            elif answers:
                values[row] = sum(answers) / len(answers)
        return verdicts_of(values, rule)

    return judge


def _listed(value: object) -> list[object]:
    """The entries of a list, also of one that CSV holds as JSON; a single value as a list of it."""
    if isinstance(value, str) and value.strip().startswith(("[", "{")):
        try:
            value = parse_json(value)
        except ValueError:
            return [value]
    if is_empty(value):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


_ARGILLA_VOTES = dict.fromkeys(_FIRST[:3], 1.0) | dict.fromkeys(_SECOND[:3], 0.0)
_ARGILLA_VOTES |= {"both_good": 0.5, "both_bad": 0.5}


def _argilla(marks: Mapping[str, object]) -> list[float] | None:
    """Answers that were submitted; drafts and discarded ones are none."""
    answers = _listed(marks["preference.responses"])
    status = _listed(marks.get("preference.responses.status"))
    if status and len(status) != len(answers):
        return None
    submitted = [answer for place, answer in enumerate(answers) if not status or status[place] == "submitted"]
    votes = [_ARGILLA_VOTES.get(answer) if isinstance(answer, str) else None for answer in submitted]
    known = [vote for vote in votes if vote is not None]
    return known if len(known) == len(votes) else None


_SIDES = {"left": 1.0, "right": 0.0}


def _selected(marks: Mapping[str, object]) -> list[float] | None:
    """Sides selected in a row of JSON_MIN or CSV: `left`, or a list of results."""
    votes = []
    for result in _listed(marks["pw"]):
        side = result.get("selected") if isinstance(result, Mapping) else result
        vote = _SIDES.get(side) if isinstance(side, str) else None
        if vote is None:
            return None
        votes.append(vote)
    return votes


def _annotations(marks: Mapping[str, object]) -> list[float] | None:
    """Sides selected in the annotations of a task; cancelled annotations and those without a result are none."""
    votes = []
    for annotation in _listed(marks["annotations"]):
        if not isinstance(annotation, Mapping):
            return None
        if annotation.get("was_cancelled"):
            continue
        for result in _listed(annotation.get("result")):
            if not isinstance(result, Mapping):
                return None
            if result.get("type") == "pairwise":
                vote = _annotated(result)
                if vote is None:
                    return None
                votes.append(vote)
    return votes


def _annotated(result: Mapping[str, object]) -> float | None:
    """The vote of one result: left is the first of the two names in ``to_name``."""
    value = result.get("value")
    side = value.get("selected") if isinstance(value, Mapping) else None
    vote = _SIDES.get(side) if isinstance(side, str) else None
    names = str(result.get("to_name")).split(",")
    is_swapped = len(names) == 2 and names[0].strip() in _SECOND and names[1].strip() in _FIRST
    return vote if vote is None or not is_swapped else 1.0 - vote


def _within(structure: str, names: Names) -> Names:
    return tuple(f"{structure}.{name}" for name in names)


_ARGILLA = "submitted responses must name image_1 or image_2, or be both_good or both_bad for a tie"
_SELECTED = 'the selected side must be "left" or "right"'

LAYOUTS = (
    # Argilla's export with `to_datasets`, and data-is-better-together/open-image-preferences-v1-results, whose images
    # are two texts in a structure: a column for each field, and QUESTION.responses with .users and .status.
    Layout(
        title="Argilla",
        images=((*_FIRST[:3], *_within("images", _FIRST[:3])), (*_SECOND[:3], *_within("images", _SECOND[:3]))),
        marks=(("preference.responses", "label.responses", "choice.responses", "preferred.responses"),),
        optional=(
            (
                "preference.responses.status",
                "label.responses.status",
                "choice.responses.status",
                "preferred.responses.status",
            ),
            ("has_label",),
        ),
        judge=_judge(_argilla, _ARGILLA),
        rule=_ARGILLA,
    ),
    # Label Studio, export as JSON: tasks with `data` and `annotations`. The names in `data` are the project's own.
    Layout(
        title="Label Studio (JSON)",
        prompts=("data.prompt", "data.caption", "data.text"),
        images=(_within("data", _FIRST), _within("data", _SECOND)),
        marks=(("annotations",),),
        judge=_judge(_annotations, _SELECTED),
        rule=_SELECTED,
    ),
    # Label Studio, export as JSON_MIN or CSV: the keys of `data`, and a column with the name of the control.
    Layout(
        title="Label Studio (JSON_MIN, CSV)",
        prompts=("prompt", "caption", "text"),
        images=(_FIRST, _SECOND),
        marks=(("pw", "pairwise", "comparison", "choice", "preference"),),
        judge=_judge(_selected, _SELECTED),
        rule=_SELECTED,
    ),
)

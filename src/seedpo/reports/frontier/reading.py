"""What lies where: run folders, evaluation folders and score tables become courses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedpo.core.stats.bootstrap import prompt_means
from seedpo.core.verdicts import is_mean_of
from seedpo.documents import UNREADABLE, read_yaml
from seedpo.errors import DataError, RunFolderError
from seedpo.evaluation.tables import Place
from seedpo.reports.contents import find_places
from seedpo.reports.curves import Point, read_curves
from seedpo.reports.evaluations import Evaluation, read_evaluation
from seedpo.reports.families import distinct, folder_name, held_out, rule_of, seeds_together
from seedpo.reports.frontier.courses import Course, Spot, courses_of
from seedpo.reports.frontier.score_tables import ENDINGS, read_score_table
from seedpo.reports.runs import PerPrompt, Run, read_runs

SEED = re.compile(r"[-_. ]*seed[-_= ]*(\d+)", re.IGNORECASE)
"""How the names of runs say their seed."""

STEP = re.compile(r"(?:^|[-_/.])(?:checkpoint|step|iter|epoch)?[-_]?0*(\d+)(?=$|[-_/.])", re.IGNORECASE)
"""How the names of checkpoints say their step."""


def read_courses(places: Sequence[Path]) -> tuple[list[Course], list[str]]:
    """Reads everything that is named, in this order.

    Returns:
        Runs and free baselines, and notes on what is missing.

    Raises:
        SeedpoError: if a place holds nothing that can be judged, or what it holds cannot be read.
    """
    tables = [place for place in places if place.suffix.lower() in ENDINGS and not place.is_dir()]
    folders = [place for place in places if place not in tables]
    found = find_places(folders)[0] if folders else {"run": [], "evaluation": [], "preference": []}
    if found["preference"]:
        raise RunFolderError(
            f"{found['preference'][0]} is the run of a preference model (`seedpo reward train`), which draws no "
            "images; leave it out"
        )
    courses, notes = _of_runs(read_runs(found["run"]))
    for folder in found["evaluation"]:
        courses += _of_evaluation(read_evaluation(folder))
    for path in tables:
        own, said = read_score_table(path)
        courses += own
        notes += said
    twice = [(one, other) for index, one in enumerate(courses) for other in courses[:index] if _clash(one, other)]
    for one, other in twice:
        raise DataError(
            f"two runs are called {one.label} with seed {one.seed}: those of {other.place} and {one.place}; give one "
            "another name or seed"
        )
    return courses, notes


def _clash(one: Course, other: Course) -> bool:
    return (one.label, one.seed) == (other.label, other.seed) and not (one.controls or other.controls)


def _of_runs(runs: Sequence[Run]) -> tuple[list[Course], list[str]]:
    counted, twins = distinct(runs)
    courses = []
    notes = [f"{twin.place} holds the same run as {run.place}: it counts once." for twin, run in twins]
    for alike in seeds_together(counted):
        label = folder_name(alike) or alike[0].name
        for run in alike:
            curves = read_curves(run.evaluations, run.per_prompt)
            if not curves:
                notes.append(f"{run.name} holds no evaluation: it is left out.")
                continue
            courses.append(
                Course(
                    label=label,
                    seed=run.seed,
                    curves=curves,
                    proxy=run.proxy,
                    held_out=held_out(run),
                    rule=rule_of(run),
                    place=run.place,
                )
            )
    if runs and not courses:
        raise RunFolderError(f"{runs[0].folder} holds no evaluation, so there is nothing to judge; set evaluate_every")
    return courses, notes


def _of_evaluation(evaluation: Evaluation) -> list[Course]:
    try:
        content = read_yaml(evaluation.folder / "evaluation.yaml")
        targets: Mapping[str, Mapping[str, Any]] = content["targets"]
    except UNREADABLE as error:
        raise RunFolderError(
            f"{evaluation.folder}/evaluation.yaml is missing or damaged; evaluate into another folder"
        ) from error
    spots = {}
    for place in evaluation.places:
        figures = {key: point for key, point in _figures(evaluation, place).items() if point is not None}
        for spot in _spots(place, targets):
            spots[spot] = figures
    return courses_of(spots, evaluation.name)


def _figures(evaluation: Evaluation, place: Place) -> dict[str, Point | None]:
    return {
        f"reward/{name}" if name in evaluation.rewards else name: _point(evaluation, place, name)
        for name in evaluation.figures
    }


def _point(evaluation: Evaluation, place: Place, name: str) -> Point | None:
    """A figure with its interval, and with its values by prompt where it is their mean."""
    point, values = evaluation.point(place, name), evaluation.values(place, name)
    if point is None or values is None:
        return point
    means = prompt_means(values).tolist()
    known = PerPrompt(prompts=tuple(evaluation.scores.prompts), values=tuple(means))
    return Point(
        value=point.value, low=point.low, high=point.high, per_prompt=known if is_mean_of(point.value, means) else None
    )


def _spots(place: Place, targets: Mapping[str, Mapping[str, Any]]) -> list[Spot]:
    """Where a target of an evaluation stands: its run, and its step; the model before training in every run's place."""
    label, step = place
    record = targets.get(label, {})
    if step is not None:
        return [_named(label, step)]
    kind, own = record.get("kind"), str(record.get("target", label))
    if kind in ("base", "pipeline"):
        follow = {name: row for name, row in targets.items() if row.get("kind") in ("run", "lora") and name != label}
        same = {
            name: row
            for name, row in follow.items()
            if (row.get("model") == record.get("model") and kind == "pipeline")
            or str(row.get("target", "")).partition("@")[0] == own.partition("@")[0]
        }
        spots = dict.fromkeys(_named(_run_of(name, row)[0], 0) for name, row in same.items())
        return list(spots) or [_named(label, 0)]
    name, at = _run_of(label, record)
    return [_named(name, at)]


def _run_of(label: str, record: Mapping[str, Any]) -> tuple[str, int | None]:
    """Run and step of a target: RUN@STEP, or a checkpoint whose name holds its step; of a run its end."""
    place = str(record.get("target", label))
    head, at, step = place.rpartition("@")
    if record.get("kind") == "run":
        name = Path(head if at else place).name
        return name, int(step) if at and step.isdecimal() else None
    match = next(iter(reversed(list(STEP.finditer(label)) or list(STEP.finditer(place)))), None)
    if match is None:
        return label, None
    rest = (match.string[: match.start()] + match.string[match.end() :]).strip("-_/.")
    return Path(rest).name or "run", int(match[1])


def _named(label: str, step: int | None) -> Spot:
    """The spot of a run whose name may say its seed."""
    match = SEED.search(label)
    if match is None:
        return Spot(label=label, step=step)
    return Spot(label=(label[: match.start()] + label[match.end() :]) or "run", seed=int(match[1]), step=step)

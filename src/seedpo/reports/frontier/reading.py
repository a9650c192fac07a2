"""What lies where: run folders, evaluation folders and score tables become courses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seedpo.core.stats.bootstrap import prompt_means
from seedpo.core.verdicts import is_mean_of
from seedpo.documents import UNREADABLE, read_json, read_yaml
from seedpo.errors import DataError, RunFolderError
from seedpo.evaluation.controls import SamplingControl
from seedpo.evaluation.tables import Place
from seedpo.reports.contents import find_places
from seedpo.reports.curves import Point, read_curves
from seedpo.reports.evaluations import Evaluation, read_evaluation
from seedpo.reports.families import distinct, folder_name, held_out, rule_of, seeds_together
from seedpo.reports.frontier.courses import Course, Spot, courses_of
from seedpo.reports.frontier.score_tables import CONTROLS, ENDINGS, read_score_table
from seedpo.reports.runs import PerPrompt, Run, read_runs

SEED = re.compile(r"[-_. ]*seed[-_= ]*(\d+)", re.IGNORECASE)
"""How the names of runs say their seed."""

STEP = re.compile(
    r"(?:^|(?<=[-_/.]))(?:checkpoint|global_step|step|iter|epoch)s?[-_=]?(\d+)(?=$|[-_/.])", re.IGNORECASE
)
NUMBER = re.compile(r"(?:^|(?<=[-_.]))(\d+)(?=$|[-_.])")
"""How the names of checkpoints say their step: a number behind such a word anywhere, or else the last number."""


def read_courses(places: Sequence[Path]) -> tuple[list[Course], list[str]]:
    """Reads everything that is named, in this order.

    Returns:
        Runs and free baselines, and notes on what is missing.

    Raises:
        SeedpoError: if a place holds nothing that can be judged, or what it holds cannot be read.
    """
    places = list({place.resolve(): place for place in places}.values())
    tables = [place for place in places if place.suffix.lower() in ENDINGS and not place.is_dir()]
    folders = [place for place in places if place not in tables]
    found = find_places(folders)[0] if folders else {"run": [], "evaluation": [], "preference": []}
    if found["preference"]:
        raise RunFolderError(
            f"{found['preference'][0]} is the run of a preference model (`seedpo reward train`), which draws no "
            "images; leave it out"
        )
    courses, notes = _of_runs(read_runs(found["run"]))
    runs = {(course.label, course.seed) for course in courses}
    for folder in found["evaluation"]:
        # Of a run that is named as a folder, too, its evaluations count, and an evaluation adds free baselines alone.
        own = _of_evaluation(read_evaluation(folder))
        courses += [course for course in own if course.controls or (course.label, course.seed) not in runs]
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
        label = SEED.sub("", folder_name(alike)) or _of_folder(alike[0].folder, None).label
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
    """Where a target of an evaluation stands; the model before training stands at the start of every run."""
    label, step = place
    record = targets.get(label, {})
    control = SamplingControl(**{name: record[name] for name in CONTROLS if name in record})
    if step is not None:
        return [named_spot(label, step)]
    if _is_trained(label, record):
        return [replace(spot_of(label, record), control=control)]
    starts = [spot_of(name, row) for name, row in targets.items() if _is_trained(name, row) and _begins(row, record)]
    starts = starts or [named_spot(label, 0)]
    return list(dict.fromkeys(replace(spot, step=0, control=control) for spot in starts))


def _begins(run: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether a run began with a model: RUN@base, or the pipeline that it was trained on."""
    if base.get("kind") == "base":
        return str(run.get("target")).partition("@")[0] == str(base.get("target")).partition("@")[0]
    return run.get("kind") == "pipeline" or run.get("model") == base.get("model")


def _is_trained(label: str, record: Mapping[str, Any]) -> bool:
    """Whether a target is a checkpoint of a training: a run, a LoRA, or a pipeline whose name holds a step."""
    kind = record.get("kind")
    return kind in ("run", "lora") or (kind == "pipeline" and spot_of(label, record).step is not None)


def spot_of(label: str, record: Mapping[str, Any]) -> Spot:
    """Run and step of a trained target, as it is: RUN@STEP, or a checkpoint whose name holds its step.

    The step is ``None`` where no name says it.
    """
    place = str(record.get("target", label))
    if record.get("kind") == "run":
        head, at, step = place.rpartition("@")
        folder = Path(head if at else place)
        return _of_folder(folder, int(step) if at and step.isdecimal() else None)
    label = re.sub(r"-(strength|mixing|best-of)-[-+.e\d]+.*$", "", label)
    tried = [(STEP, label), (STEP, place)]
    if record.get("kind") == "lora":  # the names of pipelines hold versions: stable-diffusion-2-1
        tried += [(NUMBER, label), (NUMBER, Path(place).name)]
    match = next((found[-1] for pattern, text in tried if (found := list(pattern.finditer(text)))), None)
    if match is None:
        return named_spot(label)
    before, after = (part.strip("-_/.") for part in (match.string[: match.start()], match.string[match.end() :]))
    seed = SEED.search(label) or SEED.search(place)
    name = next((name for part in (Path(before).name, Path(after).stem) if (name := SEED.sub("", part))), "run")
    return Spot(label=name, seed=int(seed[1]) if seed else 0, step=int(match[1]))


def _of_folder(folder: Path, step: int | None) -> Spot:
    """The spot of a run folder, by its name; seed and last step are read from it, if it is still there."""
    name = folder.resolve().name
    spot = named_spot(name if SEED.sub("", name) else f"{folder.resolve().parent.name}-{name}", step)
    with suppress(*UNREADABLE):
        spot = replace(spot, seed=int(read_yaml(folder / "config.yaml")["seed"]))
    if step is None:
        with suppress(*UNREADABLE):
            spot = replace(spot, step=int(read_json(folder / "finished.json")["step"]))
    return spot


def named_spot(label: str, step: int | None = None) -> Spot:
    """The spot of a run whose name may say its seed."""
    match = SEED.search(label)
    return Spot(label=SEED.sub("", label) or label, seed=int(match[1]) if match else 0, step=step)

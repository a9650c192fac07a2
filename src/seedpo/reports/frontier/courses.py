"""What is compared, whatever it was read from: runs and free baselines with their figures, on the same prompts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from seedpo.core.stats.bootstrap import mean_interval
from seedpo.core.verdicts import LEAST_PROMPTS, Rule
from seedpo.errors import ConfigError
from seedpo.evaluation.controls import SamplingControl
from seedpo.metrics.catalogue import find_metric
from seedpo.pages.wording import count, listing
from seedpo.registry import unknown
from seedpo.reports.curves import Curve, Curves, Point
from seedpo.reports.names import figure_name
from seedpo.reports.runs import PerPrompt

PLAIN = SamplingControl()
"""Images are drawn from a model as it is."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """One training run at its evaluations, or one checkpoint under a sampling control of several sizes.

    Attributes:
        label: the setting; runs of one setting differ in their seed.
        seed: of the training.
        curves: figures by key, rewards as ``reward/NAME``. Of a free baseline, the "steps" number the controls.
        controls: of a free baseline, one for each point.
        proxy: key of the reward that it trained on, where that is known.
        held_out: keys of the figures that judge it; ``None`` where that is not known.
        rule: thresholds of the verdict.
        place: where it was read.
    """

    label: str
    seed: int
    curves: Curves
    controls: tuple[SamplingControl, ...] = ()
    proxy: str = ""
    held_out: tuple[str, ...] | None = None
    rule: Rule = field(default_factory=Rule)
    place: str = ""

    @property
    def name(self) -> str:
        """Setting and seed, for messages."""
        return f"{self.label} (seed {self.seed}, {self.place})"

    @property
    def points(self) -> Iterator[tuple[str, int, Point]]:
        """Every figure at every evaluation: key, step, point."""
        for key, curve in self.curves.items():
            for step, point in zip(curve.steps, curve.points, strict=True):
                yield key, step, point


@dataclass(frozen=True, kw_only=True)
class Spot:
    """Where figures were measured: of which training, after how many steps, and how images were drawn.

    Attributes:
        label: the setting.
        seed: of the training.
        step: of the checkpoint; ``None`` where only the end of the training is known.
        control: how images were drawn.
    """

    label: str
    seed: int = 0
    step: int | None = None
    control: SamplingControl = PLAIN


def courses_of(spots: Mapping[Spot, Mapping[str, Point]], place: str) -> list[Course]:
    """Runs from what was measured at their checkpoints, then the free baselines of each checkpoint.

    A free baseline begins at the model before training and ends at the checkpoint as it is, where these are known.
    """
    runs: dict[tuple[str, int], dict[int, Mapping[str, Point]]] = {}
    free: dict[tuple[str, int, int | None, str], dict[SamplingControl, Mapping[str, Point]]] = {}
    for spot, figures in spots.items():
        if spot.control == PLAIN:
            runs.setdefault((spot.label, spot.seed), {})[-1 if spot.step is None else spot.step] = figures
        else:
            own = (spot.label, spot.seed, spot.step, varied(spot.control))
            free.setdefault(own, {})[spot.control] = figures
    made = []
    for (label, seed), evaluations in runs.items():
        last = max(evaluations)
        if -1 in evaluations:  # the end of a training stands behind every step that is known
            evaluations[last + 1] = evaluations.pop(-1)
        made.append(Course(label=label, seed=seed, curves=_curves(sorted(evaluations.items())), place=place))
    for (label, seed, step, kind), points in free.items():
        plain = runs.get((label, seed), {})
        whole = plain.get(max(plain) if step is None else step) if plain else None
        ordered = _with_ends(kind, points, base=plain.get(0), whole=whole)
        made.append(
            Course(
                label=f"{label}{'' if step is None else f' at step {step}'}: {kind}",
                seed=seed,
                curves=_curves([(index, figures) for index, (_, figures) in enumerate(ordered)]),
                controls=tuple(control for control, _ in ordered),
                place=place,
            )
        )
    return made


def varied(control: SamplingControl) -> str:
    """What a control changes, in words."""
    changed = {
        "strength": control.strength != PLAIN.strength,
        "mixing": control.mixing is not None,
        "best of n": control.best_of != PLAIN.best_of,
    }
    return " and ".join(name for name, is_changed in changed.items() if is_changed)


def _with_ends(
    kind: str,
    points: Mapping[SamplingControl, Mapping[str, Point]],
    *,
    base: Mapping[str, Point] | None,
    whole: Mapping[str, Point] | None,
) -> list[tuple[SamplingControl, Mapping[str, Point]]]:
    """The points from the least training to the most: strengths and n ascend, powers of mixing descend."""
    ends = dict(points)
    before = SamplingControl(strength=0.0)
    if whole is not None and kind in ("strength", "mixing", "best of n"):
        ends[PLAIN] = whole
    if base is not None and kind in ("strength", "mixing"):
        ends.setdefault(before, base)

    def order(control: SamplingControl) -> tuple[float, float, int]:
        return control.strength, -(control.mixing or 0.0), control.best_of

    return sorted(ends.items(), key=lambda pair: order(pair[0]))


def _curves(evaluations: Sequence[tuple[int, Mapping[str, Point]]]) -> Curves:
    keys = dict.fromkeys(key for _, figures in evaluations for key in figures)
    return {
        key: Curve(
            steps=tuple(step for step, figures in evaluations if key in figures),
            points=tuple(figures[key] for _, figures in evaluations if key in figures),
        )
        for key in keys
    }


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Which figures are looked at, by their keys.

    Attributes:
        proxy: the reward that was optimised.
        held_out: what judges; more is better.
        diversity: more is more diverse.
    """

    proxy: str
    held_out: tuple[str, ...]
    diversity: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """What is drawn against the proxy."""
        return (*self.held_out, *self.diversity)


def key_of(name: str) -> str:
    """The key of a figure in curves, from the name of a column: a registered metric keeps its name."""
    return name if find_metric(name) or name.startswith("reward/") else f"reward/{name}"


def figure_word(key: str) -> str:
    """A figure as this page calls it: rewards by their own name."""
    return figure_name(key) if find_metric(key) else name_of(key)


def is_diversity(key: str) -> bool:
    """Whether a figure is a diversity: the row of a metric says so, or the name of an unknown one."""
    row = find_metric(key)
    return row.family == "diversity" if row else "diversity" in key.lower()


LOWER = frozenset({"fid", "kid", "cmmd"})
"""Words in the names of unknown figures of which lower values are better."""


def _worse_with_more(key: str) -> str:
    """Why a figure cannot judge, in words: the row of a metric says so, or the name of an unknown one; else empty."""
    row = find_metric(key)
    direction = row.direction if row else "lower" if LOWER & {*re.split(r"[^a-z]+", key.lower())} else "higher"
    return {"lower": "lower values are better", "neither": "no value is better than another"}.get(direction, "")


def chosen_figures(
    courses: Sequence[Course], *, proxy: str | None, held_out: Sequence[str] | None, diversity: Sequence[str] | None
) -> Figures:
    """The figures that a person names, or those that the sources say themselves.

    Args:
        courses: what was read.
        proxy: the optimised reward; by default what all runs were trained on, or the first reward.
        held_out: by default what the runs' alarms watch, or every reward but the proxy, and the metric ``truth``; of
            unknown figures those whose name says that lower values are better are left out.
        diversity: by default every figure that :func:`is_diversity`.

    Raises:
        ConfigError: if a name is unknown, has another meaning, or the sources contradict each other.
    """
    keys = list(dict.fromkeys(key for course in courses for key in course.curves))
    across = _key(proxy, keys, "--proxy") if proxy else _common_proxy(courses)
    for course in courses:
        if across not in course.curves:
            raise ConfigError(
                f"{course.name} has no figure {name_of(across)}; it has: {_names(course.curves)}; name one that all "
                "have with --proxy"
            )
    diverse = [_key(name, keys, "--diversity") for name in diversity or ()]
    diverse = diverse if diversity else [key for key in keys if is_diversity(key)]
    if held_out:
        judges = [_key(name, keys, "--held-out") for name in held_out]
    else:
        known = [course.held_out for course in courses if course.held_out is not None]
        usual = [key for key in keys if key == "truth" or not (find_metric(key) or _worse_with_more(key))]
        judges = list(dict.fromkeys(chain.from_iterable(known))) if known else usual
        judges = [key for key in judges if key != across and key not in diverse and key in keys]
    for option, names in (("--held-out", judges), ("--diversity", diverse)):
        if across in names:
            raise ConfigError(
                f"{option} names {name_of(across)}, which is the proxy; what is optimised cannot judge itself: name "
                "another figure, or another --proxy"
            )
        for key in names:
            if what := _worse_with_more(key):
                raise ConfigError(
                    f"{option} names {name_of(key)}, of which {what}; name a figure of which more is better"
                )
    return Figures(proxy=across, held_out=tuple(judges), diversity=tuple(diverse))


def _common_proxy(courses: Sequence[Course]) -> str:
    proxies = dict.fromkeys(course.proxy for course in courses if course.proxy)
    if len(proxies) > 1:
        raise ConfigError(
            f"the runs optimise different rewards ({listing(list(map(name_of, proxies)))}): their proxies cannot be "
            "compared; say --proxy NAME, or judge each kind by itself"
        )
    first = next(iter(proxies), None) or next(
        (key for course in courses for key in course.curves if find_metric(key) is None and not is_diversity(key)), None
    )
    if first is None:
        raise ConfigError(
            f"there is no reward among the figures ({_names(courses[0].curves)}), so nothing was optimised that could "
            "be hacked; name the figure with --proxy"
        )
    return first


def _key(name: str, keys: Sequence[str], option: str) -> str:
    """The key that a person's name of a figure stands for."""
    known = next((key for key in (name, f"reward/{name}") if key in keys), None)
    if known is None:
        raise unknown(f"figure of {option}", name, list(map(name_of, keys)))
    return known


def name_of(key: str) -> str:
    """A figure as a person writes it."""
    return key.removeprefix("reward/")


def _names(keys: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(map(name_of, keys)) or "none"


def on_common_prompts(courses: Sequence[Course], figures: Figures) -> tuple[list[Course], list[str]]:
    """The courses with figures of the same prompts everywhere, and notes on what that left out.

    A prompt counts if every evaluation has a value of the proxy and of all held-out figures for it. Means and intervals
    are taken anew where that leaves prompts out; a figure that is no mean over prompts cannot be, and is left out.

    Raises:
        ConfigError: if no prompt is common to all evaluations of which the prompts are known.
    """
    known: list[tuple[str, set[str], PerPrompt]] = []
    for course in courses:
        for key, step, point in course.points:
            if key in (figures.proxy, *figures.held_out) and point.per_prompt is not None:
                values = zip(point.per_prompt.prompts, point.per_prompt.values, strict=True)
                own = {prompt for prompt, value in values if not math.isnan(value)}
                known.append((f"{course.name}, {name_of(key)} at {step}", own, point.per_prompt))
    if not known or (
        len({row.prompts for _, _, row in known}) == 1 and all(len(own) == len(row.prompts) for _, own, row in known)
    ):
        return list(courses), []
    common = set.intersection(*(own for _, own, _ in known))
    if not common:
        first, other = known[0], next((row for row in known if not row[1] & known[0][1]), known[-1])
        raise ConfigError(
            f"no prompt has a value in all evaluations ({first[0]}, and {other[0]}): a difference would be one of the "
            "prompts; evaluate all on the same prompts, or judge each in a command of its own"
        )
    everything = list(dict.fromkeys(prompt for _, _, row in known for prompt in row.prompts))
    prompts = tuple(prompt for prompt in everything if prompt in common)
    restricted = [replace(course, curves=_restricted(course.curves, prompts)) for course in courses]
    lost = sorted({key for course in courses for key in course.curves} - {k for c in restricted for k in c.curves})
    notes = []
    if len(prompts) < len(everything):
        amount = count(len(everything), "prompt")
        notes.append(f"{len(prompts)} of {amount} have a value in every evaluation; only these count.")
    if lost:
        notes.append(f"{_names(lost)}: left out, since they are not known prompt by prompt.")
    if len(prompts) < LEAST_PROMPTS:
        notes.append(f"Fewer than {LEAST_PROMPTS} prompts make no interval worth the name.")
    return restricted, notes


def _restricted(curves: Curves, prompts: tuple[str, ...]) -> Curves:
    made = {}
    for key, curve in curves.items():
        points = [restricted(point, prompts) for point in curve.points]
        pairs = [(step, point) for step, point in zip(curve.steps, points, strict=True) if point is not None]
        if pairs:
            made[key] = Curve(steps=tuple(step for step, _ in pairs), points=tuple(point for _, point in pairs))
    return made


def restricted(point: Point, prompts: tuple[str, ...]) -> Point | None:
    """The point as a mean over some prompts; ``None`` if it is not known for any of them."""
    if point.per_prompt is None:
        return None
    own = dict(zip(point.per_prompt.prompts, point.per_prompt.values, strict=True))
    return point_of(PerPrompt(prompts=prompts, values=tuple(own.get(prompt, math.nan) for prompt in prompts)))


def point_of(row: PerPrompt) -> Point | None:
    """The mean over prompts, with its bootstrap interval if these are not too few; ``None`` without any value."""
    known = [value for value in row.values if not math.isnan(value)]
    if not known:
        return None
    interval = mean_interval(known)
    few = len(known) < LEAST_PROMPTS
    return Point(
        value=interval.mean,
        low=math.nan if few else interval.low,
        high=math.nan if few else interval.high,
        per_prompt=row,
    )

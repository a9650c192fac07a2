"""What a set of runs shows: a verdict on each, where to stop it, and which gives more at equal proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from seedpo.core.verdicts import (
    LEAST_EVALUATIONS,
    LEAST_PROMPTS,
    LEAST_WITHOUT_INTERVALS,
    Outcome,
    Verdict,
    judge_run,
    shared_outcome,
)
from seedpo.errors import ConfigError
from seedpo.evaluation.controls import SamplingControl
from seedpo.pages.wording import count, listing
from seedpo.reports.curves import Curve, Curves, Point, evaluations_of
from seedpo.reports.frontier.comparisons import LEAST_SEEDS, Comparison, compared, scales
from seedpo.reports.frontier.courses import Course, Figures, chosen_figures, figure_word, on_common_prompts
from seedpo.reports.frontier.series import Series

FREE = "free baselines"
"""What the pool of all free baselines is called."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A setting with the verdict on each of its seeds.

    Attributes:
        series: its evaluations.
        verdicts: by seed.
    """

    series: Series
    verdicts: Mapping[int, Verdict]

    @property
    def outcome(self) -> Outcome:
        """What more than half of the seeds show."""
        return shared_outcome([verdict.outcome for verdict in self.verdicts.values()])

    @property
    def verdict(self) -> Verdict:
        """Of the first seed that has this outcome, or of the first one."""
        rows = list(self.verdicts.values())
        return next((verdict for verdict in rows if verdict.outcome is self.outcome), rows[0])

    @property
    def curves(self) -> Curves:
        """Mean over the seeds."""
        return self.series.mean


@dataclass(frozen=True, kw_only=True)
class Free:
    """A checkpoint of each seed under a sampling control of several sizes, the same for all seeds.

    Attributes:
        series: its points, by their numbers.
        names: of the points.
        kind: what is varied.
    """

    series: Series
    names: tuple[str, ...]
    kind: str


@dataclass(frozen=True, kw_only=True)
class Stop:
    """The best early stop of a setting by one held-out figure: its highest evaluation, mean over the seeds.

    Attributes:
        label: the setting.
        key: the held-out figure.
        step: of the best evaluation.
        last_step: of the last one.
        value, proxy: the figures there.
        last_value, last_proxy: the figures at the last evaluation.
    """

    label: str
    key: str
    step: int
    last_step: int
    value: Point
    proxy: Point
    last_value: Point
    last_proxy: Point


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that the page says.

    Attributes:
        figures: which figures were looked at.
        trained: settings, in the order in which they were named.
        free: free baselines.
        stops: best early stops.
        comparisons: of settings at equal proxy.
        notes: what limits the evidence, a sentence each.
    """

    figures: Figures
    trained: tuple[Trained, ...]
    free: tuple[Free, ...]
    stops: tuple[Stop, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def results_of(
    courses: Sequence[Course],
    notes: Sequence[str] = (),
    *,
    proxy: str | None = None,
    held_out: Sequence[str] | None = None,
    diversity: Sequence[str] | None = None,
) -> Results:
    """Judges and compares; arguments as those of :func:`seedpo.reports.frontier.courses.chosen_figures`.

    Raises:
        ConfigError: if nothing was trained, a name is unknown, or the runs share no prompts.
    """
    if not any(not course.controls for course in courses):
        raise ConfigError(
            "there is no training run among these: rows of a run have a step and none of strength, mixing and best_of"
        )
    figures = chosen_figures(courses, proxy=proxy, held_out=held_out, diversity=diversity)
    same, said = on_common_prompts(courses, figures)
    trained = tuple(_trained(same, figures))
    free = tuple(_free(same, figures))
    return Results(
        figures=figures,
        trained=trained,
        free=free,
        stops=tuple(stop for one in trained for key in figures.held_out if (stop := _stop(one, key)) is not None),
        comparisons=tuple(_comparisons(trained, free, figures)),
        notes=(*notes, *said, *_notes(trained, figures)),
    )


def _trained(courses: Sequence[Course], figures: Figures) -> Iterator[Trained]:
    by_label: dict[str, list[Course]] = {}
    for course in courses:
        if not course.controls:
            by_label.setdefault(course.label, []).append(course)
    for label, seeds in by_label.items():
        yield Trained(
            series=Series(label=label, proxy=figures.proxy, curves={course.seed: course.curves for course in seeds}),
            verdicts={
                course.seed: judge_run(
                    evaluations_of(course.curves), proxy=figures.proxy, judges=figures.held_out, rule=course.rule
                )
                for course in seeds
            },
        )


def _free(courses: Sequence[Course], figures: Figures) -> Iterator[Free]:
    alike: dict[tuple[str, tuple[SamplingControl, ...]], list[Course]] = {}
    for course in courses:
        if course.controls:
            alike.setdefault((course.label, course.controls), []).append(course)
    for (label, controls), seeds in alike.items():
        yield Free(
            series=Series(label=label, proxy=figures.proxy, curves={course.seed: course.curves for course in seeds}),
            names=tuple(control.name or "as it is" for control in controls),
            kind=label.rpartition(": ")[2],
        )


def _stop(one: Trained, key: str) -> Stop | None:
    curves, proxy = one.curves, one.curves.get(one.series.proxy)
    curve = curves.get(key)
    steps = [step for step in curve.steps if step in proxy.steps] if curve and proxy else []
    if not (curve and proxy and steps):
        return None
    best = max(steps, key=lambda step: curve[step].value)
    return Stop(
        label=one.series.label,
        key=key,
        step=best,
        last_step=steps[-1],
        value=curve[best],
        proxy=proxy[best],
        last_value=curve[steps[-1]],
        last_proxy=proxy[steps[-1]],
    )


def _comparisons(trained: Sequence[Trained], free: Sequence[Free], figures: Figures) -> Iterator[Comparison]:
    """Each setting against the first one, and against all free baselines together."""
    everything = [*(one.series for one in trained), *(one.series for one in free)]
    scale = scales(everything, figures.wanted)
    baselines = [one.series for one in free]
    for index, one in enumerate(trained):
        rivals = [(trained[0].series.label, [trained[0].series])] if index else []
        rivals += [(FREE, baselines)] if baselines else []
        for name, rival in rivals:
            shared = {*one.series.curves} & {seed for member in rival for seed in member.curves}
            for key in figures.wanted:
                if all(any(member.trails(key) for member in side) for side in ([one.series], rival)):
                    yield compared(
                        (one.series.label, [one.series]),
                        (name, rival),
                        key,
                        scale=scale[key],
                        over_seeds=len(shared) >= LEAST_SEEDS,
                        reached=True,
                    )


def _notes(trained: Sequence[Trained], figures: Figures) -> Iterator[str]:
    if not figures.held_out:
        yield (
            "No held-out figure was measured, so no run can be judged: what is optimised cannot judge itself. Measure "
            "a second reward and name it with --held-out."
        )
    for one in trained:
        curve: Curve | None = one.curves.get(figures.proxy)
        evaluations = len(curve.steps) if curve else 0
        if evaluations < LEAST_EVALUATIONS:
            yield (
                f"{one.series.label} has {count(evaluations, 'evaluation')}: two make no trend. Evaluate more of its "
                "checkpoints, the model before training among them."
            )
        if curve and len(set(curve.values)) == 1 and evaluations > 1:
            yield (
                f"The proxy {figure_word(figures.proxy)} of {one.series.label} is the same at all evaluations: it was "
                "not optimised, or is measured wrongly. There is no frontier."
            )
        for key in figures.held_out:
            points = one.curves[key].points if key in one.curves else ()
            if not points:
                yield f"{one.series.label} has no {figure_word(key)}."
            elif len(points) >= LEAST_EVALUATIONS and not any(point.has_interval for point in points):
                yield (
                    f"No interval is known of {figure_word(key)} of {one.series.label}: a change counts if it exceeds "
                    f"how much the course jumps, from {LEAST_WITHOUT_INTERVALS} evaluations on. Values of "
                    f"{LEAST_PROMPTS} prompts or more give an interval."
                )
    seeds = {one.series.label: sorted(one.series.curves) for one in trained}
    if min(map(len, seeds.values())) < LEAST_SEEDS:
        few = [label for label, own in seeds.items() if len(own) < LEAST_SEEDS]
        yield (
            f"{listing(few)}: fewer than {LEAST_SEEDS} seeds. Intervals are over prompts: they say how these very "
            "weights would do on other prompts, not what another training would give."
        )
    if len(trained) > 1 and not set.intersection(*map(set, seeds.values())):
        yield "The settings share no seed: they are compared within each seed that both have, so not at all."

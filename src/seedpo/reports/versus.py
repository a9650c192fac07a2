"""What the page shows of an evaluation: a table with intervals, bars for each pair of models, charts over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from seedpo.reports.evaluations import Evaluation
from seedpo.reports.figures import Line, Panel
from seedpo.reports.settings import Point
from seedpo.reports.summaries import Target
from seedpo.reports.tables import Cell
from seedpo.reports.wording import count, interval, listing, number, sentence, signed

ROLES = ("base", "see", "control")
"""Colours and markers, in the order of the models; beyond three the dash pattern changes."""

MOST_PAIRS = 10
"""With more pairs of models than this, each is compared with the first one only."""

MOST_PANELS = 12
DIVERSITY = ("pairwise_diversity", "free_spread")
OFTEN_DIVERSITY = ("diversity", "vendi", "tce")
"""Beginnings of the names of metrics of diversity."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Win, tie and loss of one model against another by one reward.

    Attributes:
        left, right: names of the models.
        reward: judged by this.
        win, tie, loss: percentages of the images.
        rate: wins and half of the ties with the interval, in words.
        difference: paired difference with its interval, in words.
        tone: ``good`` if left is better beyond chance, ``bad`` if worse, else ``open``.
    """

    left: str
    right: str
    reward: str
    win: float
    tie: float
    loss: float
    rate: str
    difference: str
    tone: str

    @property
    def words(self) -> str:
        """For who cannot see the bar."""
        return (
            f"{self.left} against {self.right} by {self.reward}: wins {self.win:.0f}%, ties {self.tie:.0f}%, "
            f"losses {self.loss:.0f}%"
        )


def lead(one: Evaluation) -> str:
    """What was evaluated, in a sentence or two."""
    steps = sorted({target.step for target in one.targets if target.step >= 0})
    text = (
        f"{count(len(one.labels), 'model')} ({listing(one.labels)}) drew {count(one.images, 'image')} for each of "
        f"{count(len(one.prompts), 'prompt')}, all from the same initial latents."
    )
    return text + (f" They were evaluated at {count(len(steps), 'training step')}." if steps else "")


def called(figure: str) -> str:
    """A figure's name without underscores."""
    return figure.replace("_", " ")


def table(one: Evaluation) -> list[tuple[Target, str, list[Cell]]]:
    """One row per model: every figure with its interval over prompts; the best of each column is marked."""
    points = {figure: {target: one.point(target, figure) for target in one.finals} for figure in one.figures}
    rows = []
    for index, target in enumerate(one.finals):
        cells = []
        for figure in one.figures:
            point = points[figure][target]
            best = point is not None and point is _best(
                list(points[figure].values()), one.summary.directions.get(figure)
            )
            small = tuple(part for part in (interval(point.low, point.high),) if part) if point else ()
            cells.append(Cell(text=number(point.value) if point else "\N{EN DASH}", small=small, best=best))
        rows.append((target, ROLES[index % len(ROLES)], cells))
    return rows


def _best(points: Sequence[Point | None], direction: str | None) -> Point | None:
    known = [point for point in points if point is not None]
    if len(known) < 2 or direction == "neither" or len({point.value for point in known}) == 1:
        return None
    pick: Callable[..., Point] = min if direction == "lower" else max
    return pick(known, key=lambda point: point.value)


def bars(one: Evaluation) -> tuple[list[Bar], str]:
    """Every pair of models by every reward, and a note where pairs are left out."""
    pairs = list(combinations(one.finals, 2))
    note = ""
    if len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[0] == one.finals[0]]
        note = f"There are many models: each is compared with {one.finals[0].name} only."
    return [bar for right, left in pairs for reward in one.rewards if (bar := _bar(one, left, right, reward))], note


def _bar(one: Evaluation, left: Target, right: Target, reward: str) -> Bar | None:
    rate, difference = one.wins(left, right, reward), one.difference(left, right, reward)
    if rate is None or difference is None:
        return None
    return Bar(
        left=left.name,
        right=right.name,
        reward=reward,
        win=100 * rate.win,
        tie=100 * rate.tie,
        loss=100 * rate.loss,
        rate=f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]",
        difference=f"{signed(difference.mean)} {interval(difference.low, difference.high)}",
        tone="good" if rate.low > 0.5 else "bad" if rate.high < 0.5 else "open",
    )


def step_panels(one: Evaluation) -> list[Panel]:
    """Figures and win rates over the steps of trainings; the win rate is against the untrained model (step 0)."""
    trained = [label for label in one.labels if len(_steps(one, label)) > 1]
    panels = []
    for figure in one.figures:
        lines = [
            _line(label, index, found)
            for index, label in enumerate(one.labels)
            if label in trained
            and (found := [(t.step, point) for t in _steps(one, label) if (point := one.point(t, figure))])
        ]
        if lines:
            panels.append(Panel(title=sentence(called(figure)), x_label="step", y_label=called(figure), lines=lines))
    for reward in one.rewards:
        lines = [
            _line(label, index, found)
            for index, label in enumerate(one.labels)
            if label in trained and (found := _rates(one, _steps(one, label), reward))
        ]
        if lines:
            title = f"Win rate against the untrained model, {called(reward)}"
            panels.append(Panel(title=title, x_label="step", y_label="win rate", lines=lines, marks=((0.5, "equal"),)))
    return panels[:MOST_PANELS]


def _steps(one: Evaluation, label: str) -> list[Target]:
    return sorted(target for target in one.targets if target.label == label and target.step >= 0)


def _rates(one: Evaluation, steps: Sequence[Target], reward: str) -> list[tuple[int, Point]]:
    if steps[0].step != 0:
        return []
    found = [(target.step, one.wins(target, steps[0], reward)) for target in steps[1:]]
    return [(step, Point(value=rate.rate, low=rate.low, high=rate.high)) for step, rate in found if rate]


def _line(label: str, index: int, found: Sequence[tuple[int, Point]]) -> Line:
    return Line(
        label=label,
        role=ROLES[index % len(ROLES)],
        order=index // len(ROLES),
        x=[step for step, _ in found],
        y=[point.value for _, point in found],
        low=[point.low for _, point in found],
        high=[point.high for _, point in found],
        points=[f"step {step}" for step, _ in found],
    )


def legend(one: Evaluation) -> list[tuple[str, str, int]]:
    """Label, role and dash pattern of every model."""
    return [(label, ROLES[index % len(ROLES)], index // len(ROLES)) for index, label in enumerate(one.labels)]


def frontier_panels(one: Evaluation) -> list[Panel]:
    """Truth and diversity against the first reward: a point for each model, a line where it has steps."""
    if not one.rewards:
        return []
    proxy = one.rewards[0]
    panels = []
    for figure in (figure for figure in one.figures if _judges(figure) and figure != proxy):
        lines = []
        for index, label in enumerate(one.labels):
            places = [
                (target, x, y)
                for target in (_steps(one, label) or [t for t in one.finals if t.label == label])
                if (x := one.point(target, proxy)) and (y := one.point(target, figure))
            ]
            if places:
                lines.append(_frontier(label, index, places))
        if lines:
            panels.append(
                Panel(
                    title=f"{sentence(called(figure))} against {called(proxy)}",
                    x_label=called(proxy),
                    y_label=called(figure),
                    lines=lines,
                    by_step=False,
                    width=440.0,
                    height=310.0,
                )
            )
    return panels[:4]


def _judges(figure: str) -> bool:
    return "truth" in figure or figure in DIVERSITY or figure.startswith(OFTEN_DIVERSITY)


def _frontier(label: str, index: int, places: Sequence[tuple[Target, Point, Point]]) -> Line:
    return Line(
        label=label,
        role=ROLES[index % len(ROLES)],
        order=index // len(ROLES),
        x=[x.value for _, x, _ in places],
        y=[y.value for _, _, y in places],
        low=[y.low for _, _, y in places] if len(places) == 1 else (),
        high=[y.high for _, _, y in places] if len(places) == 1 else (),
        points=[target.name for target, _, _ in places],
        bars=True,
        joined=len(places) > 1,
    )

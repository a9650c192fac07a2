"""What the page shows of an evaluation: a table with intervals, bars for each pair of models, charts over the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from seedpo.core.stats.bootstrap import Interval, WinRate, prompt_means
from seedpo.core.verdicts import deviation_of, matters
from seedpo.evaluation.tables import Place
from seedpo.pages.figures import Line, Panel, style
from seedpo.pages.tables import DASH, Cell, Table, Tone
from seedpo.pages.wording import count, interval, listing, number, sentence, signed
from seedpo.reports.charts import curve_line, frontier_panel
from seedpo.reports.curves import Curve, Point
from seedpo.reports.evaluations import Evaluation, place_name
from seedpo.reports.names import figure_name, kind_of

MOST_PAIRS = 10
"""With more pairs of models than this, each is compared with the first one only."""

MOST_PANELS = 12
MOST_FRONTIERS = 4


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Win, tie and loss of one model against another by one reward.

    Attributes:
        left, right: names of the models.
        reward: judged by this.
        win, tie, loss: percentages of the images.
        rate: wins and half of the ties with the interval, in words.
        difference: paired difference with its interval, in words.
        tone: ``good`` if left is better beyond chance and by enough to matter, ``bad`` if worse, else ``open``.
    """

    left: str
    right: str
    reward: str
    win: float
    tie: float
    loss: float
    rate: str
    difference: str
    tone: Tone

    @property
    def shares(self) -> str:
        """Win, tie and loss in per cent."""
        return f"{self.win:.0f} / {self.tie:.0f} / {self.loss:.0f}"

    @property
    def words(self) -> str:
        """For who cannot see the bar."""
        return (
            f"{self.left} against {self.right} by {self.reward}: wins {self.win:.0f}%, ties {self.tie:.0f}%, "
            f"losses {self.loss:.0f}%"
        )


def lead(evaluation: Evaluation) -> str:
    """What was evaluated, in a sentence or two."""
    steps = {step for _, step in evaluation.places if step is not None}
    prompts, images = evaluation.scores.shape
    text = (
        f"{count(len(evaluation.labels), 'model')} ({listing(evaluation.labels)}) drew {count(images, 'image')} for "
        f"each of {count(prompts, 'prompt')}, all from the same initial latents."
    )
    return text + (f" They were evaluated at {count(len(steps), 'training step')}." if steps else "")


def table(evaluation: Evaluation) -> Table:
    """One row per model: every figure with its interval over prompts; the best of each column is marked."""
    points = {
        figure: {target: evaluation.point(target, figure) for target in evaluation.finals}
        for figure in evaluation.figures
    }
    best = {figure: _best(list(points[figure].values()), evaluation.direction(figure)) for figure in evaluation.figures}
    rows = [
        (
            Cell(text=place_name(target), role=style(index)[0]),
            *(_cell(points[figure][target], best[figure]) for figure in evaluation.figures),
        )
        for index, target in enumerate(evaluation.finals)
    ]
    return Table.of(("model", *map(figure_name, evaluation.figures)), rows)


def _cell(point: Point | None, best: Point | None) -> Cell:
    if point is None:
        return Cell(text=DASH)
    ends = interval(point.low, point.high)
    return Cell(text=number(point.value), small=(ends,) if ends else (), best=point is best)


def _best(points: Sequence[Point | None], direction: str) -> Point | None:
    known = [point for point in points if point is not None]
    if len(known) < 2 or direction == "neither" or len({point.value for point in known}) == 1:
        return None
    pick: Callable[..., Point] = min if direction == "lower" else max
    return pick(known, key=lambda point: point.value)


def bars(evaluation: Evaluation) -> tuple[list[Bar], str]:
    """Every pair of models by every reward, and a note where pairs are left out."""
    pairs = list(combinations(evaluation.finals, 2))
    note = ""
    if len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair[0] == evaluation.finals[0]]
        note = f"There are many models: each is compared with {place_name(evaluation.finals[0])} only."
    return [
        bar for right, left in pairs for reward in evaluation.rewards if (bar := _bar(evaluation, left, right, reward))
    ], note


def _bar(evaluation: Evaluation, left: Place, right: Place, reward: str) -> Bar | None:
    rate, difference = evaluation.wins(left, right, reward), evaluation.difference(left, right, reward)
    if rate is None or difference is None:
        return None
    return Bar(
        left=place_name(left),
        right=place_name(right),
        reward=reward,
        win=100 * rate.win,
        tie=100 * rate.tie,
        loss=100 * rate.loss,
        rate=f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]",
        difference=f"{signed(difference.mean)} {interval(difference.low, difference.high)}",
        tone=_tone(rate, difference, spread=_deviation(evaluation, (left, right), reward)),
    )


def _tone(rate: WinRate, difference: Interval, *, spread: float) -> Tone:
    """Of a comparison whose rate is certain and whose difference matters; else ``open``."""
    if not matters(abs(difference.mean), scale=0.0, deviation=spread):
        return "open"
    return "good" if rate.low > 0.5 else "bad" if rate.high < 0.5 else "open"


def _deviation(evaluation: Evaluation, places: Sequence[Place], figure: str) -> float:
    """Standard deviation of a figure over prompts, mean over the models; NaN if it is not known."""
    known = [values for place in places if (values := evaluation.values(place, figure)) is not None]
    return deviation_of(*(prompt_means(values).tolist() for values in known))


def step_panels(evaluation: Evaluation) -> list[Panel]:
    """Figures and win rates over the steps of trainings; the win rate is against the untrained model (step 0)."""
    trained = [(index, label) for index, label in enumerate(evaluation.labels) if len(evaluation.steps(label)) > 1]
    panels = []
    for figure in evaluation.figures:
        lines = [_line(label, index, _points(evaluation, label, figure)) for index, label in trained]
        panels.append(
            Panel(title=sentence(figure_name(figure)), x_label="step", y_label=figure_name(figure), lines=lines)
        )
    for reward in evaluation.rewards:
        lines = [_line(label, index, _rates(evaluation, label, reward)) for index, label in trained]
        title = f"Win rate against the untrained model, {figure_name(reward)}"
        panels.append(Panel(title=title, x_label="step", y_label="win rate", lines=lines, marks=((0.5, "equal"),)))
    panels = [replace(panel, lines=[line for line in panel.lines if line.x]) for panel in panels]
    return [panel for panel in panels if panel.lines][:MOST_PANELS]


def _points(evaluation: Evaluation, label: str, figure: str) -> dict[int, Point]:
    points = {place[1]: evaluation.point(place, figure) for place in evaluation.steps(label)}
    return {step: point for step, point in points.items() if step is not None and point is not None}


def _rates(evaluation: Evaluation, label: str, reward: str) -> dict[int, Point]:
    """Win rates against step 0."""
    steps = evaluation.steps(label)
    rates = {place[1]: evaluation.wins(place, steps[0], reward) for place in steps[1:] if steps[0][1] == 0}
    return {step: Point(value=rate.rate, low=rate.low, high=rate.high) for step, rate in rates.items() if step and rate}


def _line(label: str, index: int, points: Mapping[int, Point]) -> Line:
    role, order = style(index)
    curve = Curve(steps=tuple(points), points=tuple(points.values()))
    return curve_line(curve, label=label, role=role, order=order)


def legend(evaluation: Evaluation) -> list[tuple[str, str, int]]:
    """Label, role and dash pattern of every model."""
    return [(label, *style(index)) for index, label in enumerate(evaluation.labels)]


def frontier_panels(evaluation: Evaluation) -> list[Panel]:
    """Truth and diversity against the first reward: a point for each model, a line where it has steps."""
    proxy = evaluation.rewards[0] if evaluation.rewards else ""
    panels = []
    for figure in (figure for figure in evaluation.figures if proxy and kind_of(figure) in ("truth", "diversity")):
        lines = [
            _frontier(label, index, places)
            for index, label in enumerate(evaluation.labels)
            if (places := _places(evaluation, label, proxy, figure))
        ]
        if lines:
            title = f"{sentence(figure_name(figure))} against {figure_name(proxy)}"
            panels.append(frontier_panel(title, figure_name(proxy), figure_name(figure), lines))
    return panels[:MOST_FRONTIERS]


def _places(evaluation: Evaluation, label: str, proxy: str, figure: str) -> list[tuple[Place, Point, Point]]:
    places = evaluation.steps(label) or [place for place in evaluation.finals if place[0] == label]
    points = [(place, evaluation.point(place, proxy), evaluation.point(place, figure)) for place in places]
    return [(place, x, y) for place, x, y in points if x is not None and y is not None]


def _frontier(label: str, index: int, places: Sequence[tuple[Place, Point, Point]]) -> Line:
    return Line(
        label=label,
        role=style(index)[0],
        order=style(index)[1],
        x=[x.value for _, x, _ in places],
        y=[y.value for _, _, y in places],
        low=[y.low for _, _, y in places] if len(places) == 1 else (),
        high=[y.high for _, _, y in places] if len(places) == 1 else (),
        points=[place_name(place) for place, _, _ in places],
        bars=True,
        joined=len(places) > 1,
    )

"""Which charts a family gets: curves over steps, frontiers against the proxy, and the health of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from seedpo.core.losses import LOSSES, LossConstants, clipped_loss
from seedpo.methods.presets import METHODS
from seedpo.pages.figures import Line, Panel
from seedpo.pages.wording import sentence
from seedpo.reports.curves import Curve
from seedpo.reports.families import Family, Setting
from seedpo.reports.names import figure_name, metrics_in_order, of_kind, unit_of
from seedpo.reports.runs import Run
from seedpo.training.expectations import EXPECTATIONS, FLAT, expected_loss

MOST_POINTS = 60
"""Training curves are averaged into at most this many points."""

RELATIVE = "relative to the data"
"""End of the units in which the data has the value 1."""

MOST_FRONTIERS = 2

MOST_NAMED = 4
"""With more settings than this, the steps beside the points of a frontier would hide each other."""


@dataclass(frozen=True, kw_only=True)
class Health:
    """One small chart of "is it learning?".

    Attributes:
        key: figure of the training metrics.
        title: heading.
        healthy: what healthy runs look like.
        mark: a reference line and its label.
        spread: figure that is drawn as a band around it.
        limit: dotted key of the alarm's threshold, drawn as a reference line.
        unit: label of the y axis; the heading if it is empty.
        over: figure over which it has grown: what is drawn is their ratio less 1.
    """

    key: str
    title: str
    healthy: str
    mark: tuple[float, str] | None = None
    spread: str = ""
    limit: str = ""
    unit: str = ""
    over: str = ""


ACCURACIES = ("validation/accuracy", "rewards/accuracies")
"""Shares of pairs that the model orders as the labels do: on held-out pairs, and on training pairs."""

HEALTH = (
    Health(
        key="loss",
        title="Loss",
        healthy="Starts near log 2 = 0.693 and falls slowly. A spike that stays is trouble.",
        mark=(math.log(2), "log 2"),
    ),
    Health(
        key="rewards/margins",
        title="Margin of implicit rewards",
        healthy="Rises from about 0 and levels off. Endless growth is over-fitting.",
        mark=(0.0, ""),
    ),
    Health(
        key="rewards/accuracies",
        title="Accuracy in training",
        healthy="Climbs from one half and stays below 1. At 1 the model has memorised the pairs.",
        mark=(0.5, "chance"),
    ),
    Health(
        key="validation/loss",
        title="Loss on held-out pairs",
        healthy="Falls with the loss. When it rises while the loss falls, the model memorises its pairs.",
        unit="loss",
    ),
    Health(
        key="validation/accuracy",
        title="Accuracy on held-out pairs",
        healthy="Above one half means that the model learned something that holds for other pairs.",
        mark=(0.5, "chance"),
        unit="accuracy",
    ),
    Health(
        key="offset/mean",
        title="Offset of the entropy term",
        healthy="Flat at 0 for gamma = 0. Its standard deviation, the band, should stay of order 1.",
        mark=(0.0, ""),
        spread="offset/std",
    ),
    Health(
        key="saturated",
        title="Saturated share",
        healthy="Near 0. Towards 1 the sigmoid is flat and the gradient vanishes.",
        limit="alarms.saturation.threshold",
    ),
    Health(
        key="clipped",
        title="Clipped share",
        healthy="A part at most. At 1 every pair is clipped and learning stops.",
        limit="alarms.clipping.threshold",
    ),
    Health(
        key="ratio/mean",
        title="Ratio to the roll-out's policy",
        healthy="Its mean stays at 1. The band widens with every update on one roll-out.",
        mark=(1.0, ""),
        spread="ratio/std",
    ),
    Health(
        key="kl",
        title="KL to the reference",
        healthy="Rises from 0 and levels off. A leap means that the policy left the reference.",
        unit="nats",
    ),
    Health(key="grad_norm", title="Gradient norm", healthy="Steady, without a trend. Spikes mean instability."),
    *(
        Health(
            key=f"error/policy_{side}",
            title=f"Error on {side} images",
            healthy="Follows the time steps drawn. Its growth over the reference's, beside it, is what training does.",
            unit="squared error",
        )
        for side in ("chosen", "rejected")
    ),
    Health(
        key="error/policy_chosen",
        over="error/reference_chosen",
        title="Growth of the error, chosen images",
        healthy="Near 0, better below. Growth without end means that the model forgets good images: it breaks down.",
        limit="alarms.winner_error.threshold",
        unit="growth over the reference's",
    ),
    Health(
        key="error/policy_rejected",
        over="error/reference_rejected",
        title="Growth of the error, rejected images",
        healthy="Rises above that on chosen images. Both far above 0 together is likelihood displacement.",
        mark=(0.0, "reference"),
        unit="growth over the reference's",
    ),
    Health(
        key="gradient_factor",
        title="Gradient factor",
        healthy="0.5 at first for the sigmoid, falling as pairs are learned. Near 0 nothing pulls any more.",
    ),
    Health(
        key="loser_share",
        title="Loser's share of the push",
        healthy="About one half without `objective.loser_scale`, below it with. Near 1 only rejected images push.",
        mark=(0.5, ""),
    ),
    *(
        Health(key=f"anchor/{name}", title=f"Anchor {name}", healthy=healthy, unit="squared error")
        for name, healthy in (
            ("kl", "Rises from 0 and levels off, where objective and anchor balance."),
            ("winner", "Follows the time steps drawn, without a trend upwards."),
            ("data", "Follows the time steps drawn, without a trend upwards: the model still knows the data."),
        )
    ),
    Health(
        key="source/novelty",
        title="Novelty of winners",
        healthy="Steady. A fall means that the images which win become alike.",
        unit="1 - cos",
    ),
    Health(
        key="source/suspicion",
        title="Suspicion of winners",
        healthy="About as at the start. A rise means that the reward parts from the second opinions.",
        mark=(0.0, "agreement"),
        unit="difference of win rates",
    ),
    Health(
        key="distance",
        title="Distance from the reference",
        healthy="Rises slowly, and falls where the reference follows. A jump means that the policy left it.",
        unit="mean squared difference",
    ),
    Health(key="learning_rate", title="Learning rate", healthy="As the schedule has it."),
    Health(
        key="pairs_per_second",
        title="Speed",
        healthy="Steady. A fall means that something else takes the machine's time.",
        unit="pairs per second",
    ),
    Health(key="seconds", title="Time of a step", healthy="Without the evaluations.", unit="seconds per step"),
    Health(key="peak_memory_gib", title="Memory of the GPU", healthy="Steady. Growth is a leak.", unit="GiB"),
)


def quantities(family: Family) -> dict[str, str]:
    """Keys that are drawn and their names: proxy, judge, metrics by what they are about, then other rewards."""
    names = {family.proxy: "proxy", family.judge: family.judge_name}
    keys = (family.proxy, family.judge, *metrics_in_order(family.figures), *of_kind("reward", family.figures))
    return {key: names.get(key, figure_name(key)) for key in keys if key in family.figures}


def curve_panels(family: Family, keys: Sequence[str] | None = None) -> list[Panel]:
    """Every measured quantity against the step, or those of ``keys``."""
    names = quantities(family)
    return [
        Panel(
            title=sentence(name),
            x_label="step",
            y_label=name,
            note=figure_name(key) if key == family.proxy else unit_of(key),
            lines=[
                curve_line(setting.curves[key], label=setting.legend, role=setting.role, order=setting.order)
                for setting in family.settings
                if key in setting.curves
            ],
            marks=((1.0, "data"),) if unit_of(key).endswith(RELATIVE) else (),
        )
        for key, name in ((key, names.get(key, figure_name(key))) for key in (names if keys is None else keys))
    ]


def curve_line(curve: Curve, *, label: str, role: str, order: int) -> Line:
    """A curve over the steps with its interval as a band."""
    return Line(
        label=label,
        role=role,
        order=order,
        x=curve.steps,
        y=curve.values,
        low=[point.low for point in curve.points],
        high=[point.high for point in curve.points],
        steps=curve.steps,
    )


def frontier_panels(family: Family, *, x: str = "", keys: Sequence[str] | None = None) -> list[Panel]:
    """Judge and diversity, or ``keys``, against the proxy or ``x``: up and to the right is better."""
    names = quantities(family)
    few = len(family.settings) <= MOST_NAMED
    across = x or family.proxy
    panels = []
    for key in keys or (family.judge, *of_kind("diversity", family.figures))[:MOST_FRONTIERS]:
        lines = [line for setting in family.settings if (line := _frontier(setting, across, key, few=few)) is not None]
        if lines and key != across:
            name, below = (names.get(one, figure_name(one)) for one in (key, across))
            panels.append(frontier_panel(f"{sentence(name)} against {below}", below, name, lines))
    return panels


def frontier_panel(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Panel:
    """A larger chart of one figure against another."""
    return Panel(title=title, x_label=x_label, y_label=y_label, lines=lines, by_step=False, width=440.0, height=310.0)


def _frontier(setting: Setting, proxy_key: str, key: str, *, few: bool) -> Line | None:
    proxy, curve = setting.curves.get(proxy_key), setting.curves.get(key)
    steps = [step for step in proxy.steps if step in curve.steps] if proxy and curve else []
    if not (proxy and curve and steps):
        return None
    stride = max(1, round((len(steps) - 1) / 3))
    return Line(
        label=setting.legend,
        role=setting.role,
        order=setting.order,
        x=[proxy[step].value for step in steps],
        y=[curve[step].value for step in steps],
        steps=steps,
        named=range(len(steps) - 1, 0, -stride) if few else (),
    )


def health_panels(family: Family) -> list[Panel]:
    """Small charts of the training metrics, one line per run."""
    panels = [_health_panel(family, _of_method(health, family.settings[0].runs[0])) for health in HEALTH]
    return [panel for panel in panels if panel is not None]


def training_panel(family: Family, key: str, *, points: int | None = None) -> Panel | None:
    """The chart of one figure of the training metrics; ``None`` if no run logged it.

    Args:
        family: whose runs are drawn.
        key: of the figure.
        points: equal parts of the training over which it is averaged; `None` for :data:`MOST_POINTS`.
    """
    health = next(health for health in HEALTH if health.key == key)
    return _health_panel(family, _of_method(health, family.settings[0].runs[0]), points or MOST_POINTS)


def _health_panel(family: Family, health: Health, points: int = MOST_POINTS) -> Panel | None:
    lines = [
        line
        for setting in family.settings
        for run in setting.runs
        if (line := _training(setting, _records(run, health.key), health, points)) is not None
    ]
    if not lines:
        return None
    return Panel(
        title=health.title,
        note=health.healthy,
        x_label="step",
        y_label=health.unit or health.title.lower(),
        lines=lines,
        marks=_marks(health, family.settings[0].runs[0]),
        width=300.0,
        height=170.0,
    )


def _records(run: Run, key: str) -> Sequence[Mapping[str, float]]:
    """The lines that hold a figure: those of the training, or else those of the evaluations."""
    return run.train if any(key in record for record in run.train) else run.evaluations


def _of_method(health: Health, run: Run) -> Health:
    """The chart as the run's own objective, source and kind of loss have it."""
    method, name = str(run.get("method")), str(run.get("loss") or "sigmoid")
    own = EXPECTATIONS.get(METHODS[method].objective, {}) if method in METHODS else {}
    if health.key in own:
        healthy = own[health.key]
        mark = None if health.key == "loss" else health.mark
        return replace(health, healthy=f"{healthy[0].upper()}{healthy[1:]}.", mark=mark)
    if health.key == "rewards/accuracies" and method in METHODS and not METHODS[method].source.fixed_pairs:
        return replace(health, healthy="0.5 to 0.8, without a steady rise, since every roll-out brings new pairs.")
    if health.key != "loss" or name == "sigmoid":
        return health
    start = LOSSES[name].start_value(_constants(run))
    healthy = f"Starts near {start:.3g} without the entropy term and falls slowly. A spike that stays is trouble."
    return replace(health, healthy=healthy, mark=(start, "start"))


def _constants(run: Run) -> LossConstants:
    """The numbers of the run's loss."""
    objective = run.config.get("objective") or {}
    own = {key: float(objective[key]) for key in ("linear_floor", "dmpo_smoothing") if key in objective}
    return LossConstants(beta=float(run.get("beta") or 1.0), **own)


def _marks(health: Health, run: Run) -> tuple[tuple[float, str], ...]:
    limit = run.get(health.limit) if health.limit else None
    return (health.mark,) if health.mark else () if limit is None else ((float(limit), "alarm"),)


def _training(setting: Setting, train: Sequence[Mapping[str, float]], health: Health, points: int) -> Line | None:
    lines = [record for record in train if health.key in record and (not health.over or health.over in record)]
    if not lines:
        return None
    size = -(-len(lines) // points)
    parts = [lines[start : start + size] for start in range(0, len(lines), size)]

    def mean(part: Sequence[Mapping[str, float]], key: str) -> float:
        return sum(record.get(key, math.nan) for record in part) / len(part)

    middle = [mean(part, health.key) for part in parts]
    if health.over:
        middle = [value / mean(part, health.over) - 1 for value, part in zip(middle, parts, strict=True)]
    spread = [mean(part, health.spread) for part in parts] if health.spread else []
    return Line(
        label=setting.legend,
        role=setting.role,
        order=setting.order,
        x=[mean(part, "step") for part in parts],
        y=middle,
        low=[value - width for value, width in zip(middle, spread, strict=False)],
        high=[value + width for value, width in zip(middle, spread, strict=False)],
    )


def health_notes(family: Family) -> list[str]:
    """What a reader must know of these training curves: the reach of the clip, and the alarms that were raised."""
    notes = []
    for setting in family.settings:
        notes += _clip_note(setting)
        notes += [f"{run.name}: {alarm}" for run in setting.runs for alarm in run.alarms]
    return notes


def _clip_note(setting: Setting) -> list[str]:
    clip = setting.runs[0].config.get("clip_range") if setting.runs else None
    method = str(setting.runs[0].get("method")) if setting.runs else ""
    if not clip or setting.gamma != 0 or (method in METHODS and METHODS[method].objective != "dpo"):
        return []
    weight, constants = setting.policy_weight, _constants(setting.runs[0])
    loss = str(setting.runs[0].config.get("loss", "sigmoid"))
    low, high = clipped_loss(weight, float(clip), loss=loss, constants=constants)
    expected = expected_loss(weight, setting.beta, float(clip), loss, constants)
    return [f"{setting.name}: the loss {expected}"] if high - low < FLAT else []

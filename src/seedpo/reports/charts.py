"""Which charts a family gets: curves over steps, frontiers against the proxy, and the health of the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedpo.core.entropy import clipped_loss
from seedpo.reports.figures import Line, Panel
from seedpo.reports.settings import Curve, Family, Setting
from seedpo.reports.wording import number, setting

MOST_POINTS = 60
"""Training curves are averaged into at most this many points."""

MOST_NAMED = 4
"""With more settings than this, the steps beside the points of a frontier would hide each other."""

FLAT = 0.1
"""A clipped loss whose whole range is narrower than this looks flat."""

QUANTITIES = {
    "pairwise_diversity": "diversity (pairwise)",
    "free_spread": "free spread (1 = as the data)",
    "attribute_accuracy": "attribute accuracy",
}


@dataclass(frozen=True, kw_only=True)
class Health:
    """One small chart of "is it learning?"."""

    key: str
    title: str
    healthy: str
    mark: tuple[float, str] | None = None
    spread: str = ""


HEALTH = (
    Health(
        key="loss",
        title="Loss",
        healthy="Starts near log 2 = 0.693 and sinks slowly; a spike that stays is trouble.",
        mark=(math.log(2), "log 2"),
    ),
    Health(
        key="rewards/margins",
        title="Margin of implicit rewards",
        healthy="Rises from about 0 and levels off; growth without end is over-fitting.",
        mark=(0.0, ""),
    ),
    Health(
        key="rewards/accuracies",
        title="Accuracy on training pairs",
        healthy="Climbs from one half and stays below 1; at 1 the pairs are learnt by heart.",
        mark=(0.5, "chance"),
    ),
    Health(
        key="offset/mean",
        title="Offset of the entropy term",
        healthy="Flat at 0 for gamma = 0; mean ± standard deviation should stay of order 1.",
        mark=(0.0, ""),
        spread="offset/std",
    ),
    Health(
        key="saturated", title="Saturated share", healthy="Near 0; towards 1 the sigmoid is flat, the gradient gone."
    ),
    Health(key="clipped", title="Clipped share", healthy="A part at most; at 1 every pair is clipped, learning stops."),
    Health(key="grad_norm", title="Gradient norm", healthy="Steady, without a rising trend; spikes mean instability."),
)


def quantities(family: Family) -> dict[str, str]:
    """Keys that are drawn over the steps and their names: proxy, judge, diversity, then other rewards."""
    keys = {key for one in family.settings for key in one.curves}
    names = {family.proxy: f"proxy ({family.proxy.removeprefix('reward/')})", family.judge: family.judge_name}
    others = {key: f"reward {key.removeprefix('reward/')}" for key in sorted(keys) if key.startswith("reward/")}
    return {key: name for key, name in (others | names | QUANTITIES).items() if key in keys}


def curve_panels(family: Family) -> list[Panel]:
    """Every measured quantity against the step."""
    names = quantities(family)
    first = [key for key in (family.proxy, family.judge, *QUANTITIES) if key in names]
    return [
        Panel(
            title=names[key][:1].upper() + names[key][1:],
            x_label="step",
            y_label=names[key].split(" (")[0],
            lines=[_over_steps(one, one.curves[key]) for one in family.settings if key in one.curves],
            marks=((1.0, "data"),) if key == "free_spread" else (),
        )
        for key in (*first, *(key for key in names if key not in first))
    ]


def _over_steps(one: Setting, curve: Curve) -> Line:
    return Line(
        label=one.name,
        role=one.role,
        order=one.order,
        x=curve.steps,
        y=curve.values,
        low=[point.low for point in curve.points],
        high=[point.high for point in curve.points],
        steps=curve.steps,
    )


def frontier_panels(family: Family) -> list[Panel]:
    """Truth and diversity against the proxy: up and to the right is better."""
    names = quantities(family)
    keys = [key for key in (family.judge, "pairwise_diversity", "free_spread") if key in names and key != family.proxy]
    panels = []
    for key in keys[:2]:
        lines = [
            line
            for one in family.settings
            if (line := _frontier(one, one.curves.get(family.proxy), key, few=len(family.settings) <= MOST_NAMED))
            is not None
        ]
        if lines:
            name = names[key].split(" (")[0]
            panels.append(
                Panel(
                    title=f"{name[:1].upper()}{name[1:]} against proxy",
                    x_label="proxy",
                    y_label=name,
                    lines=lines,
                    by_step=False,
                    width=440.0,
                    height=310.0,
                )
            )
    return panels


def _frontier(one: Setting, proxy: Curve | None, key: str, *, few: bool) -> Line | None:
    curve = one.curves.get(key)
    if curve is None or proxy is None:
        return None
    steps = [step for step in proxy.steps if step in curve.steps]
    if not steps:
        return None
    stride = max(1, round((len(steps) - 1) / 3))
    return Line(
        label=one.name,
        role=one.role,
        order=one.order,
        x=[proxy[step].value for step in steps],
        y=[curve[step].value for step in steps],
        steps=steps,
        named=range(len(steps) - 1, 0, -stride) if few else (),
    )


def health_panels(family: Family) -> list[Panel]:
    """Small charts of the training metrics, one line per run."""
    panels = []
    for health in HEALTH:
        lines = [
            line
            for one in family.settings
            for run in one.runs
            if (line := _training(one, run.train, health)) is not None
        ]
        if lines:
            panels.append(
                Panel(
                    title=health.title,
                    note=health.healthy,
                    x_label="step",
                    y_label=health.title.lower(),
                    lines=lines,
                    marks=(health.mark,) if health.mark else (),
                    width=300.0,
                    height=170.0,
                )
            )
    return panels


def _training(one: Setting, train: Sequence[Mapping[str, float]], health: Health) -> Line | None:
    found = [record for record in train if health.key in record]
    if not found:
        return None
    size = -(-len(found) // MOST_POINTS)
    parts = [found[start : start + size] for start in range(0, len(found), size)]

    def mean(part: Sequence[Mapping[str, float]], key: str) -> float:
        return sum(record.get(key, math.nan) for record in part) / len(part)

    middle = [mean(part, health.key) for part in parts]
    spread = [mean(part, health.spread) for part in parts] if health.spread else []
    return Line(
        label=one.name,
        role=one.role,
        order=one.order,
        x=[mean(part, "step") for part in parts],
        y=middle,
        low=[value - width for value, width in zip(middle, spread, strict=False)],
        high=[value + width for value, width in zip(middle, spread, strict=False)],
    )


def health_notes(family: Family) -> list[str]:
    """What a reader must know of these training curves: the reach of the clip, alarms, and warning signs at the end."""
    notes = []
    for one in family.settings:
        notes += _clip_note(one)
        for run in one.runs:
            notes += [f"{run.name}: {alarm}" for alarm in run.alarms]
            notes += [f"{run.name}: {warning}" for warning in _warnings(run.train)]
    return notes


def _clip_note(one: Setting) -> list[str]:
    clip = one.runs[0].config.get("clip_range") if one.runs else None
    if not clip or one.gamma != 0:
        return []
    low, high = clipped_loss(one.policy_weight, float(clip))
    if high - low > FLAT:
        return []
    values = f"clip_range = {setting(float(clip))} and a = {setting(one.policy_weight)}"
    note = (
        f"{one.name}: with {values} the loss cannot leave [{low:.3f}, {high:.3f}]; a loss that looks flat is no sign "
        "that nothing is learnt. Judge by accuracy and by the rewards."
    )
    return [note]


def _warnings(train: Sequence[Mapping[str, float]]) -> list[str]:
    """Warning signs in the last tenth of the training."""
    tail = train[-max(1, len(train) // 10) :]

    def last(key: str) -> Any:
        values = [record[key] for record in tail if key in record]
        return sum(values) / len(values) if values else math.nan

    found = []
    if last("saturated") > 0.5:
        found.append(
            f"{last('saturated'):.0%} of the pairs are saturated at the end, without gradient; lower gamma or beta."
        )
    if last("clipped") > 0.9:
        found.append(f"{last('clipped'):.0%} of the pairs are clipped at the end: hardly anything is learnt any more.")
    if last("offset/std") > 5:
        found.append(
            f"the entropy term's offset spreads by {number(last('offset/std'))}: it drowns what is learnt; lower gamma."
        )
    if last("rewards/accuracies") > 0.98:
        found.append("nearly every training pair is ranked right at the end: the pairs are learnt by heart.")
    return found

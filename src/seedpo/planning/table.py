"""A plan as text for the terminal."""

from __future__ import annotations

from seedpo.pages.tables import text_table
from seedpo.planning.people import People
from seedpo.planning.plan import Plan


def as_text(plan: Plan) -> str:
    """The plan as lines of at most about 110 characters."""
    parts = [_heading(plan), _work(plan), _totals(plan), _memory(plan)]
    if plan.notes:
        parts.append("\n".join(f"note: {note}" for note in plan.notes))
    if plan.warnings:
        parts.append("\n".join(f"warning: {warning}" for warning in plan.warnings))
    return "\n\n".join(parts)


def _heading(plan: Plan) -> str:
    config = plan.config
    trained = config.trained_words
    precision = "float32" if config.mixed_precision == "no" else config.mixed_precision
    extra = ", gradient checkpointing" if config.gradient_checkpointing else ""
    lines = [f"{plan.method}: {plan.model}; {trained}, {precision}{extra}"]
    if plan.scorer:
        lines.append(f"reward: {plan.scorer}")
    if plan.people is not None:
        raters = f"{plan.people.raters} rater{'s' * (plan.people.raters > 1)}"
        lines.append(
            f"judged by people: study {plan.people.study}, {plan.people.tournament} of a prompt, {raters} each"
        )
    lines.append(
        f"{plan.gpus} x {plan.gpu.name}, {plan.gpu.memory:g} GiB each; {plan.utilisation:.0%} of the peak "
        f"({plan.gpu.half:g} TFLOP/s in half precision) is assumed: --utilisation"
    )
    return "\n".join(lines)


def _work(plan: Plan) -> str:
    rows = [("", f"forwards per {plan.noun}", f"TFLOP per {plan.noun}", "share", "hours")]
    rows += [
        (
            line.name,
            f"{line.forwards:.2f}" if line.forwards else "",
            f"{line.flops / 1e12:.4g}" if line.flops else "",
            f"{line.share:.1%}",
            _hours(line.hours),
        )
        for line in plan.lines
    ]
    rows.append(("total", "", f"{plan.flops_per_pair / 1e12:.4g}", "", _hours(plan.hours)))
    return text_table(rows, align=">")


def _totals(plan: Plan) -> str:
    config = plan.config
    batch = config.batch_size * config.gradient_accumulation_steps * plan.gpus
    unit = "" if plan.unit == plan.noun else f" ({plan.unit})"
    total = f"{plan.pairs:,.0f} {plan.noun}s, {_flops(plan.flops)}, {_hours(plan.hours)} hours"
    if plan.gpus > 1:
        total += f" ({_hours(plan.hours * plan.gpus)} GPU-hours)"
    lines = [f"{config.max_steps} steps of {batch}{unit}: {total}"]
    if plan.rollouts:
        lines.append(f"{plan.rollouts:,} roll-outs on each GPU")
    if plan.people is not None:
        lines += questions(plan.people)
    return "\n".join(lines)


def questions(people: People) -> list[str]:
    """The questions to people, as lines."""
    lines = [
        f"people judge {when}: {count.groups:,} groups, {count.pairs:,} {people.unit}, {count.votes:,} votes"
        for when, count in (("per round", people.per_round), ("in all", people.in_all))
    ]
    if people.extra:
        lines.append(f"attention checks and repetitions come on top: {people.extra:.0%} of what a rater is shown")
    return lines


def _memory(plan: Plan) -> str:
    memory = plan.memory
    rows = [("memory of a GPU (estimate)", "GiB")]
    rows += [(f"  {name}", f"{size / 2**30:.2f}") for name, size in memory.held.items()]
    rows += [
        (f"  + {name}" + (" (worst)" if name == memory.worst else ""), f"{size / 2**30:.2f}")
        for name, size in sorted(memory.phases.items(), key=lambda entry: -entry[1])
    ]
    rows.append(("peak", f"{memory.peak / 2**30:.2f}"))
    fits = "fits" if memory.peak <= plan.gpu.memory * 2**30 else "does not fit"
    return f"{text_table(rows, align='>')}\n{fits}: {memory.peak / 2**30:.1f} of {plan.gpu.memory:g} GiB"


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.3g}"


def _flops(flops: float) -> str:
    for unit, size in (("ZFLOP", 1e21), ("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e9:.3g} GFLOP"

"""``seedpo list``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from typing import Annotated

import typer

from seedpo.cli.shared import say
from seedpo.data.catalogue import PromptSet
from seedpo.errors import ConfigError
from seedpo.metrics.catalogue import FEATURES, MetricEntry
from seedpo.models.catalogue import MODELS
from seedpo.models.pipeline_classes import FAMILIES, Checkpoint
from seedpo.registry import Entry, registries
from seedpo.rewards.catalogue import REWARDS, RewardEntry

TITLES = ("name", "measures (higher is better)", "scale", "download", "licence", "source")
"""Columns of the table of rewards."""

SHARES = (10, 8, 3, 6, 5)
"""How the columns of rewards share the width that names leave."""

MODEL_TITLES = ("name", "network", "text encoders", "licence", "recipes for a LoRA")
"""Columns of the tables of well-known models."""

MODEL_SHARES = (5, 8, 8, 8)
"""How the columns of models share the width that names leave."""

NARROW = 110
"""Terminals with fewer columns get one paragraph for each row."""


OTHER_FORMS = (
    "Wherever a reward is named, write one of these; NAME@PLACE for its weights elsewhere (a folder, or owner/name on "
    "the hub); a folder or owner/name with a CLIP preference model; module:function for your own Python code; or a "
    "weighted sum that the configuration defines under `rewards`."
)
"""What else a reward can be."""

OTHER_MODELS = (
    "Wherever a model is named, write one of these; a folder with a pipeline in diffusers' format or owner/name on the "
    "hub, of a class below; or a single-file checkpoint. Licences are those of the weights: read the publisher's words."
)
"""What else a model can be."""


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="methods, models, data, starts, prompts, rewards, metrics, set-metrics or features; all if not given."
        ),
    ] = None,
) -> None:
    """List the names that configurations and commands accept.

    `seedpo list models` shows the registered models, and every pipeline class that can be used: well-known models with
    their size, their licence and the recipes that fit a GPU.
    `seedpo list rewards` shows what each reward measures, on which scale, under which licence, and what it downloads.
    `seedpo list metrics` and `seedpo list set-metrics` show the unit of each metric, and what it needs.
    """
    if kind is not None and kind not in registries():
        raise ConfigError(f"unknown kind {kind!r}; there are: {', '.join(registries())}")
    width = shutil.get_terminal_size((80, 24)).columns
    if kind == "models":
        say(model_text(width=width))
        return
    if kind == "rewards":
        say(reward_table(REWARDS.entries, width=width))
        say("")
        say(textwrap.fill(OTHER_FORMS, min(max(width, 30), 120)))
        return
    for word in [kind] if kind else registries():
        say(f"{word}:")
        for entry in registries()[word].entries:
            say(f"  {entry.name:24} {entry.summary}{_brackets(entry)}")


def _brackets(entry: Entry) -> str:
    """In brackets: licence and size of a prompt set; of a metric its unit, its direction, and what it needs."""
    if isinstance(entry, PromptSet) and entry.facts:
        return f" [{'; '.join(entry.facts)}]"
    if not isinstance(entry, MetricEntry):
        return ""
    _, _, unit, _, direction, needs, _ = metric_facts(entry)
    facts = [unit, f"{direction} is better" if direction != "neither" else "neither good nor bad"]
    return f" [{'; '.join([*facts, *([] if needs == 'nothing' else [f'needs {needs}'])])}]"


def metric_facts(entry: MetricEntry) -> tuple[str, ...]:
    """One row of the table of metrics: name, summary, unit, range, direction, needs, source."""
    needs = []
    if entry.image_size is not None:
        needs.append(f"{entry.image_size} x {entry.image_size} px drawings")
    if entry.features is not None:
        size = FEATURES[entry.features].size
        needs.append(f"features {entry.features}" + (f" ({size})" if size else ""))
    if entry.reference:
        needs.append("a reference set")
    needed = ", ".join(needs) or "nothing"
    return (entry.name, entry.summary, entry.unit, entry.span, entry.direction, needed, entry.source)


def reward_facts(entry: RewardEntry) -> tuple[str, ...]:
    """One row of the table of rewards, in the order of its columns."""
    measures = f"{entry.summary}; step-aware" if entry.step_aware else entry.summary
    return (entry.name, measures, entry.scale, entry.size or "none", entry.licence, entry.source)


def reward_table(entries: Sequence[RewardEntry], *, width: int) -> str:
    """The rewards as a table, or as paragraphs if a table would not fit.

    Args:
        entries: the rewards.
        width: columns of the terminal.
    """
    return _rows(TITLES, SHARES, [reward_facts(entry) for entry in entries], width)


def model_text(*, width: int) -> str:
    """The registered models, and the families with their well-known models.

    Args:
        width: columns of the terminal.
    """
    width = max(width, 30)
    blocks = ["models:"]
    for entry in MODELS.entries:
        blocks += textwrap.wrap(
            f"{entry.name:24} {entry.summary}", width, initial_indent="  ", subsequent_indent="    "
        )
    blocks += ["", *textwrap.wrap(OTHER_MODELS, min(width, 120))]
    for family in FAMILIES.entries:
        trained = f"not trained: {family.untrained}" if family.untrained else "all can be trained"
        head = f"{family.name}: {family.summary}; {family.process}; {trained}"
        facts = [model_facts(checkpoint) for checkpoint in family.checkpoints]
        blocks += ["", *textwrap.wrap(head, width), _rows(MODEL_TITLES, MODEL_SHARES, facts, width, indent="  ")]
    return "\n".join(blocks)


def model_facts(checkpoint: Checkpoint) -> tuple[str, ...]:
    """One row of a table of well-known models, in the order of its columns."""
    size = f"{checkpoint.parameters:.2g} B, {2 * checkpoint.parameters:.2g} GB in bf16"
    return checkpoint.name, size, checkpoint.text, checkpoint.licence, ", ".join(checkpoint.recipes) or "none"


def _rows(
    titles: Sequence[str], shares: Sequence[int], facts: Sequence[tuple[str, ...]], width: int, *, indent: str = ""
) -> str:
    """Facts as a table, or as paragraphs if a table would not fit."""
    left = max(width, 30) - len(indent)
    text = _table(titles, shares, facts, left) if width >= NARROW else _paragraphs(titles, facts, left)
    return textwrap.indent(text, indent)


def _paragraphs(titles: Sequence[str], facts: Sequence[tuple[str, ...]], width: int) -> str:
    blocks = []
    for name, *rest in facts:
        lines = [name]
        for title, fact in zip(titles[1:], rest, strict=True):
            lines += textwrap.wrap(
                f"{title}: {fact}", width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _table(titles: Sequence[str], shares: Sequence[int], facts: Sequence[tuple[str, ...]], width: int) -> str:
    first = max(len(name) for name, *_ in facts)
    left = width - first - 2 * (len(titles) - 1)
    widths = [first, *(left * share // sum(shares) for share in shares)]
    lines = []
    for row in (titles, tuple("-" * wide for wide in widths), *facts):
        cells = [textwrap.wrap(fact, wide, break_on_hyphens=False) for fact, wide in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            lines.append("  ".join(f"{part:{wide}}" for part, wide in zip(parts, widths, strict=True)).rstrip())
    return "\n".join(lines)

"""Sample sheets for the page: cut to the prompts that fit, shrunk where they are large, and packed as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from PIL import Image

from seedpo.data.images.rgb import SHEET_PIXELS, decoded
from seedpo.files import read_bytes
from seedpo.reports.curves import Curve
from seedpo.reports.families import Family, Setting
from seedpo.reports.runs import Run, Samples

LARGEST_TILE = 128
"""Images are shrunk to this width and height in pixels."""

LOSSLESS_TILE = 64
"""Images up to this size are packed without loss."""

MOST_STEPS = 24
"""Evaluations per family that are shown."""

BYTES = 12_000_000
"""Aim for the packed images of the whole page; fewer prompts are shown if there would be more."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A packed sheet; ``name`` is its CSS class."""

    name: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The images of one setting in the grid.

    Attributes:
        setting: whose they are.
        run: the run of the setting that is shown.
        sheets: packed sheet of each step that could be read.
    """

    setting: Setting
    run: Run
    sheets: dict[int, Sheet]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Images of several settings for the same prompts and latents.

    Attributes:
        prompts: prompt of each row.
        columns: initial latents per prompt.
        tile: width and height of an image in pixels, before it was shrunk.
        steps: evaluation steps, ascending.
        start: index of the step that is shown first.
        strips: one per setting.
        all_prompts: prompts in the run folder, of which ``prompts`` are the first.
    """

    prompts: tuple[str, ...]
    columns: int
    tile: int
    steps: tuple[int, ...]
    start: int
    strips: tuple[Strip, ...]
    all_prompts: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a family's grid will hold, before any image is read."""

    family: Family
    chosen: tuple[tuple[Setting, Run], ...]
    steps: tuple[int, ...]
    left_out: tuple[str, ...]

    @property
    def samples(self) -> Samples | None:
        """Layout that all sheets of the grid share."""
        return self.chosen[0][1].samples if self.chosen else None


def plan_grid(family: Family) -> Plan:
    """Chooses one run per setting; settings with other prompts or latents than the first are left out and named."""
    chosen: list[tuple[Setting, Run]] = []
    left_out = []
    for setting in family.settings:
        run = min((run for run in setting.runs if run.samples), key=lambda run: run.seed, default=None)
        if run is None:
            left_out.append(f"{setting.name} is not shown: it has no sample images.")
        elif chosen and _layout(run) != _layout(chosen[0][1]):
            left_out.append(
                f"{setting.name} is not in the grid: its evaluation prompts, latents or image size differ from those "
                f"of {chosen[0][0].name}."
            )
        else:
            chosen.append((setting, run))
    steps = sorted({step for _, run in chosen if run.samples for step in run.samples.sheets})
    shown = {*thinned(steps), *([_start(steps, family)] if steps else [])}
    return Plan(family=family, chosen=tuple(chosen), steps=tuple(sorted(shown)), left_out=tuple(left_out))


def _layout(run: Run) -> object:
    samples = run.samples
    evaluation = run.config.get("evaluation", {})
    return samples and (samples.tile, samples.columns, samples.prompts, evaluation.get("seed"))


def thinned(steps: Sequence[int]) -> list[int]:
    """At most :data:`MOST_STEPS` of ascending steps, evenly spaced, the first and the last among them."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    return sorted({steps[round(index * (len(steps) - 1) / (MOST_STEPS - 1))] for index in range(MOST_STEPS)})


def _start(steps: Sequence[int], family: Family) -> int:
    """The step shown first: where the base method's truth lies furthest below its peak, or the last one."""
    base = next((setting for setting in family.settings if setting.role == "base"), None)
    worst = worst_step(base.curves.get(family.judge)) if base else None
    return worst if worst is not None and worst in steps else steps[-1]


def worst_step(truth: Curve | None) -> int | None:
    """The step at which a curve lies furthest below its earlier peak; ``None`` if it never falls."""
    if truth is None or not truth.steps:
        return None
    falls = [peak - value for peak, value in zip(accumulate(truth.values, max), truth.values, strict=True)]
    return truth.steps[falls.index(max(falls))] if max(falls) > 0 else None


def rows_that_fit(plans: Sequence[Plan], *, budget: int = BYTES) -> int:
    """Prompts per grid such that the images of all grids take about ``budget`` bytes."""
    row = sum(
        len(plan.chosen) * len(plan.steps) * plan.samples.columns * _bytes_per_tile(plan.samples.tile)
        for plan in plans
        if plan.samples
    )
    return max(1, int(budget / row)) if row else 1


def _bytes_per_tile(tile: int) -> float:
    """Rough size of a packed image: lossless about one byte per pixel, else a sixth of one."""
    return tile**2 * 1.3 if tile <= LOSSLESS_TILE else min(tile, LARGEST_TILE) ** 2 * 0.2


def build_grid(plan: Plan, *, most_rows: int, prefix: str) -> tuple[Grid | None, tuple[str, ...]]:
    """Packs the sheets of a plan; also says what could not be shown."""
    samples = plan.samples
    if samples is None or not plan.steps:
        return None, plan.left_out
    rows = min(len(samples.prompts), most_rows)
    notes = list(plan.left_out)
    strips = []
    for index, (setting, run) in enumerate(plan.chosen):
        sheets: dict[int, Sheet] = {}
        for step in plan.steps:
            path = run.samples.sheets.get(step) if run.samples else None
            if path is None:
                continue
            try:
                sheets[step] = Sheet(name=f"{prefix}-{index}-{step}", uri=pack(path, samples, rows))
            except (OSError, ValueError, SyntaxError) as error:
                notes.append(f"{run.name}: {path.name} is left out ({error}).")
        strips.append(Strip(setting=setting, run=run, sheets=sheets))
    steps = tuple(step for step in plan.steps if any(step in strip.sheets for strip in strips))
    if not steps:
        return None, tuple(notes)
    grid = Grid(
        prompts=samples.prompts[:rows],
        columns=samples.columns,
        tile=samples.tile,
        steps=steps,
        start=steps.index(_start(steps, plan.family)),
        strips=tuple(strips),
        all_prompts=len(samples.prompts),
    )
    return grid, tuple(notes)


def pack(path: Path, samples: Samples, rows: int) -> str:
    """The first ``rows`` rows of a sheet as a data URI.

    Raises:
        ValueError: if the sheet does not have the size that the index says.
        OSError: if it cannot be read as an image.
    """
    sheet = decoded(read_bytes(path), largest=SHEET_PIXELS)
    expected = (samples.columns * samples.tile, len(samples.prompts) * samples.tile)
    if sheet.size != expected:
        raise ValueError(f"it is {sheet.size[0]} x {sheet.size[1]} px, index.json says {expected[0]} x {expected[1]}")
    sheet = sheet.crop((0, 0, expected[0], rows * samples.tile))
    small = min(samples.tile, LARGEST_TILE)
    if small < samples.tile:
        sheet = sheet.resize((samples.columns * small, rows * small), Image.Resampling.BOX)
    return encoded(sheet, lossless=samples.tile <= LOSSLESS_TILE)


def encoded(sheet: Image.Image, *, lossless: bool) -> str:
    """An image as a data URI."""
    packed = io.BytesIO()
    options = {"lossless": True, "quality": 60, "method": 4} if lossless else {"quality": 82}
    sheet.save(packed, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"

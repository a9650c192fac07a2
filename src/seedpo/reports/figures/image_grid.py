"""Images of runs in rows and columns, at full size: the same prompts and latents in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from seedpo.data.images.rgb import SHEET_PIXELS, decoded
from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.files import read_bytes
from seedpo.pages.wording import count, listing
from seedpo.reports.families import Family, Setting
from seedpo.reports.figures.drawing import Block
from seedpo.reports.figures.series import Row
from seedpo.reports.images import plan_grid
from seedpo.reports.runs import Run, Samples

SMALLEST = 128
"""Smaller images are enlarged to this many pixels or a little more without smoothing, so that viewers do not blur."""

MOST_ROWS = 6
"""Prompts of a grid where none are named."""


@dataclass(frozen=True, kw_only=True)
class ImageGrid:
    """What a grid shows.

    Attributes:
        rows: what stands beside each row.
        columns: heading, role and number of columns of each block of columns.
        blocks: the images.
        table: where each image comes from.
    """

    rows: tuple[str, ...]
    columns: tuple[tuple[str, str, int], ...]
    blocks: tuple[Block, ...]
    table: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class _View:
    """One run at one step."""

    title: str
    role: str
    run: Run
    step: int


def image_grid(
    families: Sequence[Family],
    *,
    prompts: Sequence[int] = (),
    steps: Sequence[int] = (),
    latents: Sequence[int] = (0,),
    stacked: bool = False,
) -> ImageGrid:
    """Lays out images of every setting.

    Args:
        families: whose settings are shown, the run with the lowest seed of each.
        prompts: rows of the sample sheets, from 0; the first six if none are named.
        steps: evaluation steps; the last one of each run if none are named. Step 0, which all share, is shown once.
        latents: columns of the sample sheets, from 0.
        stacked: whether runs stand below each other, with latents as columns, instead of beside each other.

    Raises:
        RunFolderError: if there are no images, or they show other prompts or latents in one run than in another.
        ConfigError: if a prompt, latent or step is not there.
    """
    views = list(_views(families, steps))
    samples = _samples(views)
    rows = _within(prompts or range(min(MOST_ROWS, len(samples.prompts))), len(samples.prompts), "prompts")
    latents = _within(latents, samples.columns, "latents")
    blocks: list[Block] = []
    table: list[Row] = []
    for place, view in enumerate(views):
        sheet = _sheet(view)
        for index, row in enumerate(rows):
            for order, latent in enumerate(latents):
                at = (place * len(rows) + index, order) if stacked else (index, place * len(latents) + order)
                blocks.append(Block(row=at[0], column=at[1], image=_tile(sheet, row, latent, samples.tile)))
                table.append(
                    {
                        "row": at[0],
                        "column": at[1],
                        "run": str(view.run.folder),
                        "step": view.step,
                        "prompt": samples.prompts[row],
                        "latent": latent,
                    }
                )
    names = [samples.prompts[row] for row in rows]
    if stacked:
        labels = tuple(f"{view.title}{f': {name}' if len(names) > 1 else ''}" for view in views for name in names)
        heading = names[0] if len(names) == 1 else count(len(latents), "initial latent")
        columns: tuple[tuple[str, str, int], ...] = ((heading, "", len(latents)),)
    else:
        labels = tuple(names)
        columns = tuple((f"{view.title}\nstep {view.step}", view.role, len(latents)) for view in views)
    return ImageGrid(rows=labels, columns=columns, blocks=tuple(blocks), table=tuple(table))


def _views(families: Sequence[Family], steps: Sequence[int]) -> Iterator[_View]:
    start_is_shown = False
    for family in families:
        for setting, run in plan_grid(family).chosen:
            known = sorted(run.samples.sheets) if run.samples else []
            missing = [step for step in steps if step not in known]
            if missing:
                raise ConfigError(
                    f"--steps {missing[0]}: {run.name} has images at {listing([str(step) for step in known])}"
                )
            for step in steps or known[-1:]:
                if step == 0 and start_is_shown:
                    continue
                start_is_shown = start_is_shown or step == 0
                yield _view(setting, run, step)


def _view(setting: Setting, run: Run, step: int) -> _View:
    if step == 0:
        return _View(title="before training", role="", run=run, step=0)
    return _View(title=setting.legend, role=setting.role, run=run, step=step)


def _samples(views: Sequence[_View]) -> Samples:
    layouts = {view.run.name: view.run.samples for view in views if view.run.samples}
    if not layouts:
        raise RunFolderError("these runs hold no sample images; train with evaluate_every above 0")
    first_name, first = next(iter(layouts.items()))
    for name, samples in layouts.items():
        if (samples.tile, samples.columns, samples.prompts) != (first.tile, first.columns, first.prompts):
            raise RunFolderError(
                f"{name} shows other prompts, latents or sizes than {first_name}; draw runs with equal evaluations"
            )
    return first


def _within(numbers: Sequence[int], most: int, what: str) -> list[int]:
    outside = [number for number in numbers if not 0 <= number < most]
    if outside:
        raise ConfigError(f"--{what} {outside[0]}: the runs have {what} 0 to {most - 1}")
    return list(numbers)


def _sheet(view: _View) -> Image.Image:
    samples = view.run.samples
    path = samples.sheets[view.step] if samples else view.run.folder
    try:
        sheet = decoded(read_bytes(path), largest=SHEET_PIXELS)
    except (OSError, DataError) as error:
        raise RunFolderError(f"{path} cannot be read as an image; leave this run or step out") from error
    if samples and sheet.size != (samples.columns * samples.tile, len(samples.prompts) * samples.tile):
        raise RunFolderError(f"{path} does not have the size that index.json says; leave this run or step out")
    return sheet


def _tile(sheet: Image.Image, row: int, column: int, tile: int) -> Image.Image:
    image = sheet.crop((column * tile, row * tile, (column + 1) * tile, (row + 1) * tile))
    factor = -(-SMALLEST // tile)
    return image if factor == 1 else image.resize((factor * tile, factor * tile), Image.Resampling.NEAREST)

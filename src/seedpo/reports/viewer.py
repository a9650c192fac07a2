"""Two settings side by side on the same prompt and latent, at any step: what the page's viewer needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from seedpo.data.images.rgb import decoded, size_of_file
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.evaluation.tables import Place
from seedpo.files import read_bytes
from seedpo.pages.figures import style
from seedpo.pages.wording import count
from seedpo.reports.evaluations import Evaluation, place_name
from seedpo.reports.images import BYTES, LARGEST_TILE, LOSSLESS_TILE, Grid, Sheet, encoded, thinned

GREY = (128, 128, 128)

HIGHEST = 16383
"""Height of a sheet in pixels that the WebP format allows."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """The images of one setting.

    Attributes:
        name: what it is called.
        role: chooses the colour of its mark.
        classes: CSS class of the sheet of each step, in the order of the viewer's steps; empty where there is none.
    """

    name: str
    role: str
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Everything that can be stepped through.

    Attributes:
        title: whose images they are.
        prompts: prompt of each row of the sheets.
        columns: latents per prompt.
        steps: what each step is called.
        start: index of the step shown first.
        sides: the settings.
        sheets: sheets that are embedded for the viewer alone.
        notes: what was left out.
        of_steps: whether the sides are the steps of one setting.
    """

    title: str
    prompts: tuple[str, ...]
    columns: int
    steps: tuple[str, ...]
    start: int
    sides: tuple[Side, ...]
    sheets: tuple[Sheet, ...] = ()
    notes: tuple[str, ...] = ()
    of_steps: bool = False

    @property
    def second(self) -> int:
        """Index of the side that is shown on the right at first."""
        return len(self.sides) - 1 if self.of_steps else min(1, len(self.sides) - 1)


def grid_viewer(grid: Grid, title: str) -> Viewer:
    """A viewer of the sheets that a family's grid embeds already; of one setting alone its steps are the sides."""
    shown = [strip for strip in grid.strips if strip.sheets]
    if len(shown) == 1 and len(shown[0].sheets) > 1:
        (strip,) = shown
        sides = tuple(
            Side(name=f"step {step}", role=strip.setting.role, classes=(sheet.name,))
            for step, sheet in sorted(strip.sheets.items())
        )
        return Viewer(
            title=title, prompts=grid.prompts, columns=grid.columns, steps=("",), start=0, sides=sides, of_steps=True
        )
    return Viewer(
        title=title,
        prompts=grid.prompts,
        columns=grid.columns,
        steps=tuple(f"step {step}" for step in grid.steps),
        start=grid.start,
        sides=tuple(
            Side(
                name=strip.setting.legend + (f", seed {strip.run.seed}" if strip.setting.several_seeds else ""),
                role=strip.setting.role,
                classes=tuple(strip.sheets[step].name if step in strip.sheets else "" for step in grid.steps),
            )
            for strip in grid.strips
        ),
    )


def evaluation_viewer(evaluation: Evaluation, *, prefix: str, budget: int = BYTES) -> Viewer | None:
    """A viewer of an evaluation's images, packed into one sheet for each model and step; ``None`` if there are none.

    Args:
        evaluation: the evaluation.
        prefix: of the CSS classes.
        budget: bytes that the packed images may take, roughly; the first prompts that fit are shown.
    """
    steps = thinned(sorted({-1 if step is None else step for _, step in evaluation.places}))
    places = [place for place in evaluation.places if (-1 if place[1] is None else place[1]) in steps]
    tile = next((size for place in places if (size := _tile(evaluation, place)) is not None), None)
    if tile is None:
        return None
    prompts, images = evaluation.scores.shape
    rows = min(prompts, rows_within(budget, tile=min(tile, LARGEST_TILE), images=len(places) * images))
    notes = []
    if rows < prompts:
        notes.append(f"The first {count(rows, 'prompt')} of {prompts} are on this page, to keep it small.")
    sheets: dict[Place, Sheet] = {}
    for index, place in enumerate(places):
        uri, missing = _packed(evaluation, place, rows, min(tile, LARGEST_TILE), lossless=tile <= LOSSLESS_TILE)
        if missing:
            notes.append(f"{place_name(place)}: {count(missing, 'image')} could not be read; grey stands for it.")
        sheets[place] = Sheet(name=f"{prefix}-{index}", uri=uri)
    sides = tuple(
        Side(
            name=label,
            role=style(index)[0],
            classes=tuple(_sheet(sheets, label, None if step < 0 else step) for step in steps),
        )
        for index, label in enumerate(evaluation.labels)
    )
    return Viewer(
        title=evaluation.name,
        prompts=tuple(evaluation.scores.prompts[:rows]),
        columns=images,
        steps=tuple("trained" if step < 0 else f"step {step}" for step in steps),
        start=len(steps) - 1,
        sides=sides,
        sheets=tuple(sheets.values()),
        notes=tuple(notes),
    )


def _sheet(sheets: Mapping[Place, Sheet], label: str, step: int | None) -> str:
    """The sheet of a model at a step; a model without steps stands beside every step."""
    sheet = sheets.get((label, step)) or sheets.get((label, None))
    return sheet.name if sheet else ""


def rows_within(budget: int, *, tile: int, images: int) -> int:
    """Prompts whose packed images take about ``budget`` bytes, at least one."""
    each = tile**2 * (1.3 if tile <= LOSSLESS_TILE else 0.2)
    return max(1, min(int(budget / max(1.0, each * images)), HIGHEST // tile))


def _tile(evaluation: Evaluation, place: Place) -> int | None:
    """Longer side of the first image that can be read."""
    prompts, images = evaluation.scores.shape
    for prompt in range(prompts):
        for index in range(images):
            try:
                return max(size_of_file(read_bytes(_file(evaluation, place, prompt, index))))
            except (OSError, ValueError):
                continue
    return None


def _file(evaluation: Evaluation, place: Place, prompt: int, image: int) -> Path:
    """The file of an image; only files inside the folder are read."""
    path = EvaluationFolder(evaluation.folder).image(place, prompt, image)
    if not path.resolve().is_relative_to(evaluation.folder.resolve()):
        raise ValueError(f"{path} is not a file of {evaluation.folder}")
    return path


def _packed(evaluation: Evaluation, place: Place, rows: int, tile: int, *, lossless: bool) -> tuple[str, int]:
    images = evaluation.scores.shape[1]
    sheet = Image.new("RGB", (images * tile, rows * tile), GREY)
    missing = 0
    for row in range(rows):
        for column in range(images):
            try:
                image = decoded(read_bytes(_file(evaluation, place, row, column)))
            except (OSError, ValueError):
                missing += 1
                continue
            sheet.paste(_fitted(image, tile), (column * tile, row * tile))
    return encoded(sheet, lossless=lossless), missing


def _fitted(image: Image.Image, tile: int) -> Image.Image:
    """The image within a square, its longer side ``tile``."""
    if image.size == (tile, tile):
        return image
    scale = tile / max(image.size)
    size: Sequence[int] = [max(1, round(length * scale)) for length in image.size]
    square = Image.new("RGB", (tile, tile), GREY)
    square.paste(image.resize((size[0], size[1]), Image.Resampling.BOX), ((tile - size[0]) // 2, (tile - size[1]) // 2))
    return square

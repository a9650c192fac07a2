"""Sheets of pictures to look at: pairs as they are trained on, and near-duplicates side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from seedpo.data.check.findings import Findings, Opened
from seedpo.data.check.overlaps import AlikeImages, AlikePairs, ImagePlace, labels_of
from seedpo.data.pairs.sets import OpenedPair, PairSet, fitted, open_pair

SIDE = 224
"""Height and width that an image takes at most, in pixels."""
COLUMNS = 3
"""Pairs side by side."""
MARGIN, GAP, FRAME, LINE = 16, 6, 4, 17
CHOSEN, REJECTED, TIE, INK, QUIET = "#1a7f37", "#b42318", "#8a6d00", "#1f2328", "#656d76"
ALIKE = "#5b4bb5"
_COLOURS = {"chosen": CHOSEN, "liked": CHOSEN, "rejected": REJECTED, "not liked": REJECTED, "tie": TIE}

_NOTES = 4
"""Lines below two images."""
_CELL = (2 * (SIDE + 2 * FRAME) + GAP, SIDE + 2 * FRAME + (_NOTES + 1) * LINE + 8)
_WIDTH = 62
"""Characters of a line of a prompt."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Two images side by side, or one.

    Attributes:
        images: at any size.
        labels: above each image.
        colours: of each label and frame.
        facts: a line below them, in grey.
        notes: further lines.
    """

    images: Sequence[Image.Image]
    labels: Sequence[str]
    colours: Sequence[str]
    facts: str
    notes: Sequence[str]


def write_contact_sheet(pairs: Opened, rows: Sequence[int], path: Path, *, title: str) -> None:
    """Draws some pairs into a PNG file.

    Args:
        pairs: the set.
        rows: numbers of pairs that can be read.
        path: the file.
        title: first line of the sheet.

    Raises:
        DataError: if a pair cannot be read.
    """
    size = pairs.size() if pairs.config.resolution is None else None
    _draw(len(rows), (_pair_cell(pairs, row, size) for row in rows), path, title=title)


def near_duplicates_of(findings: Findings, sources: Collection[int], count: int) -> list[AlikeImages | AlikePairs]:
    """Near-duplicates to look at: leaks first, then pairs, then images under other prompts.

    Args:
        findings: of which set.
        sources: numbers of the sets that can be read again, which streams cannot.
        count: how many at most.
    """
    alike = findings.alike
    turned = sorted(alike.pairs, key=lambda entry: not entry.is_turned)
    entries: Iterable[AlikeImages | AlikePairs] = chain(alike.across, turned, alike.within_pairs, alike.other_prompts)
    readable = (entry for entry in entries if entry.first.source in sources and entry.second.source in sources)
    return list(islice(readable, count))


def write_near_duplicates(
    sources: Mapping[int, PairSet], entries: Sequence[AlikeImages | AlikePairs], path: Path, *, title: str
) -> None:
    """Draws near-duplicates side by side into a PNG file.

    Args:
        sources: the sets that they lie in, by number.
        entries: what is drawn.
        path: the file.
        title: first line of the sheet.

    Raises:
        DataError: if a pair cannot be read.
    """
    _draw(len(entries), (_alike_cell(sources, entry) for entry in entries), path, title=title)


def _draw(count: int, cells: Iterable[Cell], path: Path, *, title: str) -> None:
    size = (
        MARGIN + COLUMNS * (_CELL[0] + MARGIN),
        2 * MARGIN + 2 * LINE + -(-count // COLUMNS) * (_CELL[1] + MARGIN),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(15))
    for number, cell in enumerate(cells):
        left = MARGIN + number % COLUMNS * (_CELL[0] + MARGIN)
        top = 2 * MARGIN + 2 * LINE + number // COLUMNS * (_CELL[1] + MARGIN)
        _draw_cell(sheet, draw, cell, (left, top))
    sheet.save(path)


def _pair_cell(pairs: Opened, row: int, size: tuple[int, int] | None) -> Cell:
    pair = open_pair(pairs.stored(row))
    images, _ = fitted(pair, pairs.config, size=size)
    labels = ("tie", "tie") if pair.probability == 0.5 else labels_of(pair)
    prompt = textwrap.shorten(pair.prompt, 2 * _WIDTH - 6, placeholder=" ...") or "(no prompt)"
    return Cell(
        images=images,
        labels=labels,
        colours=[_COLOURS[label] for label in labels],
        facts=f"{'pair' if len(images) > 1 else 'like'} {row}, stored as {pair.images[0].width} x "
        f"{pair.images[0].height}, "
        f"trained on as {images[0].width} x {images[0].height}",
        notes=textwrap.wrap(prompt, _WIDTH)[:2],
    )


def _alike_cell(sources: Mapping[int, PairSet], entry: AlikeImages | AlikePairs) -> Cell:
    places = (entry.first, entry.second)
    pairs = [sources[place.source].open(place.pair) for place in places]
    if isinstance(entry, AlikePairs):
        facts = f"pairs alike{' with other labels' if entry.is_turned else ''}"
    else:
        facts = f"distance {entry.distance}"
    return Cell(
        images=(_image(pairs[0], places[0]), _image(pairs[1], places[1])),
        labels=(_label(places[0]), _label(places[1])),
        colours=(ALIKE, ALIKE),
        facts=facts,
        notes=[line for place in places for line in (_end_of(place.place), _short(place.prompt))],
    )


def _image(pair: OpenedPair, place: ImagePlace) -> Image.Image:
    return pair.images[place.side]


def _label(place: ImagePlace) -> str:
    return f"{place.part}, {place.label}"


def _short(prompt: str) -> str:
    return textwrap.shorten(prompt, _WIDTH, placeholder=" ...") or "(no prompt)"


def _end_of(place: str) -> str:
    return place if len(place) <= _WIDTH else "..." + place[3 - _WIDTH :]


def _draw_cell(sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, corner: tuple[int, int]) -> None:
    left, top = corner
    font = ImageFont.load_default(13)
    for number, pixels in enumerate(cell.images):
        x = left + number * (SIDE + 2 * FRAME + GAP)
        image = _thumbnail(pixels)
        draw.text((x, top), cell.labels[number], fill=cell.colours[number], font=font)
        box = (x, top + LINE, x + SIDE + 2 * FRAME - 1, top + LINE + SIDE + 2 * FRAME - 1)
        draw.rectangle(box, outline=cell.colours[number], width=FRAME - 1)
        offset = [FRAME + (SIDE - side) // 2 for side in image.size]
        sheet.paste(image, (x + offset[0], top + LINE + offset[1]))
    below = top + LINE + SIDE + 2 * FRAME + 2
    draw.text((left, below), cell.facts, fill=QUIET, font=ImageFont.load_default(12))
    for number, line in enumerate(cell.notes[:_NOTES], start=1):
        draw.text((left, below + number * LINE), line, fill=INK, font=font)


def _thumbnail(image: Image.Image) -> Image.Image:
    """At most SIDE pixels wide and high; small images are enlarged by a whole number, so that their pixels show."""
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image

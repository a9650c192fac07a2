"""What a set of labelled pairs holds, what in it would stop a run, and a sheet of pairs to look at."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from seedpo.data.buckets import Size, cropped_share
from seedpo.data.pairs import OpenedPair, PairSet, check_size, fitted, open_pair
from seedpo.data.streams import StreamedPairs
from seedpo.errors import DataError

TOKENS = 77
"""Tokens of a prompt that CLIP's text encoders read, start and end included; the rest is cut off."""

SHOWN = 5
"""Places that are named of each kind; the JSON file has them all."""

SIDE = 224
"""Height and width that an image takes at most, in pixels."""
COLUMNS = 3
"""Pairs side by side."""
MARGIN, GAP, FRAME, LINE = 16, 6, 4, 17
CHOSEN, REJECTED, TIE, INK, QUIET = "#1a7f37", "#b42318", "#8a6d00", "#1f2328", "#656d76"

_CELL = (2 * (SIDE + 2 * FRAME) + GAP, SIDE + 2 * FRAME + 4 * LINE + 8)
_WIDTH = 62
"""Characters of a line of a prompt."""

_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\w\s]+|_")
"""Words, digits and signs as CLIP's tokenizer separates them; rare words become several tokens."""

_COUNTED = ("sizes", "readable", "buckets", "cropped")
"""Findings that JSON holds in another form, or not at all."""

_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@dataclass(kw_only=True)
class Findings:
    """What a check finds in a set.

    Attributes:
        origin: what was checked.
        summary: pairs and what is left out.
        pairs: number of pairs; `None` for a stream.
        ties: pairs in which neither image is preferred, whether they are left out or not; `None` for a stream.
        unlabelled: pairs that nobody judged, which are left out; `None` for a stream.
        checked: pairs whose images were read.
        unreadable: what is wrong with those that cannot be read, with file and row.
        bad_rows_limit: share of unreadable pairs over which a run stops.
        sizes: images of each width and height.
        buckets: pairs in each bucket, by height and width; none without ``pairs.buckets``.
        cropped: share of each image that its bucket cuts away.
        different_sizes: pairs whose two images differ in size.
        too_small: images whose shorter side is below the resolution; they are enlarged.
        repeated: pairs that are there more than once, each as "second place = first place".
        same_image: places of pairs that show one image twice.
        contradictions: pairs that are there more than once with different labels.
        prompts: distinct prompts.
        empty_prompts: places of pairs without a prompt.
        long_prompts: places of pairs whose prompt has more than 77 tokens at least.
        readable: numbers of the pairs that can be read.
    """

    origin: str
    summary: str
    pairs: int | None
    ties: int | None
    unlabelled: int | None
    bad_rows_limit: float
    checked: int = 0
    unreadable: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    buckets: Counter[Size] = field(default_factory=Counter)
    cropped: list[float] = field(default_factory=list)
    different_sizes: int = 0
    too_small: int = 0
    repeated: list[str] = field(default_factory=list)
    same_image: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    prompts: int = 0
    empty_prompts: list[str] = field(default_factory=list)
    long_prompts: list[str] = field(default_factory=list)
    readable: list[int] = field(default_factory=list)

    @property
    def stops(self) -> list[str]:
        """What would stop a run."""
        bad = len(self.unreadable)
        if bad <= self.bad_rows_limit * self.checked:
            return []
        share = f"{bad} of {self.checked} pairs cannot be used ({bad / self.checked:.2%})"
        return [f"{share}, and pairs.bad_rows_limit allows {self.bad_rows_limit:.2%}"]

    @property
    def shorter_sides(self) -> dict[str, int]:
        """Quantiles of the images' shorter sides, in pixels."""
        sides = np.repeat([min(size) for size in self.sizes], list(self.sizes.values()))
        if not len(sides):
            return {}
        return {name: int(np.quantile(sides, share, method="nearest")) for name, share in _QUANTILES.items()}

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in _COUNTED}
        sizes = {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()}
        buckets = {f"{width}x{height}": count for (height, width), count in self.buckets.most_common()}
        cropped = float(np.mean(self.cropped)) if self.cropped else 0.0
        own = {"sizes": sizes, "buckets": buckets, "cropped": cropped}
        return {**values, **own, "shorter_sides": self.shorter_sides, "stops": self.stops}


def check_pairs(pairs: PairSet | StreamedPairs, *, rows: int | None = None, progress: bool = True) -> Findings:
    """Reads the pairs that a run would read, and notes what is odd about them.

    Args:
        pairs: the set.
        rows: pairs whose images are read, evenly spread over the set, or the first of a stream; `None`: all.
        progress: whether to show a progress bar.

    Raises:
        StreamError: if a stream breaks off.
    """
    findings = Findings(
        origin=pairs.origin,
        summary=pairs.summary,
        pairs=None if pairs.sequential else len(pairs),
        ties=pairs.tied,
        unlabelled=pairs.unlabelled,
        bad_rows_limit=pairs.config.bad_rows_limit,
    )
    indices = islice(pairs.one_pass(), rows) if pairs.sequential else spread(range(len(pairs)), rows)
    size = pairs.size() if pairs.config.resolution is None else None
    seen: dict[tuple[bytes, bytes, bytes], tuple[str, int]] = {}
    texts: set[str] = set()
    for index in tqdm(indices, desc="pairs", unit="pair", disable=not progress):
        findings.checked += 1
        try:
            pair = open_pair(pairs.stored(index))
            _note_sizes(findings, pair, pairs.config.resolution)
            if pairs.config.resolution is None:
                check_size(pair, size)
        except DataError as error:
            findings.unreadable.append(str(error))
            continue
        findings.readable.append(index)
        texts.add(pair.prompt)
        _note_bucket(findings, pair)
        _note_prompt(findings, pair)
        _note_repetition(findings, pair, seen)
    findings.prompts = len(texts)
    return findings


def spread(rows: Sequence[int], count: int | None) -> Sequence[int]:
    """At most ``count`` of some rows, evenly spread; `None`: all."""
    if count is None or len(rows) <= count:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()]


def _note_sizes(findings: Findings, pair: OpenedPair, resolution: int | None) -> None:
    images = (pair.chosen, pair.rejected)
    findings.sizes.update(image.size for image in images)
    findings.different_sizes += images[0].size != images[1].size
    findings.too_small += sum(resolution is not None and min(image.size) < resolution for image in images)


def _note_bucket(findings: Findings, pair: OpenedPair) -> None:
    if pair.bucket is None:
        return
    findings.buckets[pair.bucket] += 1
    for image in (pair.chosen, pair.rejected):
        findings.cropped.append(cropped_share((image.height, image.width), pair.bucket))


def _note_prompt(findings: Findings, pair: OpenedPair) -> None:
    if not pair.prompt.strip():
        findings.empty_prompts.append(pair.place)
    if least_tokens(pair.prompt) > TOKENS:
        findings.long_prompts.append(pair.place)


def least_tokens(prompt: str) -> int:
    """Tokens that CLIP's tokenizer makes of a prompt at least: its pieces, start and end."""
    return len(_PIECE.findall(prompt)) + 2


def _note_repetition(
    findings: Findings, pair: OpenedPair, seen: dict[tuple[bytes, bytes, bytes], tuple[str, int]]
) -> None:
    chosen, rejected = _pixels(pair.chosen), _pixels(pair.rejected)
    if chosen == rejected:
        findings.same_image.append(pair.place)
        return
    low, high = sorted((chosen, rejected))
    verdict = 0 if pair.probability == 0.5 else 1 if chosen == low else -1
    key = (hashlib.blake2b(pair.prompt.encode(), digest_size=16).digest(), low, high)
    place, earlier = seen.setdefault(key, (pair.place, verdict))
    if place == pair.place:
        return
    same = earlier == verdict
    (findings.repeated if same else findings.contradictions).append(f"{pair.place} {'=' if same else '!='} {place}")


def _pixels(image: Image.Image) -> bytes:
    return hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()


def findings_text(findings: Findings) -> str:
    """A page for people: figures first, then what is odd, then whether a run could use it."""
    lines = [f"{findings.origin}", f"  {findings.summary}"]
    if findings.pairs is not None and findings.checked < findings.pairs:
        lines.append(f"  checked: {findings.checked} of {findings.pairs} pairs, evenly spread")
    else:
        lines.append(f"  checked: {findings.checked} pairs")
    lines += _sizes(findings)
    lines += _buckets(findings)
    lines.append(f"  prompts: {findings.prompts} different ones")
    lines += _places("without a prompt", findings.empty_prompts)
    lines += _places(f"prompts of more than {TOKENS} tokens, whose end is not seen", findings.long_prompts)
    lines += _places("pairs that show one image twice", findings.same_image)
    lines += _places("repeated pairs", findings.repeated)
    lines += _places("repeated pairs with other labels", findings.contradictions)
    lines += _places("pairs that cannot be used", findings.unreadable)
    lines += [f"A run would stop: {reason}" for reason in findings.stops] or ["A run can use this set."]
    return "\n".join(lines)


def _sizes(findings: Findings) -> list[str]:
    total = findings.sizes.total()
    if not total:
        return []
    common = findings.sizes.most_common(SHOWN)
    table = [f"    {width:>6} x {height:<6} {count / total:7.1%}" for (width, height), count in common]
    if rest := total - sum(count for _, count in common):
        table.append(f"    {len(findings.sizes) - len(common)} other sizes {rest / total:7.1%}")
    sides = ", ".join(f"{name} {value}" for name, value in findings.shorter_sides.items())
    lines = ["  sizes of images (width x height):", *table, f"    shorter side: {sides} px"]
    if findings.different_sizes:
        lines.append(f"    pairs whose images differ in size: {findings.different_sizes}")
    if findings.too_small:
        lines.append(f"    images smaller than the resolution, which are enlarged: {findings.too_small}")
    return lines


def _buckets(findings: Findings) -> list[str]:
    total = findings.buckets.total()
    if not total:
        return []
    table = [
        f"    {width:>6} x {height:<6} {count:>8} {count / total:7.1%}"
        for (height, width), count in sorted(findings.buckets.items(), key=lambda item: item[0][1] / item[0][0])
    ]
    mean, most = float(np.mean(findings.cropped)), max(findings.cropped)
    away = f"    cut away of an image: {mean:.1%} on average, {most:.1%} at most"
    return ["  pairs in buckets (width x height):", *table, away]


def _places(what: str, places: Sequence[str]) -> list[str]:
    if not places:
        return []
    more = [f"    and {len(places) - SHOWN} more"] if len(places) > SHOWN else []
    return [f"  {what}: {len(places)}", *(f"    {place}" for place in places[:SHOWN]), *more]


def write_contact_sheet(pairs: PairSet | StreamedPairs, rows: Sequence[int], path: Path, *, title: str) -> None:
    """Draws some pairs into a PNG file.

    Args:
        pairs: the set.
        rows: numbers of pairs that can be read.
        path: the file.
        title: first line of the sheet.

    Raises:
        DataError: if a pair cannot be read.
    """
    height = -(-len(rows) // COLUMNS)
    size = (
        MARGIN + COLUMNS * (_CELL[0] + MARGIN),
        2 * MARGIN + 2 * LINE + height * (_CELL[1] + MARGIN),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(15))
    size_of_all = pairs.size() if pairs.config.resolution is None else None
    for number, row in enumerate(rows):
        left = MARGIN + number % COLUMNS * (_CELL[0] + MARGIN)
        top = 2 * MARGIN + 2 * LINE + number // COLUMNS * (_CELL[1] + MARGIN)
        pair = open_pair(pairs.stored(row))
        images, _ = fitted(pair, pairs.config, size=size_of_all)
        _draw_pair(sheet, draw, pair, images, row, (left, top))
    sheet.save(path)


def _draw_pair(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    pair: OpenedPair,
    images: tuple[Image.Image, Image.Image],
    row: int,
    corner: tuple[int, int],
) -> None:
    left, top = corner
    tie = pair.probability == 0.5
    labels = ("tie", "tie") if tie else ("chosen", "rejected")
    colours = (TIE, TIE) if tie else (CHOSEN, REJECTED)
    font = ImageFont.load_default(13)
    for number, pixels in enumerate(images):
        x = left + number * (SIDE + 2 * FRAME + GAP)
        image = _thumbnail(pixels)
        draw.text((x, top), labels[number], fill=colours[number], font=font)
        box = (x, top + LINE, x + SIDE + 2 * FRAME - 1, top + LINE + SIDE + 2 * FRAME - 1)
        draw.rectangle(box, outline=colours[number], width=FRAME - 1)
        offset = [FRAME + (SIDE - side) // 2 for side in image.size]
        sheet.paste(image, (x + offset[0], top + LINE + offset[1]))
    shown = (
        f"pair {row}, stored as {pair.chosen.width} x {pair.chosen.height}, "
        f"trained on as {images[0].width} x {images[0].height}"
    )
    below = top + LINE + SIDE + 2 * FRAME + 2
    draw.text((left, below), shown, fill=QUIET, font=ImageFont.load_default(12))
    prompt = textwrap.shorten(pair.prompt, 2 * _WIDTH - 6, placeholder=" ...") or "(no prompt)"
    for number, line in enumerate(textwrap.wrap(prompt, _WIDTH)[:2]):
        draw.text((left, below + (number + 1) * LINE), line, fill=INK, font=font)


def _thumbnail(image: Image.Image) -> Image.Image:
    """At most SIDE pixels wide and high; small images are enlarged by a whole number, so that their pixels show."""
    factor = SIDE // max(image.size)
    if factor > 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image = image.copy()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image

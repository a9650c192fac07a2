"""What a set of labelled pairs holds, and what in it would stop a run; every image is read once."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from seedpo.data.check.overlaps import (
    EVALUATION,
    MOST_PAIRS,
    PARTS,
    TRAINING,
    VALIDATION,
    Alike,
    Images,
    Overlap,
    Prompts,
    overlaps,
)
from seedpo.data.check.shapes import Shapes
from seedpo.data.files.inventory import Inventory
from seedpo.data.images.buckets import Size, cropped_share
from seedpo.data.images.near_duplicates import MOST_BITS, MOST_LEVELS
from seedpo.data.pairs.selection import is_apart
from seedpo.data.pairs.sets import OpenedPair, PairSet, check_size, one_kind_of_likes, open_pair
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.errors import DataError

TOKENS = 77
"""Tokens of a prompt that CLIP's text encoders read, start and end included; the rest is cut off."""

_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\w\s]+|_")
"""Words, digits and signs as CLIP's tokenizer separates them; rare words become several tokens."""

_COUNTED = ("shapes", "readable", "buckets", "cropped", "inventory", "alike", "overlaps")
"""Findings that JSON holds in another form, or not at all."""

Opened = PairSet | StreamedPairs


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the training must not have seen.

    Attributes:
        validation: pairs of their own, or the share of the prompts that is kept out; ``None``: none.
        prompts: those of evaluations, by the name of their set.
    """

    validation: Opened | float | None = None
    prompts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Findings:
    """What a check finds in a set.

    Attributes:
        origin: what was checked.
        unit: what is counted: ``pairs`` or ``likes``.
        summary: pairs and what is left out.
        inventory: files and rows, and what was passed over.
        folder_rows: rows of each folder, found and used; none if all files lie in one folder, or of a stream.
        resolution: that of the run; `None`: the images' own.
        has_buckets: whether the run takes the nearest bucket of each pair.
        pairs: number of pairs; `None` for a stream.
        ties: pairs in which neither image is preferred, whether they are left out or not; `None` for a stream.
        unlabelled: pairs that nobody judged, which are left out; `None` for a stream.
        liked: images that are liked, and that are not; `None` for pairs and streams.
        bad_rows_limit: share of unreadable pairs over which a run stops.
        checked: pairs whose images were read.
        unreadable: what is wrong with those that cannot be read, with file and row.
        shapes: sizes of the images.
        buckets: pairs in each bucket, by height and width; none without ``pairs.buckets``.
        cropped: share of each image that its bucket cuts away.
        too_small: images whose shorter side is below the resolution; they are enlarged.
        repeated: pairs that are there more than once, each as "second place = first place".
        same_image: places of pairs that show one image twice.
        contradictions: pairs that are there more than once with different labels.
        prompts: distinct prompts, of all pairs; of a stream of those that were read.
        distinct_prompts: those of them that differ in more than case, blanks and punctuation.
        empty_prompts: places of pairs without a prompt.
        long_prompts: places of pairs whose prompt has more than 77 tokens at least.
        readable: numbers of the pairs that can be read.
        compared: images that were compared with one another.
        alike: near-duplicates within training and validation.
        overlaps: what training, validation and evaluation share.
        parts: prompts that differ of training, validation and evaluation.
        omitted: what was not checked, and why.
    """

    origin: str
    unit: str
    summary: str
    inventory: Inventory
    folder_rows: dict[str, tuple[int, int]]
    resolution: int | None
    has_buckets: bool
    pairs: int | None
    ties: int | None
    unlabelled: int | None
    liked: tuple[int, int] | None
    bad_rows_limit: float
    checked: int = 0
    unreadable: list[str] = field(default_factory=list)
    shapes: Shapes = field(default_factory=Shapes)
    buckets: Counter[Size] = field(default_factory=Counter)
    cropped: list[float] = field(default_factory=list)
    too_small: int = 0
    repeated: list[str] = field(default_factory=list)
    same_image: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    prompts: int = 0
    distinct_prompts: int = 0
    empty_prompts: list[str] = field(default_factory=list)
    long_prompts: list[str] = field(default_factory=list)
    readable: list[int] = field(default_factory=list)
    compared: int = 0
    alike: Alike = field(default_factory=Alike)
    overlaps: list[Overlap] = field(default_factory=list)
    parts: dict[str, int] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)

    @property
    def stops(self) -> list[str]:
        """What would stop a run."""
        bad, reasons = len(self.unreadable), []
        if bad > self.bad_rows_limit * self.checked:
            share = f"{bad} of {self.checked} {self.unit} cannot be used ({bad / self.checked:.2%})"
            reasons.append(f"{share}, and pairs.bad_rows_limit allows {self.bad_rows_limit:.2%}")
        if self.liked is not None and not all(self.liked):
            reasons.append(one_kind_of_likes(self.origin, *self.liked))
        return reasons

    @property
    def leaks(self) -> list[Overlap]:
        """What is trained on and measured on alike."""
        return [overlap for overlap in self.overlaps if overlap.is_leak]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in _COUNTED}
        shapes = self.shapes
        own = {
            "inventory": self.inventory.as_json(),
            "sizes": {f"{width}x{height}": count for (height, width), count in shapes.sizes.most_common()},
            "different_sizes": shapes.different_sizes,
            "shorter_sides": shapes.shorter_sides,
            "aspect_ratios": shapes.ratios,
            "crops": [asdict(crop) for crop in shapes.crops(self.resolution)],
            "advice": shapes.advice(),
            "buckets": {f"{width}x{height}": count for (height, width), count in self.buckets.most_common()},
            "cropped": float(np.mean(self.cropped)) if self.cropped else 0.0,
            "near_duplicates": {"most_bits": MOST_BITS, "most_levels": MOST_LEVELS, **asdict(self.alike)},
            "overlaps": [asdict(overlap) | {"is_leak": overlap.is_leak} for overlap in self.overlaps],
            "stops": self.stops,
        }
        return values | own


def check_pairs(
    pairs: Opened, *, rows: int | None = None, measured: Measured | None = None, progress: bool = True
) -> Findings:
    """Reads the pairs that a run would read, and notes what is odd about them.

    Args:
        pairs: the set.
        rows: pairs whose images are read, evenly spread over the set, or the first of a stream; `None`: all.
        measured: validation pairs and evaluation prompts, with which the set is compared.
        progress: whether to show a progress bar.

    Raises:
        StreamError: if a stream breaks off.
    """
    measured = measured or Measured()
    findings = _known_before(pairs)
    texts, images = Prompts(), Images()
    share = measured.validation if isinstance(measured.validation, float) else 0.0
    findings.prompts = _note_all_prompts(texts, pairs, share)
    size = pairs.size() if pairs.config.resolution is None else None
    seen: dict[tuple[bytes, ...], tuple[str, int]] = {}
    written: set[str] = set()
    for number, index in enumerate(tqdm(_indices(pairs, rows), desc="pairs", unit="pair", disable=not progress)):
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
        part = VALIDATION if is_apart(pair.prompt, share) else TRAINING
        if pairs.sequential:
            written.add(pair.prompt)
            texts.add(part, pair.prompt, pair.place)
        if _is_compared(number, pairs, rows):
            images.add(pair, part=part, source=0, number=index)
        _note_bucket(findings, pair)
        _note_prompt(findings, pair)
        _note_repetition(findings, pair, seen)
    if pairs.sequential:
        findings.prompts, findings.inventory = len(written), pairs.inventory
        if findings.checked == rows:
            findings.omitted.append("prompts and labels of a stream after the pairs above")
    findings.distinct_prompts = len(texts)
    if isinstance(measured.validation, PairSet | StreamedPairs):
        _note_validation(findings, texts, images, measured.validation, rows, progress=progress)
    _note_evaluation(texts, measured.prompts)
    _compare(findings, texts, images)
    return findings


def _known_before(pairs: Opened) -> Findings:
    """What is known of a set before its images are read."""
    return Findings(
        origin=pairs.origin,
        unit="likes" if pairs.config.reads_likes else "pairs",
        summary=pairs.summary,
        inventory=pairs.inventory,
        folder_rows=_folder_rows(pairs),
        resolution=pairs.config.resolution,
        has_buckets=pairs.config.buckets,
        pairs=None if pairs.sequential else len(pairs),
        ties=pairs.tied,
        unlabelled=pairs.unlabelled,
        liked=pairs.liked() if isinstance(pairs, PairSet) and pairs.config.reads_likes else None,
        bad_rows_limit=pairs.config.bad_rows_limit,
    )


def spread(rows: Sequence[int], count: int | None) -> Sequence[int]:
    """At most ``count`` of some rows, evenly spread; `None`: all."""
    if count is None or len(rows) <= count:
        return rows
    return [rows[place] for place in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()]


def _folder_rows(pairs: Opened) -> dict[str, tuple[int, int]]:
    """Rows of each folder that are found and used, if the files lie in several."""
    folders = {file.path.parent for file in pairs.inventory.files}
    if isinstance(pairs, StreamedPairs) or len(folders) < 2:
        return {}
    table = pairs.table
    used = np.zeros(len(table), dtype=bool)
    used[pairs.index.rows.ravel()] = True
    used &= pairs.index.reason < 0
    used[list(pairs.index.unreadable)] = False
    counts: dict[str, tuple[int, int]] = {}
    for row, is_used in enumerate(used.tolist()):
        folder = str(table.folder(row))
        found, before = counts.get(folder, (0, 0))
        counts[folder] = (found + 1, before + is_used)
    return counts if set(counts) <= set(map(str, folders)) else {}


def _indices(pairs: Opened, rows: int | None) -> Iterable[int]:
    """The pairs whose images are read."""
    return islice(pairs.one_pass(), rows) if pairs.sequential else spread(range(len(pairs)), rows)


def _is_compared(number: int, pairs: Opened, rows: int | None) -> bool:
    """Whether the images of the pair that is read as this one are compared with others."""
    if pairs.sequential:
        return number < MOST_PAIRS
    count = len(pairs) if rows is None else min(rows, len(pairs))
    return number % -(-count // MOST_PAIRS) == 0


def _note_all_prompts(texts: Prompts, pairs: Opened, share: float) -> int:
    """Notes the prompts of all pairs, each in its part; returns how many differ. Of a stream none are known."""
    if isinstance(pairs, StreamedPairs):
        return 0
    first: dict[str, int] = {}
    for index, prompt in enumerate(pairs.prompts()):
        if prompt is not None:
            first.setdefault(prompt, index)
    for prompt, index in first.items():
        texts.add(VALIDATION if is_apart(prompt, share) else TRAINING, prompt, pairs.place(index))
    return len(first)


def _note_validation(
    findings: Findings, texts: Prompts, images: Images, pairs: Opened, rows: int | None, *, progress: bool
) -> None:
    """Notes prompts and images of validation pairs; how many cannot be read is said too."""
    if isinstance(pairs, PairSet):
        for index, prompt in enumerate(pairs.prompts()):
            if prompt is not None:
                texts.add(VALIDATION, prompt, pairs.place(index))
    bad = 0
    numbers = tqdm(_indices(pairs, rows), desc="validation pairs", unit="pair", disable=not progress)
    for number, index in enumerate(numbers):
        if not _is_compared(number, pairs, rows):
            continue
        try:
            pair = open_pair(pairs.stored(index))
        except DataError:
            bad += 1
            continue
        texts.add(VALIDATION, pair.prompt, pair.place)
        images.add(pair, part=VALIDATION, source=1, number=index)
    if bad:
        findings.omitted.append(f"{bad} validation pairs, which cannot be read; check {pairs.origin} by itself")


def _note_evaluation(texts: Prompts, sets: Mapping[str, Sequence[str]]) -> None:
    for name, prompts in sets.items():
        for number, prompt in enumerate(prompts, start=1):
            texts.add(EVALUATION, prompt, f"{name} prompt {number}")


def _compare(findings: Findings, texts: Prompts, images: Images) -> None:
    findings.compared = len(images)
    alike = images.alike()
    exact = {line.split(" !=")[0].split(" = ")[0] for line in (*findings.repeated, *findings.contradictions)}
    findings.alike = replace(
        alike,
        within_pairs=[entry for entry in alike.within_pairs if entry.first.place not in findings.same_image],
        pairs=[entry for entry in alike.pairs if entry.second.place not in exact],
    )
    findings.overlaps = overlaps(texts, findings.alike.across)
    findings.parts = {part: count for part in PARTS if (count := texts.count(part))}
    if len(images) < len(findings.readable) * (1 if findings.unit == "likes" else 2):
        findings.omitted.append(
            f"near-duplicates among all images: those of {MOST_PAIRS} pairs of a set at most are compared, "
            + ("the first ones" if findings.pairs is None else "evenly spread")
        )


def _note_sizes(findings: Findings, pair: OpenedPair, resolution: int | None) -> None:
    findings.shapes.add(pair)
    sides = [min(image.size) for image in pair.images]
    findings.too_small += sum(resolution is not None and side < resolution for side in sides)


def _note_bucket(findings: Findings, pair: OpenedPair) -> None:
    if pair.bucket is None:
        return
    findings.buckets[pair.bucket] += 1
    for image in pair.images:
        findings.cropped.append(cropped_share((image.height, image.width), pair.bucket))


def _note_prompt(findings: Findings, pair: OpenedPair) -> None:
    if not pair.prompt.strip():
        findings.empty_prompts.append(pair.place)
    if least_tokens(pair.prompt) > TOKENS:
        findings.long_prompts.append(pair.place)


def least_tokens(prompt: str) -> int:
    """Tokens that CLIP's tokenizer makes of a prompt at least: its pieces, start and end."""
    return len(_PIECE.findall(prompt)) + 2


def _note_repetition(findings: Findings, pair: OpenedPair, seen: dict[tuple[bytes, ...], tuple[str, int]]) -> None:
    images = [_pixels(image) for image in pair.images]
    if len(set(images)) < len(images):
        findings.same_image.append(pair.place)
        return
    # Of which image is preferred or liked, the one whose digest comes first in the order.
    verdict = int(np.sign(pair.probability - 0.5)) * (1 if images[0] == min(images) else -1)
    key = (hashlib.blake2b(pair.prompt.encode(), digest_size=16).digest(), *sorted(images))
    place, earlier = seen.setdefault(key, (pair.place, verdict))
    if place == pair.place:
        return
    same = earlier == verdict
    (findings.repeated if same else findings.contradictions).append(f"{pair.place} {'=' if same else '!='} {place}")


def _pixels(image: Image.Image) -> bytes:
    return hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()

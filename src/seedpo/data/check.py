"""What a set of labelled pairs holds, and what in it would stop a run."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL.Image import Image
from tqdm import tqdm

from seedpo.data.pairs import OpenedPair, PairSet, check_size, open_pair
from seedpo.data.streams import StreamedPairs
from seedpo.errors import ConfigError, DataError

TOKENS = 77
"""What CLIP's text encoders read of a prompt, start and end included; what is beyond is cut off."""

_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)\b|[^\W\d_]+|\d|[^\w\s]+|_")
"""Words, digits and signs as CLIP's tokenizer separates them; rare words become several tokens."""

_QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}


@dataclass(kw_only=True)
class Findings:
    """What was found in a set.

    Attributes:
        origin: what was checked.
        summary: pairs and what is left out.
        pairs: number of pairs; none for a stream.
        ties: pairs in which neither image is preferred, whether they are left out or not; of a stream not known.
        unlabelled: pairs that nobody judged, left out.
        checked: pairs whose images were read.
        unreadable: what is wrong with those that cannot be read, with file and row.
        bad_rows_limit: share of unreadable pairs over which a run stops.
        sizes: images of each width and height.
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
        found = len(self.unreadable)
        if found <= self.bad_rows_limit * self.checked:
            return []
        share = f"{found} of {self.checked} pairs cannot be used ({found / self.checked:.2%})"
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
        values = {name: value for name, value in vars(self).items() if name not in ("sizes", "readable")}
        sizes = {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()}
        return {**values, "sizes": sizes, "shorter_sides": self.shorter_sides, "stops": self.stops}


def check_pairs(pairs: PairSet | StreamedPairs, *, rows: int | None = None, progress: bool = True) -> Findings:
    """Reads the pairs that a run would read, and notes what is odd about them.

    Args:
        pairs: the set.
        rows: pairs whose images are read, evenly spread over the set, or the first of a stream; none: all.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: if a stream is to be read to its end.
    """
    streamed = isinstance(pairs, StreamedPairs)
    if isinstance(pairs, StreamedPairs) and rows is None:
        raise ConfigError(f"{pairs.origin} is a stream without an end; say how much of it to check: --rows 1000")
    findings = Findings(
        origin=pairs.origin,
        summary=pairs.summary,
        pairs=None if isinstance(pairs, StreamedPairs) else len(pairs),
        ties=None if isinstance(pairs, StreamedPairs) else pairs.tied,
        unlabelled=None if isinstance(pairs, StreamedPairs) else pairs.unlabelled,
        bad_rows_limit=pairs.config.bad_rows_limit,
    )
    indices = _spread(len(pairs), rows, from_the_start=streamed)
    size = None if isinstance(pairs, StreamedPairs) or pairs.config.resolution is not None else pairs.size()
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
        _note_prompt(findings, pair)
        _note_repetition(findings, pair, seen)
    findings.prompts = len(texts)
    return findings


def _spread(count: int, wanted: int | None, *, from_the_start: bool) -> Iterable[int]:
    if wanted is None or wanted >= count:
        return range(count)
    if from_the_start:
        return range(wanted)
    return sorted(set(np.linspace(0, count - 1, wanted).round().astype(int).tolist()))


def _note_sizes(findings: Findings, pair: OpenedPair, resolution: int | None) -> None:
    images = (pair.chosen, pair.rejected)
    findings.sizes.update(image.size for image in images)
    findings.different_sizes += images[0].size != images[1].size
    findings.too_small += sum(resolution is not None and min(image.size) < resolution for image in images)


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


def _pixels(image: Image) -> bytes:
    return hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=16).digest()

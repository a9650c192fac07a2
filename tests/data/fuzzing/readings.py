"""All that a command or a run reads of a set of pairs, as values that can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from seedpo.data.check.findings import check_pairs
from seedpo.data.check.text import findings_text
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from tests.data.fuzzing.outcomes import harmless, outcome

MOST = 40
"""Pairs that are read of a set."""


def read_twice(place: Path, config: PairsConfig) -> PairSet | None:
    """Reads a set as commands and runs do, twice, and sees that both give the same rows and faults."""
    with harmless():
        first = _reading(place, config)
        assert _reading(place, config) == first
        pairs, _ = outcome(lambda: load_pairs(str(place), config))
    if not isinstance(pairs, PairSet):
        return None
    rows = getattr(pairs, "inventory", None)
    if rows is not None and rows.rows is not None:
        assert rows.rows == rows.used + sum(rows.left_out.values())
    return pairs


def _reading(place: Path, config: PairsConfig) -> Sequence[Any]:
    pairs, message = outcome(lambda: load_pairs(str(place), config))
    if pairs is None:
        return [message]
    numbers: Sequence[int] = range(min(len(pairs), MOST))
    if not isinstance(pairs, PairSet):
        walk, message = outcome(lambda: list(islice(pairs.one_pass(), MOST)))
        if walk is None:
            return [message]
        numbers = walk
    rows = [_row(pairs, number) for number in numbers]
    assert pairs.summary.isprintable()
    facts = [outcome(pairs.fingerprint)]
    if isinstance(pairs, PairSet):
        facts += [outcome(pairs.size), outcome(lambda: [pairs.image_sizes(number) for number in numbers])]
    findings, message = outcome(lambda: check_pairs(pairs, rows=MOST, progress=False))
    if findings is not None:
        findings_text(findings).encode()
        assert findings.checked == len(findings.readable) + len(findings.unreadable)
        assert all(entry.isprintable() for entry in findings.unreadable)
    return [rows, facts, findings and findings.as_json(), message]


def _row(pairs: Any, number: int) -> Sequence[Any]:
    pair, message = outcome(lambda: pairs.stored(number))
    prompt = outcome(lambda: pairs.prompt(number))
    content = outcome(lambda: pairs.content(number))
    labelled, fault = outcome(lambda: pairs[number])
    if labelled is None:
        return [message, prompt, content, fault]
    assert pair is not None
    assert prompt[0] == labelled.prompt
    labelled.prompt.encode()  # as tokenizers and files take it
    assert "\0" not in labelled.prompt
    if pairs.config.reads_likes:
        assert labelled.rejected is None
        assert labelled.chosen_probability in (0.0, 1.0)
    else:
        assert 0.5 <= labelled.chosen_probability <= 1.0
    pixels = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in labelled.images]
    return [labelled.prompt, labelled.chosen_probability, labelled.original_size, pixels, content]


def pixels_digest(image: Image.Image) -> tuple[str, tuple[int, int], str]:
    """Mode, size and digest of the pixels."""
    return image.mode, image.size, hashlib.sha256(image.tobytes()).hexdigest()

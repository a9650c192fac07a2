"""Prompts and images that are the same but for small changes: normalised text, and a perceptual hash with colours.

The hash is pHash (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html): 64 signs of the lowest
frequencies of the grey image. It reads shapes only: of 499,500 pairs of different flat drawings 4,705 are within
:data:`MOST_BITS`, and a red disc has the hash of a blue one. So the colours of a small copy must agree too. The package
ImageHash has the hash alone, and would bring scipy and PyWavelets.

How both bounds were measured:

* Copies of 180 images of coloured noise of 256 pixels (power 1/f^2 to 1/f^4, as of photographs): JPEG and WebP of
  quality 50 to 90, half the size, noise of 5 levels and 2 % cut away change 8 bits and 7 levels at most.
* Different images: none of 239,400 pairs of such noise is within both bounds, none of 499,500 pairs of the embedded
  world's drawings, and 3 of 499,500 pairs of flat discs and squares, which people would call alike too.
* Not recognised are mirrored images, most with 4 % cut away, and those made 15 % brighter. Of the embedded world's
  drawings of 32 pixels about half survive a JPEG file of quality 50.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BITS = 8
"""Bits of the 64, in which the hashes of two near-duplicates differ at most."""

MOST_LEVELS = 8.0
"""Root mean square difference of the colours of two near-duplicates at most, of 255 levels."""

MOST_COMPARED = 50_000
"""Images that are compared with one another at most: each with each, in some eight seconds."""

MOST_MATCHES = 100_000
"""Matches that are returned at most; a set that is one image over and over has millions."""

_SIDE, _KEPT, _COLOURS = 32, 8, 16
_BLOCK, _SLICE = 256, 8192


class _Signs(dict[int, int | str]):
    """What ``str.translate`` makes of a character: a blank of punctuation, blanks and control characters."""

    def __missing__(self, code: int) -> int | str:
        self[code] = " " if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


_SIGNS = _Signs()


def normalised(prompt: str) -> str:
    """A prompt without what does not change its meaning: NFC, lower case, no punctuation, single blanks.

    A prompt of punctuation alone stays as it is, so that ``?`` and ``!`` differ.
    """
    text = unicodedata.normalize("NFC", prompt).casefold()
    return " ".join(text.translate(_SIGNS).split()) or text.strip()


@dataclass(frozen=True, kw_only=True)
class Impression:
    """What is remembered of an image to recognise it.

    Attributes:
        hash: 64 bits of shape.
        colours: a copy of 16 x 16 pixels in RGB, 768 bytes.
    """

    hash: int
    colours: bytes


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two images that are alike.

    Attributes:
        earlier, later: their numbers.
        distance: bits in which their hashes differ; 0 to :data:`MOST_BITS`.
    """

    earlier: int
    later: int
    distance: int


def impression(image: Image.Image) -> Impression:
    """Hash and colours of an image in RGB, of any size."""
    small = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    grey = np.asarray(small.convert("L"), dtype=np.float64)
    cosines = _cosines()
    # Rounded, since of a flat or symmetrical image many are 0 but for the processor's last digits.
    frequencies = (cosines @ grey @ cosines.T).round(3)
    bits = np.packbits(frequencies > np.median(frequencies))
    colours = small.resize((_COLOURS, _COLOURS), Image.Resampling.BOX)
    return Impression(hash=int.from_bytes(bits.tobytes(), "big"), colours=colours.tobytes())


@cache
def _cosines() -> NDArray[np.float64]:
    """The first rows of the cosine transform (DCT-II)."""
    places = (2 * np.arange(_SIDE) + 1) * np.pi / (2 * _SIDE)
    return np.cos(np.arange(_KEPT)[:, None] * places)


def distance(first: Impression, second: Impression) -> int | None:
    """Bits in which the hashes of two images differ if they are alike; `None` if they are not."""
    matches = near_duplicates([first, second])
    return matches[0].distance if matches else None


def near_duplicates(impressions: Sequence[Impression]) -> list[Match]:
    """All images that are alike, each with earlier ones: exact, each compared with each.

    Of images with equal impressions only the first is compared with others; the rest match it with distance 0.

    Args:
        impressions: at most some ten thousands; the time grows with the square of their number.

    Returns:
        At most :data:`MOST_MATCHES` matches, in the order of the later and then of the earlier image.
    """
    first: dict[Impression, int] = {}
    matches = []
    for number, entry in enumerate(impressions):
        if (earlier := first.setdefault(entry, number)) != number:
            matches.append(Match(earlier=earlier, later=number, distance=0))
    numbers = list(first.values())
    hashes = np.array([entry.hash for entry in first], dtype=np.uint64)
    colours = np.array([np.frombuffer(entry.colours, dtype=np.uint8) for entry in first], dtype=np.uint8)
    for start in range(0, len(hashes), _BLOCK):
        if len(matches) >= MOST_MATCHES:
            break
        block = hashes[start : start + _BLOCK]
        bits = np.bitwise_count(block[:, None] ^ hashes[None, : start + len(block)])
        later, earlier_ones = np.nonzero(bits <= MOST_BITS)
        later_ones = later + start
        is_alike = earlier_ones < later_ones
        is_alike[is_alike] = _colours_agree(colours, later_ones[is_alike], earlier_ones[is_alike])
        places = zip(later[is_alike].tolist(), earlier_ones[is_alike].tolist(), strict=True)
        matches += [Match(earlier=numbers[b], later=numbers[a + start], distance=int(bits[a, b])) for a, b in places]
    return sorted(matches[:MOST_MATCHES], key=lambda match: (match.later, match.earlier))


def _colours_agree(
    colours: NDArray[np.uint8], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the colours of images differ by no more than :data:`MOST_LEVELS`, (N,)."""
    agree = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), _SLICE):
        part = slice(start, start + _SLICE)
        differences = colours[first[part]].astype(np.float32) - colours[second[part]]
        agree[part] = np.square(differences).mean(axis=1) <= MOST_LEVELS**2
    return agree

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from scipy.fft import dctn

from seedpo.data.images.near_duplicates import (
    MOST_BITS,
    MOST_LEVELS,
    Impression,
    Match,
    distance,
    impression,
    near_duplicates,
    normalised,
)
from seedpo.scenes.pairs import preference_table


def photograph(seed: int, *, side: int = 256) -> Image.Image:
    """Noise whose power falls with the frequency as that of photographs does."""
    generator = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequencies[0, 0] = 1.0
    spectrum = np.fft.fft2(generator.normal(size=(3, side, side))) / frequencies**1.2
    pixels = np.einsum("ij,jhw->hwi", 0.8 + 0.2 * np.eye(3), np.fft.ifft2(spectrum).real)
    pixels = (pixels - pixels.mean()) / pixels.std() * 50 + generator.uniform(80, 170)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def stored(image: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(image: Image.Image, share: float) -> Image.Image:
    away = round(image.width * share / 2)
    return image.crop((away, away, image.width - away, image.height - away))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 90": lambda image: stored(image, "JPEG", 90),
    "JPEG of quality 50": lambda image: stored(image, "JPEG", 50),
    "WebP of quality 75": lambda image: stored(image, "WEBP", 75),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "2 % cut away": lambda image: cut(image, 0.02),
    "less colour": lambda image: ImageEnhance.Color(image).enhance(0.8),
}

OTHERS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "20 % cut away": lambda image: cut(image, 0.2),
}


class TestPrompts:
    @pytest.mark.parametrize(
        "text", ["a red star", "A  Red\tSTAR.", " a red, star!\n", "«a red» star…", "a-red_star", "a red\u200bstar"]
    )
    def test_case_blanks_and_punctuation_do_not_count(self, text: str) -> None:
        assert normalised(text) == "a red star"

    def test_unicode_forms_are_one(self) -> None:
        assert normalised("cafe\u0301") == normalised("CAF\u00c9")
        assert normalised("straße") == normalised("STRASSE")

    @pytest.mark.parametrize(("one", "other"), [("a cat 🐱", "a cat 🐶"), ("?", "!"), ("कि", "का"), ("1 + 1", "1 1")])
    def test_what_means_something_counts(self, one: str, other: str) -> None:
        assert normalised(one) != normalised(other)

    def test_nothing(self) -> None:
        assert normalised(" \n") == ""


class TestImpressions:
    def test_the_hash_is_that_of_the_cosine_transform(self) -> None:
        image = photograph(1, side=32)
        frequencies = dctn(np.asarray(image.convert("L"), dtype=np.float64), type=2)[:8, :8]
        bits = (frequencies > np.median(frequencies)).ravel()
        assert impression(image).hash == int("".join(str(int(bit)) for bit in bits), 2)

    @pytest.mark.parametrize("copy", COPIES)
    def test_copies_are_recognised(self, copy: str) -> None:
        for seed in range(8):
            image = photograph(seed)
            bits = distance(impression(image), impression(COPIES[copy](image)))
            assert bits is not None
            assert bits <= MOST_BITS

    @pytest.mark.parametrize("change", OTHERS)
    def test_other_images_are_not(self, change: str) -> None:
        for seed in range(8):
            image = photograph(seed)
            assert distance(impression(image), impression(OTHERS[change](image))) is None

    def test_no_two_of_many_photographs_are_alike(self) -> None:
        assert near_duplicates([impression(photograph(seed, side=64)) for seed in range(300)]) == []

    def test_no_two_of_the_embedded_drawings_are_alike(self) -> None:
        table = preference_table(count=150, seed=3)
        files = [file for name in ("jpg_0", "jpg_1") for file in table[name].to_pylist()]
        assert near_duplicates([impression(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]) == []

    def test_flat_images_are_told_by_their_colours(self) -> None:
        """They have no shape: their hashes are equal, whatever the processor's last digits are."""
        flat = [
            impression(Image.new("RGB", size, colour)) for size in ((8, 8), (300, 200)) for colour in ("red", "blue")
        ]
        assert len({entry.hash for entry in flat}) == 1
        assert near_duplicates(flat) == [Match(earlier=0, later=2, distance=0), Match(earlier=1, later=3, distance=0)]

    def test_equal_shapes_of_other_colours_differ(self) -> None:
        discs = []
        for colour in ("red", "blue", "green"):
            disc = Image.new("RGB", (128, 128), "white")
            ImageDraw.Draw(disc).ellipse((30, 30, 90, 90), fill=colour)
            discs.append(impression(disc))
        assert near_duplicates(discs) == []


class TestSearch:
    def test_it_finds_what_a_search_through_all_pairs_finds(self) -> None:
        generator = np.random.default_rng(0)
        centres = generator.integers(0, 2**64, 40, dtype=np.uint64)
        shades = generator.integers(0, 256, (40, 768))
        entries = []
        for _ in range(700):
            kind = generator.integers(40)
            flips = sum(1 << int(bit) for bit in generator.permutation(64)[: generator.integers(0, 8)])
            colours = shades[kind] + generator.normal(0, generator.choice([2, 7]), 768)
            entries.append(
                Impression(hash=int(centres[kind]) ^ flips, colours=colours.clip(0, 255).astype(np.uint8).tobytes())
            )
        pixels = [np.frombuffer(entry.colours, dtype=np.uint8).astype(np.float64) for entry in entries]
        expected = [
            Match(earlier=first, later=second, distance=bits)
            for second in range(len(entries))
            for first in range(second)
            if (bits := (entries[first].hash ^ entries[second].hash).bit_count()) <= MOST_BITS
            and np.mean((pixels[first] - pixels[second]) ** 2) <= MOST_LEVELS**2
        ]
        assert len(expected) > 100
        assert near_duplicates(entries) == expected

    def test_of_equal_images_each_is_named_once(self) -> None:
        one, other = impression(photograph(1)), impression(photograph(2))
        matches = near_duplicates([one, other, one, one])
        assert matches == [Match(earlier=0, later=2, distance=0), Match(earlier=0, later=3, distance=0)]

    def test_none(self) -> None:
        assert near_duplicates([]) == []

"""The OCR reward: its rule by itself, and its engine on drawn text where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from seedpo.errors import ConfigError, DataError
from seedpo.rewards import ocr as module
from seedpo.rewards.ocr import OcrReward, edit_distance, ocr, ocr_score, plain, wanted_text
from tests.rewards.plain_pixels import as_tensor, picture

INSTALLED = all(find_spec(name) for name in module.PACKAGES)

TEXTS = st.text(alphabet="ab C", max_size=6)


def by_definition(first: str, second: str) -> int:
    """Levenshtein's distance by its recursion."""

    @cache
    def rest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return len(first) - i + len(second) - j
        if first[i] == second[j]:
            return rest(i + 1, j + 1)
        return 1 + min(rest(i + 1, j), rest(i, j + 1), rest(i + 1, j + 1))

    return rest(0, 0)


@given(TEXTS, TEXTS)
def test_the_distance_is_levenshteins(first: str, second: str) -> None:
    assert edit_distance(first, second) == by_definition(first, second)


@pytest.mark.parametrize(
    ("read", "wanted", "score"),
    [
        ("Hello World", "hello world", 1.0),
        ("HELLOWORLD", "Hello World", 1.0),
        ("say hello world now", "Hello World", 1.0),  # a part of what is read
        ("hello", "Hello World", 0.5),
        ("", "Hello World", 0.0),
        ("hellp", "hello", 0.8),
        ("xxxxxxxxxxxxxxxxxxxx", "abc", 0.0),  # never below 0
        ("abcabx", "abd", 0.0),
        ("a\nb", "ab", 0.5),  # only spaces are taken out
    ],
)
def test_scores(read: str, wanted: str, score: float) -> None:
    assert ocr_score(read, wanted) == pytest.approx(score)


@given(TEXTS, TEXTS.filter(plain))
def test_scores_are_shares(read: str, wanted: str) -> None:
    score = ocr_score(read, wanted)
    assert 0.0 <= score <= 1.0
    assert (score == 1.0) == (plain(wanted) in plain(read))


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ('a sign that says "Open 24 Hours" at night', "Open 24 Hours"),
        ('"A" and "B"', "A"),
        ('a banner: "no end', "no end"),
        ('it\'s a "caf\u00e9"', "caf\u00e9"),
    ],
)
def test_what_is_wanted(prompt: str, text: str) -> None:
    assert wanted_text(prompt) == text


@pytest.mark.parametrize("prompt", ["", "a red ring", '""', 'a sign " " here', "\u201ctypographic\u201d"])
def test_a_prompt_without_quoted_text_is_named(prompt: str) -> None:
    with pytest.raises(DataError, match="reward ocr") as caught:
        wanted_text(prompt)
    assert repr(prompt) in str(caught.value)
    assert "\n" not in str(caught.value)


def by_width(text: str) -> Callable[[Image.Image], str]:
    """A reader that reads as many letters of a text as the image is wide, in tens of pixels."""
    return lambda image: text[: image.width // 10]


def test_each_image_is_read_with_its_own_prompt() -> None:
    reward = OcrReward(by_width("hello"))
    images = [picture(8, width, seed=0) for width in (50, 10, 30, 50)]
    prompts = ['"hello"', '"hello"', '"help"', 'say "x"']
    assert reward(images, prompts).tolist() == pytest.approx([1.0, 0.2, 0.75, 0.0])
    together = as_tensor(images[:1] * 2) / 255.0
    assert reward(together, ['"hello"', '"jello"']).tolist() == pytest.approx([1.0, 0.8])


def test_nothing_is_read_when_a_prompt_asks_for_nothing() -> None:
    def reader(image: Image.Image) -> str:
        raise AssertionError

    with pytest.raises(DataError, match="a ring"):
        OcrReward(reader)([picture(8, 8, seed=0)] * 2, ['"hello"', "a ring"])


def test_a_missing_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"rapidocr and onnxruntime: pip install 'seedpo\[ocr\]'"):
        module.rapid_reader()


def drawn(*lines: str) -> Image.Image:
    image = Image.new("RGB", (480, 40 + 70 * len(lines)), "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 25 + 70 * row), line, fill="black", font=ImageFont.load_default(34))
    return image


@pytest.mark.skipif(not INSTALLED, reason="the extra ocr is not installed")
class TestEngine:
    """Of drawn text, which is easy to read; a letter or two may be wrong."""

    def test_text_that_is_there_scores_above_text_that_is_not(self) -> None:
        image = drawn("open daily", "from nine")
        prompts = ['a sign "open daily"', 'a sign "from nine"', 'a sign "sold out today"']
        scores = ocr()([image] * 3, prompts).tolist()
        assert min(scores[:2]) >= 0.8
        assert scores[2] <= 0.4

    def test_an_image_without_text_scores_nothing(self) -> None:
        assert ocr()([Image.new("RGB", (64, 64), "gray")], ['"open"']).tolist() == [0.0]

    def test_tensors_and_files_are_read_alike_and_again(self) -> None:
        image = drawn("seventeen")
        tensor = as_tensor([image]) / 255.0
        scores = [ocr()(images, ['"seventeen"']) for images in ([image], tensor, tensor)]
        assert scores[0].equal(scores[1])
        assert scores[1].equal(scores[2])
        assert scores[0].dtype == torch.float32

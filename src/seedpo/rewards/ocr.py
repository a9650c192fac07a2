"""The text that a prompt asks for, read in the image: the OCR reward of Flow-GRPO (arXiv 2505.05470).

    score = 1 - min(d(read, wanted), |wanted|) / |wanted|,   1 if wanted is a part of read

with Levenshtein's distance d. ``wanted`` is what stands between the first two double quotes ``"`` of the prompt,
``read`` all that the engine finds, in its order and without joints. Both are in lower case and without spaces.

The rule needs no engine; see :func:`ocr_score`. The engine is RapidOCR with PP-OCRv6, whose models are in its wheel, on
the CPU. Flow-GRPO has PaddleOCR 2.9.1 with its English models: what is read, and so the score, differs at times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import ConfigError, DataError
from seedpo.protocols import Images
from seedpo.rewards.scoring import score_in_batches

Reader = Callable[[Image.Image], str]
"""All text in an image."""

PACKAGES = ("rapidocr", "onnxruntime")
"""Of the engine."""


def wanted_text(prompt: str) -> str:
    """What a prompt puts between its first two double quotes; to its end, if the second is missing.

    Raises:
        DataError: if there is nothing between quotes; the message shows the prompt.
    """
    _, _, quoted = prompt.partition('"')
    text = quoted.partition('"')[0]
    if not plain(text):
        raise DataError(
            f"reward ocr: the prompt {prompt!r} puts no text in double quotes; take prompts that say what "
            'is to be read, such as a sign "Open", or another reward'
        )
    return text


def plain(text: str) -> str:
    """A text in lower case and without spaces."""
    return text.replace(" ", "").lower()


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's: the least number of characters to add, to remove and to replace."""
    row = list(range(len(second) + 1))
    for place, letter in enumerate(first, 1):
        diagonal, row[0] = row[0], place
        for column, other in enumerate(second, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (letter != other))
    return row[-1]


def ocr_score(read: str, wanted: str) -> float:
    """How much of a text was read, in [0, 1].

    Args:
        read: all text found in the image.
        wanted: what should be there; it has a character that is no space.
    """
    read, wanted = plain(read), plain(wanted)
    if wanted in read:
        return 1.0
    return 1.0 - min(edit_distance(read, wanted), len(wanted)) / len(wanted)


class OcrReward:
    """The reward.

    Args:
        reader: reads an image.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __call__(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Scores (B,) float32 in [0, 1], on the images' device; on the CPU for PIL images.

        Args:
            images: (B, 3, H, W) in [0, 1], or B PIL images of any sizes.
            prompts: B prompts, each with its text in double quotes.

        Raises:
            DataError: if the counts differ, an element is not an image, or a prompt has no text in quotes.
        """
        scores = score_in_batches(images, prompts, self._score, device="cpu")
        return scores.to(images.device) if isinstance(images, Tensor) else scores

    def _score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = [wanted_text(prompt) for prompt in prompts]  # before anything is read
        pictures = (Image.fromarray(pixels) for pixels in images.permute(0, 2, 3, 1).contiguous().numpy())
        return torch.tensor(
            [ocr_score(self.reader(picture), text) for picture, text in zip(pictures, wanted, strict=True)],
            dtype=torch.float32,
        )


@cache
def ocr() -> OcrReward:
    """The reward with its engine, loaded once per process.

    Raises:
        ConfigError: if the engine is not installed.
    """
    return OcrReward(rapid_reader())


def rapid_reader() -> Reader:
    """RapidOCR: finds lines, as they stand, without turning them, and reads each; lines of any confidence count.

    Raises:
        ConfigError: if it is not installed.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(f"reward ocr needs {' and '.join(missing)}: pip install 'seedpo[ocr]'")
    from rapidocr import RapidOCR

    threads = torch.get_num_threads()  # otherwise it takes all processors, beside those of torch
    engine: Any = RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        }
    )

    def read(picture: Image.Image) -> str:
        return "".join(engine(picture, use_cls=False).txts or ())

    return read

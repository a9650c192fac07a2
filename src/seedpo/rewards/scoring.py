"""What every scorer shares: images as bytes, in batches of one size, and scores that are checked.

The originals score image files of 8 bits. So images in [0, 1] are first rounded to bytes, as ``diffusers`` does when it
makes PIL images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import DataError
from seedpo.protocols import Images

Score = Callable[[Tensor, Sequence[str]], Tensor]
"""Scores (B,) of images (B, 3, H, W) uint8 of one size and B prompts."""

BATCH_SIZE = 64
"""Default of the most images that a network sees at once."""


class ScoreNotFiniteError(DataError):
    """A score that is NaN or infinite.

    Args:
        message: names the score and the fix.
        row: row of the score.
    """

    def __init__(self, message: str, *, row: int) -> None:
        super().__init__(message)
        self.row = row


@torch.no_grad()
def score_in_batches(
    images: Images, prompts: Sequence[str], score: Score, *, batch_size: int = BATCH_SIZE, device: torch.device | str
) -> Tensor:
    """Scores images of any sizes, those of one size together.

    Args:
        images: (B, 3, H, W) in [0, 1], or B images as PIL holds them.
        prompts: B prompts.
        score: returns scores (b,) of images (b, 3, H, W) uint8 on ``device`` and their b prompts.
        batch_size: the largest b.
        device: where the scorer expects images.

    Returns:
        (B,) float32 on ``device``, in the order of the images.

    Raises:
        DataError: if the counts differ, or an element is not an image; the message names the row.
        ValueError: if ``score`` does not return b scores.
    """
    check_counts(images, prompts)
    scores = torch.empty(len(prompts), dtype=torch.float32, device=device)
    for rows, pixels in byte_batches(images, batch_size=batch_size, device=device):
        batch = score(pixels, [prompts[row] for row in rows])
        if batch.shape != (len(rows),):  # a single score would silently broadcast to all rows
            raise ValueError(f"the scorer returned scores of shape {tuple(batch.shape)} for {len(rows)} images")
        scores[rows] = batch.to(scores)
    return scores


def check_counts(images: Images, prompts: Sequence[str]) -> None:
    """Checks that there is one prompt for each image.

    Raises:
        DataError: if the counts differ, or the prompts are a single string.
    """
    if isinstance(prompts, str):
        raise DataError("prompts are a single string; pass a list with one prompt for each image")
    if len(images) != len(prompts):
        raise DataError(f"there are {len(images)} images but {len(prompts)} prompts; pass one prompt for each image")


def byte_batches(
    images: Images, *, batch_size: int = BATCH_SIZE, device: torch.device | str
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of images of one size: their rows, and (b, 3, H, W) uint8 on a device.

    Raises:
        DataError: if an element is not an image; the message names the row.
    """
    if isinstance(images, Tensor):
        _check_tensor(images)
        for start in range(0, len(images), batch_size):
            part = to_bytes(images[start : start + batch_size], first_row=start)
            yield list(range(start, start + len(part))), part.to(device)
        return
    for row, image in enumerate(images):
        if not isinstance(image, Image.Image):
            raise DataError(
                f"image {row} is a {type(image).__name__}, not an image; pass a tensor (B, 3, H, W) or PIL images"
            )
    for size_rows in _rows_by_size(images).values():
        for start in range(0, len(size_rows), batch_size):
            chosen = size_rows[start : start + batch_size]
            pixels = torch.stack([_from_pil(images[row], row) for row in chosen])
            # In the memory's order too as a tensor of images is, so that sums over pixels agree to the last bit.
            yield chosen, pixels.permute(0, 3, 1, 2).contiguous().to(device)


def to_bytes(images: Tensor, *, first_row: int = 0) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] as bytes, uint8; values outside of [0, 1] are clamped.

    Args:
        images: of any floating type.
        first_row: number of the first image, for errors.

    Raises:
        DataError: if a value is NaN.
    """
    values = images.detach().float()
    broken = values.flatten(1).isnan().any(1)
    if broken.any():
        row = first_row + int(broken.nonzero()[0])
        raise DataError(f"image {row} holds NaN; its model diverged (float16 decoding of SDXL does, for example)")
    return (values * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)


def _check_tensor(images: Tensor) -> None:
    if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise DataError(f"images have the shape {tuple(images.shape)}; pass (B, 3, H, W)")
    if not images.is_floating_point():
        raise DataError(f"images are {str(images.dtype).removeprefix('torch.')}; pass floating-point values in [0, 1]")


def _rows_by_size(images: Sequence[Image.Image]) -> dict[tuple[int, int], list[int]]:
    rows: dict[tuple[int, int], list[int]] = {}
    for row, image in enumerate(images):
        rows.setdefault(image.size, []).append(row)
    return rows


def _from_pil(image: Image.Image, row: int) -> Tensor:
    """(H, W, 3) uint8; transparency is dropped, as the originals' ``convert("RGB")`` drops it."""
    try:
        pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # PIL reads the file only here
        raise DataError(f"image {row} cannot be read ({error}); create or copy it again") from error
    if pixels.size == 0:
        raise DataError(f"image {row} has no pixels; create or copy it again")
    return torch.from_numpy(pixels)


def checked_scores(scores: Any, prompts: Sequence[str], *, reward: str) -> Tensor:
    """Scores (B,) float32 on their device, without gradient.

    Args:
        scores: return value of a reward.
        prompts: B prompts of the images.
        reward: its name.

    Raises:
        DataError: if the shape is wrong, or scores are not real or not finite; the message names the reward, and the
            row and prompt of the first bad score.
    """
    if not isinstance(scores, Tensor):
        raise DataError(
            f"reward {reward} returned a {type(scores).__name__}; it must return a tensor with one score for each image"
        )
    if scores.shape != (len(prompts),):
        raise DataError(
            f"reward {reward} returned scores of shape {tuple(scores.shape)} for {len(prompts)} images; it must return "
            f"({len(prompts)},), one score for each image"
        )
    if scores.is_complex() or scores.dtype == torch.bool:
        kind = str(scores.dtype).removeprefix("torch.")
        raise DataError(f"reward {reward} returned scores of type {kind}; it must return real numbers")
    values: Tensor = scores.detach().float()
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ScoreNotFiniteError(
            f"reward {reward} returned {values[row].item()} for image {row}, prompt {prompts[row]!r}; check the "
            "reward (with reward_precision=no it computes in float32), or lower learning_rate if images have decayed",
            row=row,
        )
    return values

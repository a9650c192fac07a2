"""What every reward's scores have to be before anything is ranked by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seedpo.errors import DataError


class ScoreNotFiniteError(DataError):
    """A score that is NaN or infinite.

    Args:
        message: what was found, and the mend.
        row: of the score among those that were asked for.
    """

    def __init__(self, message: str, *, row: int) -> None:
        super().__init__(message)
        self.row = row


def checked_scores(scores: Any, prompts: Sequence[str], *, reward: str) -> Tensor:
    """Scores (B,) float32 on their device, without gradient.

    Args:
        scores: what a reward gave.
        prompts: B prompts that it was asked for.
        reward: its name.

    Raises:
        DataError: if they have another shape, are no real numbers or are not finite; the message names the reward, and
            the row and prompt of the first bad score.
    """
    if not isinstance(scores, Tensor):
        raise DataError(
            f"reward {reward} gave a {type(scores).__name__}; it has to give a tensor with one score for each image"
        )
    if scores.shape != (len(prompts),):
        raise DataError(
            f"reward {reward} gave scores of shape {tuple(scores.shape)} for {len(prompts)} images; it has to give "
            f"({len(prompts)},), one score for each image"
        )
    if scores.is_complex() or scores.dtype == torch.bool:
        kind = str(scores.dtype).removeprefix("torch.")
        raise DataError(f"reward {reward} gave scores of type {kind}; it has to give real numbers")
    values: Tensor = scores.detach().float()
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise ScoreNotFiniteError(
            f"reward {reward} gave {values[row].item()} for image {row}, of the prompt {prompts[row]!r}; nothing is "
            "ranked by it: check the reward (if it computes in half precision, let it compute in float32), or lower "
            "learning_rate if the images have decayed",
            row=row,
        )
    return values

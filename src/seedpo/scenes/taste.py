"""The simulated annotator: how much a drawing is worth, and which of two is chosen.

Utility = LIKING * vividness - PENALTY * (number of named attributes that are wrong) - AVERSION * residual. It favours
no value of a free attribute, so a policy can reach the highest utility without giving up any diversity, and whatever
diversity it loses under a learned reward is lost to that reward's faults.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seedpo.scenes.oracle import read_images

LIKING = 3.0
"""Utility of the most vivid colour over the palest."""

PENALTY = 2.0
"""Utility lost for each named attribute that is wrong."""

AVERSION = 20.0
"""Utility lost for a root mean square residual of 1; 0.05 costs as much as a third of all vividness."""

TEMPERATURE = 0.5
"""Scale of the logistic noise in the annotator's comparisons."""

TIE = 0.25
"""Felt differences below this are called a tie."""


def utility(*, vividness: Tensor, wrong: Tensor, residual: Tensor) -> Tensor:
    """Utility (B,) of drawings: vividness in [0, 1], number of wrong attributes, residual in [0, 1], all (B,)."""
    return LIKING * vividness - PENALTY * wrong - AVERSION * residual


def true_utility(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Utility (B,) of images (B, 3, 32, 32) in [0, 1], as the oracle reads them.

    Raises:
        DataError: if an image or a prompt is not of this world.
    """
    readings = read_images(images, prompts)
    return utility(vividness=readings.vividness, wrong=(~readings.correct).sum(1).float(), residual=readings.residual)


def choose(first: Tensor, second: Tensor, *, generator: torch.Generator) -> Tensor:
    """The annotator's label for the first of two drawings: 1, 0 or 0.5 for a tie.

    Args:
        first: utility of the first drawings, (B,).
        second: utility of the second drawings, (B,).
        generator: source of the annotator's noise.
    """
    uniform = torch.rand(len(first), generator=generator).clamp(1e-6, 1 - 1e-6)
    felt = first - second + TEMPERATURE * torch.logit(uniform)
    return torch.where(felt.abs() < TIE, 0.5, (felt > 0).float())

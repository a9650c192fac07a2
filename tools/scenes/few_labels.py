"""The scorer of few labels: what about 100 noisy choices teach, by logistic regression on a CLIP's embeddings.

    score(image, prompt) = sum_i w_i e_i c_i

with the embeddings e of the image and c of the prompt, both of length 1. With equal weights it is CLIP's cosine; so it
reads the prompt, though it is linear. The weights minimise

    mean log(1 + exp(-(score(chosen) - score(rejected)))) + PENALTY / 2 |s w|^2

over the pairs, with s the root mean square of all differences of products e_i c_i.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from seedpo.data.pairs.sets import PairSet
from seedpo.rewards.scoring import to_bytes
from seedpo.scenes.shipped import few_pairs, weighted_scorer

PENALTY = 0.1
"""Of the squared weights of standardised differences."""

_NEWTON_STEPS = 30


def build_few_labels(out: Path) -> None:
    """Fits the weights on :func:`seedpo.scenes.shipped.few_pairs` and the CLIP in ``out/clip``.

    Args:
        out: folder with the CLIP; the weights are written to ``out/few.safetensors``.
    """
    weights = fitted_weights(product_differences(out / "clip", few_pairs()))
    save_file({"weights": weights.float()}, out / "few.safetensors")


def product_differences(folder: Path, pairs: PairSet) -> Tensor:
    """Products e_i c_i of the chosen image less those of the rejected one, (N, D) float64."""
    rows = [pairs[index] for index in range(len(pairs))]
    chosen, rejected = (to_bytes(torch.stack([getattr(row, side) for row in rows])) for side in ("chosen", "rejected"))
    prompts, scorer = [row.prompt for row in rows], weighted_scorer(folder)
    with torch.no_grad():
        return (scorer.products(chosen, prompts) - scorer.products(rejected, prompts)).double()


def fitted_weights(differences: Tensor, *, penalty: float = PENALTY) -> Tensor:
    """The weights (D,) float64 by Newton's method, from differences (N, D)."""
    scale = differences.square().mean().sqrt()
    rows = differences / scale
    weights = rows.new_zeros(rows.shape[1])
    for _ in range(_NEWTON_STEPS):
        right = torch.sigmoid(rows @ weights)
        slope = rows.T @ (right - 1.0) / len(rows) + penalty * weights
        curvature = (rows.T * (right * (1.0 - right))) @ rows / len(rows)
        weights = weights - torch.linalg.solve(curvature + penalty * torch.eye(len(weights)).to(rows), slope)
    return weights / scale

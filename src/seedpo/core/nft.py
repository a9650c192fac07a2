"""DiffusionNFT (arXiv 2509.16117): good and bad images as two directions from an old policy, as pure functions."""

from __future__ import annotations

from torch import Tensor

from seedpo.core.processes import Process
from seedpo.core.transitions import Reduction, squared_distance


def nft_errors(
    process: Process,
    prediction: Tensor,
    old_prediction: Tensor,
    *,
    clean: Tensor,
    latents: Tensor,
    timestep: Tensor,
    beta: float,
    reduction: Reduction = "mean",
) -> tuple[Tensor, Tensor]:
    """Errors of DiffusionNFT's two implicit policies (arXiv 2509.16117, alg. 1 and eq. 8).

        v+ = (1 - beta) v_old + beta v,    v- = (1 + beta) v_old - beta v
        |x0(v) - x0|^2 / w,    w = mean |x0(v) - x0|, at least 1e-5, without gradient

    x0(v) is the clean image of a prediction; it is linear in the prediction, whatever the network predicts.

    Args:
        process: turns predictions into clean latents.
        prediction: v of the policy, (R, ...), with gradient.
        old_prediction: v of the old policy, which drew the images, (R, ...).
        clean: x0, (R, ...).
        latents: noisy, (R, ...).
        timestep: (R,).
        beta: how far v+ and v- go from the old policy, above 0.
        reduction: of squares over the entries of a row.

    Returns:
        Those of v+ and those of v-, (R,) each, with gradient.
    """

    def error(mixed: Tensor) -> Tensor:
        estimate = process.clean(mixed, latents, timestep)
        square = squared_distance(estimate, clean, reduction=reduction)
        size = (estimate.detach() - clean).abs().flatten(1).mean(1, dtype=square.dtype)
        return square / size.clamp(min=1e-5)

    old = old_prediction.detach()
    return error((1 - beta) * old + beta * prediction), error((1 + beta) * old - beta * prediction)


def nft_loss(positive: Tensor, negative: Tensor, advantages: Tensor, *, beta: float, limit: float) -> Tensor:
    """DiffusionNFT's loss of images (arXiv 2509.16117).

        L = c (r positive + (1 - r) negative) / beta,    r = 1/2 + clip(A / c, -1, 1) / 2

    Args:
        positive: error of v+, (R,), of :func:`nft_errors`.
        negative: error of v-, (R,).
        advantages: (R,).
        beta: as in :func:`nft_errors`.
        limit: c: from here on an advantage counts as wholly good or bad. The published code multiplies by it.

    Returns:
        (R,).
    """
    good = 0.5 + (advantages.to(positive) / limit).clamp(-1, 1) / 2
    return limit * (good * positive + (1 - good) * negative) / beta

r"""DSPO (ICLR 2025, openreview.net xyfb9HHvMe): the score of preferred images, with the preference's own score in it.

    L = | eps_policy(w) - eps - beta (1 - sigma(u)) (eps_policy(w) - eps_reference(w)) |^2,   averaged over the entries

u is Diffusion-DPO's margin. In brackets stands a prediction that moved from the policy's towards the reference's: the
further the pair is from being learned, the further. The rejected image acts through sigma(u) alone. With N entries, g =
1 - sigma(u), d the prediction's error, e the difference of both predictions, and v = d_w - beta g e_w:

    dL/d eps_policy(w) = 2/N (1 - beta g) v - 2 beta^2 / N^2 g (1 - g) <v, e_w> d_w
    dL/d eps_policy(l) =                      2 beta^2 / N^2 g (1 - g) <v, e_w> d_l

Kept: the loss of the official code for SD1.5, its gradient through sigma included. Left out: the code's branch for
SDXL, which is another loss, switched where the mean squared difference of a batch passes 0.1.
"""

from __future__ import annotations

from torch import Tensor

from seedpo.core.transitions import Reduction, noise_log_prob


def dspo_losses(
    prediction: Tensor,
    reference_prediction: Tensor,
    target: Tensor,
    margin: Tensor,
    *,
    beta: float,
    reduction: Reduction,
) -> Tensor:
    """The losses of pairs.

    Args:
        prediction: the policy's for the preferred images, (B, ...), with gradient.
        reference_prediction: the reference's for them, (B, ...), taken as a constant.
        target: what the network is to predict of them, (B, ...).
        margin: u of each pair, (B,), with gradient.
        beta: weight of the preference's score, above 0; 0.001 to 0.05 published for SD1.5.
        reduction: ``mean`` over the latent dimensions as published, or ``sum``.

    Returns:
        (B,), float64 (float32 on devices without it).
    """
    distance = prediction - reference_prediction.detach()
    share = beta * (-margin).sigmoid().to(distance.dtype)
    moved = prediction - share.view(-1, *[1] * (distance.dim() - 1)) * distance
    return -2 * noise_log_prob(moved, target, reduction=reduction)

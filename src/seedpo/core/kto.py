r"""Diffusion-KTO (arXiv 2404.04465): the expected utility of single images that people like or not.

    r = beta (e_reference - e_policy),   Q = max(0, mean of r over the batch),   y = 1 if liked, else -1
    L = w_y (1 - sigma( y (r - Q) )),    dL/dr = -y w_y sigma'(r - Q)

e is the squared error of the prediction, without Diffusion-DPO's factor 1/2. Q is a constant: what images gain on
average. sigma is the utility that the paper found best, risk-averse in gains and risk-seeking in losses.

Kept: the loss of the official code. Left out: its other utilities; its mean of Q over processes, since a loss exchanges
nothing; its draw of 80 % liked images, whose place the weights w_y can take (Q is then of the images as they come).
"""

from __future__ import annotations

import torch
from torch import Tensor


def kto_baseline(rewards: Tensor) -> Tensor:
    """Q = max(0, mean), without gradient, ().

    Args:
        rewards: r of all images that are compared, (B,).
    """
    return rewards.detach().mean().clamp(min=0)


def kto_margin(rewards: Tensor, liked: Tensor, *, baseline: Tensor) -> Tensor:
    """The margins y (r - Q), (B,), above 0 where the policy moved as the person wished.

    Args:
        rewards: r, (B,), with gradient.
        liked: whether each image is liked, (B,) bool.
        baseline: Q of :func:`kto_baseline`, ().
    """
    return torch.where(liked, 1, -1) * (rewards - baseline)


def kto_losses(margin: Tensor, liked: Tensor, *, liked_weight: float = 1.0, disliked_weight: float = 1.0) -> Tensor:
    """The losses of images, (B,), each in [0, w_y].

    Args:
        margin: :func:`kto_margin`, (B,), with gradient.
        liked: whether each image is liked, (B,) bool.
        liked_weight: w of liked images, 0 or more; 1 as published.
        disliked_weight: w of the others, 0 or more; 1 as published.
    """
    weights = torch.where(liked, margin.new_tensor(liked_weight), margin.new_tensor(disliked_weight))
    return weights * (-margin).sigmoid()

"""How the noises of candidates that leave one x_t hang together.

Every kind gives each candidate, taken alone, exactly the standard normal noise of the step, so that each is a draw from
the policy and its log-probability is the Gaussian's. What differs is their joint distribution:

    independent   e_1, ..., e_k drawn by themselves, as published
    equal_norm    |e_1| e_j / |e_j|: one length, drawn once, and k independent directions
    antithetic    e_1, -e_1, e_2, -e_2, ...: k / 2 independent draws and their mirror images

A normal vector's length and direction are independent, hence the second; its density is even, hence the third. Between
candidates of one length the entropy offset on policy, -(a - b) Delta |e|^2 / 2, is 0: with ``equal_norm`` for every two
candidates, with ``antithetic`` for those that mirror each other. No published method draws candidates so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

CandidateNoise = Literal["independent", "equal_norm", "antithetic"]


def shaped_noise(shape: Sequence[int], *, kind: CandidateNoise, generator: torch.Generator) -> Tensor:
    """Noise of candidates, float32, on the CPU.

    Args:
        shape: (B, K, C, H, W): B starts with K candidates each.
        kind: how the K noises of one start hang together.
        generator: a CPU generator.

    Returns:
        (B, K, C, H, W); each candidate's noise, taken alone, is standard normal.

    Raises:
        ValueError: if the kind is unknown, or ``antithetic`` is asked for with an odd K.
    """
    if kind not in _KINDS:
        raise ValueError(f"noise = {kind!r} is unknown; write one of {', '.join(map(repr, _KINDS))}")
    return _KINDS[kind](tuple(shape), generator)


def _independent(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _equal_norm(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = _independent(shape, generator)
    length = torch.linalg.vector_norm(noise.flatten(2).double(), dim=2)
    scale: Tensor = (length[:, :1] / length).float().view(*shape[:2], 1, 1, 1)
    return noise * scale


def _antithetic(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    rows, count, *latent_shape = shape
    if count % 2:
        raise ValueError(f"antithetic noise comes in pairs, but there are {count} candidates; ask for an even number")
    noise = _independent((rows, count // 2, *latent_shape), generator)
    return torch.stack([noise, -noise], 2).flatten(1, 2)


_KINDS: dict[CandidateNoise, Callable[[tuple[int, ...], torch.Generator], Tensor]] = {
    "independent": _independent,
    "equal_norm": _equal_norm,
    "antithetic": _antithetic,
}

"""What a run hands to the builder of its source of pairs; a builder calls only for what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seedpo.core.draws import KeyedDraws
from seedpo.protocols import Denoiser, Features, LikesEncoder, PairEncoder, StatefulPairs

Decode = Callable[[Tensor], Tensor]
"""Latents (B, ...) to images (B, 3, height, width) in [0, 1]."""


def _missing(name: str = "") -> Any:
    raise ValueError("the source asks for something that its run does not supply")


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """The parts of a source that the run builds.

    Attributes:
        policy: the model that is trained.
        prompts: reads the prompts to draw images of.
        judge: builds what judges the images or previews: a reward, or people.
        features: loads the features of a name, on the policy's device.
        opinion: builds the reward of a name, on the policy's device.
        pairs: reads the labelled pairs, as they are and encoded.
        likes: reads the likes, as they are and encoded.
        draws: draws of pairs that runs share; ``None``: each run has its own.
        decode: decodes previews with the policy's own autoencoder; ``None``: as the policy decodes images.
        preview_decode: builds what decodes previews in place of the policy, if anything does.
        rank: number of this process.
        world: number of processes.
    """

    policy: Denoiser
    prompts: Callable[[], Sequence[str]] = _missing
    judge: Callable[[], Any] = _missing
    features: Callable[[str], Features] = _missing
    opinion: Callable[[str], Any] = _missing
    pairs: Callable[[], tuple[StatefulPairs, PairEncoder]] = _missing
    likes: Callable[[], tuple[StatefulPairs, LikesEncoder]] = _missing
    draws: KeyedDraws | None = None
    decode: Decode | None = None
    preview_decode: Callable[[], Decode | None] = lambda: None
    rank: int = 0
    world: int = 1

"""Images of one prompt, as they go into a study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from seedpo.protocols import Images
from seedpo.study.images import add_image
from seedpo.study.preferences import preferences
from seedpo.study.records import Candidate, Group, Judgement

Pixels = NDArray[np.uint8]
"""An 8-bit RGB image, (H, W, 3)."""


@dataclass(frozen=True)
class Asked:
    """One prompt with its images, as they go into a study.

    Attributes:
        id: of the group: a hash of question, prompt and pixels, so that the same images make the same group.
        question: key of the question.
        prompt: of the images.
        images: the different ones among the K images, as (H, W, 3).
        places: which of them each of the K images is.
    """

    id: str
    question: str
    prompt: str
    images: tuple[Pixels, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, question: str, prompt: str, pixels: Sequence[Pixels]) -> Asked:
        """A group of the K images (H, W, 3) of a prompt."""
        names = [hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest() for image in pixels]
        different = dict(zip(reversed(names), reversed(pixels), strict=True))
        order = list(dict.fromkeys(names))
        whole = hashlib.sha256(json.dumps([question, prompt, names]).encode()).hexdigest()
        return cls(
            id=whole[:32],
            question=question,
            prompt=prompt,
            images=tuple(different[name] for name in order),
            places=tuple(order.index(name) for name in names),
        )

    def added(self, folder: Path, source: str) -> Group:
        """The group, once its images lie in the study's folder."""
        ids = [add_image(folder, Image.fromarray(image)) for image in self.images]
        candidates = tuple(Candidate(source=source, images=(name,)) for name in ids)
        return Group(id=self.id, question=self.question, prompt=self.prompt, candidates=candidates)

    def preferences(self, judgements: Sequence[Judgement]) -> NDArray[np.float32]:
        """(K, K); between copies of one image there is none."""
        found = preferences(judgements, candidates=len(self.images))
        places = list(self.places)
        return found[np.ix_(places, places)].astype(np.float32)


def pixels_of(images: Images) -> list[Pixels]:
    """Images (B, 3, H, W) in [0, 1], or PIL images, as people see them."""
    if isinstance(images, Tensor):
        whole = (images.detach().float() * 255.0).round().clamp(0.0, 255.0).to(torch.uint8)
        return list(whole.permute(0, 2, 3, 1).contiguous().cpu().numpy())
    return [np.asarray(image.convert("RGB")) for image in images]

"""The embedded preference set: drawings by a careless artist, labelled by the simulated annotator.

Each image is drawn for its prompt with random vividness; some have a fault: a wrong attribute, blur, speckles, or a
smear. The columns are those of Pick-a-Pic, so that the reader of the real data set reads this one too.
"""

from __future__ import annotations

import io
import random
import uuid
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from seedpo.data.images.pixels import to_pil
from seedpo.scenes.drawing import Scenes, draw, sample_scenes
from seedpo.scenes.prompts import BACKGROUNDS, COLOURS, SHAPES, SIZES, TRAINING_PROMPTS, Description, parse_prompt
from seedpo.scenes.taste import choose, utility

FAULT_RATE = 0.6
"""Share of images with a fault."""


def blur(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Averages over a neighbourhood of 3 x 3 pixels, twice."""
    for _ in range(2):
        images = avg_pool2d(pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images


def speckle(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Adds independent noise of standard deviation 0.08 to every pixel."""
    return images + 0.08 * torch.randn(images.shape, generator=generator)


def smear(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Adds a soft stain of random colours."""
    stain = torch.randn(len(images), 3, 4, 4, generator=generator)
    return images + 0.1 * interpolate(stain, size=images.shape[-2:], mode="bicubic", align_corners=False)


DAMAGES: tuple[Callable[..., Tensor], ...] = (blur, speckle, smear)
"""Faults of the pixels; a wrong attribute is the fourth fault."""


def preference_table(*, count: int = 3000, seed: int = 0) -> pa.Table:
    """Draws and labels pairs of the training prompts; takes seconds.

    Args:
        count: number of pairs.
        seed: seed of the drawings, the faults and the labels.

    Returns:
        A table with Pick-a-Pic's columns: ``caption``, ``jpg_0``, ``jpg_1`` (bytes of an image file), ``label_0``,
        ``label_1`` (1, 0, or 0.5 for a tie), ``image_0_uid``, ``image_1_uid``, ``ranking_id``, ``has_label``.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(TRAINING_PROMPTS), (count,), generator=generator).tolist()
    prompts = [TRAINING_PROMPTS[row] for row in rows]
    first, first_utility = careless_drawings(prompts, generator=generator)
    second, second_utility = careless_drawings(prompts, generator=generator)
    label = choose(first_utility, second_utility, generator=generator)
    names = random.Random(seed)
    uids = [[str(uuid.UUID(int=names.getrandbits(128), version=4)) for _ in range(count)] for _ in range(2)]
    return pa.table(
        {
            "caption": prompts,
            "jpg_0": [jpeg(image) for image in first],
            "jpg_1": [jpeg(image) for image in second],
            "label_0": pa.array(label.tolist(), pa.float64()),
            "label_1": pa.array((1.0 - label).tolist(), pa.float64()),
            "image_0_uid": uids[0],
            "image_1_uid": uids[1],
            "ranking_id": pa.array(range(count), pa.int64()),
            "has_label": [True] * count,
        }
    )


def careless_drawings(prompts: list[str], *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One drawing per prompt, some with a fault: images (B, 3, 32, 32) in [0, 1] and their true utility (B,).

    The utility follows from how the image was made; it agrees with the oracle's reading of it (see the tests).
    """
    count = len(prompts)
    kind = torch.randint(len(DAMAGES) + 1, (count,), generator=generator)
    kind[torch.rand(count, generator=generator) >= FAULT_RATE] = -1
    slips = kind == len(DAMAGES)
    drawn = [_slip(p, generator=generator) if slip else p for p, slip in zip(prompts, slips.tolist(), strict=True)]
    scenes = sample_scenes(drawn, generator=generator)
    clean = draw(scenes)
    images = clean.clone()
    for index, damage in enumerate(DAMAGES):
        chosen = kind == index
        images[chosen] = damage(clean[chosen], generator=generator).clamp(0.0, 1.0)
    right = clean.clone()  # a drawing without a wrong attribute is right but for its damage
    right[slips] = draw(_corrected(scenes, prompts)[slips])
    residual = (images - right).square().mean((1, 2, 3)).sqrt()
    vividness = (scenes.vividness - 0.45) / 0.45
    return images, utility(vividness=vividness, wrong=slips.float(), residual=residual)


def _slip(prompt: str, *, generator: torch.Generator) -> str:
    """The prompt with one attribute exchanged."""
    description = parse_prompt(prompt)
    name, values = (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES), ("background", BACKGROUNDS))[
        int(torch.randint(4, (1,), generator=generator))
    ]
    others = [value for value in values if value != getattr(description, name)]
    exchanged: Description = replace(
        description, **{name: others[int(torch.randint(len(others), (1,), generator=generator))]}
    )
    return exchanged.prompt


def _corrected(scenes: Scenes, prompts: list[str]) -> Scenes:
    """The same scenes with the named attributes of the prompts."""
    wanted = sample_scenes(prompts, generator=torch.Generator().manual_seed(0))
    radius = torch.where(scenes.size == wanted.size, scenes.radius, wanted.radius)
    return replace(
        scenes,
        shape=wanted.shape,
        colour=wanted.colour,
        size=wanted.size,
        background=wanted.background,
        radius=radius,
    )


def jpeg(image: Tensor) -> bytes:
    """An image (3, H, W) in [0, 1] as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    to_pil(image).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()

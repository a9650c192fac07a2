"""Fresh drawings for the tests of the embedded world."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seedpo.scenes.drawing import (
    HUE_JITTER,
    POLYGONS,
    RADIUS,
    ROTATION,
    SHADE,
    Scenes,
    draw,
    position_range,
    sample_scenes,
)
from seedpo.scenes.prompts import (
    BACKGROUNDS,
    COLOURS,
    EVALUATION_PROMPTS,
    SHAPES,
    SIZES,
    TRAINING_PROMPTS,
    parse_prompt,
)

ALL_PROMPTS = [*TRAINING_PROMPTS, *EVALUATION_PROMPTS]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_scenes(prompts: Sequence[str] = ALL_PROMPTS, *, seed: int = 0) -> Scenes:
    return sample_scenes(prompts, generator=seeded(seed))


def some_drawings(prompts: Sequence[str] = ALL_PROMPTS, *, seed: int = 0) -> Tensor:
    return draw(some_scenes(prompts, seed=seed))


def one_scene(prompt: str, **changes: float) -> Scenes:
    """The scene in the middle of every range, with changes."""
    named = parse_prompt(prompt)
    values = {
        "x": 16.0,
        "y": 16.0,
        "radius": sum(RADIUS[named.size]) / 2,
        "rotation": 0.0,
        "hue_jitter": 0.0,
        "shade": 0.85,
        "vividness": 0.9,
    } | changes
    return Scenes(
        shape=torch.tensor([SHAPES.index(named.shape)]),
        colour=torch.tensor([COLOURS.index(named.colour)]),
        size=torch.tensor([SIZES.index(named.size)]),
        background=torch.tensor([BACKGROUNDS.index(named.background)]),
        **{name: torch.tensor([value]) for name, value in values.items()},
    )


def scaled(values: Tensor, limits: tuple[float, float]) -> Tensor:
    return (values - limits[0]) / (limits[1] - limits[0])


def free_attributes(scenes: Scenes) -> Tensor:
    """Free attributes on a scale from 0 to 1, (B, 5) in the oracle's order; NaN for the rotation of round shapes."""
    low, high = position_range(scenes.shape, scenes.radius)
    turns = torch.tensor([name in POLYGONS for name in SHAPES])[scenes.shape]
    return torch.stack(
        [
            (scenes.x - low) / (high - low),
            (scenes.y - low) / (high - low),
            torch.where(turns, scaled(scenes.rotation, ROTATION), torch.nan),
            scaled(scenes.hue_jitter, HUE_JITTER),
            scaled(scenes.shade, SHADE),
        ],
        1,
    )

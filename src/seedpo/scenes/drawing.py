"""The drawings of the embedded world: what a scene is, and how it becomes pixels.

A scene is one object on a plain background. Four attributes are *named* by the prompt (size, colour, shape,
background), five are *free* (position x and y, rotation, hue jitter, shade) and carry the diversity of the world, and
one is a matter of *quality*: how vivid the object's colour is. Drawings of every vividness are legitimate; the
simulated annotator of :mod:`seedpo.scenes.taste` likes the vivid ones.

Every image has exactly one description: colours, sizes and backgrounds keep gaps between their ranges, and rotation
stays within a range that no symmetry of a shape folds back on itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from seedpo.scenes.prompts import BACKGROUNDS, COLOURS, SHAPES, SIZES, Description, parse_prompt

IMAGE_SIZE = 32
"""Width and height of a drawing in pixels."""

MARGIN = 1.0
"""Least distance in pixels between the object and the border of the image."""

HUES: dict[str, float] = {
    "red": 0.0,
    "orange": 30.0,
    "yellow": 58.0,
    "green": 120.0,
    "cyan": 182.0,
    "blue": 225.0,
    "purple": 275.0,
    "pink": 325.0,
}
"""Central hue of each colour in degrees."""

BACKGROUND_RGB: dict[str, tuple[float, float, float]] = {
    "white": (0.95, 0.95, 0.95),
    "gray": (0.52, 0.52, 0.52),
    "black": (0.06, 0.06, 0.06),
    "brown": (0.36, 0.24, 0.14),
    "navy": (0.08, 0.11, 0.34),
}
"""Colour of each background, channels in [0, 1]."""

RADIUS: dict[str, tuple[float, float]] = {"small": (5.8, 6.8), "large": (8.6, 10.0)}
"""Range of the nominal radius of each size in pixels."""

HUE_JITTER = (-8.0, 8.0)
"""Range of the free hue jitter in degrees around the colour's central hue."""

SHADE = (0.70, 1.0)
"""Range of the free shade: the value (HSV) of the object's colour."""

ROTATION = (-20.0, 20.0)
"""Range of the free rotation in degrees (shapes with a visible rotation only)."""

VIVIDNESS = (0.45, 0.90)
"""Range of the vividness: the saturation (HSV) of the object's colour."""


def _regular(corners: int, radius: float) -> list[tuple[float, float]]:
    turn = [2 * math.pi * i / corners - math.pi / 2 for i in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in turn]


def _star(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
    tips, dents = _regular(points, outer), _regular(2 * points, inner)[1::2]
    return [corner for pair in zip(tips, dents, strict=True) for corner in pair]


def _plus(length: float, width: float) -> list[tuple[float, float]]:
    arm = [(-width, -length), (width, -length), (width, -width)]
    turned, corners = arm, []
    for _ in range(4):
        corners += turned
        turned = [(-y, x) for x, y in turned]
    return corners


POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": _regular(3, 1.18),
    "star": _star(5, 1.22, 0.56),
    "cross": _plus(1.05, 0.36),
}
"""Corners of the polygonal shapes in units of the nominal radius; the centroid is the origin."""

CIRCLES: dict[str, tuple[float, float]] = {"circle": (0.93, 0.0), "ring": (1.05, 0.55)}
"""Outer and inner radius of the round shapes in units of the nominal radius."""

EXTENT: dict[str, float] = {name: max(math.hypot(x, y) for x, y in corners) for name, corners in POLYGONS.items()} | {
    name: outer for name, (outer, _) in CIRCLES.items()
}
"""Largest distance of a shape's edge from its centre in units of the nominal radius."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        shape: index into ``SHAPES``, (B,) int64.
        colour: index into ``COLOURS``, (B,) int64.
        size: index into ``SIZES``, (B,) int64.
        background: index into ``BACKGROUNDS``, (B,) int64.
        x: horizontal position of the centre in pixels, (B,).
        y: vertical position of the centre in pixels, downwards, (B,).
        radius: nominal radius in pixels, (B,).
        rotation: rotation in degrees, (B,); 0 for round shapes.
        hue_jitter: deviation from the colour's central hue in degrees, (B,).
        shade: value of the object's colour in [0, 1], (B,).
        vividness: saturation of the object's colour in [0, 1], (B,).
    """

    shape: Tensor
    colour: Tensor
    size: Tensor
    background: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    rotation: Tensor
    hue_jitter: Tensor
    shade: Tensor
    vividness: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Tensor) -> Scenes:
        return Scenes(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def descriptions(self) -> list[Description]:
        """The named attributes of each scene."""
        return [
            Description(size=SIZES[s], colour=COLOURS[c], shape=SHAPES[f], background=BACKGROUNDS[b])
            for s, c, f, b in zip(
                self.size.tolist(), self.colour.tolist(), self.shape.tolist(), self.background.tolist(), strict=True
            )
        ]


def sample_scenes(
    prompts: Sequence[str],
    *,
    generator: torch.Generator,
    radius: Mapping[str, tuple[float, float]] = RADIUS,
) -> Scenes:
    """Draws the free attributes and the vividness of one scene per prompt, uniformly over their ranges.

    Args:
        prompts: one prompt per scene.
        generator: source of randomness.
        radius: range of the nominal radius of each size in pixels; the world's own if not given.

    Raises:
        DataError: if a prompt does not describe a scene of this world.
    """
    descriptions = [parse_prompt(prompt) for prompt in prompts]
    count = len(descriptions)

    def uniform(low: Tensor | float, high: Tensor | float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    shape = torch.tensor([SHAPES.index(d.shape) for d in descriptions])
    size = torch.tensor([SIZES.index(d.size) for d in descriptions])
    limits = torch.tensor([radius[d.size] for d in descriptions])
    radii = uniform(limits[:, 0], limits[:, 1])
    low, high = position_range(shape, radii)
    turns = torch.tensor([float(d.shape in POLYGONS) for d in descriptions])
    return Scenes(
        shape=shape,
        colour=torch.tensor([COLOURS.index(d.colour) for d in descriptions]),
        size=size,
        background=torch.tensor([BACKGROUNDS.index(d.background) for d in descriptions]),
        x=uniform(low, high),
        y=uniform(low, high),
        radius=radii,
        rotation=uniform(*ROTATION) * turns,
        hue_jitter=uniform(*HUE_JITTER),
        shade=uniform(*SHADE),
        vividness=uniform(*VIVIDNESS),
    )


def position_range(shape: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest legitimate coordinate of the centre in pixels, for shape indices and radii (B,)."""
    extent = torch.tensor([EXTENT[name] for name in SHAPES])[shape] * radius
    return extent + MARGIN, IMAGE_SIZE - extent - MARGIN


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Converts HSV to RGB: hue in degrees, the others in [0, 1], all (B,); returns (B, 3)."""
    sector = (hue[:, None] / 60.0 + torch.tensor([5.0, 3.0, 1.0])) % 6.0
    fall = torch.minimum(sector, 4.0 - sector).clamp(0.0, 1.0)
    return value[:, None] * (1.0 - saturation[:, None] * fall)


def object_rgb(scenes: Scenes) -> Tensor:
    """Colour of each object, (B, 3) in [0, 1]."""
    hue = torch.tensor([HUES[name] for name in COLOURS])[scenes.colour] + scenes.hue_jitter
    return hsv_to_rgb(hue, scenes.vividness, scenes.shade)


def background_rgb(scenes: Scenes) -> Tensor:
    """Colour of each background, (B, 3) in [0, 1]."""
    return torch.tensor([BACKGROUND_RGB[name] for name in BACKGROUNDS])[scenes.background]


Distance = Callable[[Tensor, Tensor], Tensor]
"""Signed distance of points (x, y), (...,) each, to the edge of a shape: (...,), negative inside."""


def _polygon_distance(corners: Tensor) -> Distance:
    """Signed distance to a closed polygon with corners (V, 2)."""
    edges = corners.roll(-1, 0) - corners
    sides = torch.cat([corners, corners.roll(-1, 0)[:, 1:], edges, edges.square().sum(1, keepdim=True)], 1).tolist()

    def distance(x: Tensor, y: Tensor) -> Tensor:
        # Side by side: a further axis for the corners would make arrays that no processor's cache holds.
        nearest = torch.full_like(x, math.inf)
        inside = torch.zeros_like(x, dtype=torch.bool)
        for start_x, start_y, end_y, edge_x, edge_y, length_squared in sides:
            right, down = x - start_x, y - start_y
            along = ((right * edge_x + down * edge_y) / length_squared).clamp(0.0, 1.0)
            apart = (right - along * edge_x).square() + (down - along * edge_y).square()
            nearest = torch.minimum(nearest, apart)
            left = edge_x * down - edge_y * right > 0
            above_end = y >= end_y
            inside ^= ((y >= start_y) != above_end) & (left == above_end)
        nearest = nearest.sqrt()
        return torch.where(inside, -nearest, nearest)

    return distance


def _round_distance(outer: float, inner: float) -> Distance:
    """Signed distance to a disc (``inner`` = 0) or a ring."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        length = (x.square() + y.square()).sqrt()
        return torch.maximum(length - outer, inner - length) if inner else length - outer

    return distance


DISTANCES: dict[str, Distance] = {
    name: _polygon_distance(torch.tensor(corners)) for name, corners in POLYGONS.items()
} | {name: _round_distance(outer, inner) for name, (outer, inner) in CIRCLES.items()}
"""Signed distance of each shape at unit nominal radius."""


def coverage(shape: str, *, x: Tensor, y: Tensor, radius: Tensor, rotation: Tensor) -> Tensor:
    """Share of each pixel that the object covers: the anti-aliased mask of one shape.

    Args:
        shape: name of the shape, of all scenes in the batch.
        x, y: centre in pixels, (...,).
        radius: nominal radius in pixels, (...,).
        rotation: rotation in degrees, (...,).

    Returns:
        Coverage in [0, 1], (..., H, W).
    """
    centres = torch.arange(IMAGE_SIZE, dtype=x.dtype) + 0.5
    right = centres.expand(IMAGE_SIZE, -1) - x[..., None, None]
    down = centres[:, None].expand(-1, IMAGE_SIZE) - y[..., None, None]
    angle = torch.deg2rad(rotation)[..., None, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    scale = radius[..., None, None]
    distance = DISTANCES[shape]((cos * right + sin * down) / scale, (cos * down - sin * right) / scale)
    return (0.5 - distance * scale).clamp(0.0, 1.0)


def draw(scenes: Scenes) -> Tensor:
    """Draws scenes: (B, 3, 32, 32) in [0, 1]."""
    mask = torch.empty(len(scenes), IMAGE_SIZE, IMAGE_SIZE)
    for index, shape in enumerate(SHAPES):
        chosen = scenes.shape == index
        part = scenes[chosen]
        mask[chosen] = coverage(shape, x=part.x, y=part.y, radius=part.radius, rotation=part.rotation)
    mask = mask[:, None]
    return mask * object_rgb(scenes)[:, :, None, None] + (1 - mask) * background_rgb(scenes)[:, :, None, None]

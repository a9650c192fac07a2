"""The truth of the embedded world: what an image shows, and how far it is from any legitimate drawing of its prompt.

Analysis by synthesis. The background is read off the border, the object's mask is the share of the object's colour in
each pixel, its moments give position and size, and the shape is the one whose anti-aliased drawing explains the mask
best. The fitted scene is moved into the legitimate ranges, drawn again, and compared with the image pixel by pixel.
Whatever is not a legitimate drawing (a pattern, a second object, blur, a colour out of range) is left over as
residual, so an image cannot please the oracle by anything but being right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seedpo.core.types import TensorRows
from seedpo.errors import DataError
from seedpo.scenes.drawing import (
    BACKGROUND_RGB,
    HUE_JITTER,
    HUES,
    IMAGE_SIZE,
    POLYGONS,
    RADIUS,
    ROTATION,
    SHADE,
    VIVIDNESS,
    Scenes,
    background_rgb,
    coverage,
    draw,
    position_range,
)
from seedpo.scenes.prompts import BACKGROUNDS, COLOURS, SHAPES, SIZES, parse_prompt

NAMED = ("shape", "colour", "size", "background")
"""Attributes that a prompt names."""

FREE = ("x", "y", "rotation", "hue_jitter", "shade")
"""Attributes that a prompt leaves open."""

LEAST_CONTRAST = 0.06
"""Distance in RGB under which nothing stands out from the background and no object is read."""

_COARSE_ROTATIONS = (-20.0, -10.0, 0.0, 10.0, 20.0)
_NEWTON_STEPS = 6
_AMBIGUOUS = 4.0
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Readings(TensorRows):
    """What the oracle reads from images.

    Attributes:
        correct: whether each named attribute of the prompt is found, (B, 4) bool, in the order of ``NAMED``.
        residual: root mean square difference to the nearest legitimate drawing of the prompt, (B,) in [0, 1].
        vividness: saturation of the object moved into its range and scaled to [0, 1], (B,).
        free: free attributes scaled so that the legitimate range is [0, 1], (B, 5), in the order of ``FREE``;
            NaN where there is no object or the shape has no visible rotation.
        scenes: index of each named attribute that is seen, (B, 4) int64, in the order of ``NAMED``; -1 for no object.
    """

    correct: Tensor
    residual: Tensor
    vividness: Tensor
    free: Tensor
    scenes: Tensor


def read_images(images: Tensor, prompts: Sequence[str]) -> Readings:
    """Reads images against their prompts.

    Args:
        images: (B, 3, 32, 32) in [0, 1].
        prompts: one per image.

    Raises:
        DataError: if sizes differ, values are not finite, or a prompt is not of this world.
    """
    if images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE) or len(images) != len(prompts):
        raise DataError(
            f"the oracle reads images of shape (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), one per prompt; "
            f"got {tuple(images.shape)} for {len(prompts)} prompts"
        )
    if not torch.isfinite(images).all():
        raise DataError("an image holds values that are not finite; look for a NaN in the model that made it")
    images = images.detach().float().cpu()
    parts = [
        _read(images[start : start + _BATCH], prompts[start : start + _BATCH])
        for start in range(0, len(images), _BATCH)
    ]
    return Readings.cat(parts)


@torch.no_grad()
def _read(images: Tensor, prompts: Sequence[str]) -> Readings:
    wanted = torch.tensor(
        [
            [SHAPES.index(d.shape), COLOURS.index(d.colour), SIZES.index(d.size), BACKGROUNDS.index(d.background)]
            for d in map(parse_prompt, prompts)
        ]
    )
    background = _border_colour(images)
    mask, contrast = _object_mask(images, background)
    poses, errors = _coarse_fits(mask)
    seen_shape, seen_pose = _best_fit(mask, poses, errors)
    colour = _object_colour(images, background, seen_shape, seen_pose)
    hue, saturation, value = _rgb_to_hsv(colour)
    seen = torch.stack(
        [seen_shape, _nearest_hue(hue), _nearest_size(seen_pose[:, 2]), _nearest_background(background)], 1
    )
    present = contrast > LEAST_CONTRAST
    seen = torch.where(present[:, None], seen, -1)
    wanted_pose = seen_pose.clone()
    other = seen_shape != wanted[:, 0]
    wanted_pose[other] = _refined(mask[other], wanted[other, 0], poses[other, wanted[other, 0]])[0]
    nearest = _legitimate(images, wanted, wanted_pose)
    low, high = position_range(seen_shape, seen_pose[:, 2])
    jitter = (hue - torch.tensor(list(HUES.values()))[_nearest_hue(hue)] + 180.0) % 360.0 - 180.0
    turns = torch.tensor([name in POLYGONS for name in SHAPES])[seen_shape]
    free = torch.stack(
        [
            (seen_pose[:, 0] - low) / (high - low),
            (seen_pose[:, 1] - low) / (high - low),
            torch.where(turns, _scaled(seen_pose[:, 3], ROTATION), math.nan),
            _scaled(jitter, HUE_JITTER),
            _scaled(value, SHADE),
        ],
        1,
    ).clamp(0.0, 1.0)
    return Readings(
        correct=seen == wanted,
        residual=(images - nearest).square().mean((1, 2, 3)).sqrt(),
        vividness=torch.where(present, _scaled(saturation, VIVIDNESS).clamp(0.0, 1.0), 0.0),
        free=torch.where(present[:, None], free, math.nan),
        scenes=seen,
    )


def _scaled(values: Tensor, limits: tuple[float, float]) -> Tensor:
    return (values - limits[0]) / (limits[1] - limits[0])


def _border_colour(images: Tensor) -> Tensor:
    """Median colour of the border, (B, 3): a legitimate object never touches it."""
    border = torch.ones(IMAGE_SIZE, IMAGE_SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    return images[:, :, border].median(-1).values


def _object_mask(images: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Share of the object's colour in each pixel, (B, H, W), and its distance from the background, (B,).

    The object's colour is the median of the 24 pixels that stand out most; the smallest object covers about 40.
    """
    difference = images - background[:, :, None, None]
    strongest = difference.square().sum(1).flatten(1).topk(24).indices
    colour = difference.flatten(2).gather(2, strongest[:, None].expand(-1, 3, -1)).median(-1).values
    power = colour.square().sum(1)
    mask = (difference * colour[:, :, None, None]).sum(1) / power.clamp(min=1e-6)[:, None, None]
    return mask.clamp(0.0, 1.0), power.sqrt()


def _centres() -> Tensor:
    return torch.arange(IMAGE_SIZE) + 0.5


def _unit_areas() -> Tensor:
    """Area of each shape at unit nominal radius, measured on its own drawing."""
    middle = torch.full((1,), IMAGE_SIZE / 2)
    areas = [
        coverage(shape, x=middle, y=middle, radius=torch.full((1,), 8.0), rotation=torch.zeros(1)).sum() / 64.0
        for shape in SHAPES
    ]
    return torch.stack(areas)


_UNIT_AREAS = _unit_areas()


def _coarse_fits(mask: Tensor) -> tuple[Tensor, Tensor]:
    """For every shape the pose from the mask's moments with the best of a few rotations.

    Returns:
        Poses (B, S, 4) as x, y, radius, rotation, and squared errors (B, S).
    """
    solid = torch.where(mask > 0.25, mask, 0.0)
    area = solid.sum((1, 2)).clamp(min=1.0)
    x = (solid.sum(1) * _centres()).sum(1) / area
    y = (solid.sum(2) * _centres()).sum(1) / area
    poses, errors = [], []
    for index, shape in enumerate(SHAPES):
        radius = (area / _UNIT_AREAS[index]).sqrt().clamp(2.0, IMAGE_SIZE / 2.0)
        angles = torch.tensor(_COARSE_ROTATIONS if shape in POLYGONS else (0.0,))
        drawn = coverage(
            shape,
            x=x[:, None].expand(-1, len(angles)),
            y=y[:, None].expand(-1, len(angles)),
            radius=radius[:, None].expand(-1, len(angles)),
            rotation=angles.expand(len(mask), -1),
        )
        error, best = (drawn - mask[:, None]).square().sum((2, 3)).min(1)
        poses.append(torch.stack([x, y, radius, angles[best]], 1))
        errors.append(error)
    return torch.stack(poses, 1), torch.stack(errors, 1)


def _coverage_of(shape: Tensor, pose: Tensor) -> Tensor:
    """Masks (B, H, W) of shape indices (B,) and poses (B, 4)."""
    mask = torch.empty(len(shape), IMAGE_SIZE, IMAGE_SIZE)
    for index, name in enumerate(SHAPES):
        chosen = shape == index
        if chosen.any():
            x, y, radius, rotation = pose[chosen].unbind(1)
            mask[chosen] = coverage(name, x=x, y=y, radius=radius, rotation=rotation)
    return mask


def _best_fit(mask: Tensor, poses: Tensor, errors: Tensor) -> tuple[Tensor, Tensor]:
    """The shape (B,) and pose (B, 4) that explain the mask best; the runner-up is tried where it comes close."""
    order = errors.argsort(1)
    rows = torch.arange(len(mask))
    first, second = order[:, 0], order[:, 1]
    pose, error = _refined(mask, first, poses[rows, first])
    close = errors[rows, second] < _AMBIGUOUS * errors[rows, first]
    other_pose, other_error = _refined(mask[close], second[close], poses[close, second[close]])
    shape, pose, error = first.clone(), pose.clone(), error.clone()
    better = other_error < error[close]
    winners = rows[close][better]
    shape[winners], pose[winners] = second[winners], other_pose[better]
    return shape, pose


def _refined(mask: Tensor, shape: Tensor, pose: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Newton steps on the pose (B, 4) of given shapes (B,): the best pose and its squared error (B,)."""
    steps = torch.tensor([0.25, 0.25, 0.2, 3.0])
    lowest = torch.tensor([0.0, 0.0, 2.0, ROTATION[0] - 10.0])
    highest = torch.tensor([IMAGE_SIZE, IMAGE_SIZE, IMAGE_SIZE / 2, ROTATION[1] + 10.0])
    turns = torch.tensor([name in POLYGONS for name in SHAPES])[shape]
    best, best_error = pose, torch.full((len(mask),), math.inf)
    offsets = torch.cat([torch.zeros(1, 4), torch.diag(steps)])
    shapes = shape.repeat_interleave(len(offsets))
    for iteration in range(_NEWTON_STEPS + 1):
        masks = _coverage_of(shapes, (pose[:, None] + offsets).flatten(0, 1))
        drawn, *moved = masks.view(len(pose), len(offsets), IMAGE_SIZE**2).unbind(1)
        rest = mask.flatten(1) - drawn
        error = rest.square().sum(1)
        better = error < best_error
        best, best_error = torch.where(better[:, None], pose, best), torch.where(better, error, best_error)
        if iteration == _NEWTON_STEPS:
            break
        slopes = torch.stack([(after - drawn) / step for after, step in zip(moved, steps, strict=True)], 2)
        slopes[:, :, 3] *= turns[:, None]
        normal = slopes.mT @ slopes + torch.diag(torch.tensor([1e-2, 1e-2, 1e-2, 1e-3]))
        move = torch.linalg.solve(normal, slopes.mT @ rest[:, :, None])[:, :, 0]
        pose = (pose + move.clamp(-4 * steps, 4 * steps)).clamp(lowest, highest)
    return best, best_error


def _object_colour(images: Tensor, background: Tensor, shape: Tensor, pose: Tensor) -> Tensor:
    """Least-squares colour of the object under its mask, (B, 3)."""
    mask = _coverage_of(shape, pose)[:, None]
    difference = images - background[:, :, None, None]
    share = (mask * difference).sum((2, 3)) / mask.square().sum((2, 3)).clamp(min=1e-6)
    return (background + share).clamp(0.0, 1.0)


def _rgb_to_hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in degrees, saturation and value of colours (B, 3)."""
    value, lowest = rgb.amax(1), rgb.amin(1)
    chroma = (value - lowest).clamp(min=1e-6)
    red, green, blue = rgb.unbind(1)
    hue = torch.where(
        value == red,
        (green - blue) / chroma,
        torch.where(value == green, (blue - red) / chroma + 2.0, (red - green) / chroma + 4.0),
    )
    return (hue * 60.0) % 360.0, (value - lowest) / value.clamp(min=1e-6), value


def _nearest_hue(hue: Tensor) -> Tensor:
    distance = (hue[:, None] - torch.tensor([HUES[name] for name in COLOURS]) + 180.0) % 360.0 - 180.0
    return distance.abs().argmin(1)


def _nearest_size(radius: Tensor) -> Tensor:
    return (radius > (RADIUS["small"][1] + RADIUS["large"][0]) / 2.0).long()


def _nearest_background(colour: Tensor) -> Tensor:
    table = torch.tensor([BACKGROUND_RGB[name] for name in BACKGROUNDS])
    return torch.cdist(colour, table).argmin(1)


def _legitimate(images: Tensor, wanted: Tensor, pose: Tensor) -> Tensor:
    """The drawing (B, 3, H, W) of the prompt that comes nearest: pose and colour moved into their ranges."""
    shape, colour, size, background = wanted.unbind(1)
    limits = torch.tensor([RADIUS[name] for name in SIZES])[size]
    radius = pose[:, 2].clamp(limits[:, 0], limits[:, 1])
    low, high = position_range(shape, radius)
    turns = torch.tensor([name in POLYGONS for name in SHAPES])[shape]
    scenes = Scenes(
        shape=shape,
        colour=colour,
        size=size,
        background=background,
        x=pose[:, 0].clamp(low, high),
        y=pose[:, 1].clamp(low, high),
        radius=radius,
        rotation=pose[:, 3].clamp(*ROTATION) * turns,
        hue_jitter=torch.zeros(len(images)),
        shade=torch.ones(len(images)),
        vividness=torch.ones(len(images)),
    )
    pose = torch.stack([scenes.x, scenes.y, scenes.radius, scenes.rotation], 1)
    hue, saturation, value = _rgb_to_hsv(_object_colour(images, background_rgb(scenes), shape, pose))
    jitter = (hue - torch.tensor([HUES[name] for name in COLOURS])[colour] + 180.0) % 360.0 - 180.0
    return draw(
        replace(
            scenes,
            hue_jitter=jitter.clamp(*HUE_JITTER),
            shade=value.clamp(*SHADE),
            vividness=saturation.clamp(*VIVIDNESS),
        )
    )

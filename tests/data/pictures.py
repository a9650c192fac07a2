"""Image files and sets of them, made for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

RED, BLUE, GREEN = (200, 10, 20), (10, 20, 200), (10, 180, 30)
SIZE = (8, 6)
"""Width and height."""


def encoded(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def image_file(colour: tuple[int, int, int], *, kind: str = "PNG", size: tuple[int, int] = SIZE) -> bytes:
    return encoded(Image.new("RGB", size, colour), kind)


def noise_file(kind: str = "PNG", *, size: tuple[int, int] = SIZE, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def ramp(width: int, height: int) -> Image.Image:
    """Red rises to the right and green downwards, each from 0 to 255."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width).round()[None]
    pixels[..., 1] = np.linspace(0, 255, height).round()[:, None]
    return Image.fromarray(pixels)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = SIZE) -> Tensor:
    return (torch.tensor(colour) / 255)[:, None, None].expand(3, size[1], size[0])


def table(*labels: tuple[Any, Any], **columns: list[Any]) -> pa.Table:
    """Pick-a-Pic's columns, one row for each pair of labels: red first, blue second."""
    count = len(labels)
    values: dict[str, list[Any]] = {
        "caption": [f"prompt {row}" for row in range(count)],
        "jpg_0": [image_file(RED)] * count,
        "jpg_1": [image_file(BLUE)] * count,
        "label_0": [first for first, _ in labels],
        "label_1": [second for _, second in labels],
        "image_0_uid": ["a"] * count,
    }
    return pa.table(values | columns)


def write_images(folder: Path, **files: bytes) -> None:
    """Files by name; two underscores stand for the dot of the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)

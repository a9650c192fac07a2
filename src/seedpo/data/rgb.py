"""Every kind of image as upright 8-bit RGB; needs no torch."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from seedpo.errors import DataError

ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Endings of the names of image files."""

_ORIENTATION = 0x0112
"""EXIF's number of the tag that says how the camera was held."""

_LYING = (5, 6, 7, 8)
"""Its values where height and width change places."""

_SIXTEEN_BITS = 257.0
"""Steps of a 16-bit value for each step of an 8-bit one: 65535 / 255."""


class UnusualValues(DataError):
    """Pixels that are neither of 8 nor of 16 bits; the message says of which mode, the caller adds where."""


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as EXIF says; its pixels are not decoded.

    Of a PNG file EXIF that stands behind the pixels, which is rare, is not looked for.
    """
    width, height = image.size
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the pixels to look behind them
        return width, height
    return (height, width) if image.getexif().get(_ORIENTATION, 1) in _LYING else (width, height)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image turned as EXIF says, in 8-bit RGB, transparent parts over white; colour profiles are not applied.

    Raises:
        UnusualValues: if its values are neither of 8 nor of 16 bits.
    """
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UnusualValues(f"values of mode {image.mode}; 8 or 16 bits are expected")
        return Image.fromarray(np.rint(values / _SIXTEEN_BITS).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")

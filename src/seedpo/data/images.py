"""Image files as pixels: every kind of file becomes upright 8-bit RGB, and the two images of a pair one size.

Colour profiles are not applied, as in the usual training code: the stored numbers are taken for sRGB.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from seedpo.data.rgb import decoded
from seedpo.errors import DataError


def read_image(content: object, *, folder: Path | None = None) -> Image.Image:
    """Decodes an image file: upright, in RGB, transparent parts over white; of several frames the first.

    Args:
        content: the bytes of the file, its path, or Hugging Face's ``{"bytes": ..., "path": ...}``.
        folder: where relative paths begin and within which all must lie; `None`: paths are refused.

    Raises:
        DataError: if it cannot be read; the message says why, and the caller adds where.
    """
    return decoded(read_file(content, folder=folder))


def read_file(content: object, *, folder: Path | None = None) -> bytes:
    """The bytes of an image file, given as :func:`read_image` takes it.

    Raises:
        DataError: if there are none; the message says why, and the caller adds where.
    """
    if isinstance(content, Mapping):
        content = content["bytes"] if content.get("bytes") is not None else content.get("path")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if not isinstance(content, str | Path) or not str(content):
        seen = "nothing" if content is None or content == "" else type(content).__name__
        raise DataError(f"not an image that can be read (neither bytes nor a path, but {seen})")
    if str(content).startswith(("http://", "https://")):
        raise DataError(f"not an image that can be read ({content} is an address: download the file first)")
    path = _within(folder, content)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"not an image that can be read ({path}: {error.strerror})") from error


def stored_path(content: object, *, folder: Path | None = None) -> Path | None:
    """The path of an image file, given as :func:`read_image` takes it; `None` where the content is the file itself.

    Raises:
        DataError: if the path cannot be one of a file in the folder.
    """
    if isinstance(content, Mapping):
        content = content["bytes"] if content.get("bytes") is not None else content.get("path")
    return _within(folder, content) if isinstance(content, str | Path) and str(content) else None


def _within(folder: Path | None, content: str | Path) -> Path:
    """The path of a file in a folder; links in it may lead out of it."""
    fix = "set pairs.image_folder to the folder that holds the images"
    if folder is None:
        raise DataError(f"not an image that can be read ({content} is a path, and there is no folder for it; {fix})")
    path = folder / content
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder)):  # noqa: PTH100
        raise DataError(f"not an image that can be read ({content} lies outside the folder {folder}; {fix})")
    return path


def fit(image: Image.Image, size: tuple[int, int], place: tuple[float, float]) -> tuple[Image.Image, tuple[int, int]]:
    """Resizes an image (Lanczos) until it just covers a size, and keeps a window of that size.

    Args:
        image: in RGB.
        size: height and width of the result in pixels.
        place: where the window lies in what is left over, down and across: 0 is the top or left, 1 the bottom or right.

    Returns:
        The window, and the rows and columns cut away above and to the left of it, in pixels of the resized image.
    """
    scale = max(size[0] / image.height, size[1] / image.width)
    height, width = max(size[0], round(image.height * scale)), max(size[1], round(image.width * scale))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    top, left = round(place[0] * (height - size[0])), round(place[1] * (width - size[1]))
    return image.crop((left, top, left + size[1], top + size[0])), (top, left)

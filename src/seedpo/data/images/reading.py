"""Image files as pixels: every kind of file becomes upright 8-bit RGB, and the two images of a pair one size.

Colour profiles are not applied, as in the usual training code: the stored numbers are taken for sRGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from seedpo.data.images.places import embedded_file, located, named
from seedpo.data.images.rgb import decoded
from seedpo.errors import DataError
from seedpo.files import read_bytes


def read_image(content: object, *, folder: Path | None = None) -> Image.Image:
    """Decodes an image file: upright, in RGB, transparent parts over white; of several frames the first.

    Args:
        content: the bytes of the file, also as a list of numbers, as a data URI or base64; its path; or Hugging Face's
            ``{"bytes": ..., "path": ...}``.
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
    try:
        source = _source(content, folder)
        if isinstance(source, bytes):
            return source
        return read_bytes(source)
    except OSError as error:
        raise DataError(f"not an image that can be read ({named(str(error.filename))}: {error.strerror})") from error
    except DataError as error:
        raise DataError(f"not an image that can be read ({error})") from error


def stored_path(content: object, *, folder: Path | None = None) -> Path | None:
    """The path of an image file, given as :func:`read_image` takes it; `None` where the content is the file itself.

    Raises:
        DataError: if it is neither a file nor the path of one in the folder.
    """
    try:
        source = _source(content, folder)
    except DataError as error:
        raise DataError(f"not an image that can be read ({error})") from error
    return source if isinstance(source, Path) else None


def _source(content: object, folder: Path | None) -> bytes | Path:
    """The file itself, or where it lies."""
    if isinstance(content, Mapping):
        content = content["bytes"] if content.get("bytes") is not None else content.get("path")
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)
    if isinstance(content, list | tuple) and content and all(type(value) is int for value in content):
        if not 0 <= min(content) <= max(content) < 256:
            raise DataError("a list of numbers that are no bytes, 0 to 255")
        return bytes(content)
    if not isinstance(content, str | Path) or not str(content):
        seen = "nothing" if content is None or content == "" else type(content).__name__
        raise DataError(f"neither bytes nor a path, but {seen}")
    embedded = embedded_file(content) if isinstance(content, str) else None
    return located(content, folder) if embedded is None else embedded


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

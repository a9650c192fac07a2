"""Images of a study: copies without metadata, named by their content, so that no name tells the origin."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from seedpo.data.images.rgb import UnusualValues, decoded, upright_rgb
from seedpo.errors import DataError
from seedpo.files import read_bytes, write_aside

Source = Path | bytes | Image.Image | Callable[[], Image.Image]
"""An image to store: a file, its bytes, pixels, or a function that draws it when it is needed."""

ID = re.compile(r"[0-9a-f]{32}")
"""An image's id: the first 32 hexadecimal digits of the SHA-256 of its PNG file."""


def image_id(content: bytes) -> str:
    """The id of a PNG file of a study."""
    return hashlib.sha256(content).hexdigest()[:32]


def encode(source: Source) -> bytes:
    """A PNG file of upright 8-bit RGB pixels without text, profile, EXIF or time.

    Transparent parts become white. Colour profiles are dropped, not applied. The result of :func:`encode` encodes to
    the same bytes.

    Raises:
        DataError: the image cannot be read; the message names the file.
    """
    if isinstance(source, Path | bytes):
        pixels = _read(source)
    else:
        pixels = _rgb(source if isinstance(source, Image.Image) else source())
    file = io.BytesIO()
    # A new image carries none of the text, profile and times of the file it was read from.
    Image.fromarray(np.asarray(pixels)).save(file, format="PNG")
    return file.getvalue()


def add_image(folder: Path, source: Source) -> str:
    """Puts a copy of an image into the folder of a study, unless the study has it already.

    Returns:
        The id by which groups name the image.

    Raises:
        DataError: the image cannot be read or written.
    """
    content = encode(source)
    name = image_id(content)
    path = folder / "images" / f"{name}.png"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path, unique=True, durable=False) as aside:
                aside.write_bytes(content)
        except OSError as error:
            raise DataError(f"image {path} cannot be written ({error.strerror}); free some space or fix it") from error
    return name


def _read(source: Path | bytes) -> Image.Image:
    what = str(source) if isinstance(source, Path) else "an image"
    try:
        content = read_bytes(source) if isinstance(source, Path) else source
    except OSError as error:
        raise DataError(f"{what} cannot be read ({error.strerror})") from error
    try:
        return decoded(content)
    except DataError as error:
        raise DataError(f"{what} is {error}; make it again or leave it out") from error


def _rgb(image: Image.Image) -> Image.Image:
    """Pixels as the readers for training see them: people judge what is trained on."""
    try:
        return upright_rgb(image)
    except UnusualValues as error:
        raise DataError(f"has {error}") from error

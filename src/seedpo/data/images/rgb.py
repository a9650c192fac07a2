"""Every kind of image as upright 8-bit RGB; needs no torch."""

from __future__ import annotations

import io
import warnings
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

import numpy as np
from PIL import Image, UnidentifiedImageError

from seedpo.data.images.metadata import without_metadata
from seedpo.data.images.signatures import FORMATS, HEAD, explanation, image_format
from seedpo.errors import DataError

_ORIENTATION = 0x0112
"""EXIF's number of the tag that says how the camera was held."""

_SOURCES = frozenset({"exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp"})
"""Where Pillow looks for it."""

_TURNS = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""What brings an image upright, by the value of that tag."""

_LYING = (5, 6, 7, 8)
"""Values where height and width change places."""

_SIXTEEN_BITS = 257.0
"""Steps of a 16-bit value for each step of an 8-bit one: 65535 / 255."""

_PREVIEW = 0x00FE
"""TIFF's number of the tag whose lowest bit says that an image is a small copy of another one in the file."""


class UnusualValues(DataError):
    """Pixels that are neither of 8 nor of 16 bits; the message says of which mode, the caller adds where."""


def decoded(file: bytes) -> Image.Image:
    """An image file in 8-bit RGB, upright, transparent parts over white; of several frames the first.

    Raises:
        DataError: if it cannot be read; the message says why, and the caller adds where.
    """
    with _opened(file) as image:
        try:
            with _quiet(image.format):
                image.load()
            return upright_rgb(image)
        except UnusualValues as error:
            raise DataError(f"not an image that can be read ({error})") from error
        except Exception as error:  # Pillow's decoders raise almost anything, SyntaxError too, for a damaged file
            raise DataError(f"not an image that can be read ({_reason(error)})") from error


def size_of_file(file: bytes) -> tuple[int, int]:
    """Width and height of an image file as it stands upright; its pixels are not decoded.

    Raises:
        DataError: if it is no image; the message says why, and the caller adds where.
    """
    with _opened(file) as image:
        return upright_size(image)


def _opened(file: bytes) -> Image.Image:
    """An image whose head is read, by its content: of a format in :data:`FORMATS`, without its metadata.

    Left in its ``info`` is what tells how the camera was held. This is the only place where Pillow opens files.
    """
    bare, info = without_metadata(file)
    known = image_format(file[:HEAD])
    try:
        Image.preinit()  # the usual formats, without the time that all of them take
        with _quiet(known):
            image = Image.open(io.BytesIO(bare), formats=[known] if known in Image.OPEN else _readable_formats())
        if image.format == "TIFF" and int(getattr(image, "tag_v2", {}).get(_PREVIEW, 0)) & 1:
            raise ValueError("its first page is only a small copy of another, as in a camera's raw file: convert it")
    except UnidentifiedImageError as error:
        raise DataError(f"not an image that can be read ({_unknown(file, known)})") from error
    except Exception as error:  # see above
        raise DataError(f"not an image that can be read ({_reason(error)})") from error
    image.info.update(info)
    return image


def _quiet(kind: str | None) -> AbstractContextManager[object]:
    """Holds back Pillow's warnings of damaged tags, which only TIFF's reader gives once metadata are taken out."""
    return warnings.catch_warnings(action="ignore", category=UserWarning) if kind == "TIFF" else nullcontext()


def _readable_formats() -> list[str]:
    """The formats of :data:`FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _unknown(file: bytes, known: str | None) -> str:
    """Why Pillow takes a file for no image."""
    if not file:
        return "no known format: an empty file"
    seen = f"{len(file)} bytes that begin with {file[:12]!r}"
    if known is not None:
        return f"a damaged {known} file: {seen}" if known in Image.OPEN else f"this Pillow reads no {known}: update it"
    return explanation(file[:HEAD]) or f"no known format: {seen}"


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."


def orientation(image: Image.Image) -> int:
    """How the camera was held, 1 to 8 as EXIF counts; 1, upright, where nothing tells or what tells is damaged.

    EXIF comes first; without its tag XMP's is taken, as Pillow does.
    """
    if image.format != "TIFF" and _SOURCES.isdisjoint(image.info):
        return 1
    try:
        with _quiet("TIFF"):  # EXIF is written as TIFF
            value = image.getexif().get(_ORIENTATION, 1)
        return int(value) if value in _TURNS else 1
    except Exception:  # metadata never spoil a picture
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an image once it is turned as EXIF says; its pixels are not decoded."""
    width, height = image.size
    if _ORIENTATION in getattr(image, "tag_v2", ()):  # Pillow has turned a TIFF's already
        return width, height
    if image.format == "PNG" and _SOURCES.isdisjoint(image.info):  # Pillow would decode it to look behind its pixels
        return width, height
    return (height, width) if orientation(image) in _LYING else (width, height)


def upright_rgb(image: Image.Image) -> Image.Image:
    """An image turned as EXIF says, in 8-bit RGB, transparent parts over white; colour profiles are not applied.

    Integers of 32 bits are taken for 8 bits if all are below 256, else for 16 bits: such a file does not say its range.

    Raises:
        UnusualValues: if its values are neither of 8 nor of 16 bits.
    """
    turn = _TURNS.get(orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        values = np.asarray(image, dtype=np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise UnusualValues(f"values of mode {image.mode}; 8 or 16 bits are expected")
        told = image.mode != "I" or image.format in ("PNG", "PPM")  # which are brought to the range of 16 bits
        step = _SIXTEEN_BITS if told or values.max() > 255 else 1.0
        return Image.fromarray(np.rint(values / step).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")

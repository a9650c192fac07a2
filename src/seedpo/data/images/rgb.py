"""Every kind of image as upright 8-bit RGB; needs no torch."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
from PIL import Image, UnidentifiedImageError

from seedpo.data.images.metadata import without_metadata
from seedpo.data.images.signatures import HEAD, explanation, image_format
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


PIXELS = 1 << 26
"""Pixels of an image at most, 8192 x 8192: a small file can stand for any number, which are 200 MB here in RGB."""

SHEET_PIXELS = 178_956_970
"""Pixels of a sheet of several images at most, which is as far as Pillow goes."""

SCANS = 10
"""Passes over :data:`PIXELS` pixels at most that a progressive JPEG takes, or as many more as it has fewer pixels."""


_SCAN = b"\xff\xda"
"""What each pass of a JPEG begins with, and nothing else in it is."""


class UnusualValues(DataError):
    """Pixels that are neither of 8 nor of 16 bits; the message says of which mode, the caller adds where."""


def decoded(file: bytes, *, largest: int = PIXELS) -> Image.Image:
    """An image file in 8-bit RGB, upright, transparent parts over white; of several frames the first.

    Args:
        file: its bytes.
        largest: pixels that it may have; it is refused by its head if it has more.

    Raises:
        DataError: if it cannot be read; the message says why, and the caller adds where.
    """
    with _opened(file, largest) as image:
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
    with _opened(file, PIXELS) as image:
        return upright_size(image)


def _opened(file: bytes, largest: int) -> Image.Image:
    """An image whose head is read, of the format that its first bytes tell, without its metadata.

    A format that the first bytes do not tell is never tried: Pillow has some that start programs.

    Left in its ``info`` is what tells how the camera was held. This is the only place where Pillow opens files.
    """
    known = image_format(file[:HEAD])
    Image.preinit()  # the usual formats, without the time that all of them take
    if known is not None and known not in Image.OPEN:
        Image.init()
    if known not in Image.OPEN:
        raise DataError(f"not an image that can be read ({_unknown(file, known)})")
    try:
        bare, info = without_metadata(file)
        with _quiet(known):
            image = Image.open(io.BytesIO(bare), formats=[known])
        if image.width * image.height > largest:
            size = f"{image.width:,} x {image.height:,} pixels"
            raise ValueError(f"{size} are more than {largest:,}: make it smaller")
        scans = bare.count(_SCAN) if known == "JPEG" else 1
        if scans * image.width * image.height > SCANS * PIXELS:
            raise ValueError(f"{scans:,} passes over its pixels: save it anew")
        if image.format == "TIFF" and int(getattr(image, "tag_v2", {}).get(_PREVIEW, 0)) & 1:
            raise ValueError("its first page is only a small copy of another, as in a camera's raw file: convert it")
    except UnidentifiedImageError as error:
        raise DataError(f"not an image that can be read ({_unknown(file, known)})") from error
    except Exception as error:  # see above
        raise DataError(f"not an image that can be read ({_reason(error)})") from error
    image.info.update(info)
    return image


@contextmanager
def _quiet(kind: str | None) -> Iterator[None]:
    """Holds back Pillow's warnings: of large images, and of damaged tags, of which TIFF's reader warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if kind == "TIFF":
            warnings.simplefilter("ignore", UserWarning)
        yield


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

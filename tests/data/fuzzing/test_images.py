"""Image files of every format, damaged, and content that is none."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seedpo.data.image_list import pixels_of, size_of
from seedpo.data.images.buckets import stored_size
from seedpo.data.images.reading import read_file, read_image
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed, harmless, outcome
from tests.data.fuzzing.readings import pixels_digest
from tests.data.fuzzing.values import PATHS, VALUES, WORDS, picture

KINDS = (
    "PNG",
    "JPEG",
    "WEBP",
    "TIFF",
    "GIF",
    "BMP",
    "AVIF",
    "JPEG2000",
    "ICO",
    "PPM",
    "TGA",
    "PCX",
    "DDS",
    "SGI",
    "QOI",
    "ICNS",
)
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I", "I;16", "F", "YCbCr", "LAB", "HSV", "PA")


@cache
def sound(kind: str, mode: str, *, odd: str) -> bytes | None:
    """A small image file with some metadata; `None`: the format has no such mode."""
    pixels = np.random.default_rng(0).integers(0, 256, (17, 18, 3), dtype=np.uint8)
    try:
        image = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode if mode != "PA" else "P")
        image = image.convert(mode)
        settings: dict[str, object] = {}
        if odd == "turned":
            exif = Image.Exif()
            exif[0x0112], exif[0x0128], exif[0x010E] = 6, 2, "a star"
            settings["exif"] = exif
        if odd == "profile":
            settings["icc_profile"] = b"\0" * 3000
        if odd == "text" and kind == "PNG":
            info = PngInfo()
            info.add_itxt("prompt", "a star" * 200, zip=True)
            settings["pnginfo"] = info
        if odd == "frames":
            settings |= {"save_all": True, "append_images": [image.copy(), image.copy()]}
        buffer = io.BytesIO()
        image.save(buffer, kind, **settings)
    except Exception:
        return None
    return buffer.getvalue()


@cache
def sounds() -> list[bytes]:
    files = [sound(kind, "RGB", odd="no") for kind in KINDS]
    files += [sound(kind, mode, odd="no") for kind in KINDS[:6] for mode in MODES]
    files += [sound(kind, "RGB", odd=odd) for kind in KINDS[:5] for odd in ("turned", "profile", "text", "frames")]
    return list(dict.fromkeys(file for file in files if file is not None))


STARTS = st.sampled_from(
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n",
        b"\xc5\xd0\xd3\xc6" + b"\x20\0\0\0" * 8,
        b"\xd7\xcd\xc6\x9a\0\0" + b"\0\0\0\0\x09\0\x09\0\x60\0" + b"\0" * 30,
        b"%PDF-1.4\n",
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        b"GRIB0001",
        b"\x89HDF\r\n\x1a\n",
        b"SIMPLE  =                    T" + b" " * 2850,
        b"\0\0\0\x1cftypavif",
        b"\0\0\0\x18ftypheic",
        b"P6\n70000 70000\n255\n",
        b"P5\n1 1\n65535\n\0",
        b"BM" + b"\xff" * 60,
        b"DDS " + b"\x7c\0\0\0" + b"\xff" * 120,
        b"PK\x03\x04",
        b"\x1f\x8b\x08",
        b"",
    ]
)


def read(content: bytes) -> None:
    with harmless(), a_folder() as folder:
        place = folder / "image.png"
        place.write_bytes(content)
        readings = [outcome(lambda: pixels_digest(read_image(content))) for _ in range(2)]
        assert readings[0] == readings[1]
        from_file, message = outcome(lambda: pixels_digest(pixels_of(place)))
        assert from_file == readings[0][0]
        assert message is None or str(place) in message
        if from_file is not None:
            mode, size, _ = from_file
            assert mode == "RGB"
            assert stored_size(content) in (size[::-1], size)
        _, message = outcome(lambda: size_of(place))
        assert message is None or str(place) in message


@fuzzed(80, content=st.deferred(lambda: st.sampled_from(sounds()).flatmap(damaged)))
def test_damaged_images_give_pixels_or_a_named_fault(content):
    read(content)


@fuzzed(
    40, content=STARTS.flatmap(lambda start: st.just(start) | st.binary(max_size=200).map(lambda rest: start + rest))
)
def test_files_that_are_no_images_are_named(content):
    read(content)


@fuzzed(
    60,
    content=VALUES
    | PATHS
    | WORDS
    | st.binary(max_size=40)
    | st.fixed_dictionaries({}, optional={"bytes": VALUES | st.binary(), "path": PATHS | VALUES}),
    with_folder=st.booleans(),
)
def test_whatever_stands_for_an_image_gives_bytes_or_a_named_fault(content, with_folder):
    with harmless(), a_folder() as folder:
        (folder / "red.png").write_bytes(picture())
        (folder / "sub").mkdir()
        root = folder if with_folder else None
        outcome(lambda: read_file(content, folder=root))
        outcome(lambda: pixels_digest(read_image(content, folder=root)))

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedpo.data.images.reading import read_image
from seedpo.data.images.signatures import (
    ENDINGS,
    FORMATS,
    explanation,
    foreign_image,
    image_format,
    is_image,
    may_be_image,
)
from seedpo.errors import DataError
from tests.data.pictures import RED, encoded, image_file, ramp

KNOWN = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"


@pytest.mark.parametrize("kind", KNOWN)
def test_an_image_is_known_by_its_content_whatever_its_name(tmp_path: Path, kind: str) -> None:
    content = encoded(ramp(12, 8), kind)
    assert image_format(content[:64]) == kind
    for name in ("noending", "a.part", "b.dat", "c.heic"):
        (tmp_path / name).write_bytes(content)
        assert may_be_image(tmp_path / name)
        assert foreign_image(tmp_path / name) is None


def test_avif_under_the_general_brand_is_no_heic() -> None:
    general = b"\0\0\0\x20ftypmif1\0\0\0\0mif1avifmiaf"
    assert image_format(general) == "AVIF"
    assert image_format(b"\0\0\0\x20ftypmif1\0\0\0\0mif1heicmiaf") is None


@pytest.mark.parametrize(
    "text",
    [
        b"BMW on a road",
        b"P3 is the third",
        b"GIF8 is no GIF",
        b"II* or not",
        b"qoif and",
        b"",
        b"\0",
        b"RIFF",
        b"/* XPM",
    ],
)
def test_text_is_never_taken_for_an_image(tmp_path: Path, text: bytes) -> None:
    assert not is_image(text)
    (tmp_path / "a.caption").write_bytes(text)
    assert not may_be_image(tmp_path / "a.caption")
    assert foreign_image(tmp_path / "a.caption") is None


def test_raw_files_of_cameras_are_not_taken_for_tiff(tmp_path: Path) -> None:
    """Their first page is a small preview."""
    (tmp_path / "a.dng").write_bytes(encoded(ramp(12, 8), "TIFF"))
    assert not may_be_image(tmp_path / "a.dng")
    assert foreign_image(tmp_path / "a.dng") == "a raw file of a camera"
    with pytest.raises(DataError, match="convert"):
        read_image(encoded(ramp(12, 8), "TIFF", tiffinfo={254: 1}))


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    assert not may_be_image(tmp_path / "absent")
    assert not may_be_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "name", "fix"),
    [
        (HEIC, "HEIC", "convert it to PNG or JPEG"),
        (b"\xff\x0a\x00\x10", "JPEG XL", "convert it to PNG or JPEG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL", "convert it to PNG or JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript", "convert it to PNG or JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG", "convert it to PNG or JPEG"),
        (b"<?xml version='1.0'?>\n<!-- a -->\n<svg/>", "SVG", "convert it to PNG or JPEG"),
        (b"%PDF-1.7", "PDF", "convert it to PNG or JPEG"),
        (POINTER, "git-lfs", "git lfs pull"),
        (b"/annex/objects/SHA256E-s5--0.png\n", "git-annex", "git annex get"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page", "download the file itself"),
        (b"\xef\xbb\xbf \n<HTML>", "web page", "download the file itself"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML", "download the file itself"),
        (b"\0\0\0\x18ftypisom" + bytes(9), "video", "frame"),
        (b"PK\x03\x04" + bytes(9), "archive", "unpack"),
        (b"iVBORw0KGgoAAAANSUhEUgAA", "base64", "store it as text"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64", "store it as text"),
        (b"\x93NUMPY\x01\0", "numpy", "PNG"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "macOS", "remove"),
        (bytes(1000), "zero bytes", "again"),
        (b"", "an empty file", "no known format"),
    ],
)
def test_what_is_no_readable_image_is_called_by_its_name(content: bytes, name: str, fix: str) -> None:
    with pytest.raises(DataError) as raised:
        read_image(content)
    assert name in str(raised.value)
    assert fix in str(raised.value)


def test_an_unknown_file_is_not_explained() -> None:
    assert explanation(b"hello") is None
    assert explanation(image_file(RED)) is None


def test_only_formats_of_the_list_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS would start a program, and so could the reader of a package that is installed beside Pillow."""

    def no_program(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.check_call", no_program)
    monkeypatch.setattr("subprocess.Popen", no_program)
    drawing = encoded(Image.new("RGB", (4, 4), RED), "EPS")
    with pytest.raises(DataError, match="PostScript"):
        read_image(drawing)
    Image.init()
    assert "EPS" not in FORMATS
    assert not {"WMF", "EPS", "HDF5", "GRIB", "BUFR", "MPEG", "FITS"} & set(FORMATS)
    assert not {".eps", ".ps", ".wmf", ".emf", ".fits", ".h5"} & ENDINGS


def test_endings_are_those_of_pillow() -> None:
    Image.init()
    for ending, kind in Image.EXTENSION.items():
        if kind in FORMATS and kind in Image.OPEN:
            assert ending in FORMATS[kind]


LOSSY = {"AVIF", "GIF", "JPEG", "WEBP"}


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_every_format_of_the_list_is_read(kind: str) -> None:
    image = ramp(32, 32)
    read = read_image(encoded(image, kind))
    assert read.size == (32, 32)
    if kind not in LOSSY:
        assert np.array_equal(np.asarray(read), np.asarray(image))

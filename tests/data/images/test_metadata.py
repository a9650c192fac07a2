"""Metadata never spoil a picture; what tells how the camera was held is still found."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from seedpo.data.images.metadata import without_metadata
from seedpo.data.images.reading import read_image
from seedpo.data.images.rgb import size_of_file
from tests.data.pictures import encoded, ramp

ORIENTATION = 0x0112
XMP = b'<x:xmpmeta tiff:Orientation="%d"/>'
PIXELS = ramp(9, 7)


def turned(held: int) -> Image.Image:
    """The picture as it stands upright."""
    exif = Image.Exif()
    exif[ORIENTATION] = held
    return read_image(encoded(PIXELS, "PNG", exif=exif))


def tags(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """EXIF with tags of any type: number, type, count, value."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries)
    return head + struct.pack(f"{order}IH", 8, len(entries)) + body + bytes(64)


def held(value: int, *others: tuple[int, int, int, bytes]) -> bytes:
    return tags((ORIENTATION, 3, 1, struct.pack("<H", value)), *others)


def chunk(kind: bytes, content: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(kind + content) ^ damaged
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(*chunks: bytes, behind: bool = False, image: Image.Image = PIXELS) -> bytes:
    file = encoded(image, "PNG")
    place = len(file) - 12 if behind else 33
    return file[:place] + b"".join(chunks) + file[place:]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(*segments: bytes, image: Image.Image = PIXELS, **settings: Any) -> bytes:
    file = encoded(image, "JPEG", quality=95, **settings)
    return file[:20] + b"".join(segments) + file[20:]


def tiff(*entries: tuple[int, int, int, bytes], **settings: Any) -> bytes:
    """A TIFF file with further tags in the list of its first page."""
    file = encoded(PIXELS, "TIFF", **settings)
    (start,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, start)
    listed = [file[start + 2 + 12 * row : start + 14 + 12 * row] for row in range(count)]
    listed += [struct.pack("<HHI", *entry[:3]) + entry[3].ljust(4, b"\0") for entry in entries]
    listed.sort(key=lambda entry: struct.unpack_from("<H", entry))
    return (
        file[:4]
        + struct.pack("<I", len(file))
        + file[8:]
        + struct.pack("<H", len(listed))
        + b"".join(listed)
        + bytes(64)
    )


def same(image: Image.Image, other: Image.Image) -> bool:
    return image.size == other.size and np.array_equal(np.asarray(image), np.asarray(other))


TEXT_RESOLUTION = (0x011A, 2, 2, b"7")
TEXT_UNIT = (0x0128, 2, 2, b"2")
ODD = [TEXT_UNIT, TEXT_RESOLUTION, (0x0100, 2, 2, b"9"), (0x0213, 2, 2, b"1"), (0x8769, 4, 1, b"\xff\xff\xff\x7f")]
"""Tags as cameras and editors have written them: text for numbers, and a list of further tags that is not there."""


class TestLargeOnes:
    def test_profiles_and_text_above_a_megabyte(self) -> None:
        noise = random.Random(0).randbytes(2_200_000)
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", "x" * 2_500_000, zip=True)
        text.add_text("parameters", "x" * 2_500_000, zip=True)
        for kind, settings in [
            ("PNG", {"icc_profile": noise}),
            ("PNG", {"pnginfo": text}),
            ("JPEG", {"icc_profile": noise}),
            ("TIFF", {"icc_profile": noise}),
            ("WEBP", {"icc_profile": noise, "lossless": True}),
        ]:
            assert same(
                read_image(encoded(PIXELS, kind, **settings)),
                read_image(encoded(PIXELS, kind, **{k: v for k, v in settings.items() if k == "lossless"})),
            )

    def test_text_that_unpacks_to_very_much_takes_no_memory(self) -> None:
        bomb = zlib.compress(bytes(300_000_000))
        names = (b"note", b"XML:com.adobe.xmp", b"Raw profile type exif")
        parts = [chunk(b"zTXt", name + b"\0\0" + bomb) for name in names]
        parts += [chunk(b"iTXt", name + b"\0\1\0\0\0" + bomb) for name in names]
        file = png(*parts, chunk(b"iCCP", b"icc\0\0" + bomb))
        tracemalloc.start()
        image = read_image(file)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()
        assert same(image, PIXELS)


class TestDamagedOnes:
    @pytest.mark.parametrize("odd", ODD)
    @pytest.mark.parametrize("value", range(1, 9))
    def test_a_turned_photo_with_an_odd_tag_stands_upright(self, value: int, odd: tuple[int, int, int, bytes]) -> None:
        exif = held(value, odd)
        assert same(read_image(png(chunk(b"eXIf", exif))), turned(value))
        plain = jpeg(segment(0xE1, b"Exif\0\0" + held(value)))
        assert same(read_image(jpeg(segment(0xE1, b"Exif\0\0" + exif))), read_image(plain))
        assert same(read_image(tiff((ORIENTATION, 3, 1, bytes([value, 0])), odd)), turned(value)) or odd[0] == 0x0100

    @pytest.mark.parametrize("kind", range(1, 13))
    def test_an_orientation_that_is_no_number_of_one_to_eight_turns_nothing(self, kind: int) -> None:
        for count, value in [(1, b"\x09\0"), (1, bytes(4)), (2, b"6\0"), (3, b"\xff" * 4), (2**31, b"\xff" * 4)]:
            exif = tags((ORIENTATION, kind, count, value))
            for file in (png(chunk(b"eXIf", exif)), tiff((ORIENTATION, kind, count, value))):
                assert same(read_image(file), PIXELS)
            assert read_image(jpeg(segment(0xE1, b"Exif\0\0" + exif))).size == (9, 7)

    @pytest.mark.parametrize(
        "kind", ["eXIf", "iCCP", "tEXt", "zTXt", "iTXt", "pHYs", "gAMA", "cHRM", "sRGB", "acTL", "fcTL", "fdAT"]
    )
    def test_no_further_chunk_of_a_png_spoils_it(self, kind: str) -> None:
        generator = random.Random(kind)
        for length in (0, 1, 7, 30):
            for damaged in (False, True):
                for behind in (False, True):
                    part = chunk(kind.encode(), generator.randbytes(length), damaged=damaged)
                    assert same(read_image(png(part, behind=behind)), PIXELS)

    @pytest.mark.parametrize(
        ("marker", "name"),
        [
            (0xE0, b"JFIF\0"),
            (0xE1, b"Exif\0\0"),
            (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
            (0xE2, b"ICC_PROFILE\0"),
            (0xE2, b"MPF\0"),
            (0xE2, b"FPXR\0"),
            (0xED, b"Photoshop 3.0\0008BIM\x03\xed"),
            (0xEE, b"Adobe"),
            (0xFE, b""),
        ],
    )
    def test_no_segment_of_a_jpeg_spoils_it(self, marker: int, name: bytes) -> None:
        generator = random.Random(marker)
        for length in (0, 1, 3, 6):
            file = jpeg(segment(marker, name + generator.randbytes(length)))
            assert same(read_image(file), read_image(jpeg()))

    def test_random_exif(self) -> None:
        generator = random.Random(0)
        for _ in range(200):
            entries = [
                (
                    generator.choice([ORIENTATION, 282, 296, 700, 34665, 36864]),
                    generator.randint(0, 18),
                    generator.choice([0, 1, 2, 2**31]),
                    generator.randbytes(4),
                )
                for _ in range(3)
            ]
            exif = tags(*entries, order=generator.choice("<>"))[: generator.choice([9, 30, 200])]
            for file in (
                png(chunk(b"eXIf", exif)),
                jpeg(segment(0xE1, b"Exif\0\0" + exif)),
                encoded(PIXELS, "WEBP", exif=exif),
            ):
                assert sorted(read_image(file).size) == [7, 9]
            assert sorted(read_image(tiff(*{entry[0]: entry for entry in entries}.values())).size) == [7, 9]


class TestOrientation:
    @pytest.mark.parametrize("value", range(1, 9))
    def test_exif_of_a_png_before_and_behind_the_pixels(self, value: int) -> None:
        for behind in (False, True):
            file = png(chunk(b"eXIf", held(value)), behind=behind)
            assert same(read_image(file), turned(value))
            assert size_of_file(file) == turned(value).size

    @pytest.mark.parametrize("value", range(1, 9))
    def test_sizes_are_those_of_the_upright_picture(self, value: int) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = value
        for kind in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF"):
            file = encoded(PIXELS, kind, exif=exif)
            assert size_of_file(file) == read_image(file).size == turned(value).size

    def test_text_forms_of_a_png(self) -> None:
        """ImageMagick writes EXIF as text, and XMP is looked at where EXIF says nothing, as Pillow does."""
        exif = b"\nexif\n" + b"%8d\n" % 100 + (b"Exif\0\0" + held(6)).hex().encode()
        for part in [
            chunk(b"tEXt", b"Raw profile type exif\0" + exif),
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(exif)),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 6),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP % 6)),
        ]:
            file = png(part)
            assert same(read_image(file), turned(6))
            assert size_of_file(file) == (7, 9)

    def test_exif_goes_before_xmp(self) -> None:
        xmp = XMP % 6
        assert read_image(jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))).size == (7, 9)
        both = jpeg(segment(0xE1, b"Exif\0\0" + held(3)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
        assert read_image(both).size == (9, 7)
        for file in (tiff(tiffinfo={700: xmp}), encoded(PIXELS, "WEBP", xmp=xmp)):
            assert read_image(file).size == size_of_file(file) == (7, 9)


class TestPixels:
    def test_ink_with_and_without_the_marker_of_adobe(self) -> None:
        image = Image.merge(
            "CMYK", [PIXELS.getchannel(0), PIXELS.getchannel(1), PIXELS.getchannel(2), PIXELS.getchannel(0)]
        )
        file = encoded(image, "JPEG", quality=95)
        assert b"Adobe" in file
        bare, _ = without_metadata(file)
        assert b"Adobe" in bare
        assert Image.open(io.BytesIO(file)).convert("RGB").tobytes() == read_image(file).tobytes()

    def test_colours_stored_as_red_green_and_blue(self) -> None:
        file = encoded(PIXELS, "JPEG", quality=100, keep_rgb=True)
        assert np.abs(np.asarray(read_image(file), dtype=int) - np.asarray(PIXELS, dtype=int)).max() < 12

    def test_the_first_frame_of_animations_and_page_of_several(self) -> None:
        frames = [ramp(9, 7), Image.new("RGB", (9, 7), "blue")]
        for kind in ("PNG", "TIFF"):
            for more in ({}, {"default_image": True}):
                file = encoded(
                    frames[0], kind, save_all=True, append_images=frames[1:], **(more if kind == "PNG" else {})
                )
                assert same(read_image(file), frames[0])

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "jpeg"])
    def test_compressed_tiff(self, compression: str) -> None:
        file = encoded(PIXELS, "TIFF", compression=compression, dpi=(72, 72), description="a note")
        with Image.open(io.BytesIO(file)) as image:
            assert same(read_image(file), image.convert("RGB"))

    def test_files_that_break_off_are_left_to_the_reader(self) -> None:
        for kind in ("PNG", "JPEG", "TIFF"):
            file = encoded(PIXELS, kind)
            for length in range(0, len(file), 7):
                without_metadata(file[:length])
            bare, _ = without_metadata(file)
            assert same(read_image(bare), read_image(file))

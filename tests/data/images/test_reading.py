from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from seedpo.data.images.pixels import to_tensor
from seedpo.data.images.reading import fit, read_file, read_image
from seedpo.errors import DataError
from tests.data.pictures import RED, encoded, image_file, ramp


def pixel(image: Image.Image, x: int = 0, y: int = 0) -> Any:
    assert image.mode == "RGB"
    return image.getpixel((x, y))


class TestKinds:
    def test_become_rgb_with_transparency_over_white(self) -> None:
        for mode, colour, wanted in [
            ("1", 1, (255, 255, 255)),
            ("L", 51, (51, 51, 51)),
            ("RGB", RED, RED),
            ("RGBA", (*RED, 255), RED),
            ("RGBA", (200, 10, 20, 0), (255, 255, 255)),
            ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
            ("LA", (0, 51), (204, 204, 204)),
        ]:
            assert pixel(read_image(encoded(Image.new(mode, (3, 2), colour)))) == wanted

    def test_palettes_with_and_without_transparency(self) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([*RED, 0, 0, 255])
        image.putpixel((1, 0), 1)
        assert pixel(read_image(encoded(image))) == RED
        assert pixel(read_image(encoded(image, transparency=1)), 1) == (255, 255, 255)

    def test_transparency_by_colour(self) -> None:
        image = Image.new("RGB", (2, 1), RED)
        assert pixel(read_image(encoded(image, transparency=RED))) == (255, 255, 255)

    def test_sixteen_bits_keep_their_brightness(self) -> None:
        """Pillow alone clips them at 255."""
        values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
        image = read_image(encoded(Image.fromarray(values)))
        assert [pixel(image, x)[0] for x in range(3)] == [0, 100, 255]

    def test_ink_becomes_light(self) -> None:
        image = read_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
        red, green, blue = pixel(image)
        assert red > 240
        assert max(green, blue) < 15

    def test_the_first_frame_of_an_animation(self) -> None:
        frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
        content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert pixel(read_image(content)) == (255, 0, 0)

    def test_floating_point_images_are_refused(self) -> None:
        content = encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
        with pytest.raises(DataError, match="values of mode F; 8 or 16 bits are expected"):
            read_image(content)

    def test_images_stand_upright(self) -> None:
        """Every way of holding a camera gives the same picture, once it is turned as EXIF says."""
        for orientation in range(1, 9):
            upright = ramp(6, 4)
            stored = {  # what a camera stores so that the given orientation shows the picture upright
                1: upright,
                2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
                3: upright.transpose(Image.Transpose.ROTATE_180),
                4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
                5: upright.transpose(Image.Transpose.TRANSPOSE),
                6: upright.transpose(Image.Transpose.ROTATE_90),
                7: upright.transpose(Image.Transpose.TRANSVERSE),
                8: upright.transpose(Image.Transpose.ROTATE_270),
            }[orientation]
            exif = Image.Exif()
            exif[0x0112] = orientation
            image = read_image(encoded(stored, exif=exif.tobytes()))
            assert image.size == (6, 4)
            assert np.array_equal(np.asarray(image), np.asarray(upright))


class TestContent:
    def test_bytes(self) -> None:
        for wrap in [bytes, bytearray, memoryview, lambda content: {"bytes": content, "path": "x.png"}]:
            assert pixel(read_image(wrap(image_file(RED)))) == RED

    def test_paths(self, tmp_path: Path) -> None:
        for wrap in [str, Path, lambda path: {"bytes": None, "path": str(path)}]:
            (tmp_path / "a.png").write_bytes(image_file(RED))
            assert pixel(read_image(wrap(tmp_path / "a.png"), folder=tmp_path)) == RED
            assert pixel(read_image(wrap(Path("a.png")), folder=tmp_path)) == RED

    def test_what_is_no_image(self, tmp_path: Path) -> None:
        for content, why in [
            (b"", "(no known format: an empty file)"),
            (b"no image", "(no known format: 8 bytes that begin with b'no image')"),
            (image_file(RED)[:45], ""),
            (None, "neither bytes nor a path, but nothing"),
            ("", "neither bytes nor a path, but nothing"),
            (7, "neither bytes nor a path, but int"),
            ({"bytes": None, "path": None}, "neither bytes nor a path, but nothing"),
            ("absent.png", "absent.png: No such file or directory"),
            (".", "Is a directory"),
            ("https://example.org/a.png", "is an address: download the file first"),
        ]:
            with pytest.raises(DataError, match="not an image that can be read") as raised:
                read_image(content, folder=tmp_path)
            assert why in str(raised.value)

    @pytest.mark.parametrize("outside", ["../a.png", "sub/../../a.png", "{}/a.png"])
    def test_paths_outside_the_folder(self, tmp_path: Path, outside: str) -> None:
        (tmp_path / "a.png").write_bytes(image_file(RED))
        (tmp_path / "data" / "sub").mkdir(parents=True)
        with pytest.raises(DataError, match=r"lies outside the folder .*data; set pairs\.image_folder"):
            read_image(outside.format(tmp_path), folder=tmp_path / "data")

    def test_links_in_the_folder_are_followed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "a.png").write_bytes(image_file(RED))
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "images").symlink_to(tmp_path / "elsewhere")
        monkeypatch.chdir(tmp_path)
        assert pixel(read_image("images/a.png", folder=Path("data"))) == RED

    def test_paths_where_there_can_be_none(self) -> None:
        with pytest.raises(DataError, match=r"a\.png is a path, and there is no folder for it; set pairs\.image"):
            read_image("a.png")


def test_an_image_of_too_many_pixels_is_a_fault_of_its_row() -> None:
    content = bytearray(image_file(RED))
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DataError, match="decompression bomb"):
        read_image(bytes(content))


class TestFit:
    def test_a_square_of_the_resolution(self) -> None:
        for size in [(64, 64), (100, 64), (64, 100), (300, 200), (16, 12), (1000, 17)]:
            image, _ = fit(ramp(*size), (32, 32), (0.5, 0.5))
            assert image.size == (32, 32)

    def test_the_right_size_is_left_as_it_is(self) -> None:
        image, cut = fit(ramp(32, 32), (32, 32), (0.3, 0.8))
        assert np.array_equal(np.asarray(image), np.asarray(ramp(32, 32)))
        assert cut == (0, 0)

    def test_the_square_lies_where_it_is_asked_for(self) -> None:
        """Seen in the colours, which tell the place in the picture."""
        for size, place, cut in [
            ((128, 64), (0.5, 0.5), (0, 16)),
            ((128, 64), (0.5, 0.0), (0, 0)),
            ((128, 64), (0.5, 1.0), (0, 32)),
            ((64, 128), (0.5, 0.5), (16, 0)),
            ((64, 128), (1.0, 0.5), (32, 0)),
        ]:
            image, above_and_left = fit(ramp(*size), (32, 32), place)
            assert above_and_left == cut
            small = ramp(*size).resize((size[0] // 2, size[1] // 2), Image.Resampling.LANCZOS)
            wanted = np.asarray(small)[cut[0] : cut[0] + 32, cut[1] : cut[1] + 32]
            assert np.array_equal(np.asarray(image), wanted)

    def test_resizing_does_not_alias(self) -> None:
        """A fine chequerboard becomes gray, not black or white."""
        board = Image.fromarray(((np.indices((128, 128)).sum(0) % 2) * 255).astype(np.uint8)).convert("RGB")
        pixels = np.asarray(fit(board, (32, 32), (0.5, 0.5))[0])
        assert abs(pixels.astype(int) - 128).max() < 20


def test_tensors_hold_rows_and_columns_in_order() -> None:
    pixels = to_tensor(ramp(4, 3))
    assert pixels.shape == (3, 3, 4)
    assert pixels.dtype == torch.float32
    assert pixels[0, 0].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert pixels[1, :, 0].tolist() == pytest.approx([0, 0.5, 1], abs=0.01)


class TestWholeNumbersOf32Bits:
    """A file of such values does not say whether they are of 8 or of 16 bits."""

    def test_values_below_256_are_of_8_bits(self) -> None:
        values = np.array([[0, 3, 100, 255]])
        for kind in (np.int32, np.uint32):
            content = encoded(Image.fromarray(values.astype(np.int32)), "TIFF")
            assert [pixel(read_image(content), x)[0] for x in range(4)] == [0, 3, 100, 255], kind

    def test_others_are_of_16_bits(self) -> None:
        content = encoded(Image.fromarray(np.array([[0, 257 * 3, 65535]], dtype=np.int32)), "TIFF")
        assert [pixel(read_image(content), x)[0] for x in range(3)] == [0, 3, 255]

    def test_files_that_say_16_bits_are_believed(self) -> None:
        dark = np.full((2, 2), 200, dtype=np.uint16)
        for content in (
            encoded(Image.fromarray(dark), "TIFF"),
            encoded(Image.fromarray(dark), "PNG"),
            b"P5\n2 2\n65535\n" + dark.astype(">u2").tobytes(),
        ):
            assert pixel(read_image(content)) == (1, 1, 1)

    def test_values_beyond_16_bits_are_refused(self) -> None:
        for value in (-1, 65536):
            with pytest.raises(DataError, match="values of mode I; 8 or 16 bits are expected"):
                read_image(encoded(Image.fromarray(np.full((2, 2), value, dtype=np.int32)), "TIFF"))

    def test_the_order_of_bytes_does_not_matter(self) -> None:
        values = np.array([[0, 257 * 7, 65535]], dtype=">u2")
        image = Image.frombytes("I;16B", (3, 1), values.tobytes())
        assert [pixel(read_image(encoded(image, "TIFF")), x)[0] for x in range(3)] == [0, 7, 255]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_named_and_not_opened(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: .*no regular file"):
        read_file("x.png", folder=tmp_path)

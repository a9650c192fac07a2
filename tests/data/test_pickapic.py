from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.data.pickapic import COLUMNS, PickAPicPairs, read_pairs
from seedpo.errors import DataError

RED, BLUE = (200, 10, 20), (10, 20, 200)


def image_file(colour: tuple[int, int, int], *, kind: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def noise_file(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def plain(colour: tuple[int, int, int]) -> Tensor:
    return (torch.tensor(colour) / 255)[:, None, None].expand(3, 6, 8)


def table(*labels: tuple[Any, Any], **columns: list[Any]) -> pa.Table:
    """One row for each pair of labels: red first, blue second."""
    count = len(labels)
    values: dict[str, list[Any]] = {
        "caption": [f"prompt {row}" for row in range(count)],
        "jpg_0": [image_file(RED)] * count,
        "jpg_1": [image_file(BLUE)] * count,
        "label_0": [first for first, _ in labels],
        "label_1": [second for _, second in labels],
        "image_0_uid": ["a"] * count,
    }
    return pa.table(values | columns)


class TestPairs:
    def test_the_preferred_image_comes_first(self) -> None:
        pairs = PickAPicPairs(table((1, 0), (0, 1)), origin="test")
        for row, (chosen, rejected) in enumerate([(RED, BLUE), (BLUE, RED)]):
            prompt, first, second = pairs[row]
            assert prompt == f"prompt {row}"
            torch.testing.assert_close(first, plain(chosen))
            torch.testing.assert_close(second, plain(rejected))

    def test_ties_are_left_out_and_counted(self) -> None:
        pairs = PickAPicPairs(table((0.5, 0.5), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0)), origin="test")
        assert len(pairs) == 2
        assert pairs.ties == 2
        assert [pairs[row][0] for row in range(2)] == ["prompt 1", "prompt 3"]
        torch.testing.assert_close(pairs[1][1], plain(BLUE))

    def test_images_are_floats_from_0_to_1(self) -> None:
        pairs = PickAPicPairs(
            table((1, 0), jpg_0=[image_file((255, 255, 255))], jpg_1=[image_file((0, 0, 0))]), origin="t"
        )
        _, white, black = pairs[0]
        assert white.dtype == black.dtype == torch.float32
        assert torch.equal(white, torch.ones(3, 6, 8))
        assert torch.equal(black, torch.zeros(3, 6, 8))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    def test_the_format_of_the_file_does_not_matter(self, kind: str) -> None:
        pairs = PickAPicPairs(table((1, 0), jpg_0=[image_file(RED, kind=kind)]), origin="test")
        torch.testing.assert_close(pairs[0][1], plain(RED), rtol=0, atol=0.03)

    def test_gray_and_transparent_images_become_rgb(self) -> None:
        files = []
        for image in (Image.new("L", (8, 6), 51), Image.new("RGBA", (8, 6), (51, 51, 51, 255))):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            files.append(buffer.getvalue())
        _, gray, opaque = PickAPicPairs(table((1, 0), jpg_0=files[:1], jpg_1=files[1:]), origin="test")[0]
        torch.testing.assert_close(gray, torch.full((3, 6, 8), 0.2))
        torch.testing.assert_close(opaque, torch.full((3, 6, 8), 0.2))

    def test_images_are_read_when_they_are_asked_for(self) -> None:
        """A broken image of one pair does not keep the others from being used."""
        pairs = PickAPicPairs(table((1, 0), (1, 0), jpg_0=[b"broken", image_file(RED)]), origin="test")
        assert pairs[1][0] == "prompt 1"

    def test_the_end_of_the_set(self) -> None:
        with pytest.raises(IndexError):
            PickAPicPairs(table((1, 0)), origin="test")[1]


class TestRefusals:
    @pytest.mark.parametrize("column", COLUMNS)
    def test_a_missing_column_is_named(self, column: str) -> None:
        with pytest.raises(DataError, match=rf"pairs\.parquet lacks the columns \['{column}'\]; it has \["):
            PickAPicPairs(table((1, 0)).drop_columns([column]), origin="pairs.parquet")

    @pytest.mark.parametrize(
        "labels",
        [(1, 1), (0, 0), (0.5, 0), (0.7, 0.3), (2, -1), (None, None), (1, None), (float("nan"), float("nan"))],
    )
    def test_a_wrong_label_names_its_row(self, labels: tuple[Any, Any]) -> None:
        with pytest.raises(DataError, match=r"pairs\.parquet row 2: labels .* must be 1 and 0, 0 and 1, or 0.5 twice"):
            PickAPicPairs(table((1.0, 0.0), (0.5, 0.5), labels), origin="pairs.parquet")

    def test_text_labels(self) -> None:
        with pytest.raises(DataError, match="row 0: labels"):
            PickAPicPairs(table(("1", "0")), origin="test")

    @pytest.mark.parametrize("labels", [[], [(0.5, 0.5)] * 3])
    def test_nothing_but_ties(self, labels: list[tuple[float, float]]) -> None:
        with pytest.raises(
            DataError, match=f"holds no pair with a preference: {len(labels)} ties in {len(labels)} rows"
        ):
            PickAPicPairs(table(*labels), origin="test")

    @pytest.mark.parametrize(
        "content", [b"", b"not an image", None, "text", 7, noise_file("PNG")[:200], noise_file("JPEG")[:300]]
    )
    @pytest.mark.parametrize("column", ["jpg_0", "jpg_1"])
    def test_a_broken_image_names_its_row_and_column(self, column: str, content: Any) -> None:
        """The row is that of the file, ties counted."""
        other = [image_file(RED)] * 2 if isinstance(content, bytes) else [None, None]
        rows = table((0.5, 0.5), (0.5, 0.5), (1, 0), **{column: [*other, content]})
        pairs = PickAPicPairs(rows, origin="pairs.parquet")
        with pytest.raises(
            DataError, match=rf"pairs\.parquet row 2: {column} is not an image that can be read .*; remove"
        ):
            pairs[0]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_any_damage_is_either_read_or_named(self, kind: str) -> None:
        """Flipped bytes anywhere in the file never raise anything but the error that a user can mend."""
        content, random = noise_file(kind), np.random.default_rng(1)
        refused = 0
        for _ in range(150):
            damaged = bytearray(content)
            for place in random.integers(0, min(len(content), 400), 3):
                damaged[place] = int(random.integers(256))
            pairs = PickAPicPairs(table((1, 0), jpg_0=[bytes(damaged)]), origin="test")
            try:
                _, image, _ = pairs[0]
            except DataError:
                refused += 1
            else:
                assert image.shape[0] == 3
        assert refused > 10


class TestFiles:
    def test_a_parquet_file_is_read(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 0), (0.5, 0.5)), tmp_path / "pairs.parquet")
        pairs = read_pairs(tmp_path / "pairs.parquet")
        assert (len(pairs), pairs.ties) == (1, 1)
        torch.testing.assert_close(pairs[0][1], plain(RED))

    def test_errors_name_the_file(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 1)), tmp_path / "pairs.parquet")
        with pytest.raises(DataError, match=r"/pairs\.parquet row 0: labels"):
            read_pairs(tmp_path / "pairs.parquet")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.parquet do not exist; name a parquet file, or `scenes-pairs`"):
            read_pairs(tmp_path / "none.parquet")

    @pytest.mark.parametrize("content", [b"", b"prompt,chosen,rejected\n", b"PAR1" + b"\x00" * 50 + b"PAR1"])
    def test_a_file_that_is_not_parquet(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "pairs.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"pairs\.parquet cannot be read as parquet"):
            read_pairs(tmp_path / "pairs.parquet")

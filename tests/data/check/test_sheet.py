from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from seedpo.data.check.findings import Measured, check_pairs, spread
from seedpo.data.check.sheet import (
    ALIKE,
    CHOSEN,
    COLUMNS,
    FRAME,
    GAP,
    REJECTED,
    SIDE,
    TIE,
    near_duplicates_of,
    write_contact_sheet,
    write_near_duplicates,
)
from seedpo.data.pairs.sets import PairSet
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.images.test_near_duplicates import photograph
from tests.data.pictures import BLUE, RED, encoded, image_file, ramp, table


def drawn(pairs: PairSet, rows: list[int], folder: Path) -> NDArray[np.uint8]:
    write_contact_sheet(pairs, rows, folder / "sheet.png", title="a set")
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        return np.asarray(sheet.convert("RGB"))


def where(sheet: NDArray[np.uint8], colour: Any) -> tuple[NDArray[np.bool_], int, int]:
    """Pixels of a colour, and the middle of them: down and across."""
    value = ImageColor.getrgb(colour) if isinstance(colour, str) else colour
    found = (sheet == np.array(value)).all(-1)
    rows, columns = found.nonzero()
    assert len(rows), colour
    return found, int(rows.mean()), int(columns.mean())


def test_chosen_is_framed_in_green_on_the_left_and_rejected_in_red(tmp_path: Path) -> None:
    """Whichever column it is in."""
    pairs = PairSet.of_table(table((0, 1), jpg_1=[image_file(BLUE)]), origin="t")
    sheet = drawn(pairs, [0], tmp_path)
    blue, _, left = where(sheet, BLUE)
    red, _, right = where(sheet, RED)
    assert abs(where(sheet, CHOSEN)[2] - left) < 10 < right - left
    assert abs(where(sheet, REJECTED)[2] - right) < 10
    # 8 x 6 pixels, enlarged by the whole number that fits.
    factor = SIDE // 8
    assert blue.sum() == red.sum() == 8 * 6 * factor**2


def test_ties_have_a_colour_of_their_own(tmp_path: Path) -> None:
    pairs = PairSet.of_table(table((0.5, 0.5)), origin="t", config=PairsConfig(ties="half"))
    sheet = drawn(pairs, [0], tmp_path)
    where(sheet, TIE)
    for colour in (CHOSEN, REJECTED):
        assert not (sheet == np.array(ImageColor.getrgb(colour))).all(-1).any()


def test_pairs_stand_in_rows(tmp_path: Path) -> None:
    pairs = PairSet.of_table(table(*[(1, 0)] * 7), origin="t")
    heights = [drawn(pairs, list(range(count)), tmp_path).shape[0] for count in (1, COLUMNS, COLUMNS + 1, 7)]
    assert heights[0] == heights[1] < heights[2] < heights[3]


@pytest.mark.parametrize("size", [(640, 480), (100, 2000), (5, 3)])
def test_images_of_any_size_fit_in(tmp_path: Path, size: tuple[int, int]) -> None:
    files = [encoded(ramp(*size))]
    pairs = PairSet.of_table(table((1, 0), jpg_0=files, jpg_1=files, caption=["日本 " * 200]), origin="t")
    sheet = drawn(pairs, [0], tmp_path)
    frame = where(sheet, CHOSEN)[0]
    rows, columns = frame.any(1).nonzero()[0], frame.any(0).nonzero()[0]
    assert columns[-1] - columns[0] + 1 >= SIDE
    inner = sheet[rows[-1] - SIDE : rows[-1] - 2, columns[0] + 4 : columns[0] + 4 + SIDE]
    assert (inner != 255).any(), "the picture is within its frame"


def test_a_pair_that_cannot_be_read(tmp_path: Path) -> None:
    pairs = PairSet.of_table(table((1, 0), jpg_0=[b"broken"]), origin="t")
    with pytest.raises(DataError, match="t row 0: jpg_0"):
        drawn(pairs, [0], tmp_path)
    assert not (tmp_path / "sheet.png").exists()


def test_a_spread_of_rows() -> None:
    assert spread([3, 5, 8], 5) == [3, 5, 8]
    assert spread(list(range(0, 200, 2)), 3) == [0, 100, 198]
    assert spread([], 3) == []


PHOTOGRAPHS = [encoded(photograph(seed, side=64)) for seed in range(4)]


class TestNearDuplicates:
    """A pair that is there again with the other label, two images of a pair, and an image of the validation."""

    def pairs(self, *rows: tuple[str, int, int], name: str) -> PairSet:
        prompts, first, second = zip(*rows, strict=True)
        columns = {"jpg_0": [PHOTOGRAPHS[file] for file in first], "jpg_1": [PHOTOGRAPHS[file] for file in second]}
        return PairSet.of_table(table(*[(1, 0)] * len(rows), caption=list(prompts), **columns), origin=name)

    def test_leaks_come_first_and_streams_are_left_out(self) -> None:
        training = self.pairs(("a", 0, 1), ("A", 1, 0), ("b", 0, 2), name="train")
        held_out = self.pairs(("c", 3, 2), name="held out")
        findings = check_pairs(training, measured=Measured(validation=held_out), progress=False)
        entries = near_duplicates_of(findings, {0, 1}, 24)
        assert [(str(entry.first), str(entry.second)) for entry in entries[:2]] == [
            ("train row 2 rejected", "held out row 0 rejected"),
            ("train row 0 chosen", "train row 1 rejected"),
        ]
        assert entries[2:]
        assert near_duplicates_of(findings, {0}, 24) == entries[1:]
        assert near_duplicates_of(findings, {0, 1}, 1) == entries[:1]

    def test_both_images_are_framed_side_by_side(self, tmp_path: Path) -> None:
        training, held_out = self.pairs(("a", 0, 1), name="train"), self.pairs(("c", 1, 2), name="held out")
        findings = check_pairs(training, measured=Measured(validation=held_out), progress=False)
        entries = near_duplicates_of(findings, {0, 1}, 24)
        assert len(entries) == 1
        path = tmp_path / "sheet.png"
        write_near_duplicates({0: training, 1: held_out}, entries, path, title="a set")
        sheet = np.asarray(Image.open(path).convert("RGB"))
        frame, _, _ = where(sheet, ALIKE)
        rows, columns = frame.any(1).nonzero()[0], frame.any(0).nonzero()[0]
        factor = SIDE // 64
        image = np.asarray(photograph(1, side=64)).repeat(factor, 0).repeat(factor, 1)
        top, left = rows[-1] + 1 - FRAME - SIDE, columns[0] + FRAME
        inside = (SIDE - 64 * factor) // 2
        for start in (left, left + SIDE + 2 * FRAME + GAP):
            part = sheet[top + inside :, start + inside :][: 64 * factor, : 64 * factor]
            assert (part == image).all()

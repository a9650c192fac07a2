from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, encoded, image_file, noise_file, plain, ramp, table


class TestPairs:
    def test_the_preferred_image_comes_first(self) -> None:
        pairs = PairSet.of_table(table((1, 0), (0, 1)), origin="test")
        for row, (chosen, rejected) in enumerate([(RED, BLUE), (BLUE, RED)]):
            pair = pairs[row]
            assert pair.prompt == f"prompt {row}"
            assert pair.chosen_probability == 1.0
            assert pair.original_size == (6, 8)
            torch.testing.assert_close(pair.chosen, plain(chosen))
            torch.testing.assert_close(pair.rejected, plain(rejected))

    def test_ties_are_left_out_and_counted(self) -> None:
        pairs = PairSet.of_table(table((0.5, 0.5), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0)), origin="test")
        assert len(pairs) == 2
        assert pairs.ties == 2
        assert [pairs[row].prompt for row in range(2)] == ["prompt 1", "prompt 3"]
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE))
        assert pairs.summary == "2 pairs, 2 ties left out"

    def test_ties_as_halves_keep_their_places(self) -> None:
        pairs = PairSet.of_table(
            table((0.5, 0.5), (1.0, 0.0), (0.0, 1.0)), origin="test", config=PairsConfig(ties="half")
        )
        assert [pairs[row].chosen_probability for row in range(3)] == [0.5, 1.0, 1.0]
        assert [pairs[row].prompt for row in range(3)] == ["prompt 0", "prompt 1", "prompt 2"]
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        torch.testing.assert_close(pairs[2].chosen, plain(BLUE))
        assert (pairs.ties, pairs.tied) == (0, 1)
        assert pairs.summary == "3 pairs, 0 ties left out, 1 ties among them"

    def test_pairs_that_nobody_judged_are_left_out_whatever_their_labels(self) -> None:
        rows = table((1, 0), (0, 0), (None, None), (0, 1), (1, 1), has_label=[True, False, False, None, False])
        pairs = PairSet.of_table(rows, origin="test")
        assert [pairs[row].prompt for row in range(len(pairs))] == ["prompt 0", "prompt 3"]
        assert pairs.unlabelled == 3
        assert pairs.summary == "2 pairs, 0 ties left out, 3 without a label left out"

    def test_pairs_of_a_hub_table_with_images_in_structures(self) -> None:
        files = [{"bytes": image_file(RED), "path": None}]
        pairs = PairSet.of_table(table((0, 1), jpg_0=files), origin="test")
        torch.testing.assert_close(pairs[0].rejected, plain(RED))

    def test_images_are_floats_from_0_to_1(self) -> None:
        pairs = PairSet.of_table(
            table((1, 0), jpg_0=[image_file((255, 255, 255))], jpg_1=[image_file((0, 0, 0))]), origin="t"
        )
        white, black = pairs[0].chosen, pairs[0].rejected
        assert white.dtype == black.dtype == torch.float32
        assert torch.equal(white, torch.ones(3, 6, 8))
        assert torch.equal(black, torch.zeros(3, 6, 8))

    def test_the_format_of_the_file_does_not_matter(self) -> None:
        for kind in ["JPEG", "PNG", "WEBP"]:
            pairs = PairSet.of_table(table((1, 0), jpg_0=[image_file(RED, kind=kind)]), origin="test")
            torch.testing.assert_close(pairs[0].chosen, plain(RED), rtol=0, atol=0.03)

    def test_images_are_read_when_they_are_asked_for(self) -> None:
        """A broken image of one pair does not keep the others from being used."""
        pairs = PairSet.of_table(table((1, 0), (1, 0), jpg_0=[b"broken", image_file(RED)]), origin="test")
        assert pairs[1].prompt == "prompt 1"

    def test_the_end_of_the_set(self) -> None:
        with pytest.raises(IndexError):
            PairSet.of_table(table((1, 0)), origin="test")[1]


class TestSizes:
    """Both images of a pair, and all pairs, end up in one size."""

    def pairs(self, *sizes: tuple[int, int], **settings: Any) -> Any:
        files = [encoded(ramp(*size)) for size in sizes]
        rows = table(*[(1, 0)] * (len(sizes) // 2), jpg_0=files[::2], jpg_1=files[1::2])
        return PairSet.of_table(rows, origin="test", config=PairsConfig(**settings))

    def test_a_resolution_resizes_and_crops_and_says_so(self) -> None:
        pair = self.pairs((64, 48), (64, 48), resolution=24)[0]
        assert pair.chosen.shape == pair.rejected.shape == (3, 24, 24)
        assert pair.original_size == (48, 64)
        assert pair.crop == (0, 4)
        small = np.asarray(ramp(64, 48).resize((32, 24), Image.Resampling.LANCZOS), dtype=np.float32) / 255
        assert torch.equal(pair.chosen, torch.from_numpy(small[:, 4:28]).permute(2, 0, 1))

    def test_both_images_are_cut_at_the_same_place(self) -> None:
        """Equal files stay equal, whatever the window."""
        pairs = self.pairs(*[(90, 40)] * 60, resolution=32, crop="random")
        cuts = set()
        for row in range(30):
            assert torch.equal(pairs[row].chosen, pairs[row].rejected)
            cuts.add(pairs[row].crop)
        assert len(cuts) > 10
        assert {above for above, _ in cuts} == {0}
        assert all(0 <= left <= 72 - 32 for _, left in cuts)

    def test_a_random_window_is_drawn_once(self) -> None:
        first, again = (self.pairs(*[(90, 40)] * 6, resolution=32, crop="random") for _ in range(2))
        assert [first[row].crop for row in (2, 0, 1)] == [again[row].crop for row in (2, 0, 1)]

    def test_the_window_belongs_to_the_stored_row(self) -> None:
        """Ties that are left out move the others up, and their windows with them."""
        files = [encoded(ramp(90, 40))] * 3
        rows = table((0.5, 0.5), (1, 0), (0, 1), jpg_0=files, jpg_1=files)
        kept, less = (
            PairSet.of_table(rows, origin="t", config=PairsConfig(resolution=32, crop="random", ties=ties))
            for ties in ("half", "drop")
        )
        assert [kept[1].crop, kept[2].crop] == [less[0].crop, less[1].crop]

    def test_images_of_different_shapes_meet_in_a_square(self) -> None:
        pair = self.pairs((64, 48), (20, 80), resolution=16)[0]
        assert pair.chosen.shape == pair.rejected.shape == (3, 16, 16)
        assert pair.original_size == (48, 64)

    def test_the_size_before_resizing_is_that_of_the_chosen_image(self) -> None:
        rows = table((0, 1), jpg_0=[encoded(ramp(64, 48))], jpg_1=[encoded(ramp(20, 80))])
        assert PairSet.of_table(rows, origin="t", config=PairsConfig(resolution=16))[0].original_size == (80, 20)

    def test_without_a_resolution_the_two_must_agree(self) -> None:
        pairs = self.pairs((64, 48), (64, 48), (64, 48), (48, 64))
        assert pairs[0].chosen.shape == (3, 48, 64)
        with pytest.raises(
            DataError, match=r"test row 1: an image has 48 x 64 pixels and the other 64 x 48; .*pairs\.resolution=512"
        ):
            pairs[1]

    def test_without_a_resolution_all_must_agree_with_the_first(self) -> None:
        """Whichever is read first."""
        for order in [(0, 1), (1, 0)]:
            pairs = self.pairs((64, 48), (64, 48), (32, 32), (32, 32))
            for row in order:
                if row == 0:
                    assert pairs[0].chosen.shape == (3, 48, 64)
                else:
                    with pytest.raises(DataError, match=r"row 1: .* 32 x 32 .* 64 x 48"):
                        pairs[1]

    def test_the_first_pair_is_the_first_that_can_be_read(self) -> None:
        rows = table((1, 0), (1, 0), jpg_0=[b"broken", image_file(RED)])
        assert PairSet.of_table(rows, origin="test")[1].prompt == "prompt 1"


class TestContent:
    """What caches key their entries on."""

    def content(self, *, config: PairsConfig | None = None, label: Any = (1, 0), **columns: Any) -> str:
        return PairSet.of_table(table(label, **columns), origin="test", config=config).content(0)

    def test_equal_pairs_have_equal_hashes_wherever_they_stand(self) -> None:
        pairs = PairSet.of_table(table((1, 0), (1, 0), caption=["a", "a"]), origin="here")
        assert pairs.content(0) == pairs.content(1) == self.content(caption=["a"])
        assert len(pairs.content(0)) == 64

    def test_everything_that_changes_the_pair_changes_the_hash(self) -> None:
        variants = [
            self.content(),
            self.content(caption=["other"]),
            self.content(label=(0, 1)),
            self.content(label=(0.5, 0.5), config=PairsConfig(ties="half")),
            self.content(jpg_0=[image_file(RED, kind="BMP")]),
            self.content(jpg_1=[image_file(RED)]),
            self.content(config=PairsConfig(resolution=8)),
            self.content(config=PairsConfig(resolution=16)),
            self.content(config=PairsConfig(resolution=8, crop="random")),
        ]
        assert len(set(variants)) == len(variants)

    def test_what_does_not_change_the_pair_does_not(self) -> None:
        """Mirroring is the source's doing."""
        assert self.content(config=PairsConfig(flip=True, crop="random", bad_rows_limit=0.5)) == self.content()

    def test_random_windows_are_part_of_it(self) -> None:
        pairs = PairSet.of_table(
            table((1, 0), (1, 0), caption=["a", "a"]), origin="t", config=PairsConfig(resolution=8, crop="random")
        )
        assert pairs.content(0) != pairs.content(1)

    def test_nothing_is_decoded(self) -> None:
        assert self.content(jpg_0=[b"broken"]) != self.content(jpg_0=[b"broken too"])


class TestRefusals:
    def test_a_missing_column_is_named(self) -> None:
        for column in ["caption", "jpg_0", "jpg_1", "label_0"]:
            with pytest.raises(
                DataError, match=rf"pairs\.parquet lacks the columns \['{column}'\]; it has \[.*; expected are"
            ):
                PairSet.of_table(table((1, 0)).drop_columns([column]), origin="pairs.parquet")

    def test_a_wrong_label_names_its_row(self) -> None:
        for labels in [
            (1, 1),
            (0, 0),
            (0.5, 0),
            (0.7, 0.3),
            (2, -1),
            (None, None),
            (1, None),
            (float("nan"), float("nan")),
        ]:
            pairs = PairSet.of_table(table((1.0, 0.0), (0.5, 0.5), labels), origin="pairs.parquet")
            assert pairs[0].prompt == "prompt 0"
            for read in (pairs.__getitem__, pairs.prompt, pairs.content, pairs.images):
                with pytest.raises(DataError, match=r"pairs\.parquet row 2: .*label_0 = "):
                    read(1)

    def test_how_many_more_are_wrong(self) -> None:
        with pytest.raises(DataError, match=r"row 1: labels .*; 2 more rows are wrong"):
            PairSet.of_table(table((0.5, 0.5), (1, 1), (0, 0), (3, 4)), origin="test")

    def test_text_labels(self) -> None:
        pairs = PairSet.of_table(table(("1", "0"), ("0", " 1"), ("0.5", "0.5"), ("true", "false")), origin="test")
        assert [pairs.prompt(row) for row in range(len(pairs))] == ["prompt 0", "prompt 1", "prompt 3"]
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE))

    def test_nothing_but_ties(self) -> None:
        for labels in [[], [(0.5, 0.5)] * 3]:
            with pytest.raises(
                DataError, match=f"holds no pair with a preference: {len(labels)} ties in {len(labels)} rows"
            ):
                PairSet.of_table(table(*labels), origin="test")

    def test_a_broken_image_names_its_row_and_column(self) -> None:
        """The row is that of the file, ties counted."""
        for content in [
            b"",
            b"not an image",
            None,
            "text",
            7,
            noise_file("PNG", size=(24, 24))[:200],
            noise_file("JPEG", size=(24, 24))[:300],
        ]:
            for column in ["jpg_0", "jpg_1"]:
                other = [image_file(RED)] * 2 if isinstance(content, bytes) else [None, None]
                rows = table((0.5, 0.5), (0.5, 0.5), (1, 0), **{column: [*other, content]})
                pairs = PairSet.of_table(rows, origin="pairs.parquet")
                with pytest.raises(
                    DataError, match=rf"pairs\.parquet row 2: {column} is not an image that can be read .*; remove"
                ):
                    pairs[0]

    def test_any_damage_is_either_read_or_named(self) -> None:
        """Flipped bytes anywhere in the file never raise anything but the error that a user can mend."""
        for kind in ["PNG", "JPEG"]:
            content, random = noise_file(kind, size=(24, 24)), np.random.default_rng(1)
            refused = 0
            for _ in range(150):
                damaged = bytearray(content)
                for place in random.integers(0, min(len(content), 400), 3):
                    damaged[place] = int(random.integers(256))
                rows = table((1, 0), jpg_0=[bytes(damaged)])
                pairs = PairSet.of_table(rows, origin="test", config=PairsConfig(resolution=8))
                try:
                    image = pairs[0].chosen
                except DataError:
                    refused += 1
                else:
                    assert image.shape == (3, 8, 8)
            assert refused > 10


class TestFiles:
    def test_a_parquet_file_is_read(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 0), (0.5, 0.5)), tmp_path / "pairs.parquet")
        pairs = read_pairs(tmp_path / "pairs.parquet")
        assert (len(pairs), pairs.ties) == (1, 1)
        torch.testing.assert_close(pairs[0].chosen, plain(RED))

    def test_errors_name_the_file(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 1)), tmp_path / "pairs.parquet")
        with pytest.raises(DataError, match=r"/pairs\.parquet row 0: labels"):
            read_pairs(tmp_path / "pairs.parquet")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"none\.parquet do not exist; name a parquet file, .*or `scenes-pairs`"):
            read_pairs(tmp_path / "none.parquet")

    def test_a_file_that_is_not_parquet(self, tmp_path: Path) -> None:
        for content in [b"", b"no table", b"PAR1" + b"\x00" * 50 + b"PAR1"]:
            (tmp_path / "pairs.parquet").write_bytes(content)
            with pytest.raises(DataError, match=r"pairs\.parquet cannot be read as parquet"):
                read_pairs(tmp_path / "pairs.parquet")

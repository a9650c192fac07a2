from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from seedpo.data.check.findings import Findings, check_pairs, least_tokens
from seedpo.data.check.sheet import write_contact_sheet
from seedpo.data.check.text import SHOWN, findings_text
from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.settings import PairsConfig
from tests.data.pairs.test_streams import Rows
from tests.data.pictures import BLUE, GREEN, RED, image_file, noise_file, table


def pair_set(*labels: Any, config: PairsConfig | None = None, **columns: Any) -> PairSet:
    return PairSet.of_table(table(*labels, **columns), origin="set.parquet", config=config)


def distinct(count: int) -> list[bytes]:
    return [noise_file(seed=seed) for seed in range(count)]


def check(*labels: Any, config: PairsConfig | None = None, rows: int | None = None, **columns: Any) -> Findings:
    return check_pairs(pair_set(*labels, config=config, **columns), rows=rows, progress=False)


class TestCounts:
    def test_pairs_ties_and_unlabelled(self) -> None:
        labels = [(1, 0), (0.5, 0.5), (0, 1), (0.5, 0.5), (1, 0)]
        findings = check(*labels, has_label=[True, True, True, True, False], jpg_0=distinct(5))
        assert (findings.pairs, findings.ties, findings.unlabelled, findings.checked) == (2, 2, 1, 2)
        assert findings.readable == [0, 1]
        assert findings.summary == "2 pairs, 2 ties left out, 1 without a label left out"
        half = check(*labels, jpg_0=distinct(5), config=PairsConfig(ties="half"))
        assert (half.pairs, half.ties, half.checked) == (5, 2, 5)

    def test_sizes(self) -> None:
        files = [image_file(RED, size=size) for size in ((8, 6), (8, 6), (20, 10))]
        others = [image_file(BLUE, size=size) for size in ((8, 6), (6, 8), (20, 10))]
        findings = check(*[(1, 0)] * 3, jpg_0=files, jpg_1=others, config=PairsConfig(resolution=8))
        assert dict(findings.shapes.sizes) == {(6, 8): 3, (8, 6): 1, (10, 20): 2}
        assert (findings.shapes.different_sizes, findings.too_small) == (1, 4)
        assert findings.shapes.shorter_sides == {"least": 6, "5 %": 6, "median": 6, "95 %": 10, "most": 10}

    def test_without_a_resolution_another_size_cannot_be_used(self) -> None:
        files = [image_file(RED, size=size) for size in ((8, 6), (16, 12))]
        findings = check((1, 0), (1, 0), jpg_0=files, jpg_1=files)
        assert [place.split(":")[0] for place in findings.unreadable] == ["set.parquet row 1"]
        assert "16 x 12 pixels and the first pair 8 x 6" in findings.unreadable[0]

    def test_prompts(self) -> None:
        texts = ["a star", "a star", "  ", "word " * 75, "word " * 76]
        findings = check(*[(1, 0)] * 5, caption=texts, jpg_0=distinct(5))
        assert findings.prompts == 4
        assert findings.empty_prompts == ["set.parquet row 2"]
        assert findings.long_prompts == ["set.parquet row 4"]


class TestLikes:
    FILES = (image_file(RED), image_file(BLUE), image_file(GREEN), image_file(RED))
    CONFIG = PairsConfig(from_scores="likes")

    def findings(self, *liked: object, prompts: tuple[str, ...] = ("a", "a", "b", "a")) -> Findings:
        columns = {"prompt": list(prompts), "image": list(self.FILES), "liked": list(liked)}
        return check_pairs(
            PairSet.of_table(pa.table(columns), origin="likes.parquet", config=self.CONFIG), progress=False
        )

    def test_both_kinds_and_each_image_once_are_counted(self) -> None:
        findings = self.findings(1, 0, 1, 1)
        assert (findings.unit, findings.liked, findings.pairs, findings.checked) == ("likes", (3, 1), 4, 4)
        assert (findings.compared, findings.shapes.sizes.total(), findings.shapes.different_sizes) == (4, 4, 0)
        assert findings.repeated == ["likes.parquet row 3 = likes.parquet row 0"]
        assert not findings.contradictions
        assert not findings.same_image
        assert not findings.stops
        assert not findings.omitted
        assert "checked: 4 likes" in findings_text(findings)
        json.dumps(findings.as_json())

    def test_other_labels_of_one_image_are_listed(self) -> None:
        findings = self.findings(1, 0, 1, 0)
        assert findings.contradictions == ["likes.parquet row 3 != likes.parquet row 0"]
        other_prompt = self.findings(1, 0, 1, 0, prompts=("a", "a", "b", "c"))
        assert not other_prompt.contradictions
        assert [entry.second.place for entry in other_prompt.alike.other_prompts] == ["likes.parquet row 3"]
        assert str(other_prompt.alike.other_prompts[0].second) == "likes.parquet row 3 not liked"

    def test_likes_that_look_alike_are_listed_with_their_labels(self) -> None:
        near = [noise_file("JPEG", size=(64, 64), seed=0), noise_file(size=(64, 64), seed=0)]
        columns = {"prompt": ["a"] * 2, "image": near, "liked": [True, False]}
        pairs = PairSet.of_table(pa.table(columns), origin="likes.parquet", config=self.CONFIG)
        (alike,) = check_pairs(pairs, progress=False).alike.pairs
        assert alike.is_turned

    @pytest.mark.parametrize(("liked", "counts"), [(1, (4, 0)), (0, (0, 4))])
    def test_one_kind_alone_stops_a_run(self, liked: int, counts: tuple[int, int]) -> None:
        findings = self.findings(*[liked] * 4)
        assert findings.liked == counts
        assert len(findings.stops) == 1

    def test_sheets_show_single_images(self, tmp_path: Path) -> None:
        columns = {"prompt": ["a", "b"], "image": list(self.FILES[:2]), "liked": [True, False]}
        pairs = PairSet.of_table(pa.table(columns), origin="likes.parquet", config=self.CONFIG)
        write_contact_sheet(pairs, [0, 1], tmp_path / "sheet.png", title="likes")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 0


class TestUnreadable:
    FILES = (b"broken", b"", noise_file()[:60])

    def test_each_is_named_with_file_and_row(self) -> None:
        findings = check(*[(1, 0)] * 6, jpg_1=[*distinct(3), *self.FILES])
        assert [place.split(" is")[0] for place in findings.unreadable] == [
            f"set.parquet row {row}: jpg_1" for row in (3, 4, 5)
        ]
        assert findings.readable == [0, 1, 2]
        assert findings.checked == 6

    def test_whether_a_run_would_stop(self) -> None:
        for limit, stops in [(0.01, True), (0.49, True), (0.5, False), (1.0, False)]:
            findings = check(*[(1, 0)] * 6, jpg_1=[*distinct(3), *self.FILES], config=PairsConfig(bad_rows_limit=limit))
            assert bool(findings.stops) is stops
            if stops:
                assert findings.stops[0].startswith(
                    "3 of 6 pairs cannot be used (50.00%), and pairs.bad_rows_limit allows"
                )


class TestRepetition:
    def test_equal_pairs_are_told_by_their_pixels(self) -> None:
        """Another file format, and the two images the other way round with the other label, are the same pair."""
        files, others = distinct(4), [image_file(BLUE)] * 4
        files[2], others[2] = others[2], files[0]
        others[3] = image_file(BLUE, kind="BMP")
        files[3] = files[0]
        findings = check((1, 0), (1, 0), (0, 1), (1, 0), caption=["a"] * 4, jpg_0=files, jpg_1=others)
        assert findings.repeated == [
            "set.parquet row 2 = set.parquet row 0",
            "set.parquet row 3 = set.parquet row 0",
        ]
        assert findings.contradictions == []

    def test_equal_pairs_with_other_labels(self) -> None:
        findings = check((1, 0), (0, 1), (0.5, 0.5), caption=["a"] * 3, config=PairsConfig(ties="half"))
        assert findings.contradictions == [f"set.parquet row {row} != set.parquet row 0" for row in (1, 2)]
        assert findings.repeated == []

    def test_other_prompts_make_other_pairs(self) -> None:
        assert check((1, 0), (1, 0)).repeated == []

    def test_one_image_twice(self) -> None:
        findings = check((1, 0), (1, 0), jpg_0=[image_file(BLUE), image_file(GREEN)])
        assert findings.same_image == ["set.parquet row 0"]


class TestRows:
    def test_a_part_is_evenly_spread_and_labels_are_all_counted(self) -> None:
        findings = check(*[(1, 0)] * 20, (0.5, 0.5), rows=5)
        assert findings.readable == [0, 5, 10, 14, 19]
        assert (findings.pairs, findings.ties, findings.checked) == (20, 1, 5)

    def test_more_than_there_are(self) -> None:
        assert check((1, 0), (1, 0), rows=9).checked == 2

    def test_a_stream_is_read_once_or_in_part(self) -> None:
        stream = StreamedPairs(Rows(jpg_1=[b"broken", *[image_file(BLUE)] * 5]), PairsConfig(resolution=8))
        findings = check_pairs(stream, rows=3, progress=False)
        assert (findings.pairs, findings.ties, findings.checked, findings.readable) == (None, None, 3, [1, 2])
        assert "stream pair 0 of the stream: jpg_1 is not an image" in findings.unreadable[0]
        assert check_pairs(stream, progress=False).checked == 6

    def test_rows_of_a_stream_are_counted_as_they_are_read(self) -> None:
        labels = [(1, 0), (0.5, 0.5), (1, 0), (0, 1), (2, 3), (0.5, 0.5)]
        stream = StreamedPairs(Rows(*labels), PairsConfig(resolution=8))
        assert stream.inventory.rows is None
        inventory = check_pairs(stream, progress=False).inventory
        assert (inventory.rows, inventory.used, inventory.left_out) == (6, 3, {"ties": 2, "faulty": 1})


class TestText:
    def test_a_sound_set(self) -> None:
        files, others = [noise_file(seed=seed) for seed in range(3)], [noise_file(seed=seed) for seed in range(3, 6)]
        text = findings_text(check((1, 0), (0, 1), (0.5, 0.5), jpg_0=files, jpg_1=others))
        assert text.splitlines() == [
            "set.parquet",
            "  rows: 3 found, 2 used, 1 ties",
            "  2 pairs, 1 ties left out",
            "  checked: 2 pairs",
            "  sizes of images (width x height):",
            "         8 x 6       100.0%",
            "    shorter side: least 6, 5 % 6, median 6, 95 % 6, most 6 px",
            "  No usual resolution fits: 100.0% of the images are enlarged even at 512.",
            "  prompts: 2 different ones",
            "A run can use this set.",
        ]

    def test_everything_odd(self) -> None:
        files = [image_file(RED, size=(width, 8)) for width in range(8, 16)]
        findings = check(
            *[(1, 0)] * 9,
            caption=["", "word " * 90, *["a"] * 7],
            jpg_0=[*files, b"broken"],
            jpg_1=[image_file(BLUE, size=(8, 8)), files[1], *files[:1] * 2, *[image_file(BLUE, size=(9, 9))] * 5],
            config=PairsConfig(resolution=16),
        )
        text = findings_text(findings)
        for line in (
            "  checked: 9 pairs",
            "    4 other sizes   25.0%",
            "    images smaller than the resolution, which are enlarged: 16",
            "  without a prompt: 1\n    set.parquet row 0",
            "  prompts of more than 77 tokens, whose end is not seen: 1\n    set.parquet row 1",
            "  pairs that show one image twice: 1\n    set.parquet row 1",
            "  pairs that cannot be used: 1\n    set.parquet row 8: jpg_0 is not an image",
            "A run would stop: 1 of 9 pairs cannot be used (11.11%), and pairs.bad_rows_limit allows 1.00%",
        ):
            assert line in text
        assert "A run can use" not in text

    def test_long_lists_are_cut(self) -> None:
        text = findings_text(check(*[(1, 0)] * 8, jpg_0=[b"broken"] * 8))
        assert "pairs that cannot be used: 8\n    set.parquet row 0: jpg_0" in text
        assert f"and {8 - SHOWN} more" in text
        assert "row 5" not in text

    def test_a_part(self) -> None:
        assert "checked: 2 of 4 pairs, evenly spread" in findings_text(check(*[(1, 0)] * 4, rows=2))


def test_the_findings_as_json() -> None:
    values = json.loads(json.dumps(check((1, 0), (1, 0), jpg_0=[b"broken", image_file(RED)]).as_json()))
    assert values["sizes"] == {"8x6": 2}
    assert values["stops"][0].startswith("1 of 2 pairs cannot be used")
    assert values["unreadable"][0].startswith("set.parquet row 0: jpg_0")
    assert "readable" not in values


def test_tokens_are_counted_from_below() -> None:
    """Pieces of CLIP's tokenizer: words, single digits, signs; start and end."""
    assert least_tokens("") == 2
    pieces = ("a", "red", "star", ",", "1", "0", "8", "0", "p", ";", "it", "'s", "new", "_", "york", "!!")
    assert least_tokens("a red star, 1080p; it's new_york!!") == len(pieces) + 2

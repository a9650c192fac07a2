from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.layouts.columns import Shape
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.data.pairs.streams import ENDLESS, RECENT, StreamedPairs
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.stream_rows import StreamRow
from seedpo.errors import DataError, StreamError
from seedpo.methods.sources.offline import OfflinePairs
from tests.data.encoders import NumberedPairs, prompts_of
from tests.data.pictures import BLUE, RED, image_file, plain, table

COUNT = 6


class Rows:
    """A stream of Pick-a-Pic's columns; each pass begins one row later. Counts the rows that it gave."""

    def __init__(self, *labels: tuple[Any, Any], folder: Path | None = None, **columns: list[Any]) -> None:
        self.rows = table(*(labels or [(1, 0)] * COUNT), **columns).to_pylist()
        self.origin = "stream"
        self.columns = list(self.rows[0])
        self.shape = Shape()
        self.folder = folder
        self.given = 0

    def epoch(self, number: int) -> Iterator[StreamRow]:
        count = len(self.rows)
        for place in range(count):
            self.given += 1
            yield StreamRow(values=self.rows[(place + number) % count])


def streamed(rows: Rows, **settings: Any) -> StreamedPairs:
    return StreamedPairs(rows, PairsConfig(resolution=8, **settings))


def prompts(pairs: Any, *rows: int) -> list[int]:
    return [int(pairs[row].prompt.removeprefix("prompt ")) for row in rows]


class TestOrder:
    def test_passes_follow_each_other_each_in_its_own_order(self) -> None:
        pairs = streamed(Rows())
        assert prompts(pairs, *range(13)) == [0, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 0, 2]
        assert len(pairs) == ENDLESS
        assert pairs.sequential

    def test_a_position_is_the_same_pair_however_it_is_reached(self) -> None:
        rows = Rows()
        pairs = streamed(rows)
        assert prompts(pairs, 9, 9, 10) == prompts(streamed(Rows()), *range(11))[9:10] * 2 + [5]
        assert rows.given == 11, "the rows before are passed over once, and nothing is read ahead"

    def test_the_last_ones_can_be_asked_for_again(self) -> None:
        rows = Rows()
        pairs = streamed(rows)
        pairs[RECENT - 1]
        assert prompts(pairs, 0, RECENT - 1, 3) == [0, prompts(streamed(Rows()), RECENT - 1)[0], 3]
        assert rows.given == RECENT

    def test_an_earlier_one_costs_a_new_start(self, caplog: pytest.LogCaptureFixture) -> None:
        pairs = streamed(Rows())
        pairs[RECENT]
        with caplog.at_level(logging.WARNING):
            assert prompts(pairs, 0) == [0]
        assert caplog.messages == ["stream starts again to get back to pair 0"]

    def test_one_pass_ends_where_the_stream_begins_again(self) -> None:
        rows = Rows((1, 0), (0.5, 0.5), (0, 1))
        pairs = streamed(rows)
        assert [(row, *prompts(pairs, row)) for row in pairs.one_pass()] == [(0, 0), (1, 2)]
        assert rows.given == 3, "nothing is read of the second pass"
        assert prompts(pairs, 2) == [2]


class TestResume:
    @pytest.mark.parametrize("world", [1, 2])
    def test_the_very_next_pairs_come_after_a_resume(self, world: int) -> None:
        """Past the end of a pass, with a broken row, and for each of several processes."""
        broken = [b"broken" if row == 4 else image_file(RED) for row in range(COUNT)]

        def source(rank: int) -> OfflinePairs:
            pairs = SkippingPairs(streamed(Rows(jpg_0=broken)), limit=0.5)
            return OfflinePairs(NumberedPairs(pairs), batch_size=2, seed=0, rank=rank, world=world, reader=pairs)

        for rank in range(world):
            whole, half, resumed = source(rank), source(rank), source(rank)
            expected = [prompts_of(whole.next_batch()) for _ in range(7)]
            for _ in range(3):
                half.next_batch()
            resumed.restore(json.loads(json.dumps(half.state())))
            assert [prompts_of(resumed.next_batch()) for _ in range(4)] == expected[3:]
            assert resumed.state() == whole.state()


class TestLabels:
    ROWS = ((1, 0), (0.5, 0.5), (0, 1), (1, 1))

    def test_ties_are_left_out_or_halves(self) -> None:
        pairs = streamed(Rows(*self.ROWS[:3]))
        assert prompts(pairs, 0, 1, 2) == [0, 2, 2]
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE, (8, 8)))
        half = streamed(Rows(*self.ROWS[:3]), ties="half")
        assert [half[row].chosen_probability for row in range(3)] == [1.0, 0.5, 1.0]

    def test_pairs_that_nobody_judged_are_left_out(self) -> None:
        pairs = streamed(Rows((1, 0), (1, 0), (0, 1), has_label=[True, False, True]))
        assert prompts(pairs, 0, 1) == [0, 2]

    def test_a_wrong_label_is_a_row_that_cannot_be_read(self) -> None:
        pairs = streamed(Rows(*self.ROWS))
        with pytest.raises(DataError, match=r"^stream pair 2 of the stream: .*label_0 = 1.0, label_1 = 1.0"):
            pairs[2]

    @pytest.mark.parametrize("labels", [[(0.5, 0.5)] * 3, [(0.5, 0.5)]])
    def test_nothing_but_ties(self, labels: list[Any]) -> None:
        with pytest.raises(StreamError, match="stream holds no pair with a preference"):
            streamed(Rows(*labels))[0]


class TestFates:
    def test_each_row_of_a_pass_once(self) -> None:
        labels: list[tuple[Any, Any]] = [(1, 0), (0.5, 0.5), (1, 1), (0, 1)]
        pairs = streamed(Rows(*labels, has_label=[True, True, True, False]))
        fates = list(pairs.fates())
        assert [fate.place for fate in fates] == [f"stream row {row}" for row in range(4)]
        assert [len(fate.pairs) for fate in fates] == [1, 0, 1, 0]
        assert [fate.reason is None for fate in fates] == [True, False, True, False]
        assert fates[0].pairs[0]().prompt == "prompt 0"
        with pytest.raises(DataError, match="stream row 2"):
            fates[2].pairs[0]()


class TestRefusals:
    def test_without_a_resolution(self) -> None:
        with pytest.raises(DataError, match=r"stream is a stream, .*; set pairs\.resolution, for example --set pairs"):
            StreamedPairs(Rows(), PairsConfig())

    def test_other_columns(self) -> None:
        rows = Rows()
        rows.columns = ["prompt", "image"]
        with pytest.raises(DataError, match=r"stream lacks the columns \['rank'\]"):
            streamed(rows)

    def test_a_broken_image(self) -> None:
        pairs = streamed(Rows((1, 0), (0, 1), jpg_1=[b"broken", image_file(RED)]))
        with pytest.raises(DataError, match=r"^stream pair 0 of the stream: jpg_1 is not an image"):
            pairs[0]
        assert pairs[1].prompt == "prompt 1"

    def test_paths_are_followed_within_the_folder_only(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(image_file(RED))
        rows = {"jpg_0": ["a.png"], "jpg_1": [image_file(BLUE)]}
        torch.testing.assert_close(streamed(Rows((1, 0), folder=tmp_path, **rows))[0].chosen, plain(RED, (8, 8)))
        with pytest.raises(DataError, match=r"a\.png is a path, and there is no folder for it"):
            streamed(Rows((1, 0), **rows))[0]
        named = streamed(Rows((1, 0), **rows), image_folder=str(tmp_path))
        torch.testing.assert_close(named[0].chosen, plain(RED, (8, 8)))


def test_content_is_that_of_the_position() -> None:
    pairs = streamed(Rows(caption=["prompt 0"] * COUNT))
    contents = [pairs.content(row) for row in range(2)]
    assert contents[0] == contents[1]
    assert streamed(Rows()).content(1) != contents[1]
    assert pairs.summary == "stream: a stream of pairs, shuffled among 1000"


class Records(Rows):
    """A stream of any rows."""

    def __init__(self, *rows: dict[str, Any], shape: Shape) -> None:
        self.rows = list(rows)
        self.origin = "stream"
        self.columns = list(self.rows[0])
        self.shape = shape
        self.folder = None
        self.given = 0


class TestLayouts:
    LISTS = Shape(lists=("images", "rank", "rejected"))

    def test_a_row_may_make_several_pairs_or_none(self) -> None:
        files = [image_file(colour) for colour in (RED, BLUE, RED)]
        rows = [
            {"prompt": "prompt 0", "images": files, "rank": [2, 1, 3]},
            {"prompt": "prompt 1", "images": files[:1], "rank": [1]},
            {"prompt": "prompt 2", "images": files[:2], "rank": [1, "x"]},
            {"prompt": "prompt 3", "images": files[:2], "rank": [1, 1]},
        ]
        pairs = streamed(Records(*rows, shape=self.LISTS))
        assert prompts(pairs, 0, 1, 2) == [0, 0, 0]
        torch.testing.assert_close(pairs[0].chosen, plain(BLUE, (8, 8)))
        torch.testing.assert_close(pairs[1].chosen, plain(RED, (8, 8)))
        with pytest.raises(DataError, match=r"ranks must be .*rank = "):
            pairs[3]
        assert len(list(streamed(Records(*rows, shape=self.LISTS)).one_pass())) == 4
        assert len(list(streamed(Records(*rows, shape=self.LISTS), from_scores="best-worst").one_pass())) == 2

    def test_rejected_images_in_a_list(self) -> None:
        row = {"prompt": "prompt 0", "chosen": image_file(RED), "rejected": [image_file(BLUE), b"broken"]}
        pairs = streamed(Records(row, shape=self.LISTS))
        torch.testing.assert_close(pairs[0].rejected, plain(BLUE, (8, 8)))
        with pytest.raises(DataError, match=r"pair 1 of the stream: rejected\[1\] is not an image"):
            pairs[1]

    def test_rows_that_are_compared_with_others_are_refused(self) -> None:
        row = {"prompt": "prompt 0", "image": image_file(RED), "rank": 1}
        with pytest.raises(DataError, match="seedpo data convert"):
            streamed(Records(row, shape=Shape()))

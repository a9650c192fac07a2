from __future__ import annotations

import json
import logging

import pytest

from seedpo.data.pairs.selection import LEAST_SEEN, SkippingPairs
from seedpo.data.pairs.sets import PairSet
from seedpo.errors import DataError, StreamError
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.protocols import LabelledPair, StatefulPairs
from tests.data.encoders import NumberedPairs, prompts_of
from tests.data.pictures import BLUE, RED, image_file, table


def with_broken(*broken: int, count: int = 10, limit: float = 0.5) -> SkippingPairs:
    files = [b"broken" if row in broken else image_file(RED) for row in range(count)]
    return SkippingPairs(PairSet.of_table(table(*[(1, 0)] * count, jpg_0=files), origin="set.parquet"), limit=limit)


def prompts(pairs: SkippingPairs, *rows: int) -> list[int]:
    return [int(pairs[row].prompt.removeprefix("prompt ")) for row in rows]


class TestReplacement:
    def test_the_next_readable_pair_takes_the_place(self) -> None:
        assert prompts(with_broken(3, 4, 9), *range(10)) == [0, 1, 2, 5, 5, 5, 6, 7, 8, 0]

    def test_it_depends_on_the_set_alone(self) -> None:
        """Not on what was read before."""
        for order in (range(10), range(9, -1, -1), (4, 3, 4, 3)):
            pairs = with_broken(3, 4, 9)
            assert [prompts(pairs, row)[0] for row in order] == [prompts(with_broken(3, 4, 9), row)[0] for row in order]

    def test_content_is_that_of_the_pair_in_its_place(self) -> None:
        pairs = with_broken(3)
        before = pairs.content(3)
        assert pairs[3].prompt == "prompt 4"
        assert pairs.content(3) == pairs.content(4) != before

    def test_the_end(self) -> None:
        for row in (10, -1):
            with pytest.raises(IndexError):
                with_broken(3)[row]


class TestCounting:
    def test_each_is_named_once_with_file_and_row(self, caplog: pytest.LogCaptureFixture) -> None:
        pairs = with_broken(3, 9)
        assert pairs.metrics() == {}
        with caplog.at_level(logging.WARNING):
            prompts(pairs, *range(10), 3, 9)
        assert pairs.metrics() == {"unreadable": 2.0}
        named = [record.message for record in caplog.records]
        assert len(named) == 2
        assert named[0].startswith(
            "pair 3 is left out, and the next one taken in its place: set.parquet row 3: jpg_0 is"
        )

    @pytest.mark.parametrize(("limit", "allowed"), [(0.0, 0), (0.1, 1), (0.2, 2), (0.29, 2)])
    def test_the_share_over_which_a_run_stops(self, limit: float, allowed: int) -> None:
        pairs = with_broken(*range(0, 10, 2), limit=limit)
        for row in range(0, 2 * allowed, 2):
            pairs[row]
        with pytest.raises(
            DataError,
            match=rf"^{allowed + 1} of 10 .*bad_rows_limit = {limit:g} .*row {2 * allowed}: jpg_0",
        ):
            pairs[2 * allowed]

    def test_a_set_of_nothing_readable(self) -> None:
        with pytest.raises(DataError, match="no pair of the set can be read"):
            with_broken(0, 1, count=2, limit=1.0)[0]


class TestState:
    def test_goes_on_with_the_count(self, caplog: pytest.LogCaptureFixture) -> None:
        first, again = with_broken(1, 3, limit=0.2), with_broken(1, 3, 7, limit=0.2)
        prompts(first, 1, 3)
        caplog.clear()
        again.restore(json.loads(json.dumps(first.state())))
        with caplog.at_level(logging.WARNING):
            assert prompts(again, 1, 3) == [2, 4]
        assert not caplog.records, "what was named before is not named again"
        with pytest.raises(DataError, match=r"^3 of 10 pairs"):
            again[7]

    def test_a_resumed_source_gives_the_same_pairs(self) -> None:
        """The position of the data and what was found unreadable come back exactly, in the middle of an epoch."""

        def source() -> OfflinePairs:
            pairs = with_broken(2, 5, 6)
            return OfflinePairs(NumberedPairs(pairs), batch_size=3, seed=4, reader=pairs)

        whole, half = source(), source()
        rows = [prompts_of(whole.next_batch()) for _ in range(8)]
        for _ in range(3):
            half.next_batch()
        resumed = source()
        resumed.restore(json.loads(json.dumps(half.state())))
        assert [prompts_of(resumed.next_batch()) for _ in range(5)] == rows[3:]
        assert resumed.state() == whole.state()
        assert resumed.metrics() == {"visits": 2.4, "unreadable": 3.0}

    def test_other_processes_know_what_any_of_them_found(self) -> None:
        """Each goes on with the rows that the others left, and neither reads nor counts a broken one again."""
        states = [{"unreadable": [3, 5], "seen": 9}, {"unreadable": [4, 5], "seen": 12}]
        pairs = SkippingPairs(Endless(), limit=1.0)
        pairs.take_over(states)
        assert pairs.state() == {"unreadable": [3, 4, 5], "seen": 12}
        assert pairs.metrics() == {"unreadable": 3.0}


class Endless:
    """Pairs of a stream, of which every fourth is broken."""

    sequential = True

    def one_pass(self) -> range:
        raise NotImplementedError

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, row: int) -> LabelledPair:
        if row % 4 == 3:
            raise DataError(f"stream pair {row}: broken")
        return PairSet.of_table(table((1, 0), jpg_1=[image_file(BLUE)]), origin="t")[0]

    def content(self, row: int) -> str:
        return str(row)


class TestStreams:
    def test_the_share_is_of_what_was_seen(self) -> None:
        """A few broken pairs at the beginning of a stream do not stop a run."""
        pairs = SkippingPairs(Endless(), limit=0.01)
        assert isinstance(pairs, StatefulPairs)
        for row in range(4 * int(0.01 * LEAST_SEEN) + 3):
            pairs[row]
        with pytest.raises(DataError, match=r"^11 of 1000 pairs cannot be read"):
            pairs[43]

    def test_a_stream_that_breaks_off_is_not_passed_over(self) -> None:
        class Broken(Endless):
            def __getitem__(self, row: int) -> LabelledPair:
                raise StreamError("broke off")

        with pytest.raises(StreamError):
            SkippingPairs(Broken(), limit=1.0)[0]

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedpo.methods.sources.stream import BucketStream, IndexStream


@pytest.mark.parametrize("chunk", [1, 3, 4, 7, 25])
def test_every_epoch_is_a_permutation(chunk: int) -> None:
    stream = IndexStream(10, seed=0)
    taken = [row for _ in range(200 // chunk) for row in stream.take(chunk)]
    epochs = [taken[start : start + 10] for start in range(0, len(taken) - 9, 10)]
    assert len(epochs) >= 17
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs), "each epoch has an order of its own"


def test_order_depends_on_the_seed_not_on_the_chunks() -> None:
    orders = [IndexStream(10, seed=seed).take(30) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    stream = IndexStream(10, seed=0)
    assert [row for number in (1, 9, 7, 13) for row in stream.take(number)] == orders[0]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_epoch_without_overlap(world: int) -> None:
    count = 12
    streams = [IndexStream(count, seed=4, rank=rank, world=world) for rank in range(world)]
    for _ in range(3):
        taken = [stream.take(count // world) for stream in streams]
        assert sorted(row for rows in taken for row in rows) == list(range(count))


def test_one_process_of_several_sees_what_the_single_one_does() -> None:
    whole = IndexStream(7, seed=2).take(28)
    parts = [IndexStream(7, seed=2, rank=rank, world=2).take(14) for rank in range(2)]
    assert [row for pair in zip(*parts, strict=True) for row in pair] == whole


@pytest.mark.parametrize("before", [0, 4, 10, 33])
def test_restored_stream_goes_on(before: int) -> None:
    stream = IndexStream(10, seed=3, rank=1, world=2)
    stream.take(before)
    state = stream.state()
    expected = stream.take(25)
    other = IndexStream(10, seed=3, rank=1, world=2)
    other.take(3)
    other.restore(state)
    assert other.take(25) == expected


LIVES = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=2, max_size=4)
"""Of each number of processes in turn: how many rows each process takes."""


class TestOtherProcesses:
    """A stream that goes on on another number of processes."""

    @given(count=st.integers(1, 17), lives=LIVES, repeated=st.booleans())
    def test_every_visit_comes_once(self, count: int, lives: list[list[int]], repeated: bool) -> None:
        repeats = [1 + row % 3 for row in range(count)] if repeated else None
        whole = IndexStream(count, seed=7, repeats=repeats)
        states: list[dict[str, object]] = []
        taken: list[tuple[int, int]] = []
        for shares in lives:
            world = len(shares)
            streams = [IndexStream(count, seed=7, rank=rank, world=world, repeats=repeats) for rank in range(world)]
            if states:
                for stream in streams:
                    stream.take_over(states)
                assert len({stream.visits for stream in streams}) == 1
                assert streams[0].visits == pytest.approx(len(taken) / whole.count)
            for stream, number in zip(streams, shares, strict=True):
                taken += [
                    visit for some in (number // 2, number - number // 2) for visit in stream.take_with_visits(some)
                ]
            states = [stream.state() for stream in streams]
        last = IndexStream(count, seed=7, repeats=repeats)
        last.take_over(states)
        more = 200  # above what four numbers of processes can leave
        assert Counter(taken + last.take_with_visits(more)) == Counter(whole.take_with_visits(len(taken) + more))

    @given(count=st.integers(1, 17), lives=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), max_size=4))
    def test_processes_that_took_equally_many_leave_the_rest_in_its_order(
        self, count: int, lives: list[tuple[int, int]]
    ) -> None:
        states: list[dict[str, object]] = [{"position": 0}]
        taken: list[int] = []
        for world, number in lives:
            streams = [IndexStream(count, seed=7, rank=rank, world=world) for rank in range(world)]
            for stream in streams:
                stream.take_over(states)
            rows = [stream.take(number) for stream in streams]
            taken += [row for turn in zip(*rows, strict=True) for row in turn]
            states = [stream.state() for stream in streams]
            assert states == [{"position": len(taken)}] * world
        assert taken == IndexStream(count, seed=7).take(len(taken))

    @given(lives=LIVES, more=st.integers(0, 20))
    def test_a_state_holds_what_was_left(self, lives: list[list[int]], more: int) -> None:
        states: list[dict[str, object]] = [{"position": 0}]
        for shares in lives:
            streams = [IndexStream(13, seed=7, rank=rank, world=len(shares)) for rank in range(len(shares))]
            for stream, number in zip(streams, shares, strict=True):
                stream.take_over(states)
                stream.take(number)
            states = [stream.state() for stream in streams]
        stream = streams[-1]
        expected = stream.coming(more)
        other = IndexStream(13, seed=7, rank=len(streams) - 1, world=len(streams))
        other.restore(states[-1])
        assert other.coming(more) == expected


class TestBuckets:
    BUCKETS = "aabababcaab"
    """Six of a, four of b, one of c."""

    def taken(self, batches: int, *, world: int = 1, repeats: list[int] | None = None) -> list[list[tuple[int, int]]]:
        """The batches of all processes, in turn."""
        streams = [
            BucketStream(self.BUCKETS, batch_size=3, seed=1, rank=rank, world=world, repeats=repeats)
            for rank in range(world)
        ]
        return [stream.take_with_visits(3) for _ in range(batches // world) for stream in streams]

    def test_a_batch_holds_one_bucket_and_is_full(self) -> None:
        for batch in self.taken(50):
            assert len(batch) == 3
            assert len({self.BUCKETS[row] for row, _ in batch}) == 1

    def test_every_visit_comes_once_and_what_is_left_waits_for_the_next_epoch(self) -> None:
        count = len(self.BUCKETS)
        visits = [visit for batch in self.taken(60 * count // 3) for visit in batch]
        assert len(set(visits)) == len(visits)
        turns = {row: sorted(visit for other, visit in visits if other == row) for row in range(count)}
        for row, seen in turns.items():
            # Up to 2 visits of a bucket wait, and of c alone they are those of two epochs.
            assert seen == list(range(len(seen))), row
            assert abs(len(seen) - 60) <= 3, row

    def test_weights_of_sets(self) -> None:
        repeats = [2 if row < 4 else 1 for row in range(len(self.BUCKETS))]
        visits = [visit for batch in self.taken(100, repeats=repeats) for visit in batch]
        assert len(set(visits)) == len(visits)
        counts = [sum(other == row for other, _ in visits) for row in range(len(self.BUCKETS))]
        assert min(counts[:4]) > 1.7 * max(counts[4:])

    @pytest.mark.parametrize("world", [2, 3, 4])
    def test_processes_take_the_batches_of_a_single_one_in_turn(self, world: int) -> None:
        assert self.taken(24, world=world) == self.taken(24)

    @pytest.mark.parametrize("before", [0, 1, 17])
    def test_restored_stream_goes_on(self, before: int) -> None:
        stream = BucketStream(self.BUCKETS, batch_size=3, seed=3, rank=1, world=2)
        for _ in range(before):
            stream.take_with_visits(3)
        state = stream.state()
        expected = [stream.take_with_visits(3) for _ in range(9)]
        other = BucketStream(self.BUCKETS, batch_size=3, seed=3, rank=1, world=2)
        other.take_with_visits(3)
        other.restore(state)
        assert [other.take_with_visits(3) for _ in range(9)] == expected

    @given(lives=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 6)), min_size=1, max_size=4))
    def test_other_processes_take_what_is_left(self, lives: list[tuple[int, int, int]]) -> None:
        """In batches of any size: each visit comes once, and a batch is full and of one bucket."""
        states: list[dict[str, object]] = []
        visits: list[tuple[int, int]] = []
        last = 0
        for world, size, turns in [*lives, (1, 1, 60)]:
            streams = [
                BucketStream(self.BUCKETS, batch_size=size, seed=1, rank=rank, world=world) for rank in range(world)
            ]
            for stream in streams:
                if states:
                    stream.take_over(states, batch_size=last)
            for stream in streams * turns:
                batch = stream.take_with_visits(size)
                assert len(batch) == size
                assert len({self.BUCKETS[row] for row, _ in batch}) == 1
                visits += batch
            assert streams[0].visits == pytest.approx(len(visits) / len(self.BUCKETS))
            states, last = [stream.state() for stream in streams], size
            assert states == [states[0]] * world
        # With batches of 1 nothing waits: what came is the beginning of the order, however it was cut before.
        assert set(visits) == set(IndexStream(len(self.BUCKETS), seed=1).take_with_visits(len(visits)))
        assert len(set(visits)) == len(visits)

    @pytest.mark.parametrize("before", [0, 1, 17])
    def test_a_state_holds_the_sizes_before(self, before: int) -> None:
        stream = BucketStream(self.BUCKETS, batch_size=2, seed=3)
        stream.take_over([{"position": 5}, {"position": 5}], batch_size=3)
        for _ in range(before):
            stream.take_with_visits(2)
        other = BucketStream(self.BUCKETS, batch_size=2, seed=3)
        other.restore(stream.state())
        assert [other.take_with_visits(2) for _ in range(9)] == [stream.take_with_visits(2) for _ in range(9)]

    def test_visits_count_what_all_processes_took(self) -> None:
        stream = BucketStream(self.BUCKETS, batch_size=3, seed=3, rank=1, world=2)
        for _ in range(5):
            stream.take_with_visits(3)
        assert stream.visits == 30 / len(self.BUCKETS)

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match="hold 3 rows"):
            BucketStream("ab", batch_size=3, seed=0).take_with_visits(2)

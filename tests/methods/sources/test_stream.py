from __future__ import annotations

import pytest

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

    def test_visits_count_what_all_processes_took(self) -> None:
        stream = BucketStream(self.BUCKETS, batch_size=3, seed=3, rank=1, world=2)
        for _ in range(5):
            stream.take_with_visits(3)
        assert stream.visits == 30 / len(self.BUCKETS)

    def test_another_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match="hold 3 rows"):
            BucketStream("ab", batch_size=3, seed=0).take_with_visits(2)

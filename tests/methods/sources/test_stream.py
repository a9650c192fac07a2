from __future__ import annotations

import pytest

from seedpo.methods.sources.stream import IndexStream


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

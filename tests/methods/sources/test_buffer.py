from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedpo.methods.sources.embeddings import PromptEmbeddings
from seedpo.methods.sources.rollouts import UnitBuffer
from seedpo.methods.sources.step_pairs import StepPairs, step_batch
from seedpo.training.codec import flatten, load_tree, save_tree
from tests.methods.pair_rows import pair_rows
from tests.methods.sources.toys import NumberEmbedder, numbered, numbers_of, seeded


def numbers(taken: StepPairs) -> list[int]:
    embeddings = PromptEmbeddings(NumberEmbedder())  # type: ignore[arg-type]
    return numbers_of(pair_rows(step_batch(taken, embeddings, share_between_pairs=False)))


def test_what_is_put_in_comes_out_once() -> None:
    buffer = UnitBuffer(StepPairs, passes=1)
    assert len(buffer) == 0
    buffer.fill(numbered(*range(20)), generator=seeded())
    assert len(buffer) == 20
    taken = [numbers(buffer.take(5)) for _ in range(4)]
    assert len(buffer) == 0
    flat = [number for batch in taken for number in batch]
    assert sorted(flat) == list(range(20)) != flat


def test_passes_repeat_every_pair_each_in_another_order() -> None:
    buffer = UnitBuffer(StepPairs, passes=3)
    buffer.fill(numbered(*range(12)), generator=seeded())
    passes = [numbers(buffer.take(12)) for _ in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_a_batch_across_two_passes_may_hold_a_pair_twice() -> None:
    buffer = UnitBuffer(StepPairs, passes=2)
    buffer.fill(numbered(1, 2, 3), generator=seeded())
    assert sorted(numbers(buffer.take(6))) == [1, 1, 2, 2, 3, 3]


def test_what_is_left_comes_before_what_is_new() -> None:
    buffer = UnitBuffer(StepPairs, passes=1)
    buffer.fill(numbered(0, 1, 2, 3), generator=seeded())
    first = numbers(buffer.take(3))
    buffer.fill(numbered(10, 11, 12), generator=seeded())
    second = numbers(buffer.take(4))
    assert set(first) | {second[0]} == {0, 1, 2, 3}
    assert set(second[1:]) == {10, 11, 12}


def test_pairs_of_one_unit_stay_together() -> None:
    buffer = UnitBuffer(StepPairs, passes=2)
    buffer.fill(numbered(0, 1, 10, 11, 12, 20, unit=[0, 0, 1, 1, 1, 2]), generator=seeded())
    assert len(buffer) == 6
    units = [numbers(buffer.take(1)) for _ in range(6)]
    assert sorted(units) == sorted([[0, 1], [10, 11, 12], [20]] * 2)


def test_pairs_in_batches_are_those_one_by_one() -> None:
    whole, single = UnitBuffer(StepPairs, passes=2), UnitBuffer(StepPairs, passes=2)
    for buffer in (whole, single):
        buffer.fill(numbered(*range(9)), generator=seeded())
    assert numbers(whole.take(8)) == [number for _ in range(8) for number in numbers(single.take(1))]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("taken", [0, 3, 7])
def test_state_survives_the_disk(tmp_path: Path, taken: int, passes: int) -> None:
    buffer = UnitBuffer(StepPairs, passes=passes)
    buffer.fill(numbered(*range(8)), generator=seeded())
    if taken:
        buffer.take(taken)
    save_tree(buffer.state(), tmp_path / "state")
    left = 8 * passes - taken

    other = UnitBuffer(StepPairs, passes=passes)
    other.fill(numbered(100, 101), generator=seeded())
    other.restore(load_tree(tmp_path / "state"))
    assert len(other) == left
    assert numbers(other.take(left)) == numbers(buffer.take(left))


def dealt(states: list[dict[str, Any]], world: int, passes: int = 1) -> list[UnitBuffer[StepPairs]]:
    buffers = [UnitBuffer(StepPairs, passes=passes) for _ in range(world)]
    for rank, buffer in enumerate(buffers):
        buffer.take_over(states, rank=rank, world=world)
    return buffers


@given(
    waiting=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), min_size=1, max_size=4),
    world=st.integers(1, 4),
    passes=st.integers(1, 3),
)
def test_other_processes_share_what_waits(waiting: list[tuple[int, int]], world: int, passes: int) -> None:
    before: list[UnitBuffer[StepPairs]] = []
    for process, (count, taken) in enumerate(waiting):
        buffer = UnitBuffer(StepPairs, passes=passes)
        if count:
            buffer.fill(numbered(*range(10 * process, 10 * process + count)), generator=seeded())
        if taken and len(buffer):
            buffer.take(min(taken, len(buffer)))
        before.append(buffer)
    after = dealt([buffer.state() for buffer in before], world, passes)
    assert max(map(len, after)) - min(map(len, after)) <= 1
    found, expected = (
        sorted(number for buffer in buffers if len(buffer) for number in numbers(buffer.take(len(buffer))))
        for buffers in (after, before)
    )
    assert found == expected


def test_what_waits_longest_comes_first_of_each_process_in_turn() -> None:
    before = [UnitBuffer(StepPairs, passes=1) for _ in range(2)]
    for process, buffer in enumerate(before):
        buffer.fill(numbered(*range(10 * process, 10 * process + 4 - process)), generator=seeded(process))
    states = [buffer.state() for buffer in before]
    (one,) = dealt(states, 1)
    first, second = (numbers(buffer.take(len(buffer))) for buffer in before)
    assert numbers(one.take(7)) == [first[0], second[0], first[1], second[1], first[2], second[2], first[3]]
    two = dealt(states, 2)
    assert two[1].prompts() == tuple(str(number) for number in sorted(second)), "only what it hands out"


def test_state_of_an_empty_buffer(tmp_path: Path) -> None:
    emptied = UnitBuffer(StepPairs, passes=1)
    emptied.fill(numbered(1, 2), generator=seeded())
    emptied.take(2)
    for number, buffer in enumerate((UnitBuffer(StepPairs, passes=1), emptied)):
        save_tree(buffer.state(), tmp_path / f"state{number}")
        other = UnitBuffer(StepPairs, passes=1)
        other.fill(numbered(1, 2), generator=seeded())
        other.restore(load_tree(tmp_path / f"state{number}"))
        assert len(other) == 0
        assert other.prompts() == ()


class TestMemory:
    def test_state_holds_what_waits_once_and_prompts_as_text(self) -> None:
        buffer = UnitBuffer(StepPairs, passes=3)
        buffer.fill(numbered(*range(10)), generator=seeded())
        buffer.take(25)
        state = buffer.state()
        waiting = len(set(numbers(buffer.take(5))))
        assert len(state["latents"]) == 4 * waiting
        assert len(state["prompts"]) == waiting
        tensors, _ = flatten(state)
        assert not any("embeds" in name for name in tensors)

    def test_passes_hold_no_copies(self) -> None:
        sizes = []
        for passes in (1, 5):
            buffer = UnitBuffer(StepPairs, passes=passes)
            buffer.fill(numbered(*range(10)), generator=seeded())
            sizes.append(len(buffer.state()["latents"]))
        assert sizes == [40, 40]

    def test_a_roll_out_frees_what_was_handed_out(self) -> None:
        buffer = UnitBuffer(StepPairs, passes=1)
        for start in range(0, 50, 10):
            buffer.fill(numbered(*range(start, start + 10)), generator=seeded())
            buffer.take(9)
        assert len(buffer.state()["latents"]) == 4 * len(buffer)
        assert set(buffer.prompts()) == {str(number) for number in numbers(buffer.take(len(buffer)))}

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seedpo.core.types import Conditioning, TransitionPairs
from seedpo.sources.buffer import PairBuffer
from seedpo.training.codec import load_tree, save_tree
from tests.sources.toys import seeded


def pairs(*numbers: int) -> TransitionPairs:
    """One row per number; everything in a row shows its number."""
    numbers_of = torch.tensor(numbers)
    latents = numbers_of.view(-1, 1, 1, 1).float().expand(-1, 2, 2, 2)
    conditioning = Conditioning(prompt_embeds=numbers_of.view(-1, 1, 1).float())
    return TransitionPairs(
        timestep=numbers_of,
        previous_timestep=numbers_of - 1,
        chosen_latents=latents,
        rejected_latents=latents + 0.25,
        chosen_next_latents=latents + 0.5,
        rejected_next_latents=latents + 0.75,
        conditioning=conditioning,
        negative_conditioning=Conditioning(prompt_embeds=-conditioning.prompt_embeds),
    )


def numbers(batch: TransitionPairs) -> list[int]:
    """The numbers of a batch, whose rows are still in one piece."""
    found = batch.timestep.tolist()
    expected = pairs(*found)
    for name in ("previous_timestep", "chosen_latents", "rejected_latents", "chosen_next_latents"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert torch.equal(batch.rejected_next_latents, expected.rejected_next_latents)
    assert torch.equal(batch.conditioning.prompt_embeds, expected.conditioning.prompt_embeds)
    assert torch.equal(batch.negative_conditioning.prompt_embeds, expected.negative_conditioning.prompt_embeds)
    return list(map(int, found))


def test_what_is_put_in_comes_out_once() -> None:
    buffer = PairBuffer(passes=1)
    assert len(buffer) == 0
    buffer.fill(pairs(*range(20)), generator=seeded())
    assert len(buffer) == 20
    taken = [numbers(buffer.take(5)) for _ in range(4)]
    assert len(buffer) == 0
    flat = [number for batch in taken for number in batch]
    assert sorted(flat) == list(range(20)) != flat


def test_passes_repeat_every_pair_each_in_another_order() -> None:
    buffer = PairBuffer(passes=3)
    buffer.fill(pairs(*range(12)), generator=seeded())
    passes = [numbers(buffer.take(12)) for _ in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_what_is_left_comes_before_what_is_new() -> None:
    buffer = PairBuffer(passes=1)
    buffer.fill(pairs(0, 1, 2, 3), generator=seeded())
    first = numbers(buffer.take(3))
    buffer.fill(pairs(10, 11, 12), generator=seeded())
    second = numbers(buffer.take(4))
    assert set(first) | {second[0]} == {0, 1, 2, 3}
    assert set(second[1:]) == {10, 11, 12}


@pytest.mark.parametrize("taken", [0, 3, 8])
def test_state_survives_the_disk(tmp_path: Path, taken: int) -> None:
    buffer = PairBuffer(passes=1)
    buffer.fill(pairs(*range(8)), generator=seeded())
    buffer.take(taken)
    save_tree(buffer.state(), tmp_path / "state")
    expected = numbers(buffer.take(8 - taken))

    other = PairBuffer(passes=1)
    other.fill(pairs(100, 101), generator=seeded())
    other.restore(load_tree(tmp_path / "state"))
    assert len(other) == 8 - taken
    assert numbers(other.take(8 - taken)) == expected


def test_state_of_an_empty_buffer(tmp_path: Path) -> None:
    save_tree(PairBuffer(passes=1).state(), tmp_path / "state")
    other = PairBuffer(passes=1)
    other.fill(pairs(1, 2), generator=seeded())
    other.restore(load_tree(tmp_path / "state"))
    assert len(other) == 0

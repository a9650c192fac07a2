from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from seedpo.data.pickapic import PickAPicPairs
from seedpo.sources.offline import OfflinePairs
from tests.models.tiny import tiny_policy
from tests.sources.toys import ToyDenoiser

LABELS = (1.0, 0.0, 0.5, 1.0, 0.5, 0.0, 1.0)
"""Row by row: the first image wins, the second, a tie, ..."""
UNTIED = [row for row, label in enumerate(LABELS) if label != 0.5]


def plain(value: int) -> bytes:
    """A gray image as the bytes of a file."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table() -> pa.Table:
    """Row i holds images of gray 10 i + 1 and 10 i + 2."""
    return pa.table(
        {
            "caption": [f"a small red circle on a white background {row}" for row in range(len(LABELS))],
            "jpg_0": [plain(10 * row + 1) for row in range(len(LABELS))],
            "jpg_1": [plain(10 * row + 2) for row in range(len(LABELS))],
            "label_0": list(LABELS),
            "label_1": [1.0 - label for label in LABELS],
        }
    )


def source(model: Any = None, *, batch_size: int = 2, **settings: Any) -> OfflinePairs:
    pairs = PickAPicPairs(table(), origin="a table")
    return OfflinePairs(pairs, model or ToyDenoiser(), **{"batch_size": batch_size, "seed": 0, **settings})


def gray(latents: torch.Tensor) -> list[int]:
    """The gray of each image, from latents that are three times its pixels."""
    return (latents.mean((1, 2, 3)) / 3 * 255).round().int().tolist()


class TestPairs:
    def test_ties_never_appear_and_the_labelled_image_is_chosen(self) -> None:
        offline = source(batch_size=5)
        for _ in range(3):
            batch = offline.next_batch()
            chosen, rejected = gray(batch.chosen_latents), gray(batch.rejected_latents)
            rows = [value // 10 for value in chosen]
            assert sorted(rows) == UNTIED
            for row, winner, loser in zip(rows, chosen, rejected, strict=True):
                assert (winner, loser) == (
                    (10 * row + 1, 10 * row + 2) if LABELS[row] == 1 else (10 * row + 2, 10 * row + 1)
                )

    def test_each_pair_keeps_its_prompt(self) -> None:
        offline, model = source(batch_size=5), ToyDenoiser()
        batch = offline.next_batch()
        captions = table()["caption"].to_pylist()
        expected = model.encode_prompts([captions[value // 10] for value in gray(batch.chosen_latents)])
        assert torch.equal(batch.conditioning.prompt_embeds, expected.prompt_embeds)

    def test_processes_get_different_pairs(self) -> None:
        first, second = (source(batch_size=2, rank=rank, world=2) for rank in range(2))
        grays = gray(first.next_batch().chosen_latents) + gray(second.next_batch().chosen_latents)
        assert len(set(grays)) == 4


class TestCache:
    def test_each_image_is_encoded_once(self) -> None:
        model = ToyDenoiser()
        offline = source(model, batch_size=2)
        for _ in range(10):
            offline.next_batch()
        assert model.encoded == 2 * len(UNTIED)

    def test_a_row_that_comes_twice_in_a_batch(self) -> None:
        model = ToyDenoiser()
        batch = source(model, batch_size=12).next_batch()
        assert len(batch) == 12
        assert len(set(gray(batch.chosen_latents))) == len(UNTIED)
        assert model.encoded == 2 * len(UNTIED)

    def test_cached_latents_are_those_encoded_live(self) -> None:
        """With a real autoencoder, bit for bit, whatever else was in the batch when they were encoded."""
        policy = tiny_policy()
        cached = source(policy, batch_size=4)
        for _ in range(3):
            cached.next_batch()
        batch = cached.next_batch()
        for size in (1, 2, 4):
            live = source(policy, batch_size=size)
            live.restore({"position": 12})
            rows = [live.next_batch() for _ in range(4 // size)]
            assert torch.equal(torch.cat([part.chosen_latents for part in rows]), batch.chosen_latents)
            assert torch.equal(torch.cat([part.rejected_latents for part in rows]), batch.rejected_latents)


@pytest.mark.parametrize("before", [0, 1, 4])
def test_restored_source_gives_the_same_batches(before: int) -> None:
    offline = source(batch_size=3)
    for _ in range(before):
        offline.next_batch()
    state = offline.state()
    expected = [offline.next_batch() for _ in range(4)]
    other = source(batch_size=3)
    other.next_batch()
    other.restore(state)
    for batch in expected:
        again = other.next_batch()
        assert torch.equal(again.chosen_latents, batch.chosen_latents)
        assert torch.equal(again.rejected_latents, batch.rejected_latents)
        assert torch.equal(again.conditioning.prompt_embeds, batch.conditioning.prompt_embeds)
    assert dict(other.metrics()) == {}

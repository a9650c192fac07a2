from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch

from seedpo.core.types import ImagePairs
from seedpo.models.pipelines.stable_diffusion import TextConditioning


def pairs() -> ImagePairs:
    latents = torch.arange(3.0).view(3, 1, 1, 1)
    return ImagePairs(
        chosen_latents=latents,
        rejected_latents=-latents,
        conditioning=TextConditioning(prompt_embeds=latents.view(3, 1, 1), time_ids=latents.view(3, 1)),
    )


def chosen(rows: ImagePairs) -> list[float]:
    values: list[float] = rows.chosen_latents.flatten().tolist()
    assert values == rows.conditioning.prompt_embeds.flatten().tolist()
    assert rows.conditioning.time_ids is not None
    assert values == rows.conditioning.time_ids.flatten().tolist()
    assert values == [-value for value in rows.rejected_latents.flatten().tolist()]
    return values


def test_length_is_the_number_of_rows() -> None:
    assert len(pairs()) == len(pairs().conditioning) == 3


def test_rows_are_taken_from_every_tensor_and_nested_record() -> None:
    assert chosen(pairs()[1:]) == [1, 2]
    assert chosen(pairs()[torch.tensor([2, 0])]) == [2, 0]
    assert chosen(pairs()[torch.tensor([True, False, True])]) == [0, 2]


def test_repeats_are_in_succession() -> None:
    assert chosen(pairs().repeat_interleave(2)) == [0, 0, 1, 1, 2, 2]


def test_cat_joins_rows_and_keeps_what_is_absent() -> None:
    joined = ImagePairs.cat([pairs(), pairs()[:1]])
    assert chosen(joined) == [0, 1, 2, 0]
    assert joined.conditioning.pooled_prompt_embeds is None


def test_to_moves_everything() -> None:
    moved = pairs().to("meta")
    assert moved.chosen_latents.device.type == moved.conditioning.prompt_embeds.device.type == "meta"


def test_records_are_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        pairs().chosen_latents = torch.zeros(1)  # type: ignore[misc]
    with pytest.raises(TypeError):
        TextConditioning(torch.zeros(1))  # type: ignore[misc]

from __future__ import annotations

import pytest
import torch

from seedpo.data.cache import live
from seedpo.data.cache.live import LivePairs, encode_pair, size_ids
from tests.data.cache.toys import PAIRS, ToyModel, ToyPairs
from tests.models.tiny import tiny_policy


def test_a_batch_holds_what_the_pairs_hold() -> None:
    pairs, model = ToyPairs(), ToyModel()
    batch = LivePairs(pairs, model).encode([1, 4], [False, False])
    for index, row in enumerate((1, 4)):
        pair = pairs[row]
        images = torch.stack([pair.chosen, pair.rejected])
        assert torch.equal(batch.chosen_latents[index], model.encode_images(images)[0])
        assert torch.equal(batch.rejected_latents[index], model.encode_images(images)[1])
    prompts = model.encode_prompts(["prompt 1", "prompt 1"])
    assert torch.equal(batch.conditioning.prompt_embeds, prompts.prompt_embeds)
    assert batch.chosen_probability is not None
    assert batch.chosen_probability.tolist() == [0.5, 1.0]
    assert batch.content is None


def test_both_images_of_a_pair_are_mirrored_together() -> None:
    pairs, model = ToyPairs(), ToyModel()
    batch = LivePairs(pairs, model).encode([2, 2], [True, False])
    pair = pairs[2]
    for latents, image in ((batch.chosen_latents, pair.chosen), (batch.rejected_latents, pair.rejected)):
        assert torch.equal(latents[0], model.encode_images(image.flip(-1)[None])[0])
        assert torch.equal(latents[1], model.encode_images(image[None])[0])
        assert not torch.equal(latents[0], latents[1])


def test_models_that_take_sizes_are_told_those_of_the_pair() -> None:
    """In diffusers' order: original height and width, crop from above and from the left, target height and width."""
    batch = LivePairs(ToyPairs(), ToyModel(sizes=True)).encode([0, 5], [False, True])
    assert batch.conditioning.time_ids is not None
    assert batch.conditioning.time_ids.tolist() == [[40, 64, 0, 2, 32, 32], [45, 64, 5, 2, 32, 32]]
    assert batch.conditioning.pooled_prompt_embeds is not None


def test_other_models_are_told_no_sizes() -> None:
    assert LivePairs(ToyPairs(), ToyModel()).encode([0], [False]).conditioning.time_ids is None


def test_each_direction_is_encoded_once() -> None:
    pairs, model = ToyPairs(), ToyModel()
    encoder = LivePairs(pairs, model)
    for _ in range(3):
        for mirrored in (False, True):
            encoder.encode(list(range(PAIRS)), [mirrored] * PAIRS)
    assert model.encoded == 4 * PAIRS
    assert len(pairs.asked) == 2 * PAIRS


def test_full_memory_is_told_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = LivePairs(ToyPairs(), ToyModel()).encode([0, 1, 2], [False] * 3)
    monkeypatch.setattr(live, "MEMORY", 1)
    model = ToyModel()
    encoder = LivePairs(ToyPairs(), model)
    for _ in range(2):
        batch = encoder.encode([0, 1, 2], [False] * 3)
        assert torch.equal(batch.chosen_latents, expected.chosen_latents)
    assert model.encoded == 2 * (3 + 2), "the first pair is kept"
    assert caplog.text.count("set cache.folder") == 1


def test_latents_do_not_depend_on_what_else_is_in_the_batch() -> None:
    """With a real autoencoder, bit for bit."""
    policy, pairs = tiny_policy(), ToyPairs()
    batch = LivePairs(pairs, policy).encode([0, 1, 2, 3], [False] * 4)
    for row in range(4):
        latents = encode_pair(pairs[row], policy, mirrored=False)
        assert torch.equal(latents[0], batch.chosen_latents[row])
        assert torch.equal(latents[1], batch.rejected_latents[row])


def test_sizes_are_whole_numbers_in_float32() -> None:
    assert size_ids(ToyPairs()[3]).dtype == torch.float32

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.data.cache.pairs import EncodedPairs, encode_pair, size_ids
from seedpo.data.cache.store import Store
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.errors import DataError
from seedpo.protocols import LabelledPair
from tests.data.cache.toys import PAIRS, ToyModel, ToyPairs
from tests.methods.sources.toys import ToyDenoiser
from tests.models.tiny import tiny_policy

ROWS = [3, 0, 6, 0]
MIRRORED = [False, True, False, True]
BOTH = ("latents", "prompts")


def stored(root: Path, *, pairs: Any = None, model: Any = None, kinds: tuple[str, ...] = BOTH) -> EncodedPairs:
    stores = {kind: Store(root, kind, {}) for kind in kinds}
    return EncodedPairs(
        pairs or ToyPairs(), model or ToyModel(), latents=stores.get("latents"), prompts=stores.get("prompts")
    )


def fill(root: Path, rows: range = range(PAIRS), **settings: Any) -> None:
    pairs = stored(root, **settings)
    stores = [store for store in (pairs.latents, pairs.prompts) if store is not None]
    for store in stores:
        store.prepare()
    for row in rows:
        for mirrored in (False, True):
            pairs.fill(row, mirrored)
    for store in stores:
        store.flush()


def tensors(batch: ImagePairs) -> dict[str, Tensor]:
    named = {**vars(batch), **vars(batch.conditioning)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def assert_same(batch: ImagePairs, other: ImagePairs) -> None:
    assert tensors(batch).keys() == tensors(other).keys()
    for name, value in tensors(batch).items():
        assert value.dtype == tensors(other)[name].dtype, name
        assert torch.equal(value, tensors(other)[name]), name


class TestLive:
    def test_a_batch_holds_what_the_pairs_hold(self) -> None:
        pairs, model = ToyPairs(), ToyModel()
        batch = EncodedPairs(pairs, model).encode([1, 4], [False, True])
        for index, (row, mirrored) in enumerate(((1, False), (4, True))):
            pair = pairs[row]
            images = torch.stack([pair.chosen, pair.rejected])
            expected = model.encode_images(images.flip(-1) if mirrored else images)
            assert torch.equal(batch.chosen_latents[index], expected[0])
            assert torch.equal(batch.rejected_latents[index], expected[1])
            assert not torch.equal(expected, model.encode_images(images if mirrored else images.flip(-1)))
        prompts = model.encode_prompts(["prompt 1", "prompt 1"])
        assert torch.equal(batch.conditioning.prompt_embeds, prompts.prompt_embeds)
        assert batch.chosen_probability is not None
        assert batch.chosen_probability.tolist() == [0.5, 1.0]
        assert batch.content is None
        assert batch.conditioning.time_ids is None

    def test_models_that_take_sizes_get_those_of_the_pair(self) -> None:
        """In diffusers' order: original height and width, crop from above and the left, target height and width."""
        batch = EncodedPairs(ToyPairs(), ToyModel(sizes=True)).encode([0, 5], [False, True])
        assert batch.conditioning.time_ids is not None
        assert batch.conditioning.time_ids.tolist() == [[40, 64, 0, 2, 32, 32], [45, 64, 5, 2, 32, 32]]
        assert batch.conditioning.pooled_prompt_embeds is not None
        assert size_ids(ToyPairs()[3]).dtype == torch.float32

    def test_each_direction_is_encoded_once(self) -> None:
        pairs, model = ToyPairs(), ToyModel()
        encoder = EncodedPairs(pairs, model)
        for _ in range(3):
            for mirrored in (False, True):
                encoder.encode(list(range(PAIRS)), [mirrored] * PAIRS)
        assert (model.encoded, len(pairs.asked)) == (4 * PAIRS, 2 * PAIRS)

    def test_nothing_is_kept_of_a_stream(self) -> None:
        model = ToyModel()
        encoder = EncodedPairs(ToyPairs(sequential=True), model)
        for _ in range(2):
            encoder.encode([1], [False])
        assert model.encoded == 4

    def test_full_memory_is_reported_once_and_changes_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        expected = EncodedPairs(ToyPairs(), ToyModel()).encode([0, 1, 2], [False] * 3)
        model = ToyModel()
        encoder = EncodedPairs(ToyPairs(), model, memory=1)
        for _ in range(2):
            assert_same(encoder.encode([0, 1, 2], [False] * 3), expected)
        assert model.encoded == 2 * (3 + 2), "the first pair is kept"
        assert caplog.text.count("cache.folder") == 1

    def test_latents_do_not_depend_on_the_rest_of_the_batch(self) -> None:
        """With a real autoencoder, bit for bit."""
        policy, pairs = tiny_policy(), ToyPairs()
        batch = EncodedPairs(pairs, policy).encode([0, 1, 2, 3], [False] * 4)
        for row in range(4):
            latents = encode_pair(pairs[row], policy, mirrored=False)["latents"]
            assert torch.equal(latents[0], batch.chosen_latents[row])
            assert torch.equal(latents[1], batch.rejected_latents[row])


class TestStored:
    @pytest.mark.parametrize("sizes", [False, True])
    @pytest.mark.parametrize("kinds", [(), ("latents",), ("prompts",), BOTH])
    @pytest.mark.parametrize("rows", [range(PAIRS), range(3)], ids=["full", "partly filled"])
    def test_same_as_live(self, tmp_path: Path, sizes: bool, kinds: tuple[str, ...], rows: range) -> None:
        expected = EncodedPairs(ToyPairs(), ToyModel(sizes=sizes)).encode(ROWS, MIRRORED)
        fill(tmp_path, rows, model=ToyModel(sizes=sizes), kinds=kinds)
        files = sorted(tmp_path.rglob("*"))
        again = stored(tmp_path, model=ToyModel(sizes=sizes), kinds=kinds)
        for _ in range(2):
            assert_same(again.encode(ROWS, MIRRORED), expected)
        assert sorted(tmp_path.rglob("*")) == files, "a reader writes nothing"

    @pytest.mark.parametrize("kinds", [(), ("prompts",), BOTH])
    def test_prompts_that_are_left_out(self, tmp_path: Path, kinds: tuple[str, ...]) -> None:
        emptied = [True, False, False, True]
        fill(tmp_path, kinds=kinds)
        batch = stored(tmp_path, kinds=kinds).encode(ROWS, MIRRORED, emptied)
        whole = EncodedPairs(ToyPairs(), ToyModel()).encode(ROWS, MIRRORED)
        empty = ToyModel().encode_prompts([""])
        assert torch.equal(batch.chosen_latents, whole.chosen_latents)
        for row, without in enumerate(emptied):
            expected = empty if without else whole.conditioning[row : row + 1]
            assert torch.equal(batch.conditioning[row : row + 1].prompt_embeds, expected.prompt_embeds)

    def test_the_empty_prompt_is_stored_once(self, tmp_path: Path) -> None:
        fill(tmp_path)
        encoder = stored(tmp_path)
        assert encoder.prompts is not None
        encoder.prompts.prepare()
        for _ in range(2):
            encoder.fill_empty_prompt()
        encoder.prompts.flush()
        model = ToyModel()
        stored(tmp_path, model=model).encode(ROWS, MIRRORED, [True] * len(ROWS))
        assert model.embedded == 0

    def test_content_tells_whether_the_prompt_is_left_out(self) -> None:
        encoder = EncodedPairs(ToyPairs(), ToyModel(), identity="x")
        contents = [encoder.encode([1], [False], [empty]).content for empty in (False, True, False)]
        assert contents[0] is not None
        assert contents[1] is not None
        assert contents[2] is not None
        assert torch.equal(contents[0], contents[2])
        assert not torch.equal(contents[0], contents[1])

    def test_a_filled_cache_calls_neither_encoder_nor_decodes_an_image(self, tmp_path: Path) -> None:
        fill(tmp_path)
        model, pairs = ToyModel(), ToyPairs()
        stored(tmp_path, pairs=pairs, model=model).encode(ROWS, MIRRORED)
        assert (model.encoded, model.embedded, pairs.asked) == (0, 0, [])

    def test_a_missing_pair_is_encoded_once_and_a_missing_prompt_needs_no_image(self, tmp_path: Path) -> None:
        fill(tmp_path, range(3), kinds=("latents",))
        model, pairs = ToyModel(), ToyPairs()
        encoder = stored(tmp_path, pairs=pairs, model=model)
        for _ in range(2):
            encoder.encode([0, 3, 1], [False, False, False])
        assert (model.encoded, pairs.asked) == (2, [3])
        assert model.embedded == 2 * 3, "at every visit"

    def test_filling_computes_every_direction_and_prompt_once(self, tmp_path: Path) -> None:
        model = ToyModel()
        for _ in range(2):
            fill(tmp_path, model=model)
        assert (model.encoded, model.embedded) == (4 * PAIRS, 3)

    def test_a_row_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="row 3"):
            stored(tmp_path, pairs=Unreadable()).encode(ROWS, MIRRORED)

    def test_the_pair_in_place_of_one_that_cannot_be_read(self, tmp_path: Path) -> None:
        expected = EncodedPairs(SkippingPairs(Unreadable(), limit=1.0), ToyModel()).encode([3, 4], [False, False])
        fill(tmp_path, pairs=SkippingPairs(Unreadable(), limit=1.0))
        model = ToyModel()
        again = stored(tmp_path, pairs=SkippingPairs(Unreadable(), limit=1.0), model=model)
        assert_same(again.encode([3, 4], [False, False]), expected)
        assert (model.encoded, model.embedded) == (0, 0)

    def test_pairs_that_changed_are_encoded_again(self, tmp_path: Path) -> None:
        fill(tmp_path)
        model = ToyModel()
        stored(tmp_path, pairs=ToyPairs(version="2"), model=model).encode([0], [False])
        assert (model.encoded, model.embedded) == (2, 0)

    def test_content_differs_where_anything_differs(self) -> None:
        def content(row: int = 0, *, mirrored: bool = False, version: str = "1", identity: str = "model") -> bytes:
            encoder = EncodedPairs(ToyPairs(version=version), ToyModel(), identity=identity)
            batch = encoder.encode([row], [mirrored])
            assert batch.content is not None
            assert batch.content.shape == (1, 32)
            return bytes(batch.content[0].tolist())

        assert content() == content()
        others = {content(1), content(mirrored=True), content(identity="other"), content(version="2")}
        assert len({content(), *others}) == 5


class Unreadable(ToyPairs):
    """Row 3 has bytes that can be hashed, but are not an image."""

    def __getitem__(self, row: int) -> LabelledPair:
        if row == 3:
            raise DataError("row 3 is not an image")
        return super().__getitem__(row)


class TestRelease:
    def test_what_a_batch_did_not_need_is_released_once(self, tmp_path: Path) -> None:
        fill(tmp_path, range(1))
        model = ToyModel()
        pairs = stored(tmp_path, model=model)
        pairs.encode([1], [False])
        assert model.released == []
        pairs.encode([3], [False])  # has the prompt of row 0
        assert model.released == ["text_encoder"]
        for _ in range(2):
            pairs.encode([0], [False])
        assert model.released == ["text_encoder", "vae"]

    def test_what_has_no_store_is_not_released(self, tmp_path: Path) -> None:
        fill(tmp_path, kinds=("prompts",))
        model = ToyModel()
        pairs = stored(tmp_path, model=model, kinds=("prompts",))
        for _ in range(2):
            pairs.encode([0], [False])
        assert model.released == ["text_encoder"]

    def test_a_model_that_cannot_release(self, tmp_path: Path) -> None:
        fill(tmp_path, model=ToyDenoiser())
        pairs = stored(tmp_path, model=ToyDenoiser())
        assert_same(pairs.encode([0], [False]), pairs.encode([0], [False]))

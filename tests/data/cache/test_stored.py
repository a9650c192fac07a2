from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.core.types import ImagePairs
from seedpo.data.cache.live import LivePairs
from seedpo.data.cache.store import Store
from seedpo.data.cache.stored import StoredPairs
from seedpo.errors import DataError
from seedpo.protocols import LabelledPair
from tests.data.cache.toys import PAIRS, HashedPairs, ToyModel, ToyPairs
from tests.methods.sources.toys import ToyDenoiser

ROWS = [3, 0, 6, 0]
MIRRORED = [False, True, False, True]


def stored(
    root: Path,
    *,
    pairs: Any = None,
    model: Any = None,
    kept: tuple[str, ...] = ("latents", "prompts"),
    identity: str = "model",
) -> StoredPairs:
    stores = {kind: Store(root, kind, {}) for kind in kept}
    return StoredPairs(
        pairs or ToyPairs(),
        model or ToyModel(),
        latents=stores.get("latents"),
        prompts=stores.get("prompts"),
        identity=identity,
    )


def flush(pairs: StoredPairs) -> None:
    for store in (pairs.latents, pairs.prompts):
        if store is not None:
            store.flush()


def fill(root: Path, **settings: Any) -> None:
    pairs = stored(root, **settings)
    for row in range(len(pairs)):
        for mirrored in (False, True):
            pairs.fill(row, mirrored)
    flush(pairs)


def tensors(batch: ImagePairs) -> dict[str, Tensor]:
    named = {**vars(batch), **vars(batch.conditioning)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor) and name != "content"}


def assert_same(batch: ImagePairs, other: ImagePairs) -> None:
    assert tensors(batch).keys() == tensors(other).keys()
    for name, value in tensors(batch).items():
        assert value.dtype == tensors(other)[name].dtype, name
        assert torch.equal(value, tensors(other)[name]), name


@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("pairs", [ToyPairs, HashedPairs])
class TestSameAsLive:
    def test_when_it_is_made_and_when_it_is_found(self, tmp_path: Path, pairs: type[ToyPairs], sizes: bool) -> None:
        expected = LivePairs(pairs(), ToyModel(sizes=sizes)).encode(ROWS, MIRRORED)
        fresh = stored(tmp_path, pairs=pairs(), model=ToyModel(sizes=sizes))
        assert_same(fresh.encode(ROWS, MIRRORED), expected)
        assert_same(fresh.encode(ROWS, MIRRORED), expected)
        flush(fresh)
        again = stored(tmp_path, pairs=pairs(), model=ToyModel(sizes=sizes))
        assert_same(again.encode(ROWS, MIRRORED), expected)

    @pytest.mark.parametrize("kept", [(), ("latents",), ("prompts",)])
    def test_with_one_store_or_none(
        self, tmp_path: Path, pairs: type[ToyPairs], sizes: bool, kept: tuple[str, ...]
    ) -> None:
        expected = LivePairs(pairs(), ToyModel(sizes=sizes)).encode(ROWS, MIRRORED)
        fill(tmp_path, pairs=pairs(), model=ToyModel(sizes=sizes), kept=kept)
        again = stored(tmp_path, pairs=pairs(), model=ToyModel(sizes=sizes), kept=kept)
        assert_same(again.encode(ROWS, MIRRORED), expected)


class TestCalls:
    def test_a_filled_cache_calls_neither_encoder_nor_decodes_an_image(self, tmp_path: Path) -> None:
        fill(tmp_path, pairs=HashedPairs())
        model, pairs = ToyModel(), HashedPairs()
        again = stored(tmp_path, pairs=pairs, model=model)
        again.encode(ROWS, MIRRORED)
        assert (model.encoded, model.embedded, pairs.asked) == (0, 0, [])

    def test_without_hashes_of_the_reader_each_row_is_read_once(self, tmp_path: Path) -> None:
        fill(tmp_path)
        model, pairs = ToyModel(), ToyPairs()
        again = stored(tmp_path, pairs=pairs, model=model)
        for _ in range(2):
            again.encode(ROWS, MIRRORED)
        assert (model.encoded, model.embedded, sorted(pairs.asked)) == (0, 0, [0, 3, 6])

    def test_each_pair_direction_and_prompt_is_computed_once(self, tmp_path: Path) -> None:
        model = ToyModel()
        pairs = stored(tmp_path, model=model)
        for _ in range(2):
            pairs.encode(ROWS, MIRRORED)
        assert model.encoded == 2 * len(set(zip(ROWS, MIRRORED, strict=True)))
        assert model.embedded == len({row % 3 for row in ROWS})

    def test_a_lost_prompt_is_embedded_from_the_pair(self, tmp_path: Path) -> None:
        fill(tmp_path, pairs=HashedPairs(), kept=("latents",))
        model, pairs = ToyModel(), HashedPairs()
        stored(tmp_path, pairs=pairs, model=model).encode(ROWS, MIRRORED)
        assert (model.encoded, model.embedded, pairs.asked) == (0, 1, [3])

    def test_filling_stores_every_direction_once(self, tmp_path: Path) -> None:
        model = ToyModel()
        for _ in range(2):
            fill(tmp_path, model=model)
        assert (model.encoded, model.embedded) == (4 * PAIRS, 3)

    def test_a_row_that_cannot_be_read_is_told(self, tmp_path: Path) -> None:
        class Unreadable(HashedPairs):
            def __getitem__(self, row: int) -> LabelledPair:
                raise DataError(f"row {row} is no image")

        with pytest.raises(DataError, match="row 3 is no image"):
            stored(tmp_path, pairs=Unreadable()).encode(ROWS, MIRRORED)


class TestRelease:
    def test_what_a_batch_did_not_need_is_released_once(self, tmp_path: Path) -> None:
        model = ToyModel()
        pairs = stored(tmp_path, model=model)
        pairs.encode([0], [False])
        assert model.released == []
        pairs.encode([3], [False])  # has the prompt of the first
        assert model.released == ["text_encoder"]
        for _ in range(2):
            pairs.encode([0], [False])
        assert model.released == ["text_encoder", "vae"]

    def test_what_is_not_stored_is_not_released(self, tmp_path: Path) -> None:
        model = ToyModel()
        pairs = stored(tmp_path, model=model, kept=("prompts",))
        for _ in range(2):
            pairs.encode([0], [False])
        assert model.released == ["text_encoder"]

    def test_a_model_that_cannot_release(self, tmp_path: Path) -> None:
        pairs = stored(tmp_path, model=ToyDenoiser())
        batches = [pairs.encode([0], [False]) for _ in range(2)]
        assert_same(*batches)


class TestStaleness:
    """A store is not asked for anything that was made from something else."""

    def test_pairs_that_changed_are_encoded_again(self, tmp_path: Path) -> None:
        fill(tmp_path, pairs=HashedPairs())
        model = ToyModel()
        stored(tmp_path, pairs=HashedPairs(version="2"), model=model).encode([0], [False])
        assert (model.encoded, model.embedded) == (2, 0)

    @pytest.mark.parametrize(
        "change",
        [
            {"prompt": "another"},
            {"chosen_probability": 0.75},
            {"original_size": (1, 1)},
            {"crop": (9, 9)},
            {"chosen": torch.zeros(3, 32, 32)},
            {"rejected": torch.zeros(3, 32, 32)},
        ],
    )
    def test_whatever_changed(self, tmp_path: Path, change: dict[str, Any]) -> None:
        class Changed(ToyPairs):
            def __getitem__(self, row: int) -> LabelledPair:
                return LabelledPair(**{**vars(super().__getitem__(row)), **change})

        fill(tmp_path)
        model = ToyModel()
        batch = stored(tmp_path, pairs=Changed(), model=model).encode([0], [False])
        assert model.encoded == 2
        assert_same(batch, LivePairs(Changed(), ToyModel()).encode([0], [False]))


class TestContent:
    def content(self, root: Path, row: int = 0, mirrored: bool = False, **settings: Any) -> bytes:
        batch = stored(root, **settings).encode([row], [mirrored])
        assert batch.content is not None
        assert batch.content.shape == (1, 32)
        return bytes(batch.content[0].tolist())

    def test_differs_where_anything_differs_and_else_not(self, tmp_path: Path) -> None:
        base = self.content(tmp_path)
        assert self.content(tmp_path) == base
        assert self.content(tmp_path, kept=()) == base
        others = [
            self.content(tmp_path, row=1),
            self.content(tmp_path, mirrored=True),
            self.content(tmp_path, identity="another model"),
            self.content(tmp_path, pairs=HashedPairs()),
            self.content(tmp_path, pairs=HashedPairs(version="2")),
        ]
        assert len({base, *others}) == 1 + len(others)

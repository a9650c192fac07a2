from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from seedpo.core.draws import KeyedDraws
from seedpo.core.types import ImagePairs
from seedpo.methods.sources.offline import OfflinePairs, VisitDraws
from seedpo.models.pipelines.stable_diffusion import TextConditioning

COUNT = 5

KEYED = KeyedDraws(seed=4)


@dataclass
class Rows:
    """Latents that say which row they are of, negative where it is mirrored."""

    asked: list[tuple[list[int], list[bool]]] = field(default_factory=list)
    emptied: list[list[bool]] = field(default_factory=list)

    def __len__(self) -> int:
        return COUNT

    def encode(self, rows: Any, mirrored: Any, emptied: Any = ()) -> ImagePairs:
        self.emptied.append(list(emptied))
        self.asked.append((list(rows), list(mirrored)))
        sign = 1 - 2 * torch.tensor(mirrored, dtype=torch.float32)
        values = (sign * (torch.tensor(rows) + 1)).view(-1, 1, 1, 1)
        return ImagePairs(
            chosen_latents=values,
            rejected_latents=100 * values,
            conditioning=TextConditioning(prompt_embeds=values[:, 0]),
            chosen_probability=torch.ones(len(rows)),
            content=torch.tensor(rows, dtype=torch.uint8).view(-1, 1),
        )


def source(**settings: Any) -> OfflinePairs:
    return OfflinePairs(Rows(), **{"batch_size": 2, "seed": 0, **settings})


def numbers(batch: ImagePairs) -> list[tuple[int, int]]:
    """Pair and visit of each row."""
    assert batch.pair is not None
    assert batch.visit is not None
    assert batch.pair.dtype == batch.visit.dtype == torch.int64
    return list(zip(batch.pair.tolist(), batch.visit.tolist(), strict=True))


class TestBatches:
    def test_each_row_is_the_pair_that_the_batch_names(self) -> None:
        batch = source(batch_size=7).next_batch()
        rows = [pair for pair, _ in numbers(batch)]
        assert batch.chosen_latents.flatten().tolist() == [row + 1 for row in rows]
        assert batch.rejected_latents.flatten().tolist() == [100 * (row + 1) for row in rows]

    def test_every_pair_comes_once_in_every_epoch_and_visits_count_them(self) -> None:
        offline = source(batch_size=3)
        seen = [entry for _ in range(5) for entry in numbers(offline.next_batch())]
        for epoch in range(3):
            part = seen[epoch * COUNT : (epoch + 1) * COUNT]
            assert sorted(part) == [(pair, epoch) for pair in range(COUNT)]
        assert seen[:COUNT] != sorted(seen[:COUNT]), "shuffled"

    @pytest.mark.parametrize("world", [2, 3, 4])
    def test_processes_share_every_epoch_and_none_ever_runs_dry(self, world: int) -> None:
        """Five pairs are no multiple of any number of processes."""
        together = [source(rank=rank, world=world) for rank in range(world)]
        seen = [entry for _ in range(10) for one in together for entry in numbers(one.next_batch())]
        for epoch in range(len(seen) // COUNT):
            assert sorted(entry for entry in seen if entry[1] == epoch) == [(pair, epoch) for pair in range(COUNT)]

    def test_it_counts_how_often_each_pair_was_handed_out(self) -> None:
        pairs = source()
        assert dict(pairs.metrics()) == {"visits": 0.0}
        for _ in range(3):
            pairs.next_batch()
        assert dict(pairs.metrics()) == {"visits": 3 * pairs.batch_size / len(pairs.pairs)}


class TestMirroring:
    def signs(self, offline: OfflinePairs, batches: int = 20) -> dict[tuple[int, int], float]:
        found = {}
        for _ in range(batches):
            batch = offline.next_batch()
            assert torch.equal(batch.chosen_latents.sign(), batch.rejected_latents.sign()), "both images together"
            found |= dict(zip(numbers(batch), batch.chosen_latents.sign().flatten().tolist(), strict=True))
        return found

    def test_off_mirrors_nothing(self) -> None:
        assert set(self.signs(source()).values()) == {1.0}

    def test_is_the_coin_of_pair_and_visit(self) -> None:
        draws = KeyedDraws(seed=4)
        signs = self.signs(source(draws=VisitDraws(mirror=draws)))
        assert set(signs.values()) == {1.0, -1.0}
        assert signs == {key: -1.0 if draws.coin(*key) else 1.0 for key in signs}

    def test_does_not_depend_on_order_batch_size_or_process(self) -> None:
        draws = KeyedDraws(seed=4)
        signs = self.signs(source(draws=VisitDraws(mirror=draws)), batches=20)
        other = self.signs(source(draws=VisitDraws(mirror=draws), seed=9, batch_size=1, rank=1, world=2), batches=15)
        assert other.items() <= signs.items()

    def test_differs_between_the_visits_of_a_pair(self) -> None:
        signs = self.signs(source(draws=VisitDraws(mirror=KeyedDraws(seed=4))))
        assert all(len({sign for (pair, _), sign in signs.items() if pair == row}) == 2 for row in range(COUNT))


class TestEmptyPrompts:
    def emptied(
        self, share: float, *, batches: int = 400, draws: KeyedDraws = KEYED, **settings: Any
    ) -> dict[Any, bool]:
        offline = source(draws=VisitDraws(prompt=draws, empty_prompts=share), **settings)
        assert isinstance(offline.pairs, Rows)
        flags = {}
        for _ in range(batches):
            keys = numbers(offline.next_batch())
            flags.update(zip(keys, offline.pairs.emptied[-1], strict=True))
        return flags

    def test_off_draws_nothing(self) -> None:
        offline = source()
        offline.next_batch()
        assert isinstance(offline.pairs, Rows)
        assert offline.pairs.emptied == [[]]

    @pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
    def test_the_share_is_met(self, share: float) -> None:
        flags = self.emptied(share)
        assert sum(flags.values()) / len(flags) == pytest.approx(share, abs=0.06)  # of 800: 4 standard errors

    def test_differs_between_visits_and_not_with_order_batch_size_or_process(self) -> None:
        flags = self.emptied(0.5)
        assert all(len({empty for (pair, _), empty in flags.items() if pair == row}) == 2 for row in range(COUNT))
        other = self.emptied(0.5, batches=15, seed=9, batch_size=1, rank=1, world=2)
        assert other.items() <= flags.items()

    def test_repeats_after_the_visits_of_shared_draws(self) -> None:
        """As a cache of the reference needs it."""
        flags = self.emptied(0.5, draws=KeyedDraws(seed=4, visits=3))
        assert all(flags[pair, visit] == flags[pair, visit % 3] for pair, visit in flags)

    def test_both_images_mirrored_apart_have_one_prompt(self) -> None:
        draws = VisitDraws(mirror=KEYED, prompt=KEYED, empty_prompts=1.0)
        batch = source(draws=draws, mirror_rejected=KeyedDraws(seed=5)).next_batch()
        assert len(batch.conditioning) == len(batch)


class TestMirroringApart:
    """As a published script does it: the rejected image has a coin of its own."""

    def test_each_image_follows_its_coin(self) -> None:
        chosen, rejected = KeyedDraws(seed=4), KeyedDraws(seed=5)
        offline = source(draws=VisitDraws(mirror=chosen), mirror_rejected=rejected)
        for _ in range(10):
            batch = offline.next_batch()
            for latents, draws in ((batch.chosen_latents, chosen), (batch.rejected_latents, rejected)):
                signs = [-1.0 if draws.coin(*key) else 1.0 for key in numbers(batch)]
                assert latents.sign().flatten().tolist() == signs

    def test_such_a_batch_does_not_say_what_it_was_made_from(self) -> None:
        """What it would say is of pairs that are mirrored together."""
        together = source(draws=VisitDraws(mirror=KeyedDraws(seed=4))).next_batch()
        apart = source(draws=VisitDraws(mirror=KeyedDraws(seed=4)), mirror_rejected=KeyedDraws(seed=5)).next_batch()
        assert together.content is not None
        assert apart.content is None


@pytest.mark.parametrize("before", [0, 1, 4])
def test_restored_source_gives_the_same_batches(before: int) -> None:
    draws = VisitDraws(mirror=KEYED, prompt=KEYED, empty_prompts=0.5)
    settings: dict[str, Any] = {"batch_size": 3, "draws": draws}
    offline = source(**settings)
    for _ in range(before):
        offline.next_batch()
    state = offline.state()
    expected = [offline.next_batch() for _ in range(4)]
    other = source(**settings)
    other.next_batch()
    other.restore(state)
    for batch in expected:
        again = other.next_batch()
        assert numbers(again) == numbers(batch)
        assert torch.equal(again.chosen_latents, batch.chosen_latents)

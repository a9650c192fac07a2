from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.pairs.changes import TIES_AS_WINS, ChangedPairs
from seedpo.data.pairs.joined import JoinedPairs, repeats_of
from seedpo.data.pairs.selection import SkippingPairs, divided_by_prompt
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import load_data, load_pairs
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.errors import ConfigError, DataError
from seedpo.methods.sources.offline import OfflinePairs
from seedpo.settings import build_config
from seedpo.training.settings import RunConfig
from tests.data.encoders import NumberedPairs
from tests.data.pairs.test_fingerprints import some_rows, table


def sets(folder: Path, *weights: int, **settings: Any) -> JoinedPairs:
    """Sets of 3, 4, ... pairs, the prompts numbered throughout."""
    entries, first = [], 0
    for number, weight in enumerate(weights):
        rows = [row | {"prompt": f"prompt {first + place}"} for place, row in enumerate(some_rows(3 + number))]
        entries.append(DataSet(name=str(table(folder / str(number), rows)), weight=weight))
        first += len(rows)
    joined = load_data(tuple(entries), PairsConfig(**settings))
    assert isinstance(joined, JoinedPairs)
    return joined


def test_pairs_of_all_sets_in_a_row(tmp_path: Path) -> None:
    joined = sets(tmp_path, 1, 1)
    assert (len(joined), list(joined.one_pass())) == (7, list(range(7)))
    assert [joined.prompt(row) for row in range(7)] == [joined[row].prompt for row in range(7)]
    assert [joined.prompt(row) for row in range(7)] == [f"prompt {row}" for row in range(7)]
    alone = load_pairs(joined.sets[1].name, PairsConfig())
    assert [joined.content(row) for row in range(3, 7)] == [alone.content(row) for row in range(4)], "one cache for all"
    assert isinstance(alone, PairSet)
    assert [joined.images(row) for row in range(3, 7)] == [alone.images(row) for row in range(4)]
    for row in (-1, 7):
        with pytest.raises(IndexError):
            joined[row]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_weight_is_the_number_of_visits_in_an_epoch(tmp_path: Path, world: int) -> None:
    """Three pairs with weight 1 and four with weight 3: 15 visits in an epoch, whatever the processes."""
    pairs = SkippingPairs(ChangedPairs(sets(tmp_path, 1, 3), [TIES_AS_WINS]), limit=0)
    sources = [
        OfflinePairs(NumberedPairs(pairs), batch_size=1, seed=0, rank=rank, world=world, reader=pairs)
        for rank in range(world)
    ]
    seen: list[tuple[int, int]] = []
    for _ in range(60 // world):
        for source in sources:
            batch = source.next_batch()
            assert batch.pair is not None
            assert batch.visit is not None
            seen.append((int(batch.pair[0]), int(batch.visit[0])))
    for epoch in range(4):
        part = seen[15 * epoch : 15 * (epoch + 1)]
        counts = Counter(row for row, _ in part)
        assert counts == {row: 1 if row < 3 else 3 for row in range(7)}
        assert part != sorted(part)
    assert len(set(seen)) == 60, "no visit comes twice"
    assert {visit for row, visit in seen if row == 5} == set(range(12))


def test_a_restored_source_goes_on(tmp_path: Path) -> None:
    def source() -> OfflinePairs:
        pairs = SkippingPairs(sets(tmp_path, 2, 1), limit=0)
        return OfflinePairs(NumberedPairs(pairs), batch_size=4, seed=1, reader=pairs)

    first, second = source(), source()
    for _ in range(5):
        first.next_batch()
    second.restore(first.state())
    for _ in range(4):
        assert torch.equal(first.next_batch().chosen_latents, second.next_batch().chosen_latents)


def test_a_division_by_prompts_keeps_the_weights(tmp_path: Path) -> None:
    joined = sets(tmp_path, 1, 3)
    training, held_out = divided_by_prompt(joined, 0.4)
    for side in (training, held_out):
        assert repeats_of(side) == [1 if row < 3 else 3 for row in side.rows]
    assert repeats_of(joined.parts[0]) is None


def test_the_summary_counts_every_set(tmp_path: Path) -> None:
    summary = sets(tmp_path, 1, 3).summary
    assert summary.startswith("7 pairs of 2 sets; ")
    assert "3 pairs, 0 ties left out, once an epoch (20% of the visits)" in summary
    assert "4 pairs, 0 ties left out, 3 times an epoch (80% of the visits)" in summary


def test_sets_of_different_sizes_need_a_resolution(tmp_path: Path) -> None:
    from tests.data.pictures import noise_file

    first = sets(tmp_path, 1).sets[0]
    rows = [{"prompt": "p", "chosen": "im/a.png", "rejected": "im/b.png"}]
    (tmp_path / "big" / "im").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / "big" / "im" / f"{name}.png").write_bytes(noise_file(size=(12, 10)))
    data = (first, DataSet(name=str(table(tmp_path / "big", rows))))
    with pytest.raises(DataError, match=r"8 x 6, .*12 x 10\); .*pairs.resolution"):
        load_data(data, PairsConfig())
    assert len(load_data(data, PairsConfig(resolution=8))) == 4


def test_a_stream_among_several_is_refused(tmp_path: Path) -> None:
    import tarfile

    first = sets(tmp_path, 1).sets[0]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for side, file in (("chosen", "0a"), ("rejected", "0b")):
            archive.add(tmp_path / "0" / "im" / f"{file}.png", f"0.{side}.png")
    with pytest.raises(DataError, match=r"a\.tar is a stream, which cannot be joined"):
        load_data((first, DataSet(name=str(tmp_path / "a.tar"))), PairsConfig(resolution=8))


class TestSettings:
    def data(self, value: Any) -> Any:
        return build_config(RunConfig, {"data": value}).data

    def test_a_name_or_a_list(self) -> None:
        assert self.data("a/") == "a/"
        assert self.data(["a/", {"name": "b/", "weight": 2}]) == (DataSet(name="a/"), DataSet(name="b/", weight=2))

    def test_what_is_written_is_read_again(self) -> None:
        config = build_config(RunConfig, {"data": ["a/", {"name": "b/", "weight": 2}]})
        assert build_config(RunConfig, config.tree()) == config

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ([], "data.*the list is empty"),
            ("", "data.*write a name"),
            (3, "data.*write a name"),
            ([3], "data"),
            ([{"name": "a/", "weight": 0}], "weight"),
            ([{"name": "a/", "weight": 0.5}], "weight"),
            ([{"path": "a/"}], "data.*is not a set; write its name"),
            (["a/", "a/"], "a/ is there twice"),
        ],
        ids=str,
    )
    def test_refused(self, value: Any, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as info:
            self.data(value)
        assert "\n" not in str(info.value)

    def test_a_set_alone_may_have_a_weight(self, tmp_path: Path) -> None:
        assert isinstance(sets(tmp_path, 2).parts[0], PairSet)

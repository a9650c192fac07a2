"""Hugging Face data sets, written here and read back; nothing comes over a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.files.splits import SplitWish
from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError, StreamError
from tests.data.pictures import BLUE, RED, image_file, plain, table, write_images

datasets = pytest.importorskip("datasets")

COUNT = 12


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two parquet files of a split, as a data set on the hub has them; one tie."""
    return write_shards(tmp_path / "two", 2)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """The same as JSON lines: where parquet is shuffled, `datasets` sleeps for five seconds at the end of a pass."""
    folder = tmp_path / "records"
    write_images(folder, red__png=image_file(RED), blue__png=image_file(BLUE))
    for number in range(2):
        lines = [
            {"prompt": f"prompt {row}", "chosen": "red.png", "rejected": "blue.png", "chosen_probability": probability}
            for row in range(number * COUNT // 2, (number + 1) * COUNT // 2)
            for probability in (0.5 if row == 3 else 1.0,)
        ]
        (folder / f"train-{number}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return folder


def write_shards(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        captions = [f"prompt {row}" for row in range(number * COUNT // count, (number + 1) * COUNT // count)]
        labels = [(0.5, 0.5) if caption == "prompt 3" else (1, 0) for caption in captions]
        pq.write_table(table(*labels, caption=captions), folder / f"train-{number:05d}-of-{count:05d}.parquet")
    return folder


def saved(folder: Path) -> Any:
    """A data set whose images are features of it."""
    write_images(folder / "images", red__png=image_file(RED), blue__png=image_file(BLUE))
    columns = {"prompt": ["a star", "a ring"]} | {
        side: [str(folder / "images" / name) for name in names]
        for side, names in (("chosen", ("red.png", "blue.png")), ("rejected", ("blue.png", "red.png")))
    }
    rows = datasets.Dataset.from_dict(columns)
    return rows.cast_column("chosen", datasets.Image()).cast_column("rejected", datasets.Image())


class TestSaved:
    def test_images_are_read_from_a_folder_of_save_to_disk(self, tmp_path: Path) -> None:
        saved(tmp_path).save_to_disk(str(tmp_path / "saved"))
        pairs = read_pairs(tmp_path / "saved")
        assert isinstance(pairs, PairSet)
        assert [pairs[row].prompt for row in range(len(pairs))] == ["a star", "a ring"]
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE))
        assert pairs.table.place(1) == f"{tmp_path / 'saved'} row 1"

    def test_one_of_several_splits(self, tmp_path: Path) -> None:
        rows = saved(tmp_path)
        splits = datasets.DatasetDict({"train": rows.select([0]), "other": rows.select([1])})
        splits.save_to_disk(str(tmp_path / "saved"))
        assert read_pairs(tmp_path / "saved")[0].prompt == "a star"
        assert read_pairs(tmp_path / "saved", PairsConfig(split="other"))[0].prompt == "a ring"
        with pytest.raises(
            DataError, match=r"has no split 'test': it holds the splits other, train; set pairs\.split to"
        ):
            read_pairs(tmp_path / "saved", PairsConfig(split="test"))

    def test_of_splits_that_are_not_for_training(self, tmp_path: Path) -> None:
        rows = saved(tmp_path)
        splits = {"test": rows.select([0]), "validation": rows.select([1])}
        datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
        with pytest.raises(DataError, match=r"none is for training; set pairs\.split"):
            read_pairs(tmp_path / "saved")
        pairs = read_pairs(tmp_path / "saved", wish=SplitWish(held_out=True))
        assert pairs[0].prompt == "a ring"
        assert pairs.inventory.notes == ("split: validation; not read: test",)

    @pytest.mark.parametrize(("cut", "is_read"), [("train", True), ("train[:1]", True), ("test", False), (None, True)])
    def test_a_single_set_knows_what_it_was_cut_from(self, tmp_path: Path, cut: str | None, is_read: bool) -> None:
        rows = saved(tmp_path)
        rows._split = datasets.NamedSplit(cut) if cut else None
        rows.save_to_disk(str(tmp_path / "saved"))
        if is_read:
            assert len(read_pairs(tmp_path / "saved")) == 2
        else:
            with pytest.raises(DataError, match="none is for training"):
                read_pairs(tmp_path / "saved")
            assert len(read_pairs(tmp_path / "saved", PairsConfig(split="test"))) == 2

    def test_a_folder_without_splits(self, tmp_path: Path) -> None:
        (tmp_path / "dataset_dict.json").write_text('{"splits": []}')
        with pytest.raises(DataError, match="without any split"):
            read_pairs(tmp_path)

    def test_a_damaged_folder(self, tmp_path: Path) -> None:
        saved(tmp_path).save_to_disk(str(tmp_path / "saved"))
        (tmp_path / "saved" / "state.json").write_text("{")
        with pytest.raises(DataError, match="saved cannot be read as a saved Hugging Face data set"):
            read_pairs(tmp_path / "saved")


def stream(files: Path, **settings: Any) -> StreamedPairs:
    pairs = read_pairs(f"hub:{files}", PairsConfig(resolution=8, **settings))
    assert isinstance(pairs, StreamedPairs)
    return pairs


def prompts(pairs: StreamedPairs, *rows: int) -> list[int]:
    return [int(pairs[row].prompt.removeprefix("prompt ")) for row in rows]


class TestStream:
    def test_of_one_split_of_several(self, tmp_path: Path) -> None:
        files = write_shards(tmp_path / "two", 1)
        (files / "train-00000-of-00001.parquet").rename(files / "test-00000-of-00001.parquet")
        with pytest.raises(DataError, match="none is for training"):
            stream(files)
        assert prompts(stream(files, split="test", shuffle_buffer=1), 0) == [0]

    def test_in_the_order_of_the_files(self, files: Path) -> None:
        pairs = stream(files, shuffle_buffer=1)
        once = [row for row in range(COUNT) if row != 3]
        assert prompts(pairs, *range(2 * COUNT - 2)) == once * 2
        torch.testing.assert_close(pairs[COUNT].chosen, plain(RED, (8, 8)))

    @pytest.mark.parametrize("name", ["records", pytest.param("files", marks=pytest.mark.slow)])
    def test_shuffled_in_every_pass_anew_and_the_same_way_again(
        self, name: str, request: pytest.FixtureRequest
    ) -> None:
        files = request.getfixturevalue(name)
        passes = [prompts(stream(files), *range(2 * COUNT - 2)) for _ in range(2)]
        assert passes[0] == passes[1]
        first, second = passes[0][: COUNT - 1], passes[0][COUNT - 1 :]
        assert sorted(first) == sorted(second) == [row for row in range(COUNT) if row != 3]
        assert first != second
        assert prompts(stream(files), 15, 16) == passes[0][15:17], "a resumed run goes on at its position"

    def test_another_seed_is_another_order(self, records: Path) -> None:
        orders = []
        for seed in range(2):
            pairs = read_pairs(f"hub:{records}", PairsConfig(resolution=8), seed=seed)
            assert isinstance(pairs, StreamedPairs)
            orders.append(prompts(pairs, *range(COUNT - 1)))
        assert orders[0] != orders[1]

    def test_images_beside_the_records_of_a_local_set(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images", red__png=image_file(RED), blue__png=image_file(BLUE))
        record = '{"prompt": "a", "chosen": "images/red.png", "rejected": "images/blue.png"}\n'
        (tmp_path / "train.jsonl").write_text(record)
        torch.testing.assert_close(stream(tmp_path)[0].chosen, plain(RED, (8, 8)))


class TestRefusals:
    def test_no_such_set(self) -> None:
        with pytest.raises(DataError, match=r"hub:owner/none cannot be read: .*; check the name"):
            read_pairs("hub:owner/none", PairsConfig(resolution=8))

    def test_no_such_split(self, files: Path) -> None:
        with pytest.raises(DataError, match=r"two has no split 'test': it holds the split train; set pairs\.split"):
            stream(files, split="test")

    def test_a_stream_that_breaks_off(self, files: Path) -> None:
        """A file of the set goes away, as a connection does."""
        pairs = stream(files, shuffle_buffer=1)
        assert prompts(pairs, 0) == [0]
        (files / "train-00001-of-00002.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(StreamError, match=r"hub:.* broke off: .*; continue with --resume latest"):
            prompts(pairs, COUNT - 2)

    @pytest.mark.parametrize("spec", ["hub:owner/name", "{}"])
    def test_without_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
        (tmp_path / "state.json").write_text("{}")
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"need the package datasets; install it with pip install 'seedpo\[data\]'"):
            read_pairs(spec.format(tmp_path), PairsConfig(resolution=8))

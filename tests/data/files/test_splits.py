from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.data.files.splits import SplitWish, chosen_split, split_kind, split_of
from seedpo.errors import DataError

TOLD = [
    ("train.parquet", "train"),
    ("train-00000-of-00007.parquet", "train"),
    ("train-00001-of-00002-4ab81f3e.parquet", "train"),
    ("validation-00000-of-00002.parquet", "validation"),
    ("test_unique-00000-of-00001.parquet", "test_unique"),
    ("my-set-test-00000-of-00001.parquet", "test"),
    ("en-00000-of-00002.parquet", "en"),
    ("train.2.parquet", "train"),
    ("train-3.jsonl", "train"),
    ("train_pairs.jsonl", "train"),
    ("pairs_test.csv", "test"),
    ("hpd_train_v2.json", "train"),
    ("TRAIN.JSONL", "TRAIN"),
    ("dev.tsv", "dev"),
    ("Test Pairs.csv", "Test"),
    ("train", "train"),
    ("default/train/0000.parquet", "train"),
    ("default/partial-train/0000.parquet", "train"),
    ("data/train/metadata.jsonl", "train"),
    ("en/train/0.parquet", "train"),
    ("fr/test/deep/er/0.parquet", "test"),
    ("split=test/part-0.parquet", "test"),
    ("split=mine/part-0.parquet", "mine"),
    ("Validation/a.parquet", "Validation"),
    ("test_set/a.parquet", "test"),
    ("train-images/a.parquet", "train"),
    ("train/val.parquet", "val"),
    ("train1.jsonl", "train"),
    ("trainset2.parquet", "train"),
    ("val2017/a.parquet", "val"),
    ("testset/a.parquet", "test"),
    ("test.parquet/part.0.parquet", "test"),
    ("test/train-00000-of-00001.parquet", "test"),
    ("test/en-00000-of-00002.parquet", "test"),
]
SILENT = [
    "pairs.parquet",
    "0000.parquet",
    "data-00000-of-00005.parquet",
    "part-00000-of-00005.parquet",
    "testimony.parquet",
    "trains.parquet",
    "evaluated.csv",
    "testdrive/a.parquet",
    "latest.jsonl",
    "devices.csv",
    "a-1.parquet",
    "2024-01-02.parquet",
    "my_test_of_time.csv",
    "train_test.parquet",
    "training_ground_photos/a.parquet",
    "contest/a.parquet",
    "test drive/a.parquet",
    "train_of_thought/a.parquet",
    "train-val/a.parquet",
    "lang=test/a.parquet",
    "split=/a.parquet",
]


class TestNames:
    @pytest.mark.parametrize(("name", "split"), TOLD)
    def test_that_tell_a_split(self, name: str, split: str) -> None:
        assert split_of(Path("root") / name, Path("root")) == split

    @pytest.mark.parametrize("name", SILENT)
    def test_that_tell_none(self, name: str) -> None:
        assert split_of(Path("root") / name, Path("root")) is None

    def test_of_the_folders_that_the_user_named_tell_nothing(self) -> None:
        assert split_of(Path("train/test/a.parquet"), Path("train/test")) is None

    def test_of_a_kind(self) -> None:
        assert [split_kind(name) for name in ("test_unique", "dev", "Training", "en", "contest")] == [
            "test",
            "validation",
            "train",
            None,
            None,
        ]


def chosen(*names: str | None, asked: str | None = None, held_out: bool = False) -> str | None:
    return chosen_split(names, SplitWish(name=asked, key="the.key", held_out=held_out), origin="set")


class TestChoice:
    @pytest.mark.parametrize(
        ("names", "split"),
        [
            ((None,), None),
            (("train",), "train"),
            (("train", "test"), "train"),
            (("training", "dev", None), "training"),
            (("train", "training"), "train"),
            (("train", "train_unique", "test"), "train"),
            (("train_prefs", "test_prefs"), "train_prefs"),
            (("en",), "en"),
        ],
    )
    def test_where_none_is_named(self, names: tuple[str | None, ...], split: str | None) -> None:
        assert chosen(*names) == split

    @pytest.mark.parametrize(
        "names",
        [
            ("test",),
            ("validation",),
            ("test", None),
            ("en", "fr"),
            ("en", None),
            ("train_a", "train_b"),
            ("test", "val"),
        ],
    )
    def test_what_is_not_for_training_is_not_trained_on(self, names: tuple[str | None, ...]) -> None:
        with pytest.raises(DataError, match=r"set holds the split.*none is for training; set the\.key, for example to"):
            chosen(*names)

    @pytest.mark.parametrize(
        ("names", "asked", "split"),
        [
            (("train", "test"), "test", "test"),
            (("train", "validation"), "val", "validation"),
            (("train", "dev"), "validation", "dev"),
            (("Train", "Test"), "test", "Test"),
            (("test", "testing"), "test", "test"),
            (("train", "test_unique"), "test_unique", "test_unique"),
            (("en", "fr"), "fr", "fr"),
            ((None,), "train", None),
        ],
    )
    def test_of_the_one_that_is_named(self, names: tuple[str | None, ...], asked: str, split: str | None) -> None:
        assert chosen(*names, asked=asked) == split
        assert chosen(*names, asked=asked, held_out=True) == split

    @pytest.mark.parametrize(
        ("names", "asked"),
        [
            (("train",), "test"),
            (("test",), "train"),
            (("test_unique",), "test"),
            (("valid", "dev"), "val"),
            ((None,), "test"),
            ((None, "test"), "train"),
            (("en",), "mine"),
        ],
    )
    def test_of_one_that_is_not_there(self, names: tuple[str | None, ...], asked: str) -> None:
        with pytest.raises(DataError, match=rf"set has no split '{asked}': it holds .*; (set|leave out) the\.key"):
            chosen(*names, asked=asked)

    @pytest.mark.parametrize(
        ("names", "split"),
        [
            ((None,), None),
            (("train",), "train"),
            (("test",), "test"),
            (("train", "test"), "test"),
            (("train", "test", "dev"), "dev"),
            (("en",), "en"),
        ],
    )
    def test_for_measuring(self, names: tuple[str | None, ...], split: str | None) -> None:
        assert chosen(*names, held_out=True) == split

"""Which files of a place are read: splits, hidden files, links, kinds by content; and that the rest is named."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.files.splits import SplitWish
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import Opened, load_data, opening_lines, read_pairs
from seedpo.data.settings import DataSet, PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, image_file, plain, table, write_images


def write(path: Path, *captions: str) -> Path:
    """A set of one file; its format follows from its ending, which the content may contradict: ``NAME:KIND``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, _, kind = path.name.partition(":")
    path, kind = path.with_name(name), kind or path.suffix[1:]
    write_images(path.parent, red__png=image_file(RED), blue__png=image_file(BLUE))
    rows = [{"prompt": caption, "chosen": "red.png", "rejected": "blue.png"} for caption in captions]
    if kind == "parquet":
        pq.write_table(table(*[(1, 0)] * len(captions), caption=list(captions)), path)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == "wrapped":
        path.write_text(json.dumps({"version": 1, "data": rows}))
    elif kind in ("csv", "tsv", "semicolon"):
        sign = {"csv": ",", "tsv": "\t", "semicolon": ";"}[kind]
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_text("".join(sign.join(line) + "\n" for line in lines))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompts(pairs: Opened) -> list[str]:
    assert isinstance(pairs, PairSet)
    return [pairs.prompt(row) for row in range(len(pairs))]


def read(place: Path | str, **settings: Any) -> list[str]:
    return prompts(read_pairs(place, PairsConfig(**settings)))


def passed(place: Path | str, **settings: Any) -> dict[str, int]:
    return read_pairs(place, PairsConfig(**settings)).inventory.passed_counts


class TestSplits:
    @pytest.mark.parametrize(
        ("train", "test"),
        [
            ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
            ("default/train/0000.parquet", "default/test/0000.parquet"),
            ("split=train/part-0.parquet", "split=test/part-0.parquet"),
            ("train_pairs.jsonl", "test_pairs.jsonl"),
            ("pairs_train.csv", "pairs_test.csv"),
            ("train.json", "test.json"),
            ("data/train/metadata.jsonl", "data/test/metadata.jsonl"),
            ("en/train/a.parquet", "fr/test/a.parquet"),
            ("training/a.tsv", "testing/a.tsv"),
        ],
    )
    def test_only_that_for_training_is_read_unless_another_is_named(
        self, tmp_path: Path, train: str, test: str
    ) -> None:
        write(tmp_path / train, "mine")
        write(tmp_path / test, "theirs")
        assert read(tmp_path) == ["mine"]
        assert read(tmp_path, split="test") == ["theirs"]
        assert passed(tmp_path) == {f"files of the split {'testing' if 'testing' in test else 'test'}": 1}
        with pytest.raises(DataError, match="no split 'validation'"):
            read(tmp_path, split="validation")

    def test_a_set_that_is_only_for_testing_is_not_trained_on(self, tmp_path: Path) -> None:
        write(tmp_path / "test-00000-of-00001.parquet", "theirs")
        with pytest.raises(DataError, match=r"the split test, of which none is for training; set pairs\.split"):
            read(tmp_path)
        assert read(tmp_path, split="test") == ["theirs"]

    def test_the_split_that_is_asked_for_or_none(self, tmp_path: Path) -> None:
        write(tmp_path / "train-00000-of-00001.parquet", "mine")
        with pytest.raises(DataError, match="no split 'test': it holds the split train"):
            read(tmp_path, split="test")

    def test_data_that_tell_no_split_are_for_training(self, tmp_path: Path) -> None:
        write(tmp_path / "training_ground_photos" / "contest.parquet", "a")
        write(tmp_path / "testimony.parquet", "b")
        write(tmp_path / "latest.parquet", "c")
        assert read(tmp_path) == read(tmp_path, split="train") == ["c", "b", "a"]
        with pytest.raises(DataError, match=r"nothing that tells a split; leave out pairs\.split"):
            read(tmp_path, split="test")

    def test_files_without_a_split_beside_those_with_one_are_named(self, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", "mine")
        write(tmp_path / "extra.parquet", "more")
        assert read(tmp_path) == ["mine"]
        assert passed(tmp_path) == {"files of the split (none told)": 1}

    def test_of_other_kinds_of_files(self, tmp_path: Path) -> None:
        write(tmp_path / "train.jsonl", "mine")
        write(tmp_path / "test.parquet", "theirs")
        assert read(tmp_path) == read(tmp_path, split="train") == ["mine"]
        assert read(tmp_path, split="test") == ["theirs"]
        (tmp_path / "train.jsonl").rename(tmp_path / "pairs.jsonl")
        with pytest.raises(DataError, match="none is for training"):
            read(tmp_path)

    def test_a_folder_that_the_user_names_is_what_it_is(self, tmp_path: Path) -> None:
        write(tmp_path / "test" / "a.parquet", "theirs")
        assert read(tmp_path / "test") == read(tmp_path / "test", split="test") == ["theirs"]
        with pytest.raises(DataError, match="no split 'train': it holds the split test"):
            read(tmp_path / "test", split="train")

    def test_files_that_the_user_names_are_all_read(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        write(tmp_path / "train-0.parquet", "mine")
        write(tmp_path / "test-0.parquet", "theirs")
        write(tmp_path / "a0.parquet", "0")
        write(tmp_path / "a1.parquet", "1")
        assert read(tmp_path / "test-0.parquet") == read(f"{tmp_path}/test-*.parquet") == ["theirs"]
        assert read(f"{tmp_path}/a{{0..1}}.parquet") == ["0", "1"]
        assert not caplog.records
        assert read(f"{tmp_path}/t*.parquet") == ["theirs", "mine"]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert read(f"{tmp_path}/t*.parquet", split="train") == ["mine"]
        with pytest.raises(DataError, match="no split 'test'"):
            read(tmp_path / "train-0.parquet", split="test")

    def test_sets_that_are_measured_take_what_is_not_for_training(self, tmp_path: Path) -> None:
        for split in ("train", "validation", "test"):
            write(tmp_path / f"{split}.jsonl", split)
        wish = SplitWish(key="held_out_split", held_out=True)
        assert prompts(read_pairs(tmp_path, wish=wish)) == ["validation"]
        (tmp_path / "validation.jsonl").unlink()
        joined = load_data((DataSet(name=str(tmp_path)),), PairsConfig(), wish=wish)
        assert [joined[0].prompt] == ["test"]
        with pytest.raises(DataError, match="set held_out_split"):
            read_pairs(tmp_path, wish=SplitWish(name="dev", key="held_out_split", held_out=True))


class TestWhatIsPassedOver:
    def test_older_copies_of_notebooks(self, tmp_path: Path) -> None:
        write(tmp_path / "pairs.parquet", "new")
        write(tmp_path / ".ipynb_checkpoints" / "pairs-checkpoint.parquet", "old")
        assert read(tmp_path) == ["new"]
        assert passed(tmp_path) == {"hidden folders": 1}

    def test_what_systems_leave_behind(self, tmp_path: Path) -> None:
        write(tmp_path / "pairs.jsonl", "a")
        for name in ("._pairs.jsonl", ".DS_Store", "Thumbs.db", "__MACOSX/._pairs.jsonl", "sub/desktop.ini"):
            write_images(tmp_path / Path(name).parent)
            (tmp_path / name).write_bytes(b"\0\5\x16\7\xb0")
        assert read(tmp_path) == ["a"]
        assert passed(tmp_path) == {"hidden files": 2, "files of the operating system": 3}

    def test_a_hidden_folder_that_the_user_names_is_read(self, tmp_path: Path) -> None:
        write(tmp_path / ".cache" / "pairs.parquet", "a")
        assert read(tmp_path / ".cache") == ["a"]
        with pytest.raises(DataError, match="not a set of pairs"):
            read(tmp_path)

    def test_files_of_other_kinds(self, tmp_path: Path) -> None:
        write(tmp_path / "pairs.parquet", "a")
        write(tmp_path / "older.jsonl", "b")
        write(tmp_path / "pairs.jsonl.bak", "c")
        write(tmp_path / "pairs.parquet~:parquet", "c")
        (tmp_path / "README.md").write_text("prompt,chosen,rejected\n")
        (tmp_path / "LICENSE").write_text("Free, as in beer,\nno warranty")
        (tmp_path / "dataset_infos.json").write_text("{}")
        (tmp_path / "empty.csv").touch()
        (tmp_path / "_SUCCESS").touch()
        assert read(tmp_path) == ["a"]
        assert passed(tmp_path) == {
            "files of another format (jsonl)": 1,
            "files .bak": 1,
            "files .parquet~": 1,
            "files .md": 1,
            "files without an ending": 2,
            "descriptions of data sets": 1,
            "empty files": 1,
        }

    def test_linked_folders_are_followed_and_links_in_loops_are_not(self, tmp_path: Path) -> None:
        write(tmp_path / "elsewhere" / "b.parquet", "linked")
        write(tmp_path / "set" / "a.parquet", "here")
        (tmp_path / "set" / "more").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "set" / "loop").symlink_to(tmp_path / "set")
        (tmp_path / "set" / "gone.parquet").symlink_to(tmp_path / "absent")
        assert read(tmp_path / "set") == ["here", "linked"]
        assert passed(tmp_path / "set") == {"links back to a folder above": 1, "links that lead nowhere": 1}

    def test_a_file_of_two_names_is_read_once(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", "a")
        (tmp_path / "b.parquet").symlink_to(tmp_path / "a.parquet")
        os.link(tmp_path / "a.parquet", tmp_path / "c.parquet")
        assert read(tmp_path) == ["a"]
        assert passed(tmp_path) == {"further names of a file that is read": 2}

    def test_a_cache_of_the_hub(self, tmp_path: Path) -> None:
        """Its snapshots link to blobs without an ending, of older revisions too."""
        for blob, name in (("ab12", "train-00000-of-00001"), ("cd34", "test-00000-of-00001"), ("ef56", None)):
            write(tmp_path / "blobs" / f"{blob}:parquet", blob)
            if name:
                (tmp_path / "snapshots" / "0" / "data").mkdir(parents=True, exist_ok=True)
                link = tmp_path / "snapshots" / "0" / "data" / f"{name}.parquet"
                link.symlink_to(f"../../../blobs/{blob}")
        assert read(tmp_path) == ["ab12"]
        assert passed(tmp_path) == {"files of the split test": 1, "files without an ending": 3}

    def test_what_is_no_file_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.jsonl")
        with pytest.raises(DataError, match="neither a file nor a folder"):
            read(tmp_path / "a.jsonl")

    def test_a_pattern_takes_what_is_of_the_kind(self, tmp_path: Path) -> None:
        write(tmp_path / "a.jsonl", "a")
        (tmp_path / "notes.md").write_text("hello")
        assert read(f"{tmp_path}/*") == ["a"]
        assert passed(f"{tmp_path}/*") == {"files .md": 1, "files .png": 2}

    def test_the_log_of_a_run_says_all_of_it(self, tmp_path: Path) -> None:
        write(tmp_path / "train.parquet", "a", "b")
        write(tmp_path / "test.parquet", "c")
        (tmp_path / ".hidden").touch()
        assert opening_lines(read_pairs(tmp_path)) == [
            "2 pairs, 0 ties left out",
            f"{tmp_path}: files read: 1 of the split train (train.parquet)",
            (
                f"{tmp_path}: passed over: files of the split test: 1 ({tmp_path.name}/test.parquet); "
                f"hidden files: 1 ({tmp_path.name}/.hidden)"
            ),
            f"{tmp_path}: rows: 2 found, 2 used",
        ]


class TestKinds:
    @pytest.mark.parametrize(
        "name",
        [
            "a.jsonl:json",
            "a.json",
            "a.json:jsonl",
            "a.json:wrapped",
            "a.json:csv",
            "a.jsonl:csv",
            "a.jsonl:parquet",
            "a.csv:parquet",
            "a.csv:jsonl",
            "a.csv:tsv",
            "a.csv:semicolon",
            "a.tsv",
            "a.tab:tsv",
            "a.ndjson",
            "a.tar:parquet",
            "a.parquet:jsonl",
            "a.parquet:csv",
            "a:parquet",
            "a:jsonl",
            "a:json",
        ],
    )
    def test_are_told_by_the_content(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name, "one", "two")
        assert read(path) == read(tmp_path) == ["one", "two"]

    @pytest.mark.parametrize("name", ["a.txt:csv", "a:tsv", "a.data:jsonl", "a.bak:parquet"])
    def test_of_a_file_that_the_user_names_whatever_its_ending(self, tmp_path: Path, name: str) -> None:
        assert read(write(tmp_path / name, "one")) == ["one"]

    def test_an_ending_that_lies_is_named(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.csv:parquet", "one")
        assert any("a.csv is parquet by its content" in line for line in read_pairs(path).inventory.lines())

    @pytest.mark.parametrize(
        ("name", "content", "fix"),
        [
            ("a.tar.gz", gzip.compress(b"x", mtime=0), "gunzip"),
            ("a.jsonl.gz", gzip.compress(b"{}", mtime=0), "gunzip"),
            ("a.tar", gzip.compress(b"x", mtime=0), "gunzip"),
            ("a.zip", b"PK\3\4 ...", "unzip"),
            ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            ("a.jsonl", b"<!DOCTYPE html><html>", "download the file itself"),
            ("data-00000-of-00001.arrow", b"\xff\xff\xff\xff\0\0", "save_to_disk"),
        ],
    )
    def test_what_is_packed_or_stands_for_another_file_is_named_with_the_fix(
        self, tmp_path: Path, name: str, content: bytes, fix: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        for place in (tmp_path, tmp_path / name):
            with pytest.raises(DataError, match=rf"{fix}") as caught:
                read(place)
            assert "\n" not in str(caught.value)

    def test_a_pointer_among_files_is_not_passed_over(self, tmp_path: Path) -> None:
        """A set that lacks a shard is not trained on in silence."""
        write(tmp_path / "train-00000-of-00002.parquet", "a")
        (tmp_path / "train-00001-of-00002.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(DataError, match="git lfs pull"):
            read(tmp_path)

    def test_files_of_two_kinds_that_are_named_one_by_one(self, tmp_path: Path) -> None:
        write(tmp_path / "a0.x:parquet", "a")
        write(tmp_path / "a1.x:jsonl", "b")
        assert read(f"{tmp_path}/a{{0..1}}.x") == ["a"]
        assert passed(f"{tmp_path}/a{{0..1}}.x") == {"files of another format (jsonl)": 1}

    def test_a_folder_with_an_archive_that_is_compressed_beside_others(self, tmp_path: Path) -> None:
        write(tmp_path / "a.parquet", "a")
        with tarfile.open(tmp_path / "old.tar.gz", "w:gz"):
            pass
        assert read(tmp_path) == ["a"]
        assert passed(tmp_path) == {"files compressed with gzip": 1}


class TestSplitColumn:
    def rows(self, path: Path, *splits: Any) -> Path:
        write_images(path.parent, red__png=image_file(RED), blue__png=image_file(BLUE))
        rows = [
            {"prompt": f"{number}", "chosen": "red.png", "rejected": "blue.png", "split": split}
            for number, split in enumerate(splits)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def test_rows_of_other_splits_are_left_out_and_counted(self, tmp_path: Path) -> None:
        path = self.rows(tmp_path / "a.jsonl", "train", "test", "train", "val")
        assert read(path) == ["0", "2"]
        assert read(path, split="test") == ["1"]
        assert read(path, split="dev") == ["3"]
        pairs = read_pairs(path)
        assert isinstance(pairs, PairSet)
        assert pairs.table.place(1) == f"{path} line 3"
        assert (pairs.inventory.rows, pairs.inventory.used) == (4, 2)
        assert pairs.inventory.left_out == {"of the split test": 1, "of the split val": 1}
        torch.testing.assert_close(pairs[1].chosen, plain(RED))
        assert prompts(read_pairs(path, wish=SplitWish(held_out=True))) == ["3"]

    def test_rows_that_cannot_be_read_stay(self, tmp_path: Path) -> None:
        path = self.rows(tmp_path / "a.jsonl", "test", "train")
        path.write_text("{broken\n" + path.read_text())
        assert read_pairs(path).inventory.left_out == {"of the split test": 1, "faulty": 1}

    def test_what_is_only_for_testing_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none is for training"):
            read(self.rows(tmp_path / "a.jsonl", "test", "test"))

    @pytest.mark.parametrize("splits", [("train", None), ("banana", "train"), (1, 2), ("", "test")])
    def test_a_column_of_other_things_tells_nothing(self, tmp_path: Path, splits: tuple[Any, ...]) -> None:
        assert read(self.rows(tmp_path / "a.jsonl", *splits)) == ["0", "1"]

    def test_in_parquet(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 0), (1, 0), split=["test", "train"], caption=["a", "b"]), tmp_path / "a.parquet")
        assert read(tmp_path) == ["b"]


class TestRows:
    @pytest.mark.parametrize("ending", ["parquet", "jsonl"])
    def test_of_each_file(self, tmp_path: Path, ending: str) -> None:
        write(tmp_path / f"a.{ending}", "1", "2", "3")
        write(tmp_path / f"b.{ending}", "4")
        assert [(entry.path.stem, entry.rows) for entry in read_pairs(tmp_path).inventory.files] == [("a", 3), ("b", 1)]

    def test_are_counted_with_the_reasons_for_which_some_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.jsonl"
        write_images(tmp_path, red__png=image_file(RED), blue__png=image_file(BLUE))
        row = {"prompt": "a", "chosen": "red.png", "rejected": "blue.png", "chosen_probability": 1}
        rows = [row, row, row | {"chosen_probability": 0.5}]
        path.write_text("".join(json.dumps(entry) + "\n" for entry in rows) + "{broken\n")
        inventory = read_pairs(path).inventory
        assert (inventory.rows, inventory.used, inventory.left_out) == (4, 2, {"ties": 1, "faulty": 1})

    def test_of_ties_that_are_trained_on(self, tmp_path: Path) -> None:
        pq.write_table(table((1, 0), (0.5, 0.5)), tmp_path / "a.parquet")
        for ties, used in (("drop", 1), ("half", 2)):
            inventory = read_pairs(tmp_path, PairsConfig(ties=ties)).inventory
            assert (inventory.rows, inventory.used) == (2, used)
            assert sum(inventory.left_out.values()) == 2 - used

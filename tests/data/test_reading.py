"""Which format a place holds, which of its files belong to the set, and what is said where it is none."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.pairs.sets import PairSet
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.reading import load_pairs, read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.data.tables.folders import FolderRows
from seedpo.data.tables.parquet import ParquetRows
from seedpo.data.tables.rows import TextRows
from seedpo.errors import ConfigError, DataError
from tests.data.pictures import BLUE, RED, image_file, plain, table, write_images

RECORD = json.dumps({"prompt": "a star", "chosen": "red.png", "rejected": "blue.png"})


def write_parquet(path: Path, *captions: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*[(1, 0)] * len(captions), caption=list(captions)), path)
    return path


def write_records(folder: Path, name: str = "pairs.jsonl") -> Path:
    write_images(folder, red__png=image_file(RED), blue__png=image_file(BLUE))
    (folder / name).write_text(RECORD + "\n")
    return folder / name


def write_archive(path: Path) -> Path:
    folder = path.with_suffix("")
    write_images(folder, x__chosen__png=image_file(RED), x__rejected__png=image_file(BLUE), x__txt=b"a star")
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, file.name)
            file.unlink()
    folder.rmdir()
    return path


def write_folders(folder: Path) -> Path:
    write_images(folder / "chosen", x__png=image_file(RED), x__txt=b"a star")
    write_images(folder / "rejected", x__png=image_file(BLUE))
    return folder


def write_csv(path: Path) -> Path:
    write_records(path.parent).unlink()
    path.write_text("prompt,chosen,rejected\na star,red.png,blue.png\n")
    return path


def write_set(kind: str, folder: Path) -> Path:
    """One pair, a star in red before blue, in a format; what names it."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        return write_parquet(folder / "pairs.parquet", "a star")
    if kind == "jsonl":
        return write_records(folder)
    if kind == "csv":
        return write_csv(folder / "pairs.csv")
    if kind == "webdataset":
        return write_archive(folder / "pairs.tar")
    return write_folders(folder)


KINDS = {"parquet": ParquetRows, "jsonl": TextRows, "csv": TextRows, "webdataset": None, "folders": FolderRows}


class TestDetection:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("by_folder", [True, False])
    def test_every_format_gives_the_same_pair(self, tmp_path: Path, kind: str, by_folder: bool) -> None:
        named = write_set(kind, tmp_path / "set")
        spec = tmp_path / "set" if by_folder else named
        pairs = read_pairs(spec, PairsConfig(resolution=8))
        table = KINDS[kind]
        assert isinstance(pairs, StreamedPairs) if table is None else isinstance(pairs.table, table)
        assert list(pairs.one_pass()) == [0]
        assert pairs[0].prompt == "a star"
        torch.testing.assert_close(pairs[0].chosen, plain(RED, size=(8, 8)))
        torch.testing.assert_close(pairs[0].rejected, plain(BLUE, size=(8, 8)))

    @pytest.mark.parametrize("kind", ["parquet", "jsonl", "webdataset"])
    def test_a_file_without_an_ending_is_known_by_its_content(self, tmp_path: Path, kind: str) -> None:
        path = write_set(kind, tmp_path)
        path.rename(tmp_path / "pairs")
        assert read_pairs(tmp_path / "pairs", PairsConfig(resolution=8))[0].prompt == "a star"

    def test_a_format_that_is_said_is_taken(self, tmp_path: Path) -> None:
        path = write_records(tmp_path, "pairs.txt")
        assert read_pairs(path, PairsConfig(format="jsonl"))[0].prompt == "a star"
        with pytest.raises(DataError, match=r"pairs\.txt cannot be read as parquet"):
            read_pairs(path, PairsConfig(format="parquet"))
        with pytest.raises(DataError, match=r"pairs\.format = folders needs one folder, but .*txt is a file that"):
            read_pairs(path, PairsConfig(format="folders"))


class TestFiles:
    def prompts(self, spec: Path | str, **settings: Any) -> list[str]:
        pairs = read_pairs(spec, PairsConfig(**settings))
        return [pairs[row].prompt for row in range(len(pairs))]

    def test_globs_and_counted_names_in_order(self, tmp_path: Path) -> None:
        for number in range(12):
            write_parquet(tmp_path / f"part-{number:02d}.parquet", f"{number}")
        assert self.prompts(f"{tmp_path}/part-*.parquet") == [f"{number}" for number in range(12)]
        assert self.prompts(f"{tmp_path}/part-{{08..11}}.parquet") == ["8", "9", "10", "11"]
        assert self.prompts(f"{tmp_path}/part-{{0..1}}{{0..1}}.parquet") == ["0", "1", "10", "11"]

    @pytest.mark.parametrize(
        "names",
        [
            (
                "train-00000-of-00002-ab.parquet",
                "train-00001-of-00002-cd.parquet",
                "test_unique-00000-of-00001.parquet",
            ),
            ("train.parquet", "train.2.parquet", "test.parquet"),
            (
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ),
        ],
    )
    def test_a_folder_of_several_splits(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for number, name in enumerate(names):
            write_parquet(tmp_path / name, f"{number}")
        other = "test_unique" if "unique" in names[2] else "test"
        assert sorted(self.prompts(tmp_path)) == ["0", "1"]
        assert self.prompts(tmp_path, split=other) == ["2"]
        with pytest.raises(
            DataError, match=rf"no split 'absent': it holds the splits {other}, train; set pairs\.split"
        ):
            self.prompts(tmp_path, split="absent")

    def test_names_that_tell_no_split(self, tmp_path: Path) -> None:
        for name in ("a-1.parquet", "b.parquet", "2024-01-02.parquet"):
            write_parquet(tmp_path / name, name)
        assert len(self.prompts(tmp_path)) == 3


class TestImageFolder:
    def test_of_a_table(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images", red__png=image_file(RED), blue__png=image_file(BLUE))
        path = write_parquet(tmp_path / "pairs.parquet", "a star")
        pq.write_table(table((1, 0), jpg_0=["red.png"], jpg_1=["blue.png"]), path)
        pairs = read_pairs(path, PairsConfig(image_folder=str(tmp_path / "images")))
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        with pytest.raises(DataError, match=r"row 0: jpg_0 is not an image .* \(.*/red\.png: No such file"):
            read_pairs(path)[0]

    def test_is_none_of_two_folders(self, tmp_path: Path) -> None:
        write_folders(tmp_path)
        with pytest.raises(DataError, match=r"has its images in chosen/ and rejected/; leave out pairs\.image_folder"):
            read_pairs(tmp_path, PairsConfig(image_folder=str(tmp_path)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("none.parquet", r"none\.parquet do not exist; name a parquet file"),
            ("none-*.parquet", "no file matches; name a parquet file"),
            ("none-{0..3}.tar", r"none-0\.tar do not exist"),
            ("file.xyz", r"file\.xyz are a file that begins with b'hello', which is none of the formats; name a"),
            ("empty.xyz", "are an empty file, which is none of the formats"),
            ("folder", "the folder holds notes.txt, which is not a set of pairs; name a parquet file"),
            ("empty", "the folder holds nothing, which is not a set of pairs"),
            ("mixed*", "mixed_folder is a folder; name either one folder or files"),
        ],
    )
    def test_what_holds_no_pairs(self, tmp_path: Path, name: str, why: str) -> None:
        (tmp_path / "file.xyz").write_text("hello")
        (tmp_path / "empty.xyz").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "notes.txt").touch()
        (tmp_path / "empty").mkdir()
        (tmp_path / "mixed.parquet").touch()
        (tmp_path / "mixed_folder").mkdir()
        with pytest.raises(DataError, match=why):
            read_pairs(f"{tmp_path}/{name}")

    def test_a_name_of_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=r"; for a data set of the hub write hub:owner/name$"):
            read_pairs("owner/name")

    def test_a_folder_without_files_of_the_format(self, tmp_path: Path) -> None:
        write_records(tmp_path)
        with pytest.raises(DataError, match=r"holds no \.tar file; it holds blue\.png, pairs\.jsonl, red\.png"):
            read_pairs(tmp_path, PairsConfig(format="webdataset"))

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, tmp_path: Path) -> None:
        path = write_records(tmp_path, "pairs")
        path.chmod(0)
        with pytest.raises(DataError, match=r"pairs cannot be read: .*Permission denied"):
            read_pairs(path)

    @pytest.mark.parametrize("keep", [3, 200, -1, -9])
    def test_a_truncated_parquet_file(self, tmp_path: Path, keep: int) -> None:
        path = write_parquet(tmp_path / "pairs.parquet", "a", "b")
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=r"pairs\.parquet cannot be read as parquet: .*; fetch or write it again$"):
            read_pairs(path)

    def test_text_that_is_not_utf_8_within_parquet(self, tmp_path: Path) -> None:
        """Some writers do not check it; the row is named and the others are read."""
        import pyarrow as pa

        rows = table((1, 0), (1, 0))
        captions = pa.array([b"a star", b"caf\xe9"], type=pa.binary()).view(pa.string())
        rows = rows.set_column(rows.column_names.index("caption"), "caption", captions)
        pq.write_table(rows, tmp_path / "pairs.parquet")
        pairs = read_pairs(tmp_path / "pairs.parquet")
        assert isinstance(pairs, PairSet)
        assert pairs[0].prompt == "a star"
        with pytest.raises(DataError, match=r"pairs\.parquet row 1 cannot be read: 'utf-8'"):
            pairs[1]


@pytest.mark.parametrize("name", ["a.parquet", "folder/x", "x-*", "s{0..2}", "\\x"])
def test_names_that_are_places(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        load_pairs(name, PairsConfig())


def test_names_that_are_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="scenes-pairs"):
        load_pairs("scenes-pair", PairsConfig())
    write_folders(tmp_path / "scenes-pair")
    assert len(load_pairs("scenes-pair", PairsConfig())) == 1

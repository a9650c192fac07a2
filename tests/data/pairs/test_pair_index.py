from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, GREEN, RED, image_file, plain, table, write_images

RANKED = {
    "image": [image_file(RED), image_file(BLUE), image_file(GREEN), image_file(RED), image_file(RED)],
    "prompt": ["star", "star", "star", "circle", "square"],
    "rank": [2, 1, 3, 1, None],
}
LISTED = {"prompt": "star", "image_path": ["red.png", "blue.png", "green.png"], "rank": [2, 1, 3]}


def ranked(path: str, rank: int) -> dict[str, Any]:
    return {"image_path": path, "prompt": "star", "rank": rank}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path, red__png=image_file(RED), blue__png=image_file(BLUE), green__png=image_file(GREEN))
    return tmp_path


def lines(folder: Path, *records: dict[str, Any] | str, **settings: Any) -> PairSet:
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / "pairs.jsonl").write_text("\n".join(texts) + "\n")
    pairs = read_pairs(folder / "pairs.jsonl", PairsConfig(**settings))
    assert isinstance(pairs, PairSet)
    return pairs


class TestRowsOfSingleImages:
    def test_make_pairs_of_their_prompts(self) -> None:
        pairs = PairSet.of_table(pa.table(RANKED), origin="t")
        assert (len(pairs), pairs.alone, pairs.unlabelled) == (3, 1, 1)
        assert pairs.summary == "3 pairs, 0 ties left out, 1 without a label left out, 1 without a partner left out"
        for row, (chosen, rejected) in enumerate([(BLUE, RED), (RED, GREEN), (BLUE, GREEN)]):
            assert pairs[row].prompt == "star"
            torch.testing.assert_close(pairs[row].chosen, plain(chosen))
            torch.testing.assert_close(pairs[row].rejected, plain(rejected))

    def test_are_named_together(self) -> None:
        broken = RANKED | {"image": [image_file(RED), b"x", *RANKED["image"][2:]]}
        with pytest.raises(DataError, match=r"^t row 0 and t row 1: image is not an image"):
            PairSet.of_table(pa.table(broken), origin="t")[0]

    def test_of_several_files_keep_their_folders(self, folder: Path) -> None:
        write_images(folder / "sub", blue__png=image_file(GREEN))
        for place, path, rank in [(folder, "red.png", 1), (folder / "sub", "blue.png", 2)]:
            record = {"image_path": [path], "prompt": ["star"], "rank": [rank]}
            pq.write_table(pa.table(record), place / "part.parquet")
        pair = read_pairs(folder)[0]
        torch.testing.assert_close(pair.chosen, plain(RED))
        torch.testing.assert_close(pair.rejected, plain(GREEN))

    def test_have_a_fingerprint_that_tells_ranks_and_images(self, folder: Path) -> None:
        records = [
            {"image_path": name, "prompt": "star", "rank": rank} for rank, name in enumerate(["red.png", "blue.png"])
        ]
        first = lines(folder, *records).fingerprint()
        swapped = lines(folder, records[0] | {"rank": 1}, records[1] | {"rank": 0}).fingerprint()
        other = lines(folder, records[0] | {"image_path": "green.png"}, records[1]).fingerprint()
        assert first["images"] == swapped["images"] != other["images"]
        assert first["labels"] != swapped["labels"]


class TestListsOfImages:
    def test_are_read_by_place(self, folder: Path) -> None:
        pairs = lines(folder, LISTED)
        assert len(pairs) == 3
        torch.testing.assert_close(pairs[0].chosen, plain(BLUE))
        torch.testing.assert_close(pairs[0].rejected, plain(RED))
        assert [place for place, _ in pairs.images(2)] == [
            f"{folder}/pairs.jsonl line 1: image_path[1]",
            f"{folder}/pairs.jsonl line 1: image_path[2]",
        ]

    def test_that_are_too_short_for_their_marks_are_faults(self, folder: Path) -> None:
        pairs = lines(folder, LISTED, LISTED | {"image_path": ["red.png", "blue.png"]})
        assert pairs[0].prompt == "star"
        with pytest.raises(DataError, match=r"line 2: ranks must be .*image_path = "):
            pairs[3]

    def test_of_bytes_in_parquet(self, folder: Path) -> None:
        images = [[image_file(RED), image_file(BLUE)]]
        rows = {"prompt": ["star"], "images": images, "scores": [[0.1, 0.9]]}
        pq.write_table(pa.table(rows), folder / "pairs.parquet")
        pair = read_pairs(folder / "pairs.parquet")[0]
        torch.testing.assert_close(pair.chosen, plain(BLUE))

    def test_rejected_ones_in_parquet(self, folder: Path) -> None:
        """The lengths of lists are known without reading the images."""
        kind = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        rejected = [[{"bytes": image_file(c), "path": None} for c in colours] for colours in ([BLUE, GREEN], [RED])]
        rows = {
            "prompt": ["a", "b"],
            "chosen": [image_file(RED), image_file(BLUE)],
            "rejected": pa.array(rejected, kind),
        }
        pq.write_table(pa.table(rows), folder / "pairs.parquet", row_group_size=1)
        pairs = read_pairs(folder / "pairs.parquet")
        assert isinstance(pairs, PairSet)
        assert pairs.table.lengths("rejected") == [2, 1]
        for row, (prompt, chosen, other) in enumerate([("a", RED, BLUE), ("a", RED, GREEN), ("b", BLUE, RED)]):
            assert pairs[row].prompt == prompt
            torch.testing.assert_close(pairs[row].chosen, plain(chosen))
            torch.testing.assert_close(pairs[row].rejected, plain(other))

    def test_of_numbers_are_files(self) -> None:
        for kind in [pa.list_(pa.uint8()), pa.large_list(pa.uint8()), pa.binary()]:
            chosen, rejected = (
                pa.array([list(image_file(c)) if kind != pa.binary() else image_file(c)], kind) for c in (RED, BLUE)
            )
            pair = PairSet.of_table(pa.table({"prompt": ["a"], "chosen": chosen, "rejected": rejected}), origin="t")[0]
            torch.testing.assert_close(pair.chosen, plain(RED))


class TestFates:
    def test_of_every_row(self, folder: Path) -> None:
        label = {"caption": "a star", "jpg_0": "red.png", "jpg_1": "blue.png", "label_0": 1, "label_1": 0}
        tie = label | {"label_0": 0.5, "label_1": 0.5}
        records = [label, tie, label | {"has_label": False}, "broken", label | {"label_1": 1}, label]
        pairs = lines(folder, *records)
        fates = list(pairs.fates())
        assert [fate.row for fate in fates] == list(range(6))
        assert [list(fate.pairs) for fate in fates] == [[0], [], [], [], [], [3]]
        assert [fate.is_fault for fate in fates] == [False, False, False, True, True, False]
        reasons = [fate.reason for fate in fates]
        assert reasons[0] is reasons[5] is None
        assert all(reasons[1:5])
        assert len({reason for reason in reasons if reason}) == 4
        used, counts = pairs.index.row_counts()
        assert (used, sorted(counts.values())) == (2, [0, 0, 1, 1, 2])
        half = lines(folder, label, tie, ties="half")
        assert [list(fate.pairs) for fate in half.fates()] == [[0], [1]]
        assert half.index.row_counts()[0] == 2

    def test_of_rows_in_several_pairs(self) -> None:
        fates = list(PairSet.of_table(pa.table(RANKED), origin="t").fates())
        assert [list(fate.pairs) for fate in fates] == [[0, 1], [0, 2], [1, 2], [], []]
        best = PairSet.of_table(pa.table(RANKED), origin="t", config=PairsConfig(from_scores="best-worst"))
        assert [list(fate.pairs) for fate in best.fates()] == [[], [0], [0], [], []]
        assert all(fate.reason for fate in best.fates() if not fate.pairs)
        assert best.index.row_counts()[0] == 2
        assert sum(best.index.row_counts()[1].values()) == 3

    def test_the_pairs_of_rows_that_cannot_be_read_keep_their_places(self, folder: Path) -> None:
        records = [
            {"image_path": name, "prompt": "star", "rank": place} for place, name in enumerate(["red.png", "blue.png"])
        ]
        pairs = lines(folder, records[0], "broken", records[1])
        assert len(pairs) == 2
        assert pairs[0].prompt == "star"
        with pytest.raises(DataError, match="line 2"):
            pairs[1]


def test_own_columns(folder: Path) -> None:
    record = {"meta": {"text": "star"}, "win": "red.png", "lose": "blue.png", "p": "0.75"}
    own = {"prompt": "meta.text", "chosen": "win", "rejected": "lose", "chosen_probability": "p"}
    pair = lines(folder, record, columns=own)[0]
    assert (pair.prompt, pair.chosen_probability) == ("star", 0.75)
    torch.testing.assert_close(pair.chosen, plain(RED))


def test_the_index_of_many_pairs_is_small() -> None:
    pairs = PairSet.of_table(table(*[(1, 0)] * 100), origin="t")
    arrays = (pairs.index.rows, pairs.index.items, pairs.index.probability, pairs.index.reason, pairs.index.in_tie)
    assert sum(array.nbytes for array in arrays) < 50 * len(pairs)


def test_a_prompt_that_no_tokenizer_takes_costs_its_row() -> None:
    pairs = PairSet.of_table(table((1, 0), (1, 0), caption=["a\0b", "a star"]), origin="t")
    with pytest.raises(DataError, match="t row 0: caption"):
        pairs[0]
    assert pairs[1].prompt == "a star"


def test_own_columns_that_are_no_names() -> None:
    for columns in ["text", ["a"], {"prompt": 7}]:
        with pytest.raises(ValueError, match=r"write your own names by the usual ones"):
            PairsConfig(columns=columns)
    assert PairsConfig(columns={}).columns is None

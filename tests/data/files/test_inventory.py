from __future__ import annotations

import json
from pathlib import Path

from seedpo.data.files.inventory import FileRead, Inventory, printable
from seedpo.data.files.search import PassedOver

FILES = tuple(FileRead(path=Path(f"set/train-{number}.parquet"), split="train", rows=5) for number in range(7))
PASSED = (
    PassedOver(path=Path("set"), reason="hidden files", count=2, example="._a"),
    PassedOver(path=Path("set/in"), reason="hidden files", count=3, example=".b"),
    PassedOver(path=Path("set"), reason="files .heic", count=1, example="c.heic"),
)


def test_lines_are_few_and_short_whatever_the_number_of_files() -> None:
    inventory = Inventory(origin="set", files=FILES, passed=PASSED).with_rows(
        35, used=30, left_out={"ties": 4, "without a label": 1, "faulty": 0}
    )
    assert inventory.lines() == [
        "files read: 7 of the split train (train-0.parquet, train-1.parquet, train-2.parquet, ...)",
        "passed over: hidden files: 5 (set/._a, in/.b, ...); files .heic: 1 (set/c.heic)",
        "rows: 35 found, 30 used, 4 ties, 1 without a label",
    ]
    many = Inventory(origin="set", files=FILES * 1000, passed=PASSED * 1000)
    assert sum(map(len, many.lines())) < 400


def test_files_of_several_folders_are_told_apart() -> None:
    files = tuple(FileRead(path=Path(f"set/{name}/a.jsonl"), split=name) for name in ("test", "train"))
    assert Inventory(origin="set", files=files).lines() == [
        "files read: 2 of the splits test and train (test/a.jsonl, train/a.jsonl)"
    ]


def test_nothing_is_said_of_what_is_unknown() -> None:
    assert Inventory(origin="hub:a/b").lines() == []


def test_counts_are_of_all_folders_and_json_has_each() -> None:
    inventory = Inventory(origin="set", files=FILES, passed=PASSED, notes=("a note",))
    assert inventory.passed_counts == {"hidden files": 5, "files .heic": 1}
    values = json.loads(json.dumps(inventory.as_json()))
    assert [entry["count"] for entry in values["passed_over"]] == [2, 3, 1]
    assert values["files"][0] == {"path": "set/train-0.parquet", "split": "train", "rows": 5}


def test_names_that_no_terminal_can_show() -> None:
    assert printable("caf\udce9\n\x1b[31m 日本 é") == "caf\\udce9\\n\\x1b[31m 日本 é"

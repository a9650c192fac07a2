from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.pairs.changes import TIES_AS_WINS, ChangedPairs
from seedpo.data.pairs.fingerprints import changes_between, fingerprint_of, joined_fingerprint, prompts_fingerprint
from seedpo.data.pairs.selection import SkippingPairs
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.protocols import Fingerprint
from tests.data.pictures import noise_file as png


def table(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file of pairs with its images beside it; one that is there already stays."""
    (folder / "im").mkdir(parents=True, exist_ok=True)
    for row in rows:
        for side in ("chosen", "rejected"):
            if not (folder / row[side]).exists():
                (folder / row[side]).write_bytes(png())
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return folder / "pairs.jsonl"


def some_rows(count: int = 6) -> list[dict[str, Any]]:
    return [
        {"prompt": f"a star {number}", "chosen": f"im/{number}a.png", "rejected": f"im/{number}b.png"}
        for number in range(count)
    ]


def fingerprint(place: Path, **settings: Any) -> Fingerprint:
    return fingerprint_of(read_pairs(place, PairsConfig(**settings)))


def test_a_copy_elsewhere_is_the_same_whenever_it_was_made(tmp_path: Path) -> None:
    place = table(tmp_path / "a", some_rows())
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    absolute = [row | {side: str(tmp_path / "a" / row[side]) for side in ("chosen", "rejected")} for row in some_rows()]
    first = fingerprint(place)
    assert first["rows"] == 6
    assert changes_between(first, fingerprint(tmp_path / "b" / "pairs.jsonl")) == []
    assert changes_between(first, fingerprint(table(tmp_path / "a", absolute))) == []


def _fewer(rows: list[dict[str, Any]]) -> None:
    del rows[-3:]


def _swapped(rows: list[dict[str, Any]]) -> None:
    rows[2]["chosen"], rows[2]["rejected"] = rows[2]["rejected"], rows[2]["chosen"]


def _sorted_otherwise(rows: list[dict[str, Any]]) -> None:
    rows.reverse()


def _another_prompt(rows: list[dict[str, Any]]) -> None:
    rows[0]["prompt"] = "a fox"


def _another_label(rows: list[dict[str, Any]]) -> None:
    rows[1]["chosen_probability"] = 0.75


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_fewer, ["rows 6 -> 3"]),
        (_swapped, ["labels"]),
        (_sorted_otherwise, ["order of rows"]),
        (_another_prompt, ["prompts"]),
        (_another_label, ["labels"]),
    ],
)
def test_what_changed_is_named(tmp_path: Path, change: Any, named: list[str]) -> None:
    first = fingerprint(table(tmp_path, some_rows()))
    rows = some_rows()
    change(rows)
    assert changes_between(first, fingerprint(table(tmp_path, rows))) == named


def test_another_image_under_the_same_name_is_seen_by_its_size(tmp_path: Path) -> None:
    place = table(tmp_path, some_rows())
    first = fingerprint(place)
    (tmp_path / "im" / "3a.png").write_bytes(png(size=(11, 9)))
    assert changes_between(first, fingerprint(place)) == ["images"]
    (tmp_path / "im" / "3a.png").unlink()
    assert changes_between(first, fingerprint(place)) == ["images"]


def test_ties_that_are_left_out_do_not_count(tmp_path: Path) -> None:
    tie = {"prompt": "tied", "chosen": "im/ta.png", "rejected": "im/tb.png", "chosen_probability": 0.5}
    first = fingerprint(table(tmp_path, some_rows()))
    assert changes_between(first, fingerprint(table(tmp_path, [tie, *some_rows()]))) == []
    assert fingerprint(tmp_path / "pairs.jsonl", ties="half")["rows"] == 7


def test_images_within_a_table_are_told_by_the_size_of_its_files(tmp_path: Path) -> None:
    def written(name: str, content: bytes) -> Path:
        rows = [
            {"prompt": "a star", "chosen": {"bytes": content, "path": None}, "rejected": {"bytes": b"", "path": ""}}
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        return tmp_path / name

    first = fingerprint(written("a.parquet", png()))
    assert first["files"] == 1
    assert changes_between(first, fingerprint(written("b.parquet", png()))) == []
    (change,) = changes_between(first, fingerprint(written("c.parquet", png(size=(99, 70)))))
    assert change.startswith("bytes ")


def test_archives_are_told_by_their_sizes(tmp_path: Path) -> None:
    def written(name: str, count: int) -> Path:
        with tarfile.open(tmp_path / name, "w") as archive:
            for path in sorted((tmp_path / "im").iterdir())[:count]:
                archive.add(path, path.name.replace("a.png", ".chosen.png").replace("b.png", ".rejected.png"))
        return tmp_path / name

    table(tmp_path, some_rows())
    first = fingerprint(written("a.tar", 12), resolution=8)
    assert changes_between(first, fingerprint(written("b.tar", 12), resolution=8)) == []
    assert len(changes_between(first, fingerprint(written("c.tar", 4), resolution=8))) == 1


def test_folders_of_images(tmp_path: Path) -> None:
    for side in ("chosen", "rejected"):
        (tmp_path / side).mkdir()
        for name in ("a", "b"):
            (tmp_path / side / f"{name}.png").write_bytes(png())
    (tmp_path / "chosen" / "a.txt").write_text("a star")
    first = fingerprint(tmp_path)  # b has no prompt
    (tmp_path / "chosen" / "b.txt").write_text("a fox")
    assert changes_between(first, fingerprint(tmp_path)) == ["prompts"]


def test_what_wraps_a_set_passes_its_fingerprint_on(tmp_path: Path) -> None:
    pairs = read_pairs(table(tmp_path, some_rows()))
    wrapped = SkippingPairs(ChangedPairs(pairs, [TIES_AS_WINS]), limit=0.5)
    assert fingerprint_of(wrapped) == fingerprint_of(pairs)


def test_prompts() -> None:
    first = prompts_fingerprint(["a", "b"])
    assert changes_between(first, prompts_fingerprint(["a", "b"])) == []
    assert changes_between(first, prompts_fingerprint(["b", "a"])) == ["order of rows"]
    assert changes_between(first, prompts_fingerprint(["a", "c"])) == ["prompts"]
    assert changes_between(first, prompts_fingerprint(["a"])) == ["rows 2 -> 1"]
    assert changes_between(first, prompts_fingerprint(["a", "half an emoji \ud83d"])) == ["prompts"]


def test_several_sets() -> None:
    parts = [prompts_fingerprint(["a", "b"]), prompts_fingerprint(["c"])]
    first = joined_fingerprint(parts, [1, 1])
    assert first["rows"] == 3
    assert changes_between(first, joined_fingerprint(parts, [1, 2])) == ["weights [1, 1] -> [1, 2]"]
    assert "prompts" in changes_between(first, joined_fingerprint(parts[::-1], [1, 1]))

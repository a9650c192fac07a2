"""A converted table holds the pairs of its source, and the list beside it accounts for every row."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedpo.data.convert import Conversion, conversion_config, convert, rows_place
from seedpo.data.reading import load_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import ConfigError, DataError
from tests.data.layouts.published import FOX, HARBOUR, LAYOUTS, TREE, Pair, picture, write_json_lines, write_pictures
from tests.data.layouts.test_published import by_images, pairs_of

ENDINGS = (".parquet", ".jsonl", ".csv", "")


def converted(source: Path, out: Path, *, overwrite: bool = False, **changes: Any) -> Conversion:
    """Converts as the command does."""
    config = conversion_config(PairsConfig.model_validate(changes))
    return convert(load_pairs(str(source), config), out, source=str(source), overwrite=overwrite)


def read_again(done: Conversion, **changes: Any) -> list[Pair]:
    """The pairs of the new table."""
    folder = {} if done.image_folder is None else {"image_folder": str(done.image_folder)}
    return pairs_of(load_pairs(str(done.out), PairsConfig.model_validate({"resolution": 16} | folder | changes)))


def rows_of(done: Conversion) -> list[tuple[str, str, str]]:
    """What became of each row: the end of its place, numbers of its pairs, and in words."""
    with done.rows_table.open(encoding="utf-8", newline="") as file:
        entries = list(csv.DictReader(file))
    return [(entry["row"].rpartition("/")[2], entry["pairs"], entry["outcome"]) for entry in entries]


def table_of_paths(folder: Path) -> Path:
    """A pair, a tie, a row that nobody judged, one without an image, one that is no JSON."""
    write_pictures(folder, *(f"im/{n}.png" for n in range(8)))
    rows: list[Mapping[str, Any]] = [
        {"prompt": FOX, "chosen": "im/0.png", "rejected": "im/1.png"},
        {"prompt": HARBOUR, "chosen": "im/2.png", "rejected": "im/3.png", "chosen_probability": 0.5},
        {"prompt": TREE, "chosen": "im/4.png", "rejected": "im/5.png", "has_label": False},
        {"prompt": TREE, "chosen": "im/6.png", "rejected": "im/none.png", "chosen_probability": 0.75},
    ]
    path = write_json_lines(folder / "source.jsonl", *rows)
    path.write_text(path.read_text() + "{\n", encoding="utf-8")
    return path


class TestPairs:
    @pytest.mark.parametrize("name", list(LAYOUTS))
    @pytest.mark.parametrize("ending", [".parquet", ""])
    def test_of_every_layout_are_the_same(self, name: str, ending: str, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        case = LAYOUTS[name](tmp_path / "source")
        done = converted(case.source, tmp_path / f"out{ending}", **case.settings)
        assert by_images(read_again(done)) == by_images(case.pairs)
        assert done.pairs == len(case.pairs) + done.ties
        assert len(rows_of(done)) == done.rows

    @settings(max_examples=25, deadline=None)
    @given(
        rows=st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
                st.integers(0, 7),
                st.integers(0, 7),
                st.floats(0.5, 1.0),
            ),
            min_size=1,
            max_size=6,
        ),
        ending=st.sampled_from(ENDINGS),
    )
    def test_are_those_of_the_source(self, rows: list[tuple[str, int, int, float]], ending: str) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pictures(folder, *(f"im/{n}.png" for n in range(8)))
            entries = [
                {"prompt": prompt, "chosen": f"im/{a}.png", "rejected": f"im/{b}.png", "chosen_probability": p}
                for prompt, a, b, p in rows
            ]
            source = write_json_lines(folder / "source.jsonl", *entries)
            try:
                done = converted(source, folder / f"out{ending}")
            except ConfigError:  # CSV cannot hold every prompt, and says so
                assert ending == ".csv"
                assert any(prompt != " ".join(prompt.split()) for prompt, *_ in rows)
                return
            config = PairsConfig(resolution=16, ties="half")
            before, after = (load_pairs(str(path), config) for path in (source, done.out))
            for index in range(len(before)):
                first, second = before[index], after[index]
                assert first.prompt == second.prompt
                assert first.chosen_probability == second.chosen_probability
                assert (first.chosen == second.chosen).all()
                assert (first.rejected == second.rejected).all()
            assert len(before) == len(after)

    def test_a_second_image_that_is_preferred_comes_first(self, tmp_path: Path) -> None:
        write_pictures(tmp_path, "a.png", "b.png")
        row = {"caption": FOX, "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 0, "label_1": 1}
        done = converted(write_json_lines(tmp_path / "source.jsonl", row), tmp_path / "out.jsonl")
        entry = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
        assert (entry["chosen"], entry["rejected"], entry["chosen_probability"]) == ("b.png", "a.png", 1.0)
        assert done.pairs == 1

    def test_ties_are_kept_unless_the_key_says_otherwise(self, tmp_path: Path) -> None:
        source = table_of_paths(tmp_path)
        kept = converted(source, tmp_path / "kept.parquet", bad_rows_limit=1)
        assert (kept.pairs, kept.ties, kept.rows) == (2, 1, 5)
        assert [pair.probability for pair in read_again(kept, ties="half")] == [1.0, 0.5]
        dropped = converted(source, tmp_path / "dropped.parquet", bad_rows_limit=1, ties="drop")
        assert (dropped.pairs, dropped.ties) == (1, 0)

    def test_of_a_stream_keep_their_order(self, tmp_path: Path) -> None:
        path = tmp_path / "pairs.tar"
        with tarfile.open(path, "w") as archive:
            for row, probability in enumerate((1.0, 0.5, 0.75)):
                texts = json.dumps({"prompt": FOX, "chosen_probability": probability})
                files = {"chosen.png": picture(2 * row), "rejected.png": picture(2 * row + 1), "json": texts.encode()}
                for name, content in files.items():
                    entry = tarfile.TarInfo(f"{row:03}.{name}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        done = converted(path, tmp_path / "out.parquet")
        pairs = [(pair.chosen, pair.rejected, pair.probability) for pair in read_again(done, ties="half")]
        assert pairs == [(0, 1, 1.0), (2, 3, 0.5), (4, 5, 0.75)]
        assert [entry[1:] for entry in rows_of(done)] == [("0", "used"), ("1", "used"), ("2", "used")]
        assert (converted(path, tmp_path / "other", ties="drop").left_out, done.ties) == ({"a tie": 1}, 1)


class TestRows:
    def test_each_is_accounted_for(self, tmp_path: Path) -> None:
        done = converted(table_of_paths(tmp_path), tmp_path / "out.csv", bad_rows_limit=1)
        rows = rows_of(done)
        assert [place for place, _, _ in rows] == [f"source.jsonl line {number}" for number in range(1, 6)]
        assert [pairs for _, pairs, _ in rows] == ["0", "1", "", "", ""]
        assert [outcome == "used" for _, _, outcome in rows] == [True, True, False, False, False]
        assert "none.png" in rows[3][2]
        assert (done.rows, done.used, sum(done.left_out.values()), done.faults) == (5, 2, 1, 2)

    def test_the_list_is_no_table_of_a_folder(self, tmp_path: Path) -> None:
        source = table_of_paths(tmp_path / "set")
        done = converted(source, tmp_path / "tables" / "out.csv", bad_rows_limit=1)
        config = PairsConfig(resolution=16, image_folder=str(done.image_folder))
        pairs = load_pairs(str(done.out.parent), config)
        assert [pair.prompt for pair in pairs_of(pairs)] == [FOX]
        assert sum(pairs.inventory.passed_counts.values()) == 1

    def test_rows_of_single_images_name_all_their_pairs(self, tmp_path: Path) -> None:
        case = LAYOUTS["likes"](tmp_path)
        done = converted(case.source, tmp_path / "out.parquet", **case.settings)
        assert [pairs for _, pairs, _ in rows_of(done)] == ["0", "0 1", "1", ""]

    def test_too_many_faults_leave_the_list_and_no_table(self, tmp_path: Path) -> None:
        with pytest.raises(DataError):
            converted(table_of_paths(tmp_path), tmp_path / "out.parquet")
        assert len(rows_place(tmp_path / "out.parquet").read_text().splitlines()) == 6
        assert not (tmp_path / "out.parquet").exists()
        assert not list(tmp_path.glob("*.tmp"))


class TestPlaces:
    def test_paths_begin_at_the_table(self, tmp_path: Path) -> None:
        done = converted(table_of_paths(tmp_path / "set"), tmp_path / "out.jsonl", bad_rows_limit=1)
        entry = json.loads(done.out.read_text(encoding="utf-8").splitlines()[0])
        assert (entry["chosen"], done.image_folder) == ("set/im/0.png", None)

    def test_images_elsewhere_are_named_from_their_own_folder(self, tmp_path: Path) -> None:
        done = converted(table_of_paths(tmp_path / "set"), tmp_path / "tables" / "out.csv", bad_rows_limit=1)
        assert done.image_folder == tmp_path / "set" / "im"
        assert [pair.prompt for pair in read_again(done)] == [FOX]

    def test_a_folder_holds_each_image_once(self, tmp_path: Path) -> None:
        case = LAYOUTS["rejected_list"](tmp_path)
        done = converted(case.source, tmp_path / "out")
        assert [path.suffix for path in (done.out / "images").iterdir()] == [".png"] * 5
        assert rows_place(done.out) == tmp_path / "out.rows.csv"

    def test_image_files_stay_byte_for_byte(self, tmp_path: Path) -> None:
        done = converted(table_of_paths(tmp_path), tmp_path / "out.parquet", bad_rows_limit=1)
        rows = pq.read_table(done.out).to_pylist()
        assert [row["chosen"] for row in rows] == [{"bytes": picture(n), "path": f"{n}.png"} for n in (0, 2)]
        assert json.loads(pq.read_schema(done.out).metadata[b"huggingface"])["info"]["features"]["chosen"] == {
            "_type": "Image"
        }

    def test_images_within_the_data_have_no_path(self, tmp_path: Path) -> None:
        case = LAYOUTS["pick_a_pic"](tmp_path / "source")
        with pytest.raises(ConfigError):
            converted(case.source, tmp_path / "out.jsonl")
        assert [path.name for path in tmp_path.iterdir()] == ["source"]

    @pytest.mark.parametrize("ending", [".parquet", ".jsonl", ""])
    def test_names_that_are_no_text(self, ending: str, tmp_path: Path) -> None:
        name = os.fsdecode(b"\xff.png")
        write_pictures(tmp_path / "set", f"chosen/{name}", f"rejected/{name}", "chosen/a.png", "rejected/a.png")
        for text in ("a.txt", os.fsdecode(b"\xff.txt")):
            (tmp_path / "set" / "chosen" / text).write_text(FOX, encoding="utf-8")
        done = converted(tmp_path / "set", tmp_path / f"out{ending}", bad_rows_limit=1)
        assert done.faults == (ending == ".jsonl")
        assert [pair.prompt for pair in read_again(done)] == [FOX] * done.pairs
        assert len(rows_of(done)) == 2

    def test_images_in_text_become_files(self, tmp_path: Path) -> None:
        uris = [f"data:image/png;base64,{base64.b64encode(picture(n)).decode()}" for n in (0, 1)]
        row = {"prompt": FOX, "chosen": uris[0], "rejected": uris[1]}
        source = write_json_lines(tmp_path / "source.jsonl", row)
        done = converted(source, tmp_path / "out.parquet")
        assert pq.read_table(done.out).to_pylist()[0]["chosen"] == {"bytes": picture(0), "path": None}
        assert read_again(converted(source, tmp_path / "other")) == [Pair(prompt=FOX, chosen=0, rejected=1)]


class TestText:
    def test_formulas_come_back_as_they_were(self, tmp_path: Path) -> None:
        write_pictures(tmp_path, "=a.png", "-b.png")
        prompts = ["=1+1", "+x", "-y", "@z", "'=quoted", "''=twice", "'plain"]
        rows = [{"prompt": prompt, "chosen": "=a.png", "rejected": "-b.png"} for prompt in prompts]
        done = converted(write_json_lines(tmp_path / "source.jsonl", *rows), tmp_path / "out.csv")
        lines = done.out.read_text(encoding="utf-8").splitlines()
        assert not any(line.startswith(("=", "+", "-", "@")) for line in lines)
        assert [pair.prompt for pair in read_again(done)] == prompts

    def test_csv_refuses_what_it_cannot_hold(self, tmp_path: Path) -> None:
        write_pictures(tmp_path, "a.png", "b.png")
        prompt = " a fox\r\nin snow "
        row = {"prompt": prompt, "chosen": "a.png", "rejected": "b.png"}
        source = write_json_lines(tmp_path / "source.jsonl", row)
        with pytest.raises(ConfigError):
            converted(source, tmp_path / "out.csv")
        assert [pair.prompt for pair in read_again(converted(source, tmp_path / "out.jsonl"))] == [prompt]


class TestOut:
    @pytest.mark.parametrize("name", ["out.txt", "source.jsonl", "there.csv", "other", "source.jsonl/out.csv"])
    def test_wrong_places(self, name: str, tmp_path: Path) -> None:
        source = table_of_paths(tmp_path)
        (tmp_path / "there.csv").write_text("x")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "letter.txt").write_text("x")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ConfigError):
            converted(source, tmp_path / name, overwrite=name != "there.csv", bad_rows_limit=1)
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_folder_that_is_read_gets_no_table(self, tmp_path: Path) -> None:
        table_of_paths(tmp_path / "set")
        with pytest.raises(ConfigError):
            converted(tmp_path / "set", tmp_path / "set" / "out.jsonl", bad_rows_limit=1)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_overwrite_replaces_the_whole_table(self, ending: str, tmp_path: Path) -> None:
        source, out = table_of_paths(tmp_path), tmp_path / f"out{ending}"
        converted(source, out, bad_rows_limit=1)
        again = converted(source, out, overwrite=True, ties="drop", bad_rows_limit=1)
        assert [pair.prompt for pair in read_again(again, ties="half")] == [FOX]

    def test_a_fault_on_the_way_leaves_what_was_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source, out = table_of_paths(tmp_path), tmp_path / "out.parquet"
        converted(source, out, bad_rows_limit=1)
        before = out.read_bytes()
        monkeypatch.setattr("seedpo.data.pairs.pair_tables.ParquetTable.finish", _full)
        with pytest.raises(OSError, match="no space"):
            converted(source, out, overwrite=True, bad_rows_limit=1)
        assert out.read_bytes() == before
        assert not list(tmp_path.glob("*.tmp"))


def _full(table: object) -> None:
    raise OSError("no space")

"""``seedpo data check``: what it prints, what it writes, its exit status, and each wrong input in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from seedpo.cli import main
from seedpo.data.pairs.streams import StreamedPairs
from seedpo.data.settings import PairsConfig
from seedpo.scenes.pairs import preference_table
from tests.data.pairs.test_streams import Rows
from tests.data.pictures import BLUE, RED, image_file, noise_file, table, write_images


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Exit status, output and errors of ``seedpo data check``."""
    status = 0
    capsys.readouterr()
    try:
        main(["data", "check", *(str(argument) for argument in arguments)])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def parquet(folder: Path, *labels: Any, **columns: list[Any]) -> Path:
    path = folder / "pairs.parquet"
    files = [noise_file(seed=seed) for seed in range(len(labels))]
    pq.write_table(table(*labels, **{"jpg_0": files, **columns}), path)
    return path


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for name in PairsConfig.model_fields:
        assert f"`pairs.{name}" in text


SHAPES = ((192, 192), (300, 150), (100, 210), (64, 32))
"""Width and height of images of three shapes."""


class TestCheck:
    def test_a_sound_set(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, err = call(capsys, parquet(tmp_path, (1, 0), (0.5, 0.5), (0, 1)), "--quiet")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[:5] == [
            f"{tmp_path}/pairs.parquet",
            "  files read: 1 (pairs.parquet)",
            "  rows: 3 found, 2 used, 1 ties",
            "  2 pairs, 1 ties left out",
            "  checked: 2 pairs",
        ]
        assert lines[-1] == "A run can use this set."

    def test_buckets(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        files = [image_file(RED, size=shape) for shape in SHAPES]
        path = parquet(tmp_path, *[(1, 0)] * 4, jpg_0=files, jpg_1=[noise_file(size=shape) for shape in SHAPES])
        changes = ("--set", "pairs.resolution=192", "--set", "pairs.buckets=true")
        status, out, _ = call(capsys, path, "--quiet", *changes)
        assert status == 0
        lines = [line.split() for line in out.splitlines()]
        start = next(number for number, line in enumerate(lines) if line[:3] == ["pairs", "in", "buckets"])
        assert lines[start + 1 : start + 4] == [
            ["128", "x", "256", "1", "25.0%"],
            ["192", "x", "192", "1", "25.0%"],
            ["256", "x", "128", "2", "50.0%"],
        ]
        found = json.loads(call(capsys, path, "--quiet", "--json", *changes)[1])
        assert found["buckets"] == {"256x128": 2, "192x192": 1, "128x256": 1}
        assert found["cropped"] == pytest.approx((1 - 200 / 210) / 4)

    def test_several_sets(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        first = parquet(tmp_path, (1, 0), (0, 1))
        (tmp_path / "b").mkdir()
        second = parquet(tmp_path / "b", (1, 0))
        status, out, _ = call(capsys, first, second, "--quiet", "--out", tmp_path / "out")
        assert status == 0
        assert out.count("A run can use this set.") == 2
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"1", "2"}
        found = json.loads(call(capsys, first, second, "--quiet", "--json")[1])
        assert [entry["pairs"] for entry in found] == [2, 1]

    def test_a_set_that_would_stop_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = parquet(tmp_path, (1, 0), (0, 1), (1, 0), jpg_1=[image_file(BLUE), b"broken", image_file(BLUE)])
        status, out, err = call(capsys, path, "--quiet")
        assert status == 1
        assert f"pairs that cannot be used: 1\n    {path} row 1: jpg_1 is not an image that can be read" in out
        assert "A run would stop: 1 of 3 pairs cannot be used (33.33%)" in out
        assert err.splitlines() == [
            "error: 1 of 3 pairs cannot be used (33.33%), and pairs.bad_rows_limit allows 1.00%"
        ]
        assert call(capsys, path, "--quiet", "--set", "pairs.bad_rows_limit=0.5")[0] == 0

    def test_files_to_look_at(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = parquet(tmp_path, (1, 0), (0, 1), jpg_1=[image_file(BLUE), b"broken"])
        out = tmp_path / "a" / "b"
        status, printed, _ = call(capsys, path, "--quiet", "--out", out)
        assert status == 1, "what was found is written all the same"
        assert printed.splitlines()[-1] == f"written: {out}/check.json, {out}/pairs.png"
        with Image.open(out / "pairs.png") as sheet:
            assert min(sheet.size) > 200
        assert json.loads((out / "check.json").read_text())["checked"] == 2

    def test_folders(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Of each folder the files, the rows and what was passed over, one below the other."""
        for name, labels in {"a": [(1, 0)] * 3, "b": [(1, 0), (0.5, 0.5), (2, 3)]}.items():
            (tmp_path / name).mkdir()
            parquet(tmp_path / name, *labels)
        (tmp_path / "b" / "._pairs.parquet").write_bytes(b"x")
        out = call(capsys, tmp_path, "--quiet")[1]
        lines = [line.split() for line in out.splitlines()]
        start = next(number for number, line in enumerate(lines) if line[:1] == ["folder"])
        assert lines[start + 1 : start + 3] == [["a", "1", "3", "3"], ["b", "1", "3", "1", "hidden", "files:", "1"]]
        found = json.loads(call(capsys, tmp_path, "--quiet", "--json")[1])["inventory"]
        assert (found["rows"], found["used"], found["left_out"]) == (6, 4, {"ties": 1, "faulty": 1})
        assert [(entry["count"], entry["reason"]) for entry in found["passed_over"]] == [(1, "hidden files")]

    def test_what_is_measured_on(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """By the options, or by the keys of a run: leaks come first, and stop nothing."""
        training = parquet(tmp_path, (1, 0), (0, 1), caption=["a star", "a disc"], jpg_1=[noise_file(seed=7)] * 2)
        (tmp_path / "b").mkdir()
        held_out = parquet(tmp_path / "b", (1, 0), caption=["A star."], jpg_1=[noise_file(seed=8)])
        prompts = tmp_path / "prompts.txt"
        prompts.write_text("a square\nA  DISC\n")
        options = ("--validation", held_out, "--prompts", prompts)
        keys = ("--set", f"pairs.validation={held_out}", "--set", f"evaluation.prompts={prompts}")
        status, out, err = call(capsys, training, "--quiet", *options, "--out", tmp_path / "out")
        assert (status, err) == (0, "")
        leaks = [line for line in out.splitlines() if "LEAK" in line]
        assert [line.rpartition(":")[2].strip() for line in leaks] == ["1", "1", "1"]
        lines = out.splitlines()
        assert lines[lines.index("  checked: 2 pairs") + 1] == leaks[0]
        assert out.splitlines()[:-1] == call(capsys, training, "--quiet", *keys)[1].splitlines()
        with Image.open(tmp_path / "out" / "near-duplicates.png") as sheet:
            assert min(sheet.size) > 200
        overlaps = json.loads((tmp_path / "out" / "check.json").read_text())["overlaps"]
        assert [overlap["parts"] for overlap in overlaps] == [["training", "validation"], ["training", "evaluation"]]
        assert overlaps[0]["images"][0]["second"]["place"] == f"{held_out} row 0"

    def test_a_share_of_a_stream_cannot_be_kept_out(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stream = StreamedPairs(Rows(), PairsConfig(resolution=8))
        monkeypatch.setattr("seedpo.data.reading.load_pairs", lambda *_, **__: stream)
        status, out, err = call(capsys, "hub:a/b", "--validation", 0.5, "--set", "pairs.resolution=8")
        assert (status, out) == (1, "")
        assert "pairs.validation = 0.5: hub:a/b" in err

    def test_nothing_to_look_at(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = parquet(tmp_path, (1, 0), jpg_1=[b"broken"])
        _, printed, _ = call(capsys, path, "--quiet", "--out", tmp_path / "out")
        assert printed.splitlines()[-1] == f"written: {tmp_path}/out/check.json"
        assert not (tmp_path / "out" / "pairs.png").exists()

    def test_as_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        status, out, _ = call(capsys, parquet(tmp_path, (1, 0), (0.5, 0.5)), "--json", "--quiet", "--rows", 1)
        found = json.loads(out)
        assert status == 0
        assert (found["pairs"], found["ties"], found["checked"], found["stops"]) == (1, 1, 1, [])

    def test_a_registered_set(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("seedpo.scenes.shipped.preference_table", lambda: preference_table(count=10, seed=1))
        status, out, _ = call(capsys, "scenes-pairs", "--rows", 3, "--quiet")
        assert status == 0
        assert out.startswith("scenes-pairs\n")
        assert "checked: 3 of" in out

    def test_settings_of_a_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = parquet(tmp_path, (1, 0), (0.5, 0.5))
        _, out, _ = call(capsys, path, "--quiet", "--set", "pairs.ties=half", "--set", "pairs.resolution=16")
        assert "2 pairs, 0 ties left out, 1 ties among them" in out
        assert "images smaller than the resolution, which are enlarged: 4" in out
        status, _, err = call(capsys, path, "--set", "pairs.resolutoin=16")
        assert status == 1
        assert "resolutoin" in err


def corrupt_image(folder: Path) -> Path:
    return parquet(folder, (1, 0), jpg_0=[image_file(RED)[:50]])


def truncated_parquet(folder: Path) -> Path:
    path = parquet(folder, (1, 0))
    path.write_bytes(path.read_bytes()[:-30])
    return path


def missing_column(folder: Path) -> Path:
    path = parquet(folder, (1, 0))
    pq.write_table(pq.read_table(path).drop_columns(["jpg_1"]), path)
    return path


def all_ties(folder: Path) -> Path:
    return parquet(folder, (0.5, 0.5), (0.5, 0.5))


def records(folder: Path, *lines: str) -> Path:
    write_images(folder, red__png=image_file(RED), blue__png=image_file(BLUE))
    path = folder / "data" / "pairs.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n")
    return path


def outside(folder: Path) -> Path:
    return records(folder, json.dumps({"prompt": "a", "chosen": "../red.png", "rejected": "../blue.png"}))


def bad_line(folder: Path) -> Path:
    return records(
        folder, json.dumps({"prompt": "a", "chosen": "../red.png", "rejected": "../blue.png"}), '{"prompt": "a", '
    )


def only_bad_lines(folder: Path) -> Path:
    return records(folder, '{"prompt": "a", ')


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def no_captions(folder: Path) -> Path:
    for side, colour in (("chosen", RED), ("rejected", BLUE)):
        write_images(folder / side, one__png=image_file(colour))
    return folder


FOUND = {
    corrupt_image: "{}/pairs.parquet row 0: jpg_0 is not an image that can be read (",
    outside: "{0}/data/pairs.jsonl line 1: chosen is not an image that can be read (../red.png lies outside the folder "
    "{0}/data; set pairs.image_folder to the folder that holds the images); remove the row",
    bad_line: "{}/data/pairs.jsonl line 2 is not JSON (",
}
"""Rows that cannot be used: they are found, and a run would stop if they are too many."""

REFUSED = {
    truncated_parquet: ("{}/pairs.parquet cannot be read as parquet: ", "; fetch or write it again"),
    missing_column: (
        "{}/pairs.parquet lacks the columns ['jpg_1']; it has [",
        "caption, jpg_0, jpg_1, label_0, label_1 (Pick-a-Pic)",
    ),
    all_ties: ("{}/pairs.parquet holds no pair with a preference: 2 ties in 2 rows", "set pairs.ties=half"),
    only_bad_lines: ("{}/data/pairs.jsonl is not JSON lines, one {{...}} on each line: line 1 is not JSON", ""),
    empty_folder: ("{}/empty: the folder holds nothing, which is not a set of pairs; name a parquet file", ""),
    no_captions: ("{} holds 1 pairs and no caption; write it into chosen/one.txt, or a line for it into", ""),
}
"""Sets of which nothing can be used."""


class TestWrongInputs:
    @pytest.mark.parametrize("make", FOUND)
    def test_rows_are_named_with_their_place_and_what_to_do(
        self, make: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, err = call(capsys, make(tmp_path), "--quiet")
        assert status == 1
        assert FOUND[make].format(tmp_path) in out
        assert len(err.splitlines()) == 1
        assert "cannot be used" in err

    @pytest.mark.parametrize("make", REFUSED)
    def test_sets_are_refused_in_one_line(
        self, make: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        status, out, err = call(capsys, make(tmp_path), "--quiet")
        assert (status, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert err.startswith("error: ")
        for part in REFUSED[make]:
            assert part.format(tmp_path) in err

    def test_an_output_folder_that_is_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = parquet(tmp_path, (1, 0))
        status, _, err = call(capsys, path, "--quiet", "--out", path)
        assert status == 1
        assert err.startswith(f"error: --out {path} cannot be written")

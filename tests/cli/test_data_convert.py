"""``seedpo data convert``: what it prints and writes, its exit status, and each wrong input in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedpo.cli import main
from tests.data.layouts.published import FOX, LAYOUTS, write_json_lines, write_pictures


def call(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    """Exit status, output and errors of ``seedpo data convert``."""
    status = 0
    capsys.readouterr()
    try:
        main(["data", "convert", *(str(argument) for argument in arguments), "--quiet"])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_summary_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "source").mkdir()
    case = LAYOUTS["pick_a_pic"](tmp_path / "source")
    status, out, err = call(capsys, case.source, "--out", tmp_path / "pairs.parquet")
    assert (status, err) == (0, "")
    assert out.splitlines()[0] == f"{case.source}: Pick-a-Pic"
    assert f"written: {tmp_path}/pairs.parquet, 6 pairs, 2 ties among them" in out
    assert (tmp_path / "pairs.rows.csv").exists()
    status, out, _ = call(capsys, tmp_path / "pairs.parquet", "--out", tmp_path / "again", "--json")
    assert (status, json.loads(out)["pairs"], json.loads(out)["ties"]) == (0, 6, 2)


def test_own_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path, "a.png", "b.png")
    write_json_lines(tmp_path / "own.jsonl", {"text": FOX, "win": "b.png", "lose": "a.png"})
    columns = "pairs.columns={prompt: text, chosen: win, rejected: lose}"
    status, _, err = call(capsys, tmp_path / "own.jsonl", "--set", columns, "--out", tmp_path / "out.jsonl")
    assert (status, err) == (0, "")
    entry = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (entry["prompt"], entry["chosen"], entry["rejected"]) == (FOX, "b.png", "a.png")


class TestWrongInputs:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        write_pictures(tmp_path, "a.png", "b.png")
        return write_json_lines(tmp_path / "s.jsonl", {"prompt": FOX, "chosen": "a.png", "rejected": "b.png"})

    def refused(self, capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
        status, out, err = call(capsys, *arguments)
        assert (status, out) == (1, "")
        assert len(err.splitlines()) == 1
        return err

    def test_a_source_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "none.jsonl" in self.refused(capsys, tmp_path / "none.jsonl", "--out", tmp_path / "o.csv")

    def test_an_unknown_ending(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ".xlsx" in self.refused(capsys, source, "--out", source.with_name("o.xlsx"))

    def test_a_table_that_is_there(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source.with_name("o.csv").write_text("x")
        assert "--overwrite" in self.refused(capsys, source, "--out", source.with_name("o.csv"))

    def test_the_source_itself(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.refused(capsys, source, "--out", source, "--overwrite")

    def test_paths_of_images_that_have_none(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        case = LAYOUTS["pick_a_pic"](tmp_path / "source")
        assert ".parquet" in self.refused(capsys, case.source, "--out", tmp_path / "o.jsonl")

    def test_no_pair_that_can_be_used(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source.with_name("a.png").unlink()
        err = self.refused(capsys, source, "--out", source.with_name("o.csv"))
        assert "o.rows.csv" in err
        assert source.with_name("o.rows.csv").exists()

    def test_an_unknown_key(self, source: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.refused(capsys, source, "--out", source.with_name("o.csv"), "--set", "pairs.colums=1")

from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.data.prompts import load_prompts, read_prompts
from seedpo.errors import ConfigError, DataError


def test_one_prompt_on_each_line(tmp_path: Path) -> None:
    for content, prompts in [
        (b"a red star\na blue ring\n", ["a red star", "a blue ring"]),
        (b"a red star", ["a red star"]),
        (b"\n  a red star \n\n\t\na blue ring\n\n", ["a red star", "a blue ring"]),
        (b"a red star\r\na blue ring\r\n", ["a red star", "a blue ring"]),
        ("a café, at night\n日本の庭\n".encode(), ["a café, at night", "日本の庭"]),
        (b"\xef\xbb\xbfa red star\n", ["a red star"]),
        (b"twice\ntwice\n", ["twice", "twice"]),
    ]:
        (tmp_path / "prompts.txt").write_bytes(content)
        assert read_prompts(tmp_path / "prompts.txt") == prompts


RECORDS = {
    "prompts.jsonl": '{"prompt": " a red star ", "n": 1}\n\n{"caption": "a blue, ring"}\n{"prompt": ""}\n',
    "prompts.csv": 'n,prompt\n1,a red star\n2,"a blue, ring"\n3,\n',
}


def test_prompts_in_records(tmp_path: Path) -> None:
    for name in RECORDS:
        (tmp_path / name).write_text(RECORDS[name])
        assert read_prompts(tmp_path / name) == ["a red star", "a blue, ring"]


def test_records_without_a_prompt(tmp_path: Path) -> None:
    for line, why in [
        ("{", r"line 2 is not JSON \(.*\); fix or remove it"),
        ('{"text": "a"}', r"line 2 has the keys \['text'\]; expected is 'prompt'"),
        ('{"prompt": 7}', "line 2: prompt is not text but int"),
    ]:
        (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n' + line)
        with pytest.raises(DataError, match=rf"prompt file .*prompts\.jsonl {why}"):
            read_prompts(tmp_path / "prompts.jsonl")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"prompt file .*none\.txt does not exist; write one, with a prompt on each line"
    ):
        read_prompts(tmp_path / "none.txt")


def test_an_empty_file(tmp_path: Path) -> None:
    for content in [b"", b"\n\n", b"   \n\t\n"]:
        (tmp_path / "prompts.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"prompts\.txt holds no prompt; write one per line"):
            read_prompts(tmp_path / "prompts.txt")


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    for content in ["a café".encode("latin-1"), "a star".encode("utf-16"), b"\x89PNG\r\n\x1a\n"]:
        (tmp_path / "prompts.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"prompts\.txt cannot be read as UTF-8 text"):
            read_prompts(tmp_path / "prompts.txt")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        read_prompts(tmp_path)


class TestByName:
    def test_a_registered_set_its_place_and_a_file(self, tmp_path: Path) -> None:
        assert len(load_prompts("scenes-training")) == 416
        assert load_prompts("scenes-training", count=3) == load_prompts("scenes-training")[:3]
        (tmp_path / "PartiPrompts.tsv").write_text("Prompt\tCategory\none\tx\ntwo\tx\n")
        assert load_prompts(f"parti@{tmp_path}") == ["one", "two"]
        (tmp_path / "prompts").write_text("three\n")
        assert load_prompts(str(tmp_path / "prompts")) == ["three"], "without an ending"

    def test_names_that_do_not_exist(self) -> None:
        for name, key in [
            ("parti@", "parti@"),
            ("scenes-training@place", "scenes-training@place"),
            ("scenes-trainin", "scenes-training"),
        ]:
            with pytest.raises(ConfigError, match=key):
                load_prompts(name)

    def test_too_few(self, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text("one\n")
        with pytest.raises(ConfigError, match=r"--num-prompts = 2.*1 prompts"):
            load_prompts(str(tmp_path / "prompts.txt"), count=2)

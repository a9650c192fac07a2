from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seedpo.data.prompts.reading import load_prompts, names_a_file, read_prompts
from seedpo.errors import ConfigError, DataError


def texts(path: Path) -> list[str]:
    return [prompt.text for prompt in read_prompts(path)]


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
        assert texts(tmp_path / "prompts.txt") == prompts


RECORDS = {
    "prompts.jsonl": '{"prompt": " a red star ", "n": 1}\n\n{"caption": "a blue, ring"}\n',
    "prompts.csv": 'n,prompt\n1,a red star\n2,"a blue, ring"\n',
}


def test_prompts_in_records(tmp_path: Path) -> None:
    for name in RECORDS:
        (tmp_path / name).write_text(RECORDS[name])
        assert texts(tmp_path / name) == ["a red star", "a blue, ring"]


def test_records_without_a_prompt(tmp_path: Path) -> None:
    for line, why in [
        ("{", r"line 2 is not JSON \(.*\); fix or remove it"),
        ('{"text": "a"}', r"line 2 has the keys \['text'\]; expected is 'prompt'"),
        ('{"prompt": 7}', "line 2: prompt is not text but int"),
    ]:
        (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n' + line)
        with pytest.raises(DataError, match=rf"prompt file .*prompts\.jsonl {why}"):
            texts(tmp_path / "prompts.jsonl")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"prompt file .*none\.txt does not exist; write one, with a prompt on each line"
    ):
        texts(tmp_path / "none.txt")


def test_an_empty_file(tmp_path: Path) -> None:
    for content in [b"", b"\n\n", b"   \n\t\n"]:
        (tmp_path / "prompts.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"prompts\.txt holds no prompt; write one per line"):
            texts(tmp_path / "prompts.txt")


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    for content in ["a café".encode("latin-1"), "a star".encode("utf-16"), b"\x89PNG\r\n\x1a\n"]:
        (tmp_path / "prompts.txt").write_bytes(content)
        with pytest.raises(DataError, match=r"prompts\.txt cannot be read as UTF-8 text"):
            texts(tmp_path / "prompts.txt")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        texts(tmp_path)


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


TWO = ["a large red star on white, at night", "a small blue ring"]


def parquet(column: str = "caption") -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"jpg_0": [b"\x89", b"\x89"], column: TWO, "category": ["sky", None]}), sink)
    return sink.getvalue()


FORMATS = {
    "text": "\n".join(TWO) + "\n",
    "text without an end": "\n".join(TWO),
    "list": json.dumps(TWO),
    "indented list": json.dumps(TWO, indent=1),
    "objects": json.dumps([{"prompt": text} for text in TWO]),
    "indented objects": json.dumps([{"Prompt": text, "n": 1} for text in TWO], indent=2),
    "both": json.dumps([TWO[0], {"caption": TWO[1]}]),
    "JSON lines": "".join(json.dumps({"prompt": text}) + "\n" for text in TWO),
    "within an object": json.dumps({"prompts": TWO}),
    "within an object of others": json.dumps({"version": 1, "styles": [], "data": [{"prompt": text} for text in TWO]}),
    "a column in an object": json.dumps({"prompt": TWO}),
    "CSV": "n,Prompt\n" + "".join(f'{row},"{text}"\n' for row, text in enumerate(TWO)),
    "semicolons": "n;prompt\n" + "".join(f"{row};{text}\n" for row, text in enumerate(TWO)),
    "one column": "prompt\n" + "".join(f'"{text}"\n' for text in TWO),
    "TSV": "Prompt\tCategory\tChallenge\tNote\n" + "".join(f"{text}\tA\tB\tC\n" for text in TWO),
    "YAML": "".join(f"- {text}\n" for text in TWO),
    "quoted YAML": "".join(f"- '{text}'\n" for text in TWO),
}


class TestContent:
    @pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
    @pytest.mark.parametrize("name", ["p.txt", "p", "p.json", "p.list", "p.prompts", "p.bak"])
    def test_decides_and_never_the_ending(self, tmp_path: Path, content: str, name: str) -> None:
        for changed in (content, content.replace("\n", "\r\n"), "\ufeff" + content, "\n\n" + content + "\n\n"):
            (tmp_path / name).write_bytes(changed.encode())
            assert texts(tmp_path / name) == TWO
            assert load_prompts(str(tmp_path / name)) == TWO

    @pytest.mark.parametrize("name", ["p.parquet", "p.txt", "p"])
    def test_parquet(self, tmp_path: Path, name: str) -> None:
        for column in ("caption", "prompt", "Prompt"):
            (tmp_path / name).write_bytes(parquet(column))
            assert texts(tmp_path / name) == TWO
            assert [prompt.category for prompt in read_prompts(tmp_path / name)] == ["sky", ""]

    def test_yaml_by_its_ending(self, tmp_path: Path) -> None:
        for content in ("- a fox\n  in snow\n- 1984\n- yes", "prompts:\n  - a fox in snow\n  - 1984\n  - 'yes'\n"):
            (tmp_path / "p.yaml").write_text(content)
            assert texts(tmp_path / "p.yaml") == ["a fox in snow", "1984", "yes"]

    def test_yaml_that_is_no_list(self, tmp_path: Path) -> None:
        for content in ("a fox\nan owl\n", "a: fox\nb: owl\n", "7"):
            (tmp_path / "p.yaml").write_text(content)
            with pytest.raises(DataError, match=r"p\.yaml"):
                read_prompts(tmp_path / "p.yaml")

    def test_texts_in_json_lines(self, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(text) + "\n" for text in TWO))
        assert texts(tmp_path / "p.jsonl") == TWO

    @pytest.mark.parametrize(
        "lines",
        [
            ["[portrait] of a fox", "[landscape, wide] of a bay"],
            ["{a|b} style", "an owl"],
            ["{red, blue} star", "{} ring"],
            ["an owl", "[portrait] of a fox"],
            ['["neon"] sign', "an owl"],
            ['["neon", "sign"] at night', "an owl"],
            ["[fox]", "[owl]"],
            ["- a fox", "an owl"],
            ["a: fox", "b: owl"],
            ["a fox, in snow", "an owl; at night"],
            ['"a fox"', '"an owl"'],
            ["a prompt, a fox", "the caption"],
            ["<lora:x:0.8> fox", "(owl:1.2)"],
            ["a\tfox", "an owl"],
            ["a fox\u2028in snow", "an\x0bowl"],
        ],
        ids=lambda lines: lines[0],
    )
    def test_plain_text_stays_plain(self, tmp_path: Path, lines: list[str]) -> None:
        (tmp_path / "p.txt").write_text("\n".join(lines), encoding="utf-8")
        assert texts(tmp_path / "p.txt") == lines

    def test_the_log_says_what_was_read(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        for content, kind in [(FORMATS["list"], "JSON"), (FORMATS["TSV"], "table"), (FORMATS["YAML"], "YAML")]:
            caplog.clear()
            (tmp_path / "p.txt").write_text(content)
            read_prompts(tmp_path / "p.txt")
            assert [f"2 prompts, read as {kind}" in message or kind in message for message in caplog.messages] == [True]
        (tmp_path / "p.txt").write_text("[portrait] of a fox\n")
        read_prompts(tmp_path / "p.txt")
        assert [record.levelname for record in caplog.records[-2:]] == ["WARNING", "INFO"]

    @pytest.mark.parametrize(
        ("content", "place"),
        [
            ('{"prompt": "a"}\n{"prompt": \n{"prompt": "c"}', "line 2"),
            ('pt": "a"}\n{"prompt": "b"}\n', "line 1"),
            ('{"prompt": "a \\ud83d"}', "surrogate"),
            ('["a", "b \\u0000"]', "entry 2"),
            ('["a", 7]', "entry 2"),
            ('["a", ""]', "entry 2"),
            ('["a", {"text": "b"}]', "entry 2"),
            ('["a", "b"', "JSON"),
            ('["a",', "JSON"),
            ('["a" "b", "c"]', "JSON"),
            ('["a, "b", "c"]', "JSON"),
            ('[\n"a,\n"b"\n]', "JSON"),
            ('[{"prompt": "a" 1}, {"prompt": "b"}]', "JSON"),
            ('[{"prompt": "a" 1},\n{"prompt": "b"}]', "JSON|line 1"),
            ('[\n "a"\n "b"\n]', "JSON"),
            ('[\n{"prompt": "a"},\n{"prompt": "b"\n', "JSON|line 1"),
            ('{"prompt": "a', "JSON"),
            ('{"a": ["x"], "b": ["y"]}', "'a', 'b'"),
            ('{"0": "a fox", "1": "an owl"}', "'0', '1'"),
            ("n,prompt\n1,a\n2\n", "line 3"),
            ("n,prompt\n1,a\n2,\n", "line 3"),
            ('n,prompt\n1,a\n2,"b\n3,c\n', "line 3"),
            ('n,prompt\n1,a\n2,"b\n3,c 50"\n', "line 3"),
            ("n,prompt\n1,a\n2,a, b\n", "line 3"),
            ("a\0b\n", "line 1"),
            ("ok\n\nb\0\n", "line 3"),
            ("a fox\tanimals\nan owl\tanimals\n", "tabs"),
            ("- a\n- {b: c}\n", "entry 2"),
            ("- &a x\n- *a\n", "alias"),
            ("- [\n- ]\n", "YAML"),
            ("- a\n- \n- b\n", "entry 2"),
        ],
    )
    def test_a_damaged_record_is_named(self, tmp_path: Path, content: str, place: str) -> None:
        for name in ("p.txt", "p"):
            (tmp_path / name).write_text(content)
            with pytest.raises(DataError, match=rf"prompt file .*{place}") as caught:
                read_prompts(tmp_path / name)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 400

    def test_a_bomb_of_aliases(self, tmp_path: Path) -> None:
        lines = ["a: &a [x, x]"] + [f"{b}: &{b} [*{a}, *{a}]" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz")]
        for content in ("\n".join(lines), "- &a [x]\n" + "- *a\n" * 1000, "- " * 50_000):
            (tmp_path / "p.yaml").write_text(content)
            with pytest.raises(DataError, match=r"p\.yaml"):
                read_prompts(tmp_path / "p.yaml")

    def test_a_conversation_of_one_message(self, tmp_path: Path) -> None:
        row = {"prompt": [{"role": "user", "content": "a fox"}]}
        for content in (json.dumps([row]), json.dumps(row) + "\n" + json.dumps(row)):
            (tmp_path / "p").write_text(content)
            assert set(texts(tmp_path / "p")) == {"a fox"}

    def test_categories(self, tmp_path: Path) -> None:
        for content in (
            "Prompt\tCategory\na fox\tanimals\na\t\n",
            '[{"prompt": "a fox", "category": " animals "}, {"prompt": "a"}]',
        ):
            (tmp_path / "p").write_text(content)
            assert [prompt.category for prompt in read_prompts(tmp_path / "p")] == ["animals", ""]

    def test_empty_ones_if_they_count(self, tmp_path: Path) -> None:
        for content in ("a\n\nb\n\n\n", '["a", "", "b"]', '{"prompt": "a"}\n\n{"prompt": null}\n{"prompt": "b"}\n'):
            (tmp_path / "p").write_text(content)
            assert [prompt.text for prompt in read_prompts(tmp_path / "p", empty=True)] == ["a", "", "b"]

    def test_nothing(self, tmp_path: Path) -> None:
        for content in ("", "\ufeff", "\n\n", "[]"):
            (tmp_path / "p").write_text(content, encoding="utf-8")
            assert read_prompts(tmp_path / "p", empty=True) == []
            with pytest.raises(DataError, match="holds no prompt"):
                read_prompts(tmp_path / "p")

    def test_a_published_table_is_read_as_by_its_name(self, tmp_path: Path) -> None:
        rows = ['a "parti" prompt', '"Hello" says the fox', 'a tv of 50"', '"whole"', "plain, with a comma"]
        path = tmp_path / "PartiPrompts.tsv"
        path.write_text("Prompt\tCategory\n" + "".join(f"{row}\tA\n" for row in rows))
        assert load_prompts(str(path)) == load_prompts(f"parti@{path}") == rows


class TestNames:
    def test_a_file_is_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("noending", "./noending", "sub/noending", "parti@home", "a b", "prömpts.日本"):
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text("one\n")
            assert names_a_file(name)
            assert load_prompts(name) == ["one"]
        Path("parti").write_text("one\n")
        assert not names_a_file("parti")
        assert load_prompts("./parti") == ["one"]

    def test_what_is_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("./none", "none.txt", "none/none", ".", "a\0b.txt", "x" * 5000 + ".txt"):
            with pytest.raises(DataError, match="prompt file"):
                load_prompts(name)
        with pytest.raises(ConfigError):
            load_prompts("none")

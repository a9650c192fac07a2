from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from seedpo.data.text import Line, read_text, records
from seedpo.errors import DataError

NAMES = "prompt,chosen,rejected\n"
ROWS = [{"prompt": f"fox {row}", "chosen": f"im/{row}.png", "rejected": f"im/{row + 1}.png"} for row in range(4)]


def read(folder: Path, content: str | bytes, name: str = "file") -> list[Line]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return records(folder / name)


def values(lines: list[Line]) -> list[Any]:
    """The values of each record, `None` for a faulty one."""
    assert not any(line.values for line in lines if line.fault)
    return [None if line.fault else dict(line.values) for line in lines]


def prompts(lines: list[Line]) -> list[str | None]:
    return [None if line.fault else line.values["prompt"] for line in lines]


def jsonl(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def delimited(sign: str) -> str:
    return "\n".join(sign.join(row) for row in (ROWS[0].keys(), *(row.values() for row in ROWS))) + "\n"


FORMATS = {
    "lines": jsonl(ROWS),
    "array": json.dumps(ROWS),
    "indented": json.dumps(ROWS, indent=2),
    "a line each": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "within an object": json.dumps({"data": ROWS}),
    "within an indented object": json.dumps({"version": 1, "train": ROWS}, indent=1),
    "a line each within an object": '{"rows": [\n' + ",\n".join(map(json.dumps, ROWS)) + "\n]}",
    "one after another": "\n".join(json.dumps(row, indent=1) for row in ROWS),
    "lines with commas": ",\n".join(map(json.dumps, ROWS)) + ",\n",
    "commas": delimited(","),
    "blanks": delimited(", "),
    "tabs": delimited("\t"),
    "semicolons": delimited(";"),
}


class TestContent:
    @pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
    @pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".txt", ""])
    def test_decides_and_never_the_ending(self, tmp_path: Path, content: str, ending: str) -> None:
        assert values(read(tmp_path, content, f"file{ending}")) == ROWS

    @pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
    def test_whatever_an_editor_does(self, tmp_path: Path, content: str) -> None:
        for changed in (
            b"\xef\xbb\xbf" + content.encode(),
            content.replace("\n", "\r\n").encode(),
            content.replace("\n", "\r").encode(),
            ("\n\n" + content + "\n\n").encode(),
            content.rstrip().encode(),
        ):
            assert values(read(tmp_path, changed)) == ROWS

    def test_an_ending_that_says_something_else_is_named(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        read(tmp_path, FORMATS["lines"], "a.jsonl")
        read(tmp_path, FORMATS["lines"], "a.json")
        read(tmp_path, FORMATS["tabs"], "a.tsv")
        read(tmp_path, FORMATS["array"], "a.json")
        assert not caplog.messages
        read(tmp_path, FORMATS["array"], "b.csv")
        assert ["b.csv" in message for message in caplog.messages] == [True]

    def test_nothing(self, tmp_path: Path) -> None:
        for content in (b"", b"\xef\xbb\xbf", b"\n\n", b"[]", b"prompt,chosen,rejected\n"):
            assert read(tmp_path, content) == []

    def test_one_record(self, tmp_path: Path) -> None:
        for content in (json.dumps(ROWS[0]), json.dumps(ROWS[0], indent=1), json.dumps([ROWS[0]])):
            assert values(read(tmp_path, content)) == [ROWS[0]]

    @pytest.mark.parametrize(
        "content",
        [
            b"no records",
            b"\x89PNG\r\n\x1a\n\0\0",
            b"PAR1\0\x15\xff",
            "prompt,chosen\na,b\n".encode("utf-16"),
            "prompt,chosen\na,b\n".encode("utf-16-le"),
            b"[1, 2]",
            b"[{",
            b"{",
            b'{"a": ',
            b"7",
            b"[" * 100_000,
            b"prompt,chosen,prompt\na,b,c\n",
            b'prompt,"chosen,rejected\na,b,c\nd,e",f,g\n',
            b'{"train": [{"a": 1}], "test": [{"a": 2}]}',
        ],
        ids=lambda content: repr(content[:12]),
    )
    def test_something_else_is_one_named_error(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(DataError, match="file") as caught:
            read(tmp_path, content)
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)

    def test_a_row_that_holds_lists_of_objects_is_a_row(self, tmp_path: Path) -> None:
        conversation = {"prompt": [{"role": "user", "content": "fox"}], "chosen": "a.png"}
        task = {"id": 1, "data": {"prompt": "fox"}, "annotations": [{"id": 2}]}
        for row in (conversation, task):
            assert values(read(tmp_path, json.dumps(row))) == [row]
            assert values(read(tmp_path, json.dumps([row, row], indent=1))) == [row, row]


class TestBadRecords:
    def test_a_bad_line_of_json(self, tmp_path: Path) -> None:
        lines = list(map(json.dumps, ROWS))
        for row in range(4):
            for bad in ('{"prompt": ', "[1, 2]", "7", "null", '{"a": 1} x', "\0\0\0", '{"a": 1, "a": 2}', "x, y"):
                changed = [*lines[:row], bad, *lines[row + 1 :]]
                found = read(tmp_path, "\n".join(changed), "a.jsonl")
                assert values(found) == [*ROWS[:row], None, *ROWS[row + 1 :]], (row, bad)
                assert found[row].place.endswith(f"line {row + 1}")

    @pytest.mark.parametrize("kind", ["array", "indented", "a line each", "a line each within an object"])
    @pytest.mark.parametrize("row", range(4))
    def test_a_bad_entry_of_an_array(self, tmp_path: Path, kind: str, row: int) -> None:
        whole = FORMATS[kind]
        mark = f'"fox {row}"'
        for bad in (mark + " 7", mark[1:], mark[:-1], "[" * 100_000, "\ud83d".encode("unicode_escape").decode(), "]"):
            found = read(tmp_path, whole.replace(mark, bad))
            assert values(found) == [*ROWS[:row], None, *ROWS[row + 1 :]], bad
            assert found[row].place.endswith(f"entry {row + 1}")

    @pytest.mark.parametrize("kind", ["array", "indented", "a line each"])
    def test_an_array_that_is_cut_off(self, tmp_path: Path, kind: str) -> None:
        whole = FORMATS[kind]
        for cut in range(whole.index("im/2.png"), len(whole.rstrip()) - 1, 5):
            found = values(read(tmp_path, whole[:cut]))
            count = len(found) - 1
            assert count in (1, 2, 3, 4)
            assert found == [*ROWS[:count], None]

    def test_many_bad_entries_take_no_longer_each(self, tmp_path: Path) -> None:
        rows = ['{"prompt": "a" 1}' if row % 2 else '{"prompt": "' + "x" * 6000 + '"}' for row in range(3000)]
        for text in ("[" + ",".join(rows) + "]", "[\n" + ",\n".join(rows) + "\n]"):
            found = read(tmp_path, text)
            assert [line.fault is None for line in found] == [True, False] * 1500
            assert ("line 3001" in str(found[-1].fault)) == ("\n" in text)

    def test_a_nested_object_is_not_taken_for_an_entry(self, tmp_path: Path) -> None:
        rows = [{"id": row, "marks": [{"id": 10 + row, "by": "x"}]} for row in range(3)]
        text = json.dumps(rows, indent=1).replace('"id": 1,', '"id": 1 1,')
        assert values(read(tmp_path, text)) == [rows[0], None, rows[2]]

    @pytest.mark.parametrize(
        "bad",
        [
            '"a \\ud83d"',
            '"a \\u0000"',
            '{"x": ["\\udfff"]}',
            "1" + "0" * 400,
            "1" + "0" * 5000,
            "1e999",
            "-Infinity",
            "[" * 100_000 + "]" * 100_000,
            "[" * 120 + "]" * 120,
        ],
        ids=lambda bad: bad[:12],
    )
    def test_a_value_that_no_row_may_hold(self, tmp_path: Path, bad: str) -> None:
        for content in (jsonl(ROWS), json.dumps(ROWS), json.dumps(ROWS, indent=1), json.dumps({"data": ROWS})):
            assert values(read(tmp_path, content.replace('"fox 2"', bad))) == [*ROWS[:2], None, ROWS[3]]

    def test_single_bytes_that_are_no_utf_8(self, tmp_path: Path) -> None:
        for content in (FORMATS["lines"], FORMATS["array"], FORMATS["commas"]):
            assert values(read(tmp_path, content.encode().replace(b"fox 2", b"caf\xe9"))) == [*ROWS[:2], None, ROWS[3]]

    def test_a_key_with_two_values(self, tmp_path: Path) -> None:
        found = read(tmp_path, '{"a": 1, "a": 2}\n{"a": 1, "a": 1}\n{"a": 3}\n')
        assert values(found) == [None, {"a": 1}, {"a": 3}]
        assert "'a'" in str(found[0].fault)


class TestQuotes:
    """An unclosed quote costs the record that it stands in; the next physical line is read as ever."""

    def table(self, count: int = 20) -> list[str]:
        return [f"a fox number {row},im/{row}.png,im/{row + 1}.png" for row in range(count)]

    def test_what_is_right_stays_right(self, tmp_path: Path) -> None:
        for content, prompt in [
            ('"a fox\nin snow, at night",im/0.png,im/1.png\n', "a fox\nin snow, at night"),
            ('"a, b, c\nd, e, f\ng, h, i",im/0.png,im/1.png\n', "a, b, c\nd, e, f\ng, h, i"),
            ('"one\n\ntwo",im/0.png,im/1.png\n', "one\n\ntwo"),
            ('"say ""hi"" to,\n""all""",im/0.png,im/1.png\n', 'say "hi" to,\n"all"'),
            ('"""hi""",im/0.png,im/1.png\n', '"hi"'),
            ('a tv of 50",im/0.png,im/1.png\n', 'a tv of 50"'),
            ('"a, b" , "im/0.png" ,\t"im/1.png"\n', "a, b"),
            (" a fox  , im/0.png, im/1.png \n", "a fox"),
            ("a fox,im/0.png,im/1.png,,\n", "a fox"),
            ('" kept ",im/0.png,im/1.png', " kept "),
            ("x" * 300_000 + ",im/0.png,im/1.png\n", "x" * 300_000),
            ('"' + "x\n" * 100_000 + '",im/0.png,im/1.png', "x\n" * 100_000),
        ]:
            for end in ("\n", "\r\n"):
                found = values(read(tmp_path, (NAMES + content).replace("\n", end)))
                assert found == [{"prompt": prompt, "chosen": "im/0.png", "rejected": "im/1.png"}], prompt[:40]

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    @pytest.mark.parametrize("last", [None, 12, 5])
    @pytest.mark.parametrize(
        "bad",
        [
            '"sunset over the bay,im/0.png,im/1.png',
            'a sunset,"im/0.png,im/1.png',
            'a sunset,im/0.png,"im/1.png',
            '"a ""red"" sunset,im/0.png,im/1.png',
            '"a" sunset,im/0.png,im/1.png',
            '"sunset, over the bay, at night,im/0.png,im/1.png',
        ],
    )
    def test_one_that_is_not_closed_costs_one_record(
        self, tmp_path: Path, bad: str, last: int | None, end: str
    ) -> None:
        lines = self.table()
        lines[4] = bad
        wanted: list[str | None] = [line.partition(",")[0] for line in lines]
        wanted[4] = None
        if last is not None:
            lines[last] = 'a tv of 50",im/0.png,im/1.png'
            wanted[last] = 'a tv of 50"'
        found = read(tmp_path, (NAMES + "\n".join(lines)).replace("\n", end))
        assert prompts(found) == wanted
        assert [line.number for line in found] == list(range(2, 22))

    def test_on_the_last_line(self, tmp_path: Path) -> None:
        for end in ("", "\n", "\r\n"):
            found = read(tmp_path, NAMES + "\n".join([*self.table(3), '"sunset,im/0.png,im/1.png']) + end)
            assert prompts(found) == ["a fox number 0", "a fox number 1", "a fox number 2", None]

    def test_that_begins_a_right_one_of_several_lines(self, tmp_path: Path) -> None:
        lines = ['"a fox', "in snow,im/8.png,im/9.png", *self.table(5), '"the\nlast",im/0.png,im/1.png']
        found = prompts(read(tmp_path, NAMES + "\n".join(lines)))
        assert found[0] is None
        assert found[-6:] == [*(f"a fox number {row}" for row in range(5)), "the\nlast"]

    @pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
    @pytest.mark.parametrize("last", [5, 6, 9])
    def test_wherever_the_prompts_stand(self, tmp_path: Path, order: tuple[int, ...], last: int) -> None:
        def line(prompt: str) -> str:
            values = (prompt, "im/0.png", "im/1.png")
            return ",".join(values[column] for column in order) + "\n"

        names = ",".join(NAMES.strip().split(",")[column] for column in order) + "\n"
        right = ['"a fox\nin snow"', '"a, b, c\nd, e, f"', '"a,b,c\nd,e,f\ng"', '"one\n"', '"\n\none"', "owl"]
        assert prompts(read(tmp_path, names + "".join(map(line, right)))) == [text.strip('"') for text in right]
        rows = [f"owl {row}" for row in range(10)]
        damaged = [*rows[:4], '"sunset, at sea', *rows[5:last], 'tv of 50"', *rows[last + 1 :]]
        found = read(tmp_path, names + "".join(map(line, damaged)))
        assert [number for number, record in enumerate(found) if record.fault][:1] == [4]
        assert len(found) == 10
        assert prompts(found)[last + 1 :] == rows[last + 1 :]
        assert prompts(found)[5:last] == rows[5:last]

    def test_several(self, tmp_path: Path) -> None:
        rows = self.table(200)
        generator = random.Random(0)
        bad = set(generator.sample(range(200), 17))
        lines = [f'"{row}' if number in bad else row for number, row in enumerate(rows)]
        found = read(tmp_path, NAMES + "\n".join(lines))
        assert [number for number, line in enumerate(found) if line.fault] == sorted(bad)
        assert len(found) == 200

    def test_among_words_alone(self, tmp_path: Path) -> None:
        rows = ["fox,animals", '"sunset,places', "owl,animals", 'tv of 50",things', "hen,animals"]
        assert prompts(read(tmp_path, "prompt,category\n" + "\n".join(rows))) == [
            "fox",
            None,
            "owl",
            'tv of 50"',
            "hen",
        ]
        right = '"a fox, red\nin snow, at night",animals\n'
        assert prompts(read(tmp_path, "prompt,category\n" + right)) == ["a fox, red\nin snow, at night"]

    def test_a_single_column_of_several_lines_is_named(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        assert prompts(read(tmp_path, 'prompt\nowl\n"a fox\nin snow"\n', "p.csv")) == ["owl", "a fox\nin snow"]
        assert ["line 3" in message for message in caplog.messages] == [True]

    def test_tabs_with_quotes_that_mean_nothing(self, tmp_path: Path) -> None:
        rows = ['a "parti" prompt', '"Hello" says the fox', 'a 50" tv', '"whole"', '"open']
        text = "Prompt\tCategory\n" + "".join(f"{row}\tAnimals\n" for row in rows)
        assert [line.values["Prompt"] for line in read(tmp_path, text)] == rows

    def test_tabs_with_quotes(self, tmp_path: Path) -> None:
        text = 'prompt\tnote\n"a ""big"" fox"\tx\n"tab\there"\t\n"whole"\tz\n'
        assert prompts(read(tmp_path, text)) == ['a "big" fox', "tab\there", "whole"]

    def test_nul(self, tmp_path: Path) -> None:
        assert prompts(read(tmp_path, NAMES + "a,b,c\na\0b,b,c\nc,b,c\n")) == ["a", None, "c"]

    def test_a_line_with_too_many_or_too_few_fields(self, tmp_path: Path) -> None:
        found = values(read(tmp_path, NAMES + "a,b,c,d\na\n"))
        assert found == [None, {"prompt": "a", "chosen": None, "rejected": None}]


class TestFiles:
    def test_that_cannot_be_read(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none", tmp_path / "a\0b"):
            for reader in (read_text, records):
                with pytest.raises(DataError):
                    reader(path)

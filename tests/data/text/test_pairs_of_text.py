from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import DataError
from tests.data.pictures import BLUE, RED, image_file, plain, write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", red__png=image_file(RED), blue__jpg=image_file(BLUE, kind="PNG"))
    return tmp_path


def pairs_of(path: Path, content: str | bytes, **settings: Any) -> PairSet:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    pairs = read_pairs(path, PairsConfig(**settings))
    assert isinstance(pairs, PairSet)
    return pairs


RECORD = '{"prompt": "a star", "chosen": "images/red.png", "rejected": "images/blue.jpg", "score": 3}'
OTHER = '{"prompt": "a ring", "chosen": "images/blue.jpg", "rejected": "images/red.png"}'


class TestJsonLines:
    def test_paths_begin_beside_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        pairs = pairs_of(folder / "pairs.jsonl", f"{RECORD}\n\n{OTHER}\n")
        assert [pairs[row].prompt for row in range(2)] == ["a star", "a ring"]
        torch.testing.assert_close(pairs[0].chosen, plain(RED))
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE))

    def test_absolute_paths(self, folder: Path) -> None:
        pairs = pairs_of(folder / "pairs.jsonl", RECORD.replace("images", f"{folder}/images"))
        torch.testing.assert_close(pairs[0].rejected, plain(BLUE))

    def test_what_editors_do_to_files(self, folder: Path) -> None:
        for mark in [b"", b"\xef\xbb\xbf"]:
            for end in [b"\n", b"\r\n"]:
                content = mark + end.join([RECORD.replace("a star", "日本 café").encode(), OTHER.encode()])
                assert pairs_of(folder / "pairs.jsonl", content)[0].prompt == "日本 café"

    def test_caption_is_another_name_of_prompt(self, folder: Path) -> None:
        assert pairs_of(folder / "pairs.jsonl", RECORD.replace("prompt", "caption"))[0].prompt == "a star"

    def test_ties_and_probabilities(self, folder: Path) -> None:
        lines = [
            RECORD.replace('"score": 3', f'"chosen_probability": {value}') for value in ("0.5", "1", "0.8", "null")
        ]
        content = "\n".join([*lines, OTHER])
        dropped = pairs_of(folder / "pairs.jsonl", content)
        assert [dropped[row].chosen_probability for row in range(4)] == [1.0, 0.8, 1.0, 1.0]
        assert dropped.ties == 1
        assert pairs_of(folder / "pairs.jsonl", content, ties="half")[0].chosen_probability == 0.5

    def test_a_probability_that_prefers_the_other(self, folder: Path) -> None:
        for value in ["0.4", "0", "1.1", '"x"', "NaN"]:
            record = RECORD.replace('"score": 3', f'"chosen_probability": {value}')
            pairs = pairs_of(folder / "pairs.jsonl", f"{OTHER}\n{record}")
            assert pairs[0].prompt == "a ring"
            with pytest.raises(DataError, match=r"pairs\.jsonl line 2: .*chosen_probability = "):
                pairs[1]

    def test_pick_a_pics_columns_with_paths(self, folder: Path) -> None:
        record = (
            '{"caption": "a star", "jpg_0": "images/red.png", "jpg_1": "images/blue.jpg", "label_0": 0, "label_1": 1}'
        )
        torch.testing.assert_close(pairs_of(folder / "pairs.jsonl", record)[0].chosen, plain(BLUE))

    def test_a_broken_line_breaks_its_own_pair_only(self, folder: Path) -> None:
        for line, why in [
            ('{"prompt": ', "line 2 is not JSON"),
            ("[1, 2]", r"line 2 is not a JSON object"),
            (RECORD.replace("red.png", "none.png"), r"line 2: chosen is not an image .*none\.png: No such file"),
            ('{"prompt": "a star", "chosen": "images/red.png"}', "line 2: rejected is .*but nothing"),
            (RECORD.replace('"a star"', "7"), "line 2: prompt is not text but int"),
            (RECORD.replace('"a star"', "null"), "line 2: prompt is missing"),
        ]:
            pairs = pairs_of(folder / "pairs.jsonl", f"{RECORD}\n{line}\n{OTHER}\n")
            assert len(pairs) == 3
            assert pairs[2].prompt == "a ring"
            with pytest.raises(DataError, match=rf"pairs\.jsonl {why}"):
                pairs[1]

    def test_a_file_of_something_else(self, folder: Path) -> None:
        for content in ["no JSON", "[\n{}\n]", "prompt,chosen\na,b"]:
            with pytest.raises(
                DataError, match=r"pairs\.jsonl is not JSON lines, one \{\.\.\.\} on each line: line 1|lacks"
            ):
                pairs_of(folder / "pairs.jsonl", content)

    def test_an_empty_file(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"pairs\.jsonl lacks the columns"):
            pairs_of(folder / "pairs.jsonl", "\n\n")

    def test_other_keys(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"lacks the columns \['chosen', 'rejected'\]; it has \['loser', 'prompt'"):
            pairs_of(folder / "pairs.jsonl", '{"prompt": "a", "winner": "b", "loser": "c"}')

    def test_a_file_that_is_not_utf_8(self, folder: Path) -> None:
        with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
            pairs_of(folder / "pairs.jsonl", RECORD.encode("utf-16"))


class TestCsv:
    def test_quoted_prompts_and_ties(self, folder: Path) -> None:
        content = (
            "prompt,chosen,rejected,chosen_probability\n"
            '"a star, red\nand ""big""",images/red.png,images/blue.jpg,1\n'
            "a ring,images/blue.jpg,images/red.png,\n"
            "a tie,images/blue.jpg,images/red.png,0.5\n"
        )
        pairs = pairs_of(folder / "pairs.csv", content)
        assert [pairs[row].prompt for row in range(2)] == ['a star, red\nand "big"', "a ring"]
        assert pairs.ties == 1
        torch.testing.assert_close(pairs[1].chosen, plain(BLUE))

    def test_lines_are_counted_where_a_record_begins(self, folder: Path) -> None:
        content = (
            'prompt,chosen,rejected\n\n"a\nb",images/none.png,images/blue.jpg\nc,images/none.png,images/blue.jpg\n'
        )
        pairs = pairs_of(folder / "pairs.csv", content)
        assert [pairs.table.place(row).rsplit(maxsplit=1)[-1] for row in range(2)] == ["3", "5"]

    def test_an_empty_file(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"pairs\.csv lacks the columns"):
            pairs_of(folder / "pairs.csv", "")

    def test_labels_are_numbers(self, folder: Path) -> None:
        content = (
            "caption,jpg_0,jpg_1,label_0,label_1,has_label\n"
            "a,images/red.png,images/blue.jpg,0,1,True\n"
            "b,images/red.png,images/blue.jpg,0,0,False\n"
        )
        pairs = pairs_of(folder / "pairs.csv", content)
        assert (len(pairs), pairs.unlabelled) == (1, 1)
        torch.testing.assert_close(pairs[0].chosen, plain(BLUE))

    def test_a_line_with_too_many_fields(self, folder: Path) -> None:
        content = (
            "prompt,chosen,rejected\na star, red,images/red.png,images/blue.jpg\na,images/red.png,images/blue.jpg\n"
        )
        pairs = pairs_of(folder / "pairs.csv", content)
        assert pairs[1].prompt == "a"
        with pytest.raises(DataError, match=r"pairs\.csv line 2 has more fields than the 3 columns; quote commas"):
            pairs[0]

    def test_a_line_with_too_few_fields(self, folder: Path) -> None:
        pairs = pairs_of(folder / "pairs.csv", "prompt,chosen,rejected\na,images/red.png\n")
        with pytest.raises(DataError, match=r"line 2: rejected is .*but nothing"):
            pairs[0]

    def test_a_quote_that_is_never_closed(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"pairs\.csv is not CSV .* line 2 is not CSV"):
            pairs_of(folder / "pairs.csv", 'prompt,chosen,rejected\n"a,images/red.png,images/blue.jpg\n')


class TestAnyText:
    def test_an_array_and_a_table_with_tabs(self, folder: Path) -> None:
        tabs = "prompt\tchosen\trejected\na star\timages/red.png\timages/blue.jpg\n"
        for name, content in [
            ("pairs.json", f"[{RECORD}, {OTHER}]"),
            ("pairs.jsonl", f"[\n  {RECORD},\n  {OTHER}\n]"),
            ("pairs.json", f'{{"rows": [{RECORD}]}}'),
            ("pairs.json", f"{RECORD}\n{OTHER}\n"),
            ("pairs.tsv", tabs),
            ("pairs.csv", tabs),
            ("pairs.csv", tabs.replace("\t", ";")),
            ("pairs.csv", tabs.replace("\t", " , ")),
            ("pairs.csv", f"{RECORD}\n"),
        ]:
            pairs = pairs_of(folder / name, content)
            assert pairs[0].prompt == "a star"
            torch.testing.assert_close(pairs[0].chosen, plain(RED))

    def test_an_unclosed_quote_costs_one_row_of_a_thousand(self, folder: Path) -> None:
        lines = [f"a fox number {row},images/red.png,images/blue.jpg" for row in range(1000)]
        lines[299] = '"sunset over the bay,images/red.png,images/blue.jpg'
        for tail in ('a tv of 50",images/red.png,images/blue.jpg', lines[699]):
            lines[699] = tail
            pairs = pairs_of(folder / "pairs.csv", "prompt,chosen,rejected\n" + "\n".join(lines))
            assert len(pairs) == 1000
            assert list(pairs.table.faults()) == [299]
            assert pairs.prompt(998) == "a fox number 998"
            with pytest.raises(DataError, match=r"pairs\.csv line 301 is not CSV"):
                pairs[299]

    def test_a_value_that_no_row_may_hold_costs_its_row(self, folder: Path) -> None:
        for bad in ('"a \\ud83d"', '"a \\u0000"', "1" + "0" * 400, "[" * 100_000 + "]" * 100_000, "-Infinity"):
            for whole in (f"{OTHER}\n{RECORD}\n{OTHER}", f"[{OTHER}, {RECORD}, {OTHER}]"):
                pairs = pairs_of(folder / "pairs.json", whole.replace('"score": 3', f'"score": {bad}'))
                assert [pairs[row].prompt for row in (0, 2)] == ["a ring", "a ring"]
                with pytest.raises(DataError, match=r"pairs\.json (line|entry) 2 ") as caught:
                    pairs[1]
                assert len(str(caught.value)) < 300

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seedpo.data.prompts.questions import Question, load_questions
from seedpo.errors import DataError
from tests.data.prompts.published_sets import GENEVAL2_ROWS, dpg_file, geneval2_file


def write(folder: Path, *rows: Any) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_geneval2(tmp_path: Path) -> None:
    questions = load_questions(f"geneval2@{geneval2_file(tmp_path)}")
    assert questions == load_questions(str(tmp_path / "geneval2_data.jsonl"))
    assert list(questions) == ["three red cats", "a dog"]
    assert questions["three red cats"] == (
        Question(text="How many cats are in the image?", answer="three", kind="count"),
        Question(text="Are the cats red?", answer="Yes", kind="attribute"),
        Question(text="Are there any cats in the image?", answer="Yes", kind="object"),
    )


def test_dpg(tmp_path: Path) -> None:
    questions = load_questions(f"dpg@{dpg_file(tmp_path)}")
    assert questions['a long "prompt", with a fox'] == (
        Question(text="Is there a fox?", kind="entity"),
        Question(text="Is the fox red?", needs=(0,), kind="attribute"),
        Question(text="Is the fox in snow, alone?", needs=(0, 1), kind="relation"),
    )
    assert questions["a long prompt without one"] == (Question(text="Is this a photo?", kind="global"),)


def test_ones_own(tmp_path: Path) -> None:
    own = {"question": "Is it red?", "answer": "no", "needs": [0], "kind": "colour"}
    place = write(tmp_path, {"prompt": "a fox", "questions": ["Is there a fox?", own]})
    assert load_questions(place) == {
        "a fox": (Question(text="Is there a fox?"), Question(text="Is it red?", answer="no", needs=(0,), kind="colour"))
    }


def test_a_prompt_that_is_there_twice(tmp_path: Path) -> None:
    row = {"prompt": "a fox", "questions": ["Is there a fox?"]}
    assert len(load_questions(write(tmp_path, row, row))) == 1
    with pytest.raises(DataError, match="line 2: 'a fox' has other questions than before; keep one list"):
        load_questions(write(tmp_path, row, row | {"questions": ["Is it red?"]}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "line 2: 'a fox' has no questions; give each prompt 'questions', or 'vqa_list'"),
        ({"questions": []}, r"questions is not a list of questions but \[\]"),
        ({"questions": "Is it?"}, "questions is not a list of questions but 'Is it"),
        ({"questions": [" "]}, "question is ' ', not a text; write one"),
        ({"questions": [{"answer": "yes"}]}, "question is None, not a text"),
        ({"questions": [{"question": "Is it?", "answer": 3}]}, "answer is 3, not a text"),
        ({"questions": [{"question": "Is it?", "answer": ""}]}, "answer is '', not a text"),
        ({"questions": [{"question": "Is it?", "needs": "0"}]}, "needs is '0', not a list of places"),
        ({"questions": [{"question": "Is it?", "needs": [1]}]}, r"'Is it\?' needs question 1 of 1, from 0"),
        ({"questions": [{"question": "Is it?", "needs": [0]}]}, r"'Is it\?' needs its own answer in a circle"),
        ({"vqa_list": [["Is it?"]]}, r"vqa_list holds \['Is it\?'\], not a question and its answer"),
        ({"vqa_list": [["Is it?", "Yes"]], "skills": []}, r"skills is \[\], not one word for each of 1 questions"),
        ({"vqa_list": None}, "vqa_list is not a list of questions but None"),
    ],
)
def test_damaged_ones(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_questions(write(tmp_path, GENEVAL2_ROWS[0], {"prompt": "a fox", **values}))
    assert "questions.jsonl line 2: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",,2,1,", ",,x,1,", "proposition_id is 'x', not a whole number"),
        (",,2,1,", ",,1,1,", r"proposition_id has \[1, 1, 3\] for one prompt; number each row once"),
        (",,2,1,", ",,2,9,", "dependency names 9, which is no proposition_id of its prompt"),
        (",,2,1,", ",,2,one,", "dependency is 'one', not a whole number"),
        (",,2,1,", ",,2,2,", r"'Is the fox red\?' needs its own answer in a circle"),
        ("Is the fox red?", "", "question is '', not a text"),
    ],
)
def test_damaged_tables(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = dpg_file(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=said):
        load_questions(str(path))


def test_a_set_without_questions() -> None:
    with pytest.raises(DataError, match="animals line 1: 'cat' has no questions"):
        load_questions("animals")

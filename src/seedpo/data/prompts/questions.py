"""What a judge asks about an image, by its prompt: the questions of GenEval 2, of DPG-Bench, or of a file of one's own.

===================  ==============================================================================================
key of a prompt      its questions
===================  ==============================================================================================
``questions``        a list of texts, or of ``{"question": ..., "answer": ..., "needs": [...], "kind": ...}``
``vqa_list``         GenEval 2 (arXiv 2512.16853): a list of ``[question, answer]``; ``skills`` has the kind of each
``propositions``     the rows of a prompt in a table of DSG (arXiv 2310.18235) or DPG-Bench, whose answers are all yes
===================  ==============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seedpo.data.prompts.reading import ITEM_ROWS, QUESTION, PromptRecord, load_prompt_records
from seedpo.data.text import shown
from seedpo.errors import DataError

YES = "yes"
"""The answer that is expected where none is given."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about an image.

    Attributes:
        text: the question.
        answer: the right answer, as published: ``yes``, ``Yes``, ``three``.
        needs: places, from 0, of the questions of the prompt without whose right answers this one counts as wrong:
            nobody can say of what colour a car is that is not there.
        kind: of what skill or category it is, for tables; may be empty.
    """

    text: str
    answer: str = YES
    needs: tuple[int, ...] = ()
    kind: str = ""


def load_questions(name: str, *, seed: int = 0) -> dict[str, tuple[Question, ...]]:
    """The questions of each prompt of a set or file, in their order.

    Args:
        name: as of prompts: ``geneval2@geneval2_data.jsonl``, ``dpg@dpg_bench.csv``, or a file.
        seed: of sets that are drawn.

    Raises:
        ConfigError: if there is no such set.
        DataError: if it cannot be read, or a prompt has no questions, damaged ones, or two different lists of them.
    """
    found: dict[str, tuple[Question, ...]] = {}
    for record in load_prompt_records(name, seed=seed):
        try:
            questions = questions_of(record)
        except DataError as error:
            raise DataError(f"{name} line {record.line}: {error}") from error
        if found.setdefault(record.text, questions) != questions:
            raise DataError(
                f"{name} line {record.line}: {shown(record.text)} has other questions than before; keep one list"
            )
    return found


def questions_of(record: PromptRecord) -> tuple[Question, ...]:
    """The questions of one prompt.

    Raises:
        DataError: if there are none, or one cannot be used.
    """
    for key, read in _LAYOUTS.items():
        if key in record.values:
            entries = record.values[key]
            if not isinstance(entries, list) or not entries:
                raise DataError(f"{key} is not a list of questions but {shown(entries)}; write one")
            return _checked(read(entries, record.values))
    raise DataError(
        f"{shown(record.text)} has no questions; give each prompt {', or '.join(map(repr, _LAYOUTS))}, as docs/data.md "
        "says"
    )


def _own(entries: Sequence[Any], values: Mapping[str, Any]) -> list[Question]:
    return [_question(entry if isinstance(entry, Mapping) else {"question": entry}) for entry in entries]


def _geneval2(entries: Sequence[Any], values: Mapping[str, Any]) -> list[Question]:
    skills = values.get("skills")
    kinds = [""] * len(entries) if skills is None else skills
    if not isinstance(kinds, list) or len(kinds) != len(entries):
        raise DataError(f"skills is {shown(skills)}, not one word for each of {len(entries)} questions; fix it")
    wrong = next((entry for entry in entries if not (isinstance(entry, list) and len(entry) == 2)), None)
    if wrong is not None:
        raise DataError(f"vqa_list holds {shown(wrong)}, not a question and its answer; fix it")
    return [
        _question({"question": question, "answer": answer, "kind": kind})
        for (question, answer), kind in zip(entries, kinds, strict=True)
    ]


def _propositions(entries: Sequence[Any], values: Mapping[str, Any]) -> list[Question]:
    """Rows of DSG: ``dependency`` lists ``proposition_id`` of other rows with commas between; 0 stands for none."""
    numbers = [_number(row.get("proposition_id"), "proposition_id") for row in entries]
    if len(set(numbers)) < len(numbers):
        raise DataError(f"proposition_id has {shown(numbers)} for one prompt; number each row once")
    places = {number: place for place, number in enumerate(numbers)}
    questions = []
    for row in entries:
        cell = row.get("dependency")
        needed = [_number(part, "dependency") for part in str(0 if cell is None else cell).split(",") if part.strip()]
        unknown = next((number for number in needed if number and number not in places), None)
        if unknown is not None:
            raise DataError(f"dependency names {unknown}, which is no proposition_id of its prompt; fix it")
        questions.append(
            _question(
                {
                    "question": row[QUESTION],
                    "needs": [places[number] for number in needed if number],
                    "kind": row.get("category_broad") or "",
                }
            )
        )
    return questions


_LAYOUTS: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], list[Question]]] = {
    "questions": _own,
    "vqa_list": _geneval2,
    ITEM_ROWS: _propositions,
}


def _number(cell: object, column: str) -> int:
    try:
        return int(str(cell).strip())
    except ValueError as error:
        raise DataError(f"{column} is {shown(cell)}, not a whole number; fix it") from error


def _question(values: Mapping[str, Any]) -> Question:
    texts = {key: values.get(key, default) for key, default in (("question", None), ("answer", YES), ("kind", ""))}
    for key, text in texts.items():
        if not isinstance(text, str) or not (text.strip() or key == "kind"):
            raise DataError(f"{key} is {shown(text)}, not a text; write one")
    needs = values.get("needs", [])
    if not isinstance(needs, list) or not all(type(place) is int for place in needs):
        raise DataError(f"needs is {shown(needs)}, not a list of places of questions, from 0; fix it")
    return Question(
        text=texts["question"].strip(), answer=texts["answer"].strip(), needs=tuple(needs), kind=texts["kind"].strip()
    )


def _checked(questions: Sequence[Question]) -> tuple[Question, ...]:
    """Questions that need others of their prompt alone, and not each other in a circle."""
    for question in questions:
        if wrong := [place for place in question.needs if not 0 <= place < len(questions)]:
            raise DataError(f"{shown(question.text)} needs question {wrong[0]} of {len(questions)}, from 0; fix it")
    settled: set[int] = set()
    while len(settled) < len(questions):
        ready = {place for place, question in enumerate(questions) if settled.issuperset(question.needs)}
        if ready <= settled:
            first = next(place for place in range(len(questions)) if place not in settled)
            raise DataError(f"{shown(questions[first].text)} needs its own answer in a circle; fix what it needs")
        settled |= ready
    return tuple(questions)

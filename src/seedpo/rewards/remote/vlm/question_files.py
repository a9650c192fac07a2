"""Files with the questions of each prompt: JSON, one prompt a line, as GenEval 2 publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seedpo.documents import UNREADABLE, parse_json
from seedpo.errors import DataError
from seedpo.files import read_bytes
from seedpo.rewards.remote.vlm.templates import ChecklistTemplate, Question, check_question

LARGEST = 1 << 26
"""Bytes of a file of questions at most."""


def read_questions(path: Path, template: ChecklistTemplate) -> dict[str, list[Question]]:
    """The questions of each prompt.

    A line is ``{"prompt": ..., "vqa_list": [[question, right answer], ...]}``; other keys do not matter.

    Args:
        path: of the file.
        template: says which answers can be read.

    Raises:
        DataError: if it cannot be read; the message names the line.
    """
    try:
        lines = read_bytes(path, largest=LARGEST, text=True).decode("utf-8-sig").splitlines()
    except UNREADABLE as error:
        raise DataError(f"file of questions {path} cannot be read: {error}") from error
    questions: dict[str, list[Question]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                prompt, asked = _row(parse_json(line), template)
                if prompt in questions:
                    raise ValueError(f"the prompt {prompt!r} stands there before; remove one")
            except UNREADABLE as error:
                raise DataError(
                    f'file of questions {path}, line {number}: {error}; write {{"prompt": "two red cups", "vqa_list": '
                    '[["How many cups are in the image?", "two"], ["Are the cups red?", "Yes"]]}'
                ) from error
            questions[prompt] = asked
    if not questions:
        raise DataError(f"file of questions {path} holds none")
    return questions


def _row(row: Any, template: ChecklistTemplate) -> tuple[str, list[Question]]:
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise ValueError("it is no object with a prompt")
    pairs = row.get("vqa_list")
    if not isinstance(pairs, list) or not pairs:
        raise ValueError("vqa_list is no list of questions with their answers")
    asked = []
    for place, pair in enumerate(pairs, 1):
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(part, str) and part.strip() for part in pair)
        ):
            raise ValueError(f"entry {place} of vqa_list is no pair of a question and its answer")
        try:
            question = Question(text=pair[0].strip(), answer=pair[1].strip())
        except ValidationError as error:
            raise ValueError(f"entry {place} of vqa_list: {error.errors()[0]['msg']}") from error
        check_question(question, template.among, f"entry {place} of vqa_list")
        asked.append(question)
    return row["prompt"], asked

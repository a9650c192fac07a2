from __future__ import annotations

from seedpo.data.layouts.prompts import prompt_text


def test_text_and_conversations_of_one_message() -> None:
    parts = [{"type": "text", "text": "a fox"}]
    for cell in ["a fox", [{"role": "user", "content": "a fox"}], [{"role": "user", "content": parts}]]:
        assert prompt_text(cell) == "a fox"


def test_whatever_else_is_no_prompt() -> None:
    message = {"role": "user", "content": "a fox"}
    for cell in [
        None,
        7,
        [],
        message,
        [message, message],
        [{"role": "system", "content": "be short"}],
        [{"role": "user", "content": [{"type": "image"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 7}]}],
        [{"role": "user"}],
        ["a fox"],
    ]:
        assert prompt_text(cell) is None

"""Texts of a study as paragraphs."""

from __future__ import annotations

import pytest

from seedpo.study.settings import CONSENT, instructions
from seedpo.study.web.paragraphs import Block, blocks

LISTED = ("p", "We store:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\n ", []),
        ("no address and\nnothing about\r\nyour device.", [("p", "no address and nothing about your device.")]),
        ("one\n\ntwo\n \t\n\nthree", [("p", "one"), ("p", "two"), ("p", "three")]),
        (
            "We store:\n- answers,\n  and when\n- times\n\nEnd",
            [LISTED, ("ul", "answers, and when", "times"), ("p", "End")],
        ),
        ("1. look\n2) choose\n10. go on", [("ol", "look", "choose", "go on")]),
        ("- one\n1. two", [("ul", "one"), ("ol", "two")]),
        ("in the years\n12. to 14. of", [("p", "in the years 12. to 14. of")]),
        ("minus\n-5 degrees, <b>bold</b>", [("p", "minus -5 degrees, <b>bold</b>")]),
    ],
)
def test_blocks_of_a_text(text: str, expected: list[tuple[str, ...]]) -> None:
    assert blocks(text) == [Block(tag, tuple(lines)) for tag, *lines in expected]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [CONSENT, instructions(checks=0.1, repeats=0.1)])
def test_no_sentence_of_the_shipped_texts_is_broken(text: str) -> None:
    assert len(blocks(text)) > 1
    assert all(line.endswith(".") and "\n" not in line for block in blocks(text) for line in block.lines)


def test_instructions_explain_only_what_occurs() -> None:
    plain = instructions(checks=0.0, repeats=0.0)
    texts = {instructions(checks=checks, repeats=repeats) for checks in (0.0, 0.1) for repeats in (0.0, 0.1)}
    assert len(texts) == 4
    assert not [word for word in ("twice", "check", "tie", "bad", "skip", "key") if word in plain.lower()]

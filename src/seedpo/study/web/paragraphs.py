"""Paragraphs and lists of a plain text, as the owner of a study writes it into ``study.yaml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_MARKS = {"ul": re.compile(r"[-*•]\s+"), "ol": re.compile(r"\d{1,2}[.)]\s+")}


@dataclass(frozen=True)
class Block:
    """A paragraph or a list.

    Attributes:
        tag: HTML element of the block.
        lines: the items of a list; the only line of a paragraph.
    """

    tag: Literal["p", "ul", "ol"]
    lines: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """The blocks of a text.

    The ends of lines within a paragraph are those of the file, not of the author, so they become spaces. A blank line
    ends a block. A list begins with a line after ``-``, ``*``, ``•`` or ``1.``; a further line without a mark belongs
    to the item above it. A number begins a list only if it is 1: other lines may begin with a number by chance.

    Args:
        text: of any number of lines.
    """
    result: list[Block] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        block: Block | None = None
        for line in filter(None, map(str.strip, part.split("\n"))):
            tag, words = _item(line, within=block)
            if block is None or tag not in ("p", block.tag):
                block = Block(tag, (words,))
                result.append(block)
                continue
            *before, last = block.lines
            block = Block(block.tag, (*before, f"{last} {words}") if tag == "p" else (*block.lines, words))
            result[-1] = block
    return result


def _item(line: str, *, within: Block | None) -> tuple[Literal["p", "ul", "ol"], str]:
    """The block that a line belongs to (``p``: that before it, if there is one), and the line without its mark."""
    mark = _MARKS["ul"].match(line)
    if mark:
        return "ul", line[mark.end() :]
    mark = _MARKS["ol"].match(line)
    if mark and (re.match(r"1\D", line) or (within and within.tag == "ol")):
        return "ol", line[mark.end() :]
    return "p", line

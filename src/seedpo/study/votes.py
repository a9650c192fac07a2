"""The votes as a table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from seedpo.study.records import Judgement

COLUMNS = (
    "at",
    "rater",
    "number",
    "question",
    "category",
    "prompt",
    "group",
    "first",
    "second",
    "first_images",
    "second_images",
    "on_the_left",
    "answer",
    "expected",
    "repeated",
    "seconds",
)
"""``first`` and ``second`` are the candidates' sources, ``answer`` and ``on_the_left`` say which of the two."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def votes_csv(judgements: Iterable[Judgement]) -> str:
    """One line for each counted answer, after a line of column names.

    A cell that a spreadsheet would run as a formula (prompts are other people's text) begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for judgement in judgements:
        writer.writerow([plain(cell) for cell in _row(judgement)])
    return text.getvalue()


def plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _row(judgement: Judgement) -> list[str]:
    show = judgement.show
    return [
        judgement.at,
        show.rater,
        str(show.number),
        judgement.question,
        judgement.category,
        judgement.prompt,
        show.group,
        judgement.first.source,
        judgement.second.source,
        " ".join(judgement.first.images),
        " ".join(judgement.second.images),
        "second" if show.flipped else "first",
        judgement.answer,
        judgement.expected or "",
        "yes" if show.repeat_of else "",
        "" if judgement.seconds is None else f"{judgement.seconds:.3f}",
    ]

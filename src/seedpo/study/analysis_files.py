"""The numbers of an analysis as CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedpo.study.analysis import Analysis
from seedpo.study.analysis_comparisons import Comparison

COMPARISON_COLUMNS = (
    *("raters_counted", "question", "category", "left", "right", "votes", "wins", "ties", "both_bad", "losses"),
    *("raters", "prompts", "win_rate", "wilson_low", "wilson_high", "low", "high"),
    *("prompts_left", "prompts_right", "p", "p_holm", "verdict"),
)
RANKING_COLUMNS = ("question", "group", "prompt", "rank", "source", "image", "votes", "share", "strength", "connected")


def write_csv(analysis: Analysis, path: Path) -> None:
    """One row per comparison, by category too, or in a collection one per image of a prompt.

    Cells that begin as a formula would in a spreadsheet get a quotation mark in front: prompts come from anywhere.
    """
    header = COMPARISON_COLUMNS if analysis.models else RANKING_COLUMNS
    rows = _comparison_rows(analysis) if analysis.models else _ranking_rows(analysis)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([_harmless(cell) for cell in row] for row in rows)


def write_json(analysis: Analysis, path: Path) -> None:
    """Everything, with the names of the dataclasses; what is not defined is null."""
    text = json.dumps(asdict(analysis), ensure_ascii=False, indent=1, allow_nan=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def _comparison_rows(analysis: Analysis) -> Iterator[list[Any]]:
    for result in analysis.questions:
        for one in (*result.comparisons, *result.categories):
            yield _comparison("kept", one)
    for one in analysis.everybody:
        yield _comparison("with inattentive", one)


def _comparison(raters: str, one: Comparison) -> list[Any]:
    return [
        *(raters, one.question or "all", one.category, one.left, one.right, one.votes),
        *(one.wins, one.ties, one.bad, one.losses, one.raters, one.prompts, _number(one.rate)),
        *(_number(end) for end in (*one.wilson, *one.interval)),
        *(one.prompts_left, one.prompts_right, _number(one.p), _number(one.adjusted)),
        one.verdict if one.adjusted is not None else "",
    ]


def _ranking_rows(analysis: Analysis) -> Iterator[list[Any]]:
    for result in analysis.questions:
        for ranking in result.rankings:
            for one in ranking.candidates:
                yield [
                    *(ranking.question, ranking.group, ranking.prompt, one.rank, one.source, one.image, one.votes),
                    *(_number(one.share), _number(one.strength), "yes" if ranking.connected else "no"),
                ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _harmless(cell: Any) -> Any:
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

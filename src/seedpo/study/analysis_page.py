"""An analysis as a self-contained HTML page, with CSV and JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from seedpo.pages.rendering import environment
from seedpo.pages.wording import MINUS, count
from seedpo.study.analysis import Analysis, QuestionResult
from seedpo.study.analysis_comparisons import Comparison
from seedpo.study.analysis_figures import chart, rate_rows, strength_rows
from seedpo.study.analysis_files import write_csv, write_json
from seedpo.study.analysis_rankings import Ranking
from seedpo.study.analysis_words import (
    alpha_words,
    counts_words,
    findings,
    headline,
    level_words,
    p_value,
    percent,
    percents,
    share_words,
    strengths_words,
)

TEMPLATES = Path(__file__).parent / "templates"

MOST_RANKINGS = 60
"""Rankings on the page; the others are in the CSV file."""


def write_analysis(analysis: Analysis, out: Path) -> Path:
    """Writes analysis.html, analysis.csv and analysis.json into the folder ``out``, which is made if need be.

    Returns:
        the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_csv(analysis, out / "analysis.csv")
    write_json(analysis, out / "analysis.json")
    page = out / "analysis.html"
    page.write_text(render(analysis), encoding="utf-8")
    return page


def render(analysis: Analysis) -> str:
    """The page as text."""
    shown = {result.key: list(result.rankings[:MOST_RANKINGS]) for result in analysis.questions}
    return (
        _environment()
        .get_template("analysis.html.j2")
        .render(
            analysis=analysis,
            level=level_words(analysis),
            headline=headline(analysis),
            counts=counts_words(analysis),
            findings=findings(analysis),
            parts=[_part(result, analysis) for result in analysis.questions],
            shown=shown,
            changes=_changes(analysis),
            tiles=_tiles(analysis),
        )
    )


def _part(result: QuestionResult, analysis: Analysis) -> dict[str, Any]:
    rates, strong = rate_rows(result), strength_rows(result)
    title = result.text or result.key
    return {
        "result": result,
        "title": title,
        "name": result.key or "all",
        "rows": result.comparisons,
        "rates": chart(rates, title=f"{title}: win rates", x_label="win rate of the first", shares=True, reference=0.5)
        if rates
        else None,
        "strengths": chart(strong, title=f"{title}: strengths", x_label="log-strength", shares=False, reference=0.0)
        if strong
        else None,
        "strengths_words": strengths_words(result, analysis),
        "rankings_words": _rankings_words(result.rankings),
    }


def _rankings_words(found: Sequence[Ranking]) -> str:
    if not found:
        return ""
    apart = sum(not one.connected for one in found)
    penalised = sum(one.penalised for one in found)
    text = (
        f"{count(len(found), 'group')}; in {sum(one.decided for one in found)} one image is ahead of all others. "
        "Images are ordered by Bradley-Terry strength with ties, and where there is none by their share of votes; ties "
        'and "both bad" count half. One or two votes per pair rank images only roughly.'
    )
    if penalised:
        text += (
            f" In {count(penalised, 'group')} no finite strengths fit best, since some images never lost to the rest: "
            "half a win was added in each direction to every pair, and only the order means something."
        )
    if apart:
        text += f" In {count(apart, 'group')} the comparisons do not hang together: there are no strengths there."
    if len(found) > MOST_RANKINGS:
        text += f" The first {MOST_RANKINGS} are shown; all are in analysis.csv."
    return text


def _changes(analysis: Analysis) -> list[tuple[Comparison, Comparison | None]]:
    """Each comparison without the inattentive raters, and with them."""
    before = {(one.question, one.left, one.right): one for one in analysis.everybody}
    own = [one for result in analysis.questions for one in result.comparisons] if before else []
    return [(one, before.get((one.question, one.left, one.right))) for one in own]


def _tiles(analysis: Analysis) -> list[tuple[str, str]]:
    seconds = "\N{EN DASH}" if analysis.seconds is None else f"{analysis.seconds:.1f} s"
    return [
        ("same answer when a pair is repeated", share_words(analysis.consistency)),
        ("left, of answers for one side", share_words(analysis.side)),
        ("attention checks passed", share_words(analysis.checks)),
        ("median time per answer", seconds),
    ]


def _decimal(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _environment() -> jinja2.Environment:
    made = environment(TEMPLATES)
    made.filters |= {
        "alpha": alpha_words,
        "decimal": _decimal,
        "p": p_value,
        "percent": percent,
        "percents": percents,
    }
    return made

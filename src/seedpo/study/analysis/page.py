"""`seedpo study analyze`: an analysis as a self-contained HTML page, a CSV table and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS
from seedpo.data.text import csv_text
from seedpo.errors import ConfigError
from seedpo.pages.figures import Axis, tick_label, ticks
from seedpo.pages.rendering import environment
from seedpo.pages.wording import MINUS, count
from seedpo.study.analysis.analyze import FAST_SECONDS, USUAL, Analysis, QuestionResult, analyze
from seedpo.study.analysis.comparisons import Comparison
from seedpo.study.analysis.vote_statistics import Ends, Resampling
from seedpo.study.analysis.wording import (
    alpha_words,
    change_words,
    changes_of,
    counts_words,
    findings,
    headline,
    level_words,
    limits_words,
    p_value,
    percent,
    percents,
    rate_words,
    share_words,
    titled,
)
from seedpo.study.folder import open_study
from seedpo.study.votes.store import Store

TEMPLATES = Path(__file__).parent / "templates"

MOST_RANKINGS = 60
"""Rankings on the page; all of them are in the CSV file."""

COMPARISON_COLUMNS = (
    *("raters_counted", "question", "category", "left", "right", "votes", "wins", "ties", "both_bad", "losses"),
    *("raters", "prompts", "win_rate", "wilson_low", "wilson_high", "low", "high"),
    *("prompts_left", "prompts_right", "family", "p", "p_holm", "verdict"),
)
RANKING_COLUMNS = ("question", "group", "prompt", "rank", "source", "image", "votes", "share", "strength", "connected")


def analyze_folder(
    folder: Path,
    out: Path,
    *,
    url: str | None = None,
    resampling: Resampling = USUAL,
    least_checks: float | None = None,
    fast_seconds: float = FAST_SECONDS,
    leave_out: Sequence[str] = (),
    progress: bool = True,
) -> tuple[Analysis, Path]:
    """Analyses the votes of a study; writes analysis.html, analysis.csv and analysis.json.

    Args:
        folder: of the study.
        out: folder for the files; made if it does not exist.
        url: of the database; `None`: the study's own.
        resampling, least_checks, fast_seconds: see :func:`seedpo.study.analysis.analyze.analyze`.
        leave_out: raters, by pseudonym, who are left out besides those that the study's owner has excluded.
        progress: show a bar.

    Returns:
        The analysis and the page.

    Raises:
        ConfigError: a rater in ``leave_out`` is not in this study, or ``out`` is a file.
        DataError: no vote counts.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder for three files")
    study = open_study(folder)
    with Store.open(study, url, write=False) as store:
        judgements, raters, history = store.judgements(excluded=True), store.raters(), store.registrations()
    unknown = sorted(set(leave_out) - {rater.id for rater in raters})
    if unknown:
        raise ConfigError(f"study {folder} has no rater {unknown[0]!r}; `seedpo study status` lists them")
    questions = len({judgement.question for judgement in judgements if judgement.expected is None})
    with tqdm(total=questions + (questions > 1), desc="questions", disable=not progress, leave=False) as bar:
        analysis = analyze(
            study,
            judgements,
            resampling=resampling,
            least_checks=least_checks,
            fast_seconds=fast_seconds,
            excluded={*leave_out, *(rater.id for rater in raters if rater.excluded)},
            raters=[rater.id for rater in raters],
            history=history,
            step=bar.update,
        )
    return analysis, write_analysis(analysis, out)


def write_analysis(analysis: Analysis, out: Path) -> Path:
    """Writes analysis.html, analysis.csv and analysis.json into the folder ``out``, which is made if necessary.

    Returns:
        The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_csv(analysis, out / "analysis.csv")
    text = json.dumps(asdict(analysis), ensure_ascii=False, indent=1, allow_nan=False)
    (out / "analysis.json").write_text(f"{text}\n", encoding="utf-8")
    page = out / "analysis.html"
    page.write_text(render(analysis), encoding="utf-8")
    return page


# The table.


def write_csv(analysis: Analysis, path: Path) -> None:
    """One row per comparison, also by category; in a collection one row per image of a prompt."""
    header = COMPARISON_COLUMNS if analysis.models else RANKING_COLUMNS
    rows = _comparison_rows(analysis) if analysis.models else _ranking_rows(analysis)
    path.write_text(
        csv_text([header, *([_cell(value) for value in row] for row in rows)], line_end="\r\n"),
        encoding="utf-8",
        newline="",
    )


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _comparison_rows(analysis: Analysis) -> Iterator[list[Any]]:
    for result in analysis.questions:
        for comparison in (*result.comparisons, *result.categories):
            yield _comparison_row("kept", comparison)
    for comparison in analysis.everybody:
        yield _comparison_row("with inattentive", comparison)


def _comparison_row(raters: str, row: Comparison) -> list[Any]:
    return [
        *(raters, row.question or "all", row.category, row.left, row.right, row.votes, row.wins, row.ties, row.bad),
        *(row.losses, row.raters, row.prompts, row.rate, *row.wilson, *row.interval),
        *(row.prompts_left, row.prompts_right, row.family, row.p, row.adjusted),
        row.verdict if row.adjusted is not None else "",
    ]


def _ranking_rows(analysis: Analysis) -> Iterator[list[Any]]:
    for result in analysis.questions:
        for ranking in result.rankings:
            for row in ranking.candidates:
                yield [
                    *(ranking.question, ranking.group, ranking.prompt, row.rank, row.source, row.image, row.votes),
                    *(row.share, row.strength, "yes" if ranking.connected else "no"),
                ]


# The page.


def render(analysis: Analysis) -> str:
    """The page as text."""
    templates = environment(TEMPLATES)
    templates.filters |= {
        "alpha": alpha_words,
        "count": count,
        "decimal": lambda value: f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS),
        "p": p_value,
        "percent": percent,
        "percents": percents,
        "rate": rate_words,
    }
    title = analysis.title
    return templates.get_template("analysis.html.j2").render(
        analysis=analysis,
        title=titled(title, "analysis"),
        heading=titled(title, "what the votes say"),
        level=level_words(analysis),
        headline=headline(analysis),
        changed=change_words(analysis.aim, analysis.changes),
        counts=counts_words(analysis),
        families=_families(analysis),
        findings=findings(analysis),
        parts=[_part(result) for result in analysis.questions],
        most_rankings=MOST_RANKINGS,
        least_raters=LEAST_RATERS,
        least_prompts=LEAST_PROMPTS,
        changes=changes_of(analysis),
        tiles=_tiles(analysis),
    )


def _families(analysis: Analysis) -> list[dict[str, Any]]:
    """The table of findings: families of tests, in each of them the questions, in each of these the comparisons."""
    questions = {result.key: result for result in analysis.questions}
    families = []
    for family in ("primary", "explored"):
        rows = [row for row in analysis.comparisons if row.family == family]
        grouped = [(questions[key], [row for row in rows if row.question == key]) for key in questions]
        families.append({"name": family, "size": len(rows), "questions": [item for item in grouped if item[1]]})
    return [family for family in families if family["size"]]


def _part(result: QuestionResult) -> dict[str, Any]:
    title = result.text or result.key
    return {
        "result": result,
        "title": title,
        "name": result.key or "all",
        "unit": "image" if result.liked else "pair",
        "limits": limits_words(result),
        "pairs": sum(row.votes for row in result.comparisons) > result.votes and not result.liked,
        **dict.fromkeys(("rates", "strengths", "shares", "differences")),
        **(_like_charts(result, title) if result.liked else _pair_charts(result, title)),
    }


def _pair_charts(result: QuestionResult, title: str) -> dict[str, Any]:
    rates, strengths = _rate_rows(result), _strength_rows(result)
    return {
        "rates": chart(
            rates, title=titled(title, "win rates"), x_label="win rate of the first", reference=0.5, shares=True
        ),
        "strengths": chart(strengths, title=titled(title, "strengths"), x_label="log-strength", reference=0.0),
    }


def _like_charts(result: QuestionResult, title: str) -> dict[str, Any]:
    shares, label = _like_rows(result), "difference, percentage points"
    differences = [_difference(row) for row in _rate_rows(result)]
    return {
        "shares": chart(shares, title=titled(title, "likes"), x_label="share of likes", reference=None, shares=True),
        "differences": chart(differences, title=titled(title, "differences"), x_label=label, reference=0.0),
    }


def _tiles(analysis: Analysis) -> list[tuple[str, str]]:
    seconds = "\N{EN DASH}" if analysis.seconds is None else f"{analysis.seconds:.1f} s"
    return [
        ("same answer when a pair is repeated", share_words(analysis.consistency)),
        ("left, of answers for one side", share_words(analysis.side)),
        ("attention checks passed", share_words(analysis.checks)),
        ("median time per answer", seconds),
    ]


# Charts: values here, geometry and marks in the template, colours in the style sheet.


@dataclass(frozen=True, kw_only=True)
class Row:
    """One interval of a chart.

    Attributes:
        label: above it.
        value: of the point.
        ends: of the interval; `None` if there is none.
        inner: ends of a second, thicker interval; `None` if there is none.
        tone: ``good`` or ``open``.
        tip: for tooltips and screen readers.
    """

    label: str
    value: float
    ends: Ends | None
    inner: Ends | None = None
    tone: str = "open"
    tip: str


def _rate_rows(result: QuestionResult) -> list[Row]:
    return [
        Row(
            label=f"{row.left} against {row.right}",
            value=row.rate,
            ends=row.interval,
            inner=row.wilson,
            tone="good" if row.verdict != "open" and row.family == "primary" else "open",
            tip="{} against {}: {}, interval {}".format(row.left, row.right, *rate_words(row)),
        )
        for row in result.comparisons
    ]


def _like_rows(result: QuestionResult) -> list[Row]:
    return [
        Row(
            label=row.model,
            value=row.share,
            ends=row.interval,
            tip=f"{row.model}: {percent(row.share)}, interval {percents(row.interval)}",
        )
        for row in result.liked
    ]


def _difference(row: Row) -> Row:
    """The same comparison in percentage points of likes."""
    value, *ends = (200.0 * share - 100.0 for share in (row.value, *(row.ends or ())))
    return replace(row, value=value, ends=(ends[0], ends[1]) if ends else None, inner=None)


def _strength_rows(result: QuestionResult) -> list[Row]:
    rows = []
    for strength in result.strengths.models:
        low, high = strength.interval
        tip = f"{strength.model}: {strength.value:.2f}, interval {low:.2f} to {high:.2f}"
        rows.append(Row(label=strength.model, value=strength.value, ends=strength.interval, tip=tip))
    return rows


def chart(
    rows: Sequence[Row], *, title: str, x_label: str, reference: float | None, shares: bool = False
) -> dict[str, Any] | None:
    """What the template draws; `None` without rows.

    Args:
        rows: from top to bottom.
        title: for screen readers.
        x_label: of the axis.
        reference: place of the dashed line; `None`: there is none.
        shares: values are shares, and the axis is from 0% to 100%.
    """
    if not rows:
        return None
    values = [reference or 0.0, *(value for row in rows for value in (row.value, *(row.ends or ())))]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    low, high = (0.0, 1.0) if shares else (min(values) - margin, max(values) + margin)
    places = [0.0, 0.25, 0.5, 0.75, 1.0] if shares else ticks(low, high, 5)
    spacing = places[1] - places[0] if len(places) > 1 else 1.0
    return {
        "x": Axis(low=low, high=high, start=12.0, end=328.0),
        "x_label": x_label,
        "reference": reference,
        "ticks": [(value, f"{value:.0%}" if shares else tick_label(value, spacing)) for value in places],
        "rows": rows,
        "words": f"{title}. {'; '.join(row.tip for row in rows)}.",
    }

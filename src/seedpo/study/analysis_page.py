"""`seedpo study analyze`: an analysis as a self-contained HTML page, a CSV table and a JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from seedpo.data.text import spreadsheet_text
from seedpo.errors import ConfigError
from seedpo.pages.figures import Axis, tick_label, ticks
from seedpo.pages.rendering import environment
from seedpo.pages.wording import MINUS, count, listing, sentence
from seedpo.study.analysis import FAST_SECONDS, USUAL, Analysis, QuestionResult, analyze
from seedpo.study.comparisons import Comparison
from seedpo.study.folder import open_study
from seedpo.study.store import Store
from seedpo.study.vote_statistics import Agreement, Ends, Resampling, Share

TEMPLATES = Path(__file__).parent / "templates"

MOST_RANKINGS = 60
"""Rankings on the page; all of them are in the CSV file."""

FEW = 10
"""With fewer raters or prompts than this, a bootstrap over them says little about others."""

COMPARISON_COLUMNS = (
    *("raters_counted", "question", "category", "left", "right", "votes", "wins", "ties", "both_bad", "losses"),
    *("raters", "prompts", "win_rate", "wilson_low", "wilson_high", "low", "high"),
    *("prompts_left", "prompts_right", "p", "p_holm", "verdict"),
)
RANKING_COLUMNS = ("question", "group", "prompt", "rank", "source", "image", "votes", "share", "strength", "connected")

Tone = Literal["good", "open", "plain"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is known about one topic, one paragraph per line."""

    topic: str
    lines: tuple[str, ...]
    tone: Tone = "plain"


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
        resampling, least_checks, fast_seconds: see :func:`seedpo.study.analysis.analyze`.
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
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return spreadsheet_text(value)
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
        *(row.prompts_left, row.prompts_right, row.p, row.adjusted, row.verdict if row.adjusted is not None else ""),
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
        "decimal": lambda value: f"{value:.2f}".replace("-", MINUS),
        "p": p_value,
        "percent": percent,
        "percents": percents,
    }
    return templates.get_template("analysis.html.j2").render(
        analysis=analysis,
        level=_level(analysis),
        headline=headline(analysis),
        counts=counts_words(analysis),
        findings=findings(analysis),
        parts=[_part(result, analysis) for result in analysis.questions],
        most_rankings=MOST_RANKINGS,
        changes=_changes(analysis),
        tiles=_tiles(analysis),
    )


def _part(result: QuestionResult, analysis: Analysis) -> dict[str, Any]:
    title = result.text or result.key
    return {
        "result": result,
        "title": title,
        "name": result.key or "all",
        "rates": chart(_rate_rows(result), title=f"{title}: win rates", x_label="win rate of the first", reference=0.5),
        "strengths": chart(_strength_rows(result), title=f"{title}: strengths", x_label="log-strength", reference=0.0),
    }


def _changes(analysis: Analysis) -> list[tuple[Comparison, Comparison | None]]:
    """Each comparison without the inattentive raters, and with them; empty if nobody was left out."""
    everybody = {comparison.key: comparison for comparison in analysis.everybody}
    return [(comparison, everybody.get(comparison.key)) for comparison in analysis.comparisons if everybody]


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
            tone="open" if row.verdict == "open" else "good",
            tip=f"{row.left} against {row.right}: {percent(row.rate)}, interval {percents(row.interval)}",
        )
        for row in result.comparisons
    ]


def _strength_rows(result: QuestionResult) -> list[Row]:
    rows = []
    for strength in result.strengths.models:
        interval = f", interval {strength.interval[0]:.2f} to {strength.interval[1]:.2f}" if strength.interval else ""
        tip = f"{strength.model}: {strength.value:.2f}{interval}"
        rows.append(Row(label=strength.model, value=strength.value, ends=strength.interval, tip=tip))
    return rows


def chart(rows: Sequence[Row], *, title: str, x_label: str, reference: float) -> dict[str, Any] | None:
    """What the template draws; `None` without rows.

    Args:
        rows: from top to bottom.
        title: for screen readers.
        x_label: of the axis.
        reference: place of the dashed line. If it is 0.5, values are shares and the axis is from 0% to 100%.
    """
    if not rows:
        return None
    values = [reference, *(value for row in rows for value in (row.value, *(row.ends or ())))]
    margin = 0.05 * (max(values) - min(values)) or 0.5
    low, high = (0.0, 1.0) if reference == 0.5 else (min(values) - margin, max(values) + margin)
    places = [0.0, 0.25, 0.5, 0.75, 1.0] if reference == 0.5 else ticks(low, high, 5)
    spacing = places[1] - places[0] if len(places) > 1 else 1.0
    return {
        "x": Axis(low=low, high=high, start=12.0, end=328.0),
        "x_label": x_label,
        "reference": reference,
        "ticks": [(value, f"{value:.0%}" if reference == 0.5 else tick_label(value, spacing)) for value in places],
        "rows": rows,
        "words": f"{title}. {'; '.join(row.tip for row in rows)}.",
    }


# Numbers in words.


def percent(share: float) -> str:
    """A share in whole percent; only exactly all is 100% and only exactly nothing 0%."""
    rounded = round(100 * share)
    if rounded in (0, 100) and share not in (0.0, 1.0):
        return "<1%" if rounded == 0 else ">99%"
    return f"{rounded}%"


def percents(ends: Ends) -> str:
    """``41% to 58%``."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def p_value(p: float) -> str:
    """``p = 0.03``, ``p < 0.001``."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def share_words(share: Share) -> str:
    """A share with its interval; a dash without a case."""
    if share.share is None or share.interval is None:
        return "\N{EN DASH}"
    return f"{percent(share.share)} of {share.cases} ({percents(share.interval)})"


def alpha_words(agreement: Agreement) -> str:
    """Krippendorff's alpha with its intervals."""
    if agreement.nominal is None or agreement.ordinal is None:
        return "not defined"

    def with_ends(value: float, ends: Ends | None) -> str:
        return f"{value:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")

    nominal = with_ends(agreement.nominal, agreement.nominal_interval)
    ordinal = with_ends(agreement.ordinal, agreement.ordinal_interval)
    return f"{nominal} nominal, {ordinal} ordinal".replace("-", MINUS)


def _level(analysis: Analysis) -> str:
    return f"{100 * analysis.resampling.level:g}%"


# What the numbers say: no more than they do, and nothing that a table of the page says already.


def headline(analysis: Analysis) -> str:
    """The first sentence of the page."""
    if not analysis.models:
        all_rankings = [ranking for result in analysis.questions for ranking in result.rankings]
        decided = sum(ranking.decided for ranking in all_rankings)
        return (
            f"{count(analysis.counts.votes, 'vote')} of {count(_counting(analysis), 'rater')} order the images of "
            f"{count(len(all_rankings), 'group')}; in {decided} of them one image is ahead of all others."
        )
    if not analysis.tested:
        return "No two models were compared: every vote is between images of one model."
    shown = sum(comparison.verdict != "open" for comparison in analysis.comparisons)
    tests = count(analysis.tested, "comparison")
    if not shown:
        return f"Of {tests}, none shows a preference after Holm's correction. That does not prove models equal."
    return f"Of {tests}, {shown} {'shows' if shown == 1 else 'show'} a preference after Holm's correction."


def counts_words(analysis: Analysis) -> str:
    """How many answers count, and why others do not."""
    counts = analysis.counts
    parts = (
        (counts.checks, "answers to attention checks"),
        (counts.repeats, "to repetitions"),
        (counts.skipped, "skipped"),
        (counts.inattentive, "by raters who failed attention checks"),
        (counts.excluded, "by raters whom the owner left out"),
    )
    others = [f"{amount} {reason}" for amount, reason in parts if amount]
    rest = f" The others do not count as votes: {listing(others)}." if others else ""
    return f"{count(counts.answers, 'answer')}, of which {counts.votes} are votes.{rest}"


def findings(analysis: Analysis) -> tuple[Finding, ...]:
    """The paragraphs at the top of the page."""
    topics = [
        Finding(
            topic=sentence(result.key) if result.key else "All questions together",
            lines=_preferences(result.comparisons, analysis),
            tone="good" if any(comparison.verdict != "open" for comparison in result.comparisons) else "open",
        )
        for result in analysis.questions
        if result.comparisons
    ]
    if analysis.side.interval is not None:
        low, high = analysis.side.interval
        pull = "A pull to one side is shown" if low > 0.5 or high < 0.5 else "No pull to one side is shown"
        sides = f"{pull}: of answers for one side, left is {share_words(analysis.side)}."
        topics.append(Finding(topic="Sides", lines=(sides,)))
    topics.append(Finding(topic="Attention checks", lines=_attention_words(analysis)))
    topics.append(Finding(topic="How sure", lines=limits_words(analysis), tone="open"))
    return tuple(finding for finding in topics if finding.lines)


def _preferences(comparisons: Sequence[Comparison], analysis: Analysis) -> tuple[str, ...]:
    """Which preferences are shown and which are not; the numbers are in the table of the question."""
    preferred, undecided, notes = [], [], []
    for row in comparisons:
        if row.verdict != "open":
            better, worse = (row.left, row.right) if row.verdict == "left" else (row.right, row.left)
            preferred.append(f"{better} to {worse}")
            continue
        undecided.append(f"{row.left} and {row.right}")
        significant = row.adjusted is not None and row.adjusted <= 1.0 - analysis.resampling.level
        if significant and row.interval[0] <= 0.5 <= row.interval[1]:
            notes.append(
                f"{row.left} and {row.right}: the test over prompts finds a preference, but the interval over raters "
                "and prompts includes 50%."
            )
    lines = [f"Preferred: {'; '.join(preferred)}."] if preferred else []
    lines += [f"No preference is shown between {'; '.join(undecided)}."] if undecided else []
    return (*lines, *notes)


def _attention_words(analysis: Analysis) -> tuple[str, ...]:
    if analysis.least_checks is None:
        return ()
    limit = f"less than {percent(analysis.least_checks)} of their checks"
    if not analysis.inattentive:
        return (f"Nobody passed {limit}.",)
    left_out = f"Left out, with {limit} passed: {listing(analysis.inattentive)}."
    changes = _changes(analysis)
    if not changes:
        return (left_out,)
    changed = sum(other is None or row.verdict != other.verdict for row, other in changes)
    return left_out, f"With them {changed} of {count(len(changes), 'conclusion')} would be different."


def limits_words(analysis: Analysis) -> tuple[str, ...]:
    """What the data cannot show."""
    raters = _counting(analysis)
    prompts = max(result.prompts for result in analysis.questions)
    lines = []
    if raters == 1:
        lines.append("All votes are from one rater: they say nothing about others. Intervals are over prompts only.")
    elif raters < FEW:
        lines.append(f"With {raters} raters the intervals say little about other people, and may be too narrow.")
    if prompts < FEW:
        lines.append(
            f"With {count(prompts, 'prompt')} the intervals say little about other prompts, and may be too narrow."
        )
    fast = [rater.rater for rater in analysis.raters if rater.fast and rater.kept]
    if fast:
        lines.append(
            f"{listing(fast)} answered in less than {analysis.fast_seconds:g} s (median), which may be too fast to "
            "look; their votes count."
        )
    return tuple(lines)


def _counting(analysis: Analysis) -> int:
    return sum(rater.kept and rater.votes > 0 for rater in analysis.raters)

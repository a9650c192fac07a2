"""The page of frontiers as Markdown and as HTML, from the same parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from seedpo.core.verdicts import LEAST_EVALUATIONS, Outcome
from seedpo.pages.figures import Panel, style
from seedpo.pages.rendering import environment
from seedpo.pages.tables import Table
from seedpo.pages.wording import count, listing
from seedpo.reports.frontier import tables
from seedpo.reports.frontier.comparisons import LEAST_SEEDS
from seedpo.reports.frontier.courses import figure_word
from seedpo.reports.frontier.panels import FREE_ORDER
from seedpo.reports.frontier.results import Results

TEMPLATES = Path(__file__).parents[1] / "templates"


def figures_sentence(results: Results) -> str:
    """Which figures were looked at, and as what."""
    figures = results.figures
    held_out, diversity = (listing(list(map(figure_word, keys))) for keys in (figures.held_out, figures.diversity))
    return (
        f"Proxy: {figure_word(figures.proxy)}. Held out: {held_out or 'nothing'}. Diversity: {diversity or 'nothing'}."
    )


def reading(results: Results) -> list[str]:
    """How to read the page, a sentence or two each."""
    compared = len(results.comparisons)
    lines = [
        (
            "The frontier of a setting (bold line) is the best value at a proxy of at least x, over all of its "
            "evaluations, interpolated between them. So early stopping is part of it. Points on the thin line are the "
            "evaluations, numbers their steps (left out with many settings); the ring is the best early stop, chosen "
            "by the figure itself."
        ),
        (
            "Bands: range over the seeds; of one seed the 95 % bootstrap interval, over prompts, of the change since "
            "the first evaluation, where values by prompt are known."
        ),
        (
            f"A verdict needs {LEAST_EVALUATIONS} evaluations. The best stop is the best of several noisy values, "
            "which flatters it; its interval does not know that."
        ),
    ]
    if results.free:
        lines.append(
            "Free baselines (grey) cost no training: the strength of the trained weights, mixing of base and tuned "
            "model, best of n images. A setting has learned something of its own only above them."
        )
    if compared:
        lines.append(
            f"At equal proxy: mean difference of two frontiers over the proxies that both reach, within each seed. "
            f"From {LEAST_SEEDS} seeds on, bootstrap and Student's t over seeds must both leave out 0; with fewer, "
            f"the bootstrap over prompts, which says nothing of other seeds. A gap below a tenth of the range does "
            f"not matter. {count(compared, 'comparison')} {'was' if compared == 1 else 'were'} made; where there is "
            "no difference, up to one in twenty would seem shown by chance. A frontier is a best value, which favours "
            "settings with more evaluations among the common proxies, as slower ones have. So the values where a "
            "proxy is first reached must show the same."
        )
    return lines


def _meanings(results: Results) -> list[tuple[Outcome, str]]:
    """The verdicts that were given, and what each says."""
    given = [one.outcome for one in results.trained]
    return [(outcome, tables.MEANINGS[outcome]) for outcome in Outcome if outcome in given]


def _sections(results: Results) -> dict[str, Table]:
    """The tables below the charts, by their headings."""
    pools = {one.series.label: [one.series] for one in results.trained}
    made = {
        "Where to stop": tables.stop_table(results),
        "At equal proxy": tables.comparison_table(results),
        "Frontiers in numbers": tables.frontier_table(pools, {key: figure_word(key) for key in results.figures.wanted}),
        "All evaluations": tables.point_table(results),
    }
    return {heading: table for heading, table in made.items() if table.rows}


def markdown(results: Results, pictures: Mapping[str, str], *, title: str, command: str) -> str:
    """The page as Markdown.

    Args:
        results: what it says.
        pictures: files of the charts by figure.
        title: heading.
        command: that made it.
    """
    answers, meanings = tables.answers(results), _meanings(results)
    made = [f"# {title}", f"**{tables.headline(results)}**", figures_sentence(results), _items(answers)]
    made += ["## Verdicts", tables.verdict_table(results).markdown]
    made += [_items([f"*{outcome}*: {text}." for outcome, text in meanings]), _items(results.notes), "## Frontiers"]
    made += [f"![{figure_word(key)}]({file})" for key, file in pictures.items()]
    made += [_items(reading(results))]
    made += [f"## {heading}\n\n{table.markdown}" for heading, table in _sections(results).items()]
    made += ["## Command", f"    {command}"]
    return "\n\n".join(part for part in made if part) + "\n"


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def html(results: Results, panels: Mapping[str, Panel], *, title: str, command: str) -> str:
    """The page as one HTML file without any external resource."""
    legend = [(one.series.label, *style(index)) for index, one in enumerate(results.trained)]
    kinds = dict.fromkeys(one.kind for one in results.free)
    legend += [(f"free: {kind}", "free", FREE_ORDER.get(kind, 0)) for kind in kinds]
    template = environment(TEMPLATES).get_template("frontier.html.j2")
    return template.render(
        title=title,
        headline=tables.headline(results),
        figures=figures_sentence(results),
        answers=tables.answers(results),
        verdicts=tables.verdict_table(results),
        meanings=_meanings(results),
        notes=results.notes,
        panels=list(panels.values()),
        legend=legend,
        reading=reading(results),
        sections=_sections(results),
        command=command,
    )

"""Verdicts and results as Markdown, one section per method and per evaluation: for documents and model cards."""

from __future__ import annotations

from seedpo.pages.tables import Cell, Table
from seedpo.reports import versus
from seedpo.reports.contents import Contents, failed_table
from seedpo.reports.evaluations import Evaluation
from seedpo.reports.families import Family, group
from seedpo.reports.findings import findings
from seedpo.reports.preference import PreferenceModel
from seedpo.reports.tables import result_table


def results_markdown(contents: Contents) -> str:
    """Sections of methods (verdicts, and a row per setting), evaluations, preference models and failed cells.

    The row of a setting holds a run's own figures, or mean and range over its seeds.
    """
    sections = [_section(family) for family in group(contents.runs)]
    sections += map(_evaluation, contents.evaluations)
    sections += map(_preference_model, contents.preference_models)
    failed = failed_table(contents.failed)
    sections += [f"## Failed cells\n\n{failed.markdown}"] if failed else []
    return "\n\n".join(sections) + "\n"


def _section(family: Family) -> str:
    shown = findings(family)
    table = result_table(family)
    several = {table.rows[index][0].small for index in table.summaries}
    rows: list[tuple[Cell | str, ...]] = [
        (row[0].small[0], *row[1:-1])
        for index, row in enumerate(table.rows)
        if index in table.summaries or row[0].small not in several
    ]
    parts = [
        f"## {family.title}",
        "\n".join(f"* {name}: **{badge.text}**" for name, badge in shown.badges),
        shown.hacking_table.markdown if shown.settings else "",
        shown.effects_table.markdown if shown.effects else "",
        "\n".join(f"* {note}" for note in shown.notes),
        Table.of(("setting", *table.header[1:-1]), rows).markdown,
    ]
    return "\n\n".join(part for part in parts if part)


def _evaluation(evaluation: Evaluation) -> str:
    parts = [f"## Evaluation {evaluation.name}", versus.lead(evaluation), versus.table(evaluation).markdown]
    bars, note = versus.bars(evaluation)
    if bars:
        rows = [(f"{bar.left} against {bar.right}", bar.reward, bar.shares, bar.rate, bar.difference) for bar in bars]
        header = ("models", "reward", "win / tie / loss in %", "win rate", "paired difference")
        parts += [*([note] if note else []), Table.of(header, rows).markdown]
    parts += ["Brackets: 95% bootstrap intervals over prompts. The win rate counts half of the ties."]
    return "\n\n".join(parts)


def _preference_model(model: PreferenceModel) -> str:
    body = model.table.markdown if model.table else "\n".join(model.notes)
    return f"## Preference model {model.name}\n\n{body}"

"""Run, sweep and evaluation folders in, one self-contained HTML page out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seedpo.errors import ConfigError, RunFolderError
from seedpo.methods.presets import method_title
from seedpo.pages.rendering import environment
from seedpo.pages.wording import compact, duration, listing, number
from seedpo.reports import versus
from seedpo.reports.ablations import ablations
from seedpo.reports.charts import curve_panels, frontier_panels, health_notes, health_panels, quantities
from seedpo.reports.contents import Contents, failed_table, read_contents
from seedpo.reports.families import Family, group
from seedpo.reports.findings import findings
from seedpo.reports.images import BYTES, build_grid, plan_grid, rows_that_fit
from seedpo.reports.markdown import results_markdown
from seedpo.reports.names import of_kind
from seedpo.reports.opening import opening
from seedpo.reports.runs import Run
from seedpo.reports.tables import configuration_differences, environments, recipe, result_table, seconds
from seedpo.reports.viewer import evaluation_viewer, grid_viewer

TEMPLATES = Path(__file__).parent / "templates"

SHOWN_ROWS = 8
"""Prompts of the grid that are seen at once."""

SHOWN_COLUMNS = 4
"""Latents of the grid that are seen at once; all of them are in the strip of one prompt."""


FORMATS = {"html": "report.html", "markdown": "report.md"}
"""Formats of a report, and its name in a folder."""


def write_report(
    folders: Sequence[Path], out: Path, *, title: str = "Preference tuning report", format: str | None = None
) -> Path:
    """Writes one page about runs, sweeps and evaluations: HTML without any external resource, or Markdown.

    Args:
        folders: what ``seedpo train``, ``seedpo reward train``, ``seedpo sweep`` and ``seedpo evaluate`` wrote,
            finished or not, or folders of these.
        out: the file; for a folder, ``report.html`` or ``report.md`` in it.
        title: heading of the page.
        format: ``html`` or ``markdown`` (verdicts and tables); by the file's name if not given: Markdown for ``.md``.

    Returns:
        The file that was written.

    Raises:
        RunFolderError: if a folder holds nothing that can be shown, or the page cannot be written.
        ConfigError: if the format is unknown.
    """
    format = format or ("markdown" if Path(out).suffix == ".md" else "html")
    if format not in FORMATS:
        raise ConfigError(f"the report's format {format!r} is unknown; use {' or '.join(FORMATS)}")
    contents = read_contents([Path(folder) for folder in folders])
    target = Path(out) / FORMATS[format] if Path(out).is_dir() else Path(out)
    text = f"# {title}\n\n{results_markdown(contents)}" if format == "markdown" else render(contents, title=title)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"the report {target} cannot be written ({error.strerror}); name another file") from error
    return target


def render(contents: Contents, *, title: str) -> str:
    """The page as text."""
    families = group(contents.runs)
    runs = [run for family in families for run in family.runs]
    made = environment(TEMPLATES)
    made.filters["compact"] = compact
    made.globals["figures"] = step_figures
    chapters = _chapters(families)
    page: str = made.get_template("report.html.j2").render(
        title=title,
        facts=facts(contents, families),
        first=opening((chapter["family"], chapter["grid"]) for chapter in chapters),
        chapters=chapters,
        evaluations=[_evaluation_part(contents, index) for index in range(len(contents.evaluations))],
        preference_models=contents.preference_models,
        failed=failed_table(contents.failed),
        differences=configuration_differences(runs),
        environments=environments(runs),
        apart=_not_compared(families),
        notes=[(run.name, run.notes) for run in runs if run.notes],
        proxies=sorted({family.proxy.removeprefix("reward/") for family in families}),
        shown_rows=SHOWN_ROWS,
        shown_columns=SHOWN_COLUMNS,
    )
    return page


def _chapters(families: Sequence[Family]) -> list[dict[str, Any]]:
    """Everything that the page shows of each family."""
    plans = [plan_grid(family) for family in families]
    rows = rows_that_fit(plans)
    chapters = []
    for index, (family, anchor) in enumerate(zip(families, _anchors(families), strict=True)):
        grid, grid_notes = build_grid(plans[index], most_rows=rows, prefix=f"s{index}")
        chapters.append(
            {
                "anchor": anchor,
                "family": family,
                "findings": findings(family),
                "curves": curve_panels(family),
                "frontiers": frontier_panels(family),
                "ablations": ablations(family),
                "health": health_panels(family),
                "health_notes": health_notes(family),
                "grid": grid,
                "grid_notes": grid_notes,
                "viewer": grid_viewer(grid, family.title) if grid else None,
                "results": result_table(family),
                "recipe": recipe(family, f"{anchor}.yaml"),
                "spans_seeds": any(one.several_seeds for one in family.settings),
            }
        )
    return chapters


def _evaluation_part(contents: Contents, index: int) -> dict[str, Any]:
    """Everything that the page shows of one evaluation."""
    one = contents.evaluations[index]
    bars, note = versus.bars(one)
    return {
        "anchor": f"evaluation-{index + 1}",
        "evaluation": one,
        "lead": versus.lead(one),
        "table": versus.table(one),
        "bars": bars,
        "bars_note": note,
        "steps": versus.step_panels(one),
        "frontiers": versus.frontier_panels(one),
        "legend": versus.legend(one),
        "viewer": evaluation_viewer(one, prefix=f"e{index}", budget=BYTES // len(contents.evaluations)),
    }


def _anchors(families: Sequence[Family]) -> list[str]:
    names = [re.sub(r"[^a-z0-9]+", "-", family.method.lower()).strip("-") or "method" for family in families]
    return [name if names.count(name) == 1 else f"{name}-{index + 1}" for index, name in enumerate(names)]


def facts(contents: Contents, families: Sequence[Family]) -> list[tuple[str, str]]:
    """What the page is about: names and values."""
    runs = [run for family in families for run in family.runs]
    finished = [run for run in runs if run.finished]
    methods = dict.fromkeys(family.title.split(" (")[0] for family in families)
    roles = {one.role for family in families for one in family.settings}
    names = {
        "base": "base",
        "see": "SEE (with the entropy term)",
        "control": "temperature control",
        "term": "other terms",
    }
    steps = sorted({int(run.config["max_steps"]) for run in runs if "max_steps" in run.config})
    images = {(run.get("evaluation.num_prompts"), run.get("evaluation.images_per_prompt")) for run in runs}
    times = [seconds(run) for run in finished if seconds(run) > 0]
    rows = {
        "Runs": f"{len(runs)}{f', {len(finished)} finished' if len(finished) < len(runs) else ''}" if runs else "",
        "Method": ", ".join(methods),
        "Settings": ", ".join(name for role, name in names.items() if role in roles),
        "Model": ", ".join(sorted({str(run.config.get("model", "unknown")) for run in runs})),
        "Optimiser steps": " to ".join(map(str, dict.fromkeys((*steps[:1], *steps[-1:])))),
        "Seeds": ", ".join(map(str, sorted({run.seed for run in runs}))),
        "Evaluation": ", ".join(f"{prompts} prompts of {each} images" for prompts, each in sorted(images)),
        "Wall time": duration(sum(times)) if times else "",
        "Evaluations": str(len(contents.evaluations) or ""),
        "Preference models": str(len(contents.preference_models) or ""),
        "Failed cells": str(len(contents.failed) or ""),
    }
    return [(name, value) for name, value in rows.items() if value]


def _not_compared(families: Sequence[Family]) -> str:
    """Says that runs of one method stand in several groups, if they do."""
    methods = [family.method for family in families]
    split = [method_title(method) for method in dict.fromkeys(methods) if methods.count(method) > 1]
    if not split:
        return ""
    return (
        f"Runs of {listing(split)} differ in more than beta, gamma and seed, or in their proxy. They form separate "
        "groups, named by the keys that differ, and are not compared across groups."
    )


def step_figures(family: Family, run: Run, step: int) -> str:
    """Proxy, truth and diversity of a run at a step, for the caption under its images."""
    record: Mapping[str, float] = next((record for record in run.evaluations if record["step"] == step), {})
    keys = (family.proxy, family.judge, *of_kind("diversity", family.figures))
    names = {key: name for key, name in quantities(family).items() if key in keys and key in record}
    return " \N{MIDDLE DOT} ".join(f"{name} {number(record[key])}" for key, name in names.items())

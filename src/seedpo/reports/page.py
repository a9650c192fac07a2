"""Run, sweep and evaluation folders in, one self-contained HTML page out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedpo.errors import ConfigError, RunFolderError
from seedpo.methods.presets import method_title
from seedpo.pages.figures import Panel
from seedpo.pages.rendering import environment
from seedpo.pages.tables import Table
from seedpo.pages.wording import count, duration, listing, number, setting
from seedpo.reports import versus
from seedpo.reports.ablations import Ablation, ablations
from seedpo.reports.charts import curve_panels, frontier_panels, health_notes, health_panels, quantities
from seedpo.reports.contents import Contents, failed_table, read_contents
from seedpo.reports.evaluations import Evaluation
from seedpo.reports.families import Family, group
from seedpo.reports.findings import Findings, findings
from seedpo.reports.images import BYTES, Grid, build_grid, plan, rows_that_fit
from seedpo.reports.markdown import results_markdown
from seedpo.reports.names import of_kind
from seedpo.reports.runs import Run
from seedpo.reports.tables import Recipe, configuration_differences, environments, recipe, result_table, seconds
from seedpo.reports.versus import Bar
from seedpo.reports.viewer import Viewer, evaluation_viewer, grid_viewer

TEMPLATES = Path(__file__).parent / "templates"

SHOWN_ROWS = 8
"""Prompts of the grid that are seen at once."""

SHOWN_COLUMNS = 4
"""Latents of the grid that are seen at once; all of them are in the strip of one prompt."""


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Everything that the page shows of one family."""

    anchor: str
    family: Family
    findings: Findings
    curves: list[Panel]
    frontiers: list[Panel]
    health: list[Panel]
    health_notes: list[str]
    grid: Grid | None
    grid_notes: tuple[str, ...]
    results: Table
    recipe: Recipe
    ablations: tuple[Ablation, ...] = ()
    viewer: Viewer | None = None

    @property
    def spans_seeds(self) -> bool:
        """Whether some setting has several seeds."""
        return any(one.several_seeds for one in self.family.settings)


@dataclass(frozen=True, kw_only=True)
class EvaluationPart:
    """Everything that the page shows of one evaluation."""

    anchor: str
    evaluation: Evaluation
    lead: str
    table: Table
    bars: list[Bar]
    bars_note: str
    steps: list[Panel]
    frontiers: list[Panel]
    legend: list[tuple[str, str, int]]
    viewer: Viewer | None


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
        format: ``html`` or ``markdown`` (tables and findings); by the file's name if not given: Markdown for ``.md``.

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
    runs = contents.runs
    families = group(runs)
    made = environment(TEMPLATES)
    made.filters["setting"] = setting
    made.globals["figures"] = step_figures
    template = made.get_template("report.html.j2")
    return template.render(
        title=title,
        lead=lead(runs, families) if runs else _other_lead(contents),
        chapters=_chapters(families),
        evaluations=_evaluation_parts(contents.evaluations),
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


def _chapters(families: Sequence[Family]) -> list[Chapter]:
    plans = [plan(family) for family in families]
    rows = rows_that_fit(plans)
    anchors = _anchors(families)
    chapters = []
    for index, (family, one) in enumerate(zip(families, plans, strict=True)):
        grid, grid_notes = build_grid(one, most_rows=rows, prefix=f"s{index}")
        chapters.append(
            Chapter(
                anchor=anchors[index],
                family=family,
                findings=findings(family),
                curves=curve_panels(family),
                frontiers=frontier_panels(family),
                health=health_panels(family),
                health_notes=health_notes(family),
                grid=grid,
                grid_notes=grid_notes,
                results=result_table(family),
                recipe=recipe(family, f"{anchors[index]}.yaml"),
                ablations=ablations(family),
                viewer=grid_viewer(grid, family.title) if grid else None,
            )
        )
    return chapters


def _evaluation_parts(evaluations: Sequence[Evaluation]) -> list[EvaluationPart]:
    parts = []
    for index, one in enumerate(evaluations):
        bars, note = versus.bars(one)
        parts.append(
            EvaluationPart(
                anchor=f"evaluation-{index + 1}",
                evaluation=one,
                lead=versus.lead(one),
                table=versus.table(one),
                bars=bars,
                bars_note=note,
                steps=versus.step_panels(one),
                frontiers=versus.frontier_panels(one),
                legend=versus.legend(one),
                viewer=evaluation_viewer(one, prefix=f"e{index}", budget=BYTES // len(evaluations)),
            )
        )
    return parts


def _other_lead(contents: Contents) -> str:
    parts = [
        count(len(parts), noun)
        for parts, noun in (
            (contents.evaluations, "evaluation"),
            (contents.preference_models, "preference model"),
            (contents.failed, "failed cell"),
        )
        if parts
    ]
    return f"{listing(parts)}."


def _anchors(families: Sequence[Family]) -> list[str]:
    names = [re.sub(r"[^a-z0-9]+", "-", family.method.lower()).strip("-") or "method" for family in families]
    return [name if names.count(name) == 1 else f"{name}-{index + 1}" for index, name in enumerate(names)]


def lead(runs: Sequence[Run], families: Sequence[Family]) -> str:
    """What was run, in one paragraph."""
    methods = listing(list(dict.fromkeys(family.title.split(" (")[0] for family in families)))
    models = listing(sorted({str(run.config.get("model", "an unnamed model")) for run in runs}))
    steps = sorted({int(run.config["max_steps"]) for run in runs if "max_steps" in run.config})
    lengths = f" over {steps[0]}{f' to {steps[-1]}' if steps[-1] > steps[0] else ''} optimiser steps" if steps else ""
    seeds = sorted({run.seed for run in runs})
    times = [seconds(run) for run in runs if run.finished and seconds(run) > 0]
    finished = sum(run.finished is not None for run in runs)
    roles = [one.role for family in families for one in family.settings]
    names = {"base": "base", "see": "SEE (with the entropy term)", "control": "temperature control"}
    kinds = listing([names[role] for role in names if role in roles])
    text = (
        f"{count(len(runs), 'run')} of {methods} on the model {models}{lengths}: {kinds}; "
        f"{'seed' if len(seeds) == 1 else 'seeds'} {listing([str(seed) for seed in seeds])}."
    )
    if finished < len(runs):
        text += f" {finished} of {len(runs)} {'is' if finished == 1 else 'are'} finished."
    if times:
        text += f" The finished runs took {duration(sum(times))} of wall time in all."
    evaluation = runs[0].config.get("evaluation", {})
    if {"num_prompts", "images_per_prompt"} <= set(evaluation):
        text += (
            f" Every evaluation draws {evaluation['images_per_prompt']} images from fixed initial latents for each of "
            f"{evaluation['num_prompts']} prompts."
        )
    return text


def _not_compared(families: Sequence[Family]) -> str:
    """Says that runs of one method stand in several groups, if they do."""
    methods = [family.method for family in families]
    split = [method_title(method) for method in dict.fromkeys(methods) if methods.count(method) > 1]
    if not split:
        return ""
    return (
        f"Runs of {listing(split)} differ in more than beta, gamma and seed, or in their proxy. They stand in groups "
        "of their own, named by what sets them apart, and are not compared across groups."
    )


def step_figures(family: Family, run: Run, step: int) -> str:
    """Proxy, truth and diversity of a run at a step, for the caption under its images."""
    record: Mapping[str, float] = next((record for record in run.evaluations if record["step"] == step), {})
    keys = (family.proxy, family.judge, *of_kind("diversity", family.figures))
    names = {key: name for key, name in quantities(family).items() if key in keys and key in record}
    return " \N{MIDDLE DOT} ".join(f"{name} {number(record[key])}" for key, name in names.items())

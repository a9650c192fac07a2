"""What a reader sees first: images before and after training, and one sentence.

Where the base method hacks its reward, that is the sentence, and its images where one should have stopped stand beside
those of its end; else whether a run is better than the model it began with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from seedpo.core.verdicts import Outcome
from seedpo.pages.wording import listing, number, sentence
from seedpo.reports.beginnings import change_sentence
from seedpo.reports.curves import read_curves
from seedpo.reports.families import Family, Setting, held_out
from seedpo.reports.images import Grid
from seedpo.reports.names import figure_name
from seedpo.reports.runs import Run

ROWS, COLUMNS = 6, 4
"""Most prompts, and most latents of each, in the picture."""

MOST_SETTINGS = 4
"""Settings in the picture at most: base, SEE, control and one term."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The images of one run at one step.

    Attributes:
        name: what it is called.
        role: chooses the colour of its mark; empty for the model before training.
        run: whose images they are.
        step: of the evaluation.
        sheet: CSS class of the embedded sheet.
        outcome: verdict on the setting; empty for the model before training.
    """

    name: str
    role: str
    run: Run
    step: int
    sheet: str
    outcome: str = ""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The first picture of the page.

    Attributes:
        sentence: what happened, in numbers.
        family: whose runs they are.
        grid: holds the embedded sheets.
        frames: the model before training, the base method's early stop where it hacks, then each setting at its last
            step.
    """

    sentence: str
    family: Family
    grid: Grid
    frames: tuple[Frame, ...]

    @property
    def rows(self) -> int:
        """Prompts in the picture."""
        return min(ROWS, len(self.grid.prompts))

    @property
    def columns(self) -> int:
        """Latents of each prompt in the picture."""
        return min(COLUMNS, self.grid.columns)


def opening(chapters: Iterable[tuple[Family, Grid | None]]) -> Opening | None:
    """The picture of the first family whose base method hacks its reward, or else of the first with images.

    ``None`` if no family has images before and after training.
    """
    known = list(chapters)
    return _hacked(known) or _changed(known)


def _changed(chapters: Sequence[tuple[Family, Grid | None]]) -> Opening | None:
    """Before and after training, and whether the first setting is better than the model it began with."""
    for family, grid in chapters:
        frames = _frames(grid) if grid else ()
        if grid and len(frames) > 1 and frames[0].step == 0:
            setting = next(strip.setting for strip in grid.strips if strip.sheets)
            several = f"{setting.legend}: " if len(frames) > 2 else ""
            text = f"{several}{change_sentence(family, setting)}"
            return Opening(sentence=text, family=family, grid=grid, frames=frames)
    return None


def _hacked(chapters: Sequence[tuple[Family, Grid | None]]) -> Opening | None:
    for family, grid in chapters:
        base = next((one for one in family.settings if one.role == "base" and one.outcome is Outcome.HACKING), None)
        frames = _frames(grid) if base and grid else ()
        if base and grid and len(frames) > 1:
            stop = _stop_frame(grid, base)
            with_stop = (frames[0], stop, *frames[1:]) if stop else frames
            text = f"{_sentence(family, base)}{_stop_sentence(family, base, stop)}"
            return Opening(sentence=text, family=family, grid=grid, frames=with_stop)
    return None


def _stop_frame(grid: Grid, base: Setting) -> Frame | None:
    """The images of the evaluation at which a user would have stopped; ``None`` if it is the first or the last one."""
    strip = next((strip for strip in grid.strips if strip.setting is base), None)
    step = stopping_step(strip.run) if strip else None
    if strip is None or step not in strip.sheets or step in (min(strip.sheets), max(strip.sheets)):
        return None
    return Frame(name=f"{base.legend}, stopped", role="base", run=strip.run, step=step, sheet=strip.sheets[step].name)


def stopping_step(run: Run) -> int | None:
    """Where the last of the held-out rewards was highest: early stopping as a user has it, who knows no truth.

    ``None`` if no held-out figure was measured.
    """
    curves = read_curves(run.evaluations)
    known = [curves[key] for key in held_out(run) if key in curves and curves[key].steps]
    return known[-1].steps[known[-1].values.index(max(known[-1].values))] if known else None


def _stop_sentence(family: Family, base: Setting, stop: Frame | None) -> str:
    """Where the run that is shown should have stopped, and what the judge is there."""
    values = [one[family.judge] for one in stop.run.evaluations if one["step"] == stop.step] if stop else []
    if stop is None or not values:
        return ""
    last = held_out(stop.run)[-1]
    where = "" if last == family.judge else f", where {figure_name(last)} is highest"
    run = f"Seed {stop.run.seed} stopped" if base.several_seeds else "Stopped"
    return f" {run} at step {stop.step}{where}, it has {number(values[0])}."


def _frames(grid: Grid) -> tuple[Frame, ...]:
    frames = [
        Frame(
            name=strip.setting.legend,
            role=strip.setting.role,
            run=strip.run,
            step=max(strip.sheets),
            sheet=strip.sheets[max(strip.sheets)].name,
            outcome=strip.setting.outcome,
        )
        for strip in grid.strips[:MOST_SETTINGS]
        if strip.sheets
    ]
    first = grid.strips[0]
    if 0 in first.sheets:
        frames.insert(0, Frame(name="before training", role="", run=first.run, step=0, sheet=first.sheets[0].name))
    return tuple(frames)


def _sentence(family: Family, base: Setting) -> str:
    """What the base method gained and lost, and where the others ended; means over the seeds that were judged."""
    verdicts = [verdict for verdict in base.verdicts if verdict.outcome is not Outcome.NOT_MEASURED]
    hacked = sum(verdict.outcome is Outcome.HACKING for verdict in verdicts)
    peaks = sorted(verdict.peak_step for verdict in verdicts)
    start = f"{peaks[0]}" if peaks[0] == peaks[-1] else f"{peaks[0]} to {peaks[-1]}"
    seeds = f" ({hacked} of {len(verdicts)} seeds)" if len(verdicts) > 1 else ""

    def mean(figure: str) -> str:
        return number(fmean(getattr(verdict, figure) for verdict in verdicts))

    judges = listing(list(dict.fromkeys(figure_name(verdict.judge) for verdict in verdicts)))
    others = [
        f"{one.name} ends at {number(one.curves[family.judge].values[-1])}"
        for one in family.settings
        if one.role != "base" and family.judge in one.curves
    ]
    rises = "rises" if fmean(one.proxy_last - one.proxy_peak for one in verdicts) > 0 else "goes"
    ends = listing(others[: MOST_SETTINGS - 1])
    return (
        f"{sentence(base.name)} hacks its reward{seeds}: from step {start} to {verdicts[0].last_step} the proxy "
        f"({figure_name(family.proxy)}) {rises} from {mean('proxy_peak')} to {mean('proxy_last')}, while {judges} "
        f"falls from {mean('judge_peak')} to {mean('judge_last')}{'; ' if ends else ''}{ends}."
    )

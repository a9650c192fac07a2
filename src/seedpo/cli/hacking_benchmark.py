"""Runs the benchmark of reward hacking through the sweep machinery, and writes what it found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedpo.errors import RunFolderError
from seedpo.methods.presets import method_title
from seedpo.pages.wording import written
from seedpo.reports.hacking_benchmark.analysis import (
    QUANTITIES,
    Comparison,
    Measured,
    compare,
    drawn,
    pools,
    read_measured,
)
from seedpo.reports.hacking_benchmark.ends import ends
from seedpo.reports.hacking_benchmark.figures import frontier_figure
from seedpo.reports.hacking_benchmark.wording import answer, markdown, summary, verdict
from seedpo.settings import dotted
from seedpo.training.sweeps.hacking_grid import SEEDS, Grid, grids, settings_of, sweep_of
from seedpo.training.sweeps.running import Outcome, run_sweep


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a call came to.

    Attributes:
        lines: what to say of it.
        outcomes: of the sweep of each method.
    """

    lines: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def run_benchmark(
    out: Path,
    *,
    methods: Sequence[str] = (),
    seeds: int | None = None,
    quick: bool = False,
    trials: bool = False,
    changes: Mapping[str, Any] | None = None,
    processes: int | None = None,
    shard: str | None = None,
    fresh: bool = False,
) -> Result:
    """Trains what is not trained yet, and analyses what is finished.

    Args:
        out: folder; the runs of a method lie in ``out/<method>``.
        methods: which of them; all if none is named.
        seeds: of each setting; three, or one with ``quick``.
        quick: a small part of the grid.
        trials: options that no paper has, too.
        changes: nested keys that all runs share.
        processes: runs trained at the same time; if not given, as many as there are GPUs, or else cores.
        shard: ``i/n``: a part of the runs, and no analysis.
        fresh: trains again what is finished.

    Raises:
        SeedpoError: if the method, a key or the folder cannot be used.
    """
    chosen, amount = grids(methods, quick=quick, trials=trials), seeds or (1 if quick else SEEDS)
    outcomes = []
    for method, grid in chosen.items():
        sweep = sweep_of(method, grid, seeds=amount, changes=changes or {})
        outcomes.append(
            run_sweep(sweep, out / method, shard=shard, processes=processes, fresh=fresh, label=f"hacking, {method}")
        )
    if shard is not None:
        done = sum(len(outcome.folders) for outcome in outcomes)
        last = "run the command without --shard at the end, for the analysis"
        return Result(lines=(f"finished: {done} runs of shard {shard} in {out}; {last}",), outcomes=tuple(outcomes))
    command = _command(methods, seeds=seeds, quick=quick, trials=trials, changes=changes or {})
    return Result(lines=tuple(analyse(out, chosen, seeds=amount, command=command)), outcomes=tuple(outcomes))


def analyse(out: Path, chosen: Mapping[str, Grid], *, seeds: int, command: str) -> list[str]:
    """Writes ``hacking.md``, ``hacking.json`` and the figures from the finished runs.

    Args:
        out: folder of the benchmark.
        chosen: grid of each method.
        seeds: of each setting.
        command: that makes these results, for the page.

    Returns:
        The answers, a sentence each.

    Raises:
        RunFolderError: if the files cannot be written.
    """
    measured: dict[str, list[Measured]] = {}
    missing: list[str] = []
    for method, grid in chosen.items():
        measured[method], absent = read_measured(out / method, settings_of(grid), seeds=seeds)
        missing += [f"{method}/{name}" for name in absent]
    comparisons = {method: compare(found, progress=f"comparing, {method}") for method, found in measured.items()}
    try:
        figures = {method: _write_figures(out, method, found) for method, found in measured.items()}
        page = markdown(measured, comparisons, command=command, seeds=seeds, missing=missing, figures=figures)
        (out / "hacking.md").write_text(page, encoding="utf-8")
        data = _data(measured, comparisons, command=command, seeds=seeds, missing=missing)
        (out / "hacking.json").write_text(json.dumps(_plain(data), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"the results cannot be written into {out} ({error.strerror})") from error
    answers = [answer(method, one) for method, found in comparisons.items() for one in found if one.headline]
    return [summary(comparisons), *answers, f"tables: {out / 'hacking.md'}"]


def _write_figures(out: Path, method: str, measured: Sequence[Measured]) -> list[str]:
    names = []
    for key in QUANTITIES:
        picture = frontier_figure(method_title(method), measured, key)
        if picture is not None:
            names.append(f"{method}-{key.replace('_', '-')}.svg")
            (out / names[-1]).write_text(picture, encoding="utf-8")
    return names


def _data(
    measured: Mapping[str, Sequence[Measured]],
    comparisons: Mapping[str, Sequence[Comparison]],
    *,
    command: str,
    seeds: int,
    missing: Sequence[str],
) -> dict[str, Any]:
    """All numbers behind the page."""
    return {
        "command": command,
        "seeds": seeds,
        "missing": list(missing),
        "summary": summary(comparisons),
        "methods": {
            method: {
                "answers": [answer(method, one) for one in comparisons[method] if one.headline],
                "settings": [
                    {"label": one.setting.label, **asdict(one.setting), "seeds": sorted(one.curves)} for one in found
                ],
                "comparisons": [{**asdict(one), "verdict": verdict(one)} for one in comparisons[method]],
                "ends": [{**asdict(one), "mean": one.mean} for one in ends(found)],
                "frontiers": {
                    name: {key: asdict(line) for key in QUANTITIES if (line := drawn(members, key)) is not None}
                    for name, members in pools(found).items()
                },
            }
            for method, found in measured.items()
        },
    }


def _plain(tree: Any) -> Any:
    """As JSON can hold it: null for what is no finite number."""
    if isinstance(tree, Mapping):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _command(
    methods: Sequence[str], *, seeds: int | None, quick: bool, trials: bool, changes: Mapping[str, Any]
) -> str:
    """The command that makes these results anew."""
    options = [f"--method {method}" for method in methods]
    options += [f"--seeds {seeds}"] if seeds else []
    options += ["--quick"] if quick else []
    options += ["--trials"] if trials else []
    options += [f"--set {key}={written(value)}" for key, value in dotted(changes).items()]
    return " ".join(["seedpo bench hacking --out OUT", *options])

"""Trains one row of docs/results-appendix.md anew and compares every figure with the published one.

    python -m benchmarks.reproduce --row spo-base --out out/row

A figure is reproduced if it lies within the row's interval (the least and the largest of the published seeds), widened
by the last digit that is printed; where the table prints no interval, if it is the published one to that digit or two.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result_tables import APPENDIX_PAGE, DOCS
from seedpo.cli.demo import run_demo
from seedpo.methods.presets import method_title
from seedpo.reports import write_report
from seedpo.training.sweeps.demonstration import METHODS

RESULTS = DOCS / APPENDIX_PAGE
SEEDS = 3
VARIANTS = {"base": "base ", "see": "SEE ", "control": "control "}
"""Beginning of a setting's name in the tables, by the variant's name in the demonstration."""

HEADER = ["setting", "γ", "β"]
"""First columns of the table of results; a report has other tables before it."""

FIRST = 6
"""Columns that say what was trained; figures stand after them."""

_FIGURE = re.compile(r"(?P<mean>-?[\d.]+)(?: \[(?P<low>-?[\d.]+), (?P<high>-?[\d.]+)\])?(?:,? step (?P<step>\d+))?")


@dataclass(frozen=True)
class Figure:
    """One cell: a mean over seeds, and the least and largest seed where they are printed.

    Attributes:
        text: as it is printed.
        mean, low, high: the numbers; without an interval low and high are the mean.
        unit: value of the last printed digit.
    """

    text: str
    mean: float
    low: float
    high: float
    unit: float

    def holds(self, other: Figure) -> bool:
        """Whether another figure reproduces this one."""
        slack = 2.0 * max(self.unit, other.unit)
        return self.low - slack <= other.mean <= self.high + slack


def read_row(text: str, row: str) -> dict[str, Figure]:
    """The figures of a row of the tables, by column.

    Args:
        text: Markdown with a section and a table for each method.
        row: method and variant, as ``spo-base``.

    Raises:
        SystemExit: if there is no such row.
    """
    method, _, variant = row.rpartition("-")
    if method not in METHODS or variant not in VARIANTS:
        rows = [f"{one}-{kind}" for one in METHODS for kind in VARIANTS]
        raise SystemExit(f"there is no row {row!r}; there are {', '.join(rows)}")
    after = re.split(rf"^#+ {re.escape(method_title(method))}$", text, maxsplit=1, flags=re.MULTILINE)[-1]
    section = re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in section.splitlines() if "|" in line]
    while lines and lines[0][: len(HEADER)] != HEADER:
        lines = lines[1:]
    rows = [line for line in lines if line[0].startswith(VARIANTS[variant])]
    if not rows:
        raise SystemExit(f"no table of {method_title(method)} has a row that begins with {VARIANTS[variant]!r}")
    cells = zip(lines[0][FIRST:], rows[0][FIRST:], strict=True)
    return {column: figure for column, cell in cells if (figure := _figure(cell)) is not None}


def _figure(cell: str) -> Figure | None:
    match = _FIGURE.fullmatch(cell.replace("−", "-"))
    if match is None:
        return None
    mean = match["mean"]
    decimals = len(mean.partition(".")[2])
    low, high = match["low"] or mean, match["high"] or mean
    return Figure(text=cell, mean=float(mean), low=float(low), high=float(high), unit=10.0**-decimals)


def table(published: Mapping[str, Figure], now: Mapping[str, Figure]) -> tuple[str, bool]:
    """Both rows side by side, and whether every figure is reproduced."""
    lines, good = [f"{'figure':24}{'published':32}{'now':32}"], True
    for column, figure in published.items():
        found = now.get(column)
        same = found is not None and figure.holds(found)
        good = good and same
        lines.append(f"{column:24}{figure.text:32}{found.text if found else '-':32}{'' if same else '  OUTSIDE'}")
    return "\n".join(lines), good


def main(arguments: list[str] | None = None) -> int:
    """Trains, compares, prints; exit status 1 if a figure is not reproduced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", default="spo-base", help="method and variant: spo-base, d3po-see, ...")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs; finished ones are kept")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the published tables")
    chosen = parser.parse_args(arguments)
    published = read_row(chosen.results.read_text(encoding="utf-8"), chosen.row)
    run_demo(chosen.out, seeds=SEEDS, only=[chosen.row])
    runs = sorted(chosen.out.glob(f"{chosen.row}-seed?"))
    report = write_report(runs, chosen.out / "row.md")
    text, good = table(published, read_row(report.read_text(encoding="utf-8"), chosen.row))
    print(text)
    print("reproduced: every figure lies within the published interval" if good else "NOT reproduced: see above")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

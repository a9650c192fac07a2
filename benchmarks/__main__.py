"""Measures what seedpo saves: ``python -m benchmarks [NAMES] [--out FILE.json]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Before the first import of torch: one thread, with which small networks are timed best.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.cases import NAMES
from benchmarks.measuring import measure, measured_apart
from benchmarks.table import aligned


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["data-size"]:
        from benchmarks import data_size

        return data_size.main(words[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The same training work in the structure of the reference implementations and in ours, with the "
        "same weights, in turns, on the CPU. Stops with an error where gradients or scores differ.",
        epilog=f"names: {', '.join(NAMES)}; data-size has a --help of its own",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; all if none is named")
    parser.add_argument("--out", type=Path, help="JSON file to write the figures to")
    parser.add_argument("--repetitions", type=int, default=5, help="turns that are counted (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="networks of no size: tries the command, measures nothing")
    options = parser.parse_args(words)
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if options.repetitions < 1:
        parser.error("--repetitions must be 1 or more")
    names = options.names or list(NAMES)
    figures: list[dict[str, Any]] = []
    for name in names:
        measured = measure if len(names) == 1 else measured_apart
        figures.append(measured(name, tiny=options.tiny, repetitions=options.repetitions))
        if options.out is not None:  # after each of them: a run that is stopped keeps what it has measured
            options.out.parent.mkdir(parents=True, exist_ok=True)
            content = {"machine": _machine(), "tiny": options.tiny, "figures": figures}
            options.out.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    for table in (_times(figures), _memory(figures), _agreement(figures)):
        if len(table) > 1:
            print(aligned(table), end="\n\n")
    return 0


def _machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _times(figures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = [
        (
            "processor time",
            "published",
            "ours",
            "ratio",
            "range",
            "bar",
            "clock",
            "FLOPs",
            "rows of the network",
            "difference",
        )
    ]
    for figure in figures:
        if "seconds" in figure:
            seconds, low_high, network = figure["seconds"], figure["ratio_range"], figure["rows"]
            rows.append(
                (
                    figure["name"],
                    f"{seconds['published']:.2f} s",
                    f"{seconds['ours']:.2f} s",
                    f"{figure['ratio']:.2f}",
                    f"{low_high[0]:.2f} to {low_high[1]:.2f}",
                    "-" if figure["bar"] is None else f">= {figure['bar']:g}",
                    f"{figure['clock_ratio']:.2f}",
                    f"{figure['flops']['published'] / figure['flops']['ours']:.2f}",
                    f"{network['published']} to {network['ours']}",
                    f"{figure['difference']:.0e}",
                )
            )
    return rows


def _memory(figures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = [("peak memory", "published", "ours", "ratio", "bar")]
    for figure in figures:
        if "memory_bytes" in figure:
            held, bar = figure["memory_bytes"], figure["memory_bar"]
            rows.append(
                (
                    figure["name"],
                    *(f"{held[side] / 2**20:.1f} MiB" for side in ("published", "ours")),
                    f"{figure['memory_ratio']:.2f}",
                    "-" if bar is None else f"<= {bar:g}",
                )
            )
    return rows


def _agreement(figures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = [("against pairs one by one", "updates", "pairs ranked right", "agreement", "cosine of the change")]
    for figure in figures:
        for name, updates in figure.get("updates", {}).items():
            agreement, cosine = figure["agreement"].get(name), figure["cosine"].get(name)
            rows.append(
                (
                    name,
                    str(updates),
                    f"{figure['accuracy'][name]:.1%}",
                    "-" if agreement is None else f"{agreement:.1%}",
                    "-" if cosine is None else f"{cosine:.2f}",
                )
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())

"""Score tables whose frontiers are known, without any training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from seedpo.data.text import csv_text

Row = dict[str, Any]

PROXY = (0.0, 1.0, 2.0, 3.0)
HACKS = (1.0, 2.0, 1.0, 0.0)
LEARNS = (1.0, 1.5, 2.0, 2.5)
"""Proxy and truth at steps 0, 10, 20 and 30."""


def rows(
    run: str = "base",
    *,
    seed: int = 0,
    proxy: Sequence[float] = PROXY,
    truth: Sequence[float] = HACKS,
    prompts: Sequence[str] = tuple("abcdefgh"),
    **more: Any,
) -> Iterator[Row]:
    """A row for each step and prompt; prompts differ from each other by the same at every step, and a little more."""
    for index, (across, up) in enumerate(zip(proxy, truth, strict=True)):
        for number, prompt in enumerate(prompts):
            shift = number - (len(prompts) - 1) / 2
            wobble = 0.01 * ((7 * number + 3 * index + 5 * seed) % 5 - 2)
            yield {
                "run": run,
                "seed": seed,
                "step": 10 * index,
                "prompt": prompt,
                "proxy": across + 0.5 * shift + wobble,
                "judge": up + 0.3 * shift - wobble,
                **more,
            }


def write(path: Path, content: Sequence[Mapping[str, Any]]) -> Path:
    """Writes rows as the ending of the file says; a column that a row lacks is empty there."""
    names = list(dict.fromkeys(name for row in content for name in row))
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({name: [row.get(name) for row in content] for name in names}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        cells = [["" if row.get(name) is None else str(row[name]) for name in names] for row in content]
        path.write_text(csv_text([names, *cells]))
    return path

"""Evaluation folders with drawn images and foreseeable scores: nothing here was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import yaml
from PIL import Image

PROMPTS = ("a red circle", "a blue square", "a green triangle", "a cyan star", "a small dog", "a lamp")
QUALITY: Mapping[str, float] = {"base": 0.0, "see": 0.5, "control": 0.3}


def score(quality: float, step: int | None, prompt: int, image: int) -> float:
    """Rises with quality and step; differs between images so that neither all win nor all lose."""
    return 20 + quality * (1 if step is None else step / 100) + 0.3 * prompt + 0.4 * ((7 * image + 3 * prompt) % 5 - 2)


def write_evaluation(
    folder: Path,
    *,
    labels: Sequence[str] = ("base", "see", "control"),
    steps: Sequence[int | None] = (None,),
    images: int = 3,
    tile: int = 16,
    summary: bool = True,
    metrics: bool = True,
) -> Path:
    """Writes one evaluation folder in the format of ``seedpo evaluate``."""
    folder.mkdir(parents=True)
    places = [(label, step) for label in labels for step in steps]
    rows = [
        _row(folder, label, step, prompt, image, tile)
        for label, step in places
        for prompt in range(len(PROMPTS))
        for image in range(images)
    ]
    parquet.write_table(_table(rows), folder / "scores.parquet")
    lines = [json.dumps({"prompt_index": index, "prompt": prompt}) for index, prompt in enumerate(PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(lines))
    if metrics:
        found = [
            {"target": label, "step": step, "prompt_index": prompt, "prompt": PROMPTS[prompt]}
            | {"truth": QUALITY[label] + 0.1 * prompt, "pairwise_diversity": 0.3 - 0.1 * QUALITY[label]}
            for label, step in places
            for prompt in range(len(PROMPTS))
        ]
        parquet.write_table(_table(found), folder / "metrics.parquet")
    settings = {"format": 1, "settings": {"seed": 0}, "targets": {label: {"kind": "run"} for label in labels}}
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(settings))
    if summary:
        figure = {"step": None, "figure": "fd-pixels", "kind": "set metric", "count": 6, "unit": "", "mean": 12.5}
        content = {
            "figures": [figure | {"target": label, "low": 12, "high": 13, "direction": "lower"} for label in labels],
            "pairs": [],
        }
        (folder / "summary.json").write_text(json.dumps(content))
    return folder


def _row(folder: Path, label: str, step: int | None, prompt: int, image: int, tile: int) -> dict[str, Any]:
    part = label if step is None else f"{label}/step-{step:06d}"
    path = folder / "images" / part / f"{prompt:05d}-{image:02d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (tile, tile), (40 * prompt, 60 * image, int(255 * QUALITY[label]))).save(path)
    value = score(QUALITY[label], step, prompt, image)
    return {
        "target": label,
        "step": step,
        "prompt_index": prompt,
        "image_index": image,
        "prompt": PROMPTS[prompt],
        "file": str(path.relative_to(folder)),
        "pickscore": value + (0.5 * ((image + prompt) % 3 - 1) if label == "see" else 0.0),
        "aesthetic": value / 4,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    if "step" in table.column_names and table.column("step").type == pa.null():
        index = table.column_names.index("step")
        table = table.set_column(index, "step", table.column("step").cast(pa.int64()))
    return table

"""The run folder of a preference model, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import yaml


def write_preference_run(folder: Path, *, steps: Sequence[int] = (0, 300, 900), finished: bool = True) -> Path:
    """Accuracy climbs at t = 0 and stays at chance at t = 951."""
    folder.mkdir(parents=True)
    config = {"start": "scenes-clip", "model": "scenes", "timesteps": [0, 951], "max_steps": 900, "seed": 0}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = []
    for step in steps:
        record: dict[str, float | str] = {"step": step, "kind": "evaluation", "held_out_pairs": 924.0}
        for name, value in (("t=0", 0.6 + step / 6000), ("t=951", 0.5)):
            key = f"accuracy/{name}"
            record |= {key: value, f"{key}/low": value - 0.03, f"{key}/high": value + 0.03}
        lines.append(json.dumps(record))
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    if finished:
        (folder / "finished.json").write_text('{"step": 900, "seconds": 748}')
    return folder

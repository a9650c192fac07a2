"""Everything that reads a file of unknown origin: one row for each reader, with what it needs beside the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from seedpo.cli import launch
from seedpo.data.image_list import find_images, pixels_of
from seedpo.data.prompts.reading import read_prompts
from seedpo.data.reading import read_pairs
from seedpo.data.tables.d3po import d3po_lines
from seedpo.evaluation.folder import EvaluationFolder
from seedpo.models.names import pipeline_class_name
from seedpo.planning.first_recipe import own_resolution
from seedpo.publishing.card import _versions
from seedpo.reports.contents import read_contents
from seedpo.reports.evaluations import read_evaluation
from seedpo.run_folders import RunFolder, read_manifest, read_metrics
from seedpo.study.folder import read_groups
from seedpo.study.image_folders import read_images
from seedpo.study.images import encode
from seedpo.study.settings import read_settings
from seedpo.training.configuration import resolve_config
from seedpo.training.settings import RunConfig
from seedpo.training.signs import values_by_prompt
from seedpo.training.sweeps.definition import read_sweep
from seedpo.training.sweeps.expansion import expand

Kind = Literal["yaml", "json", "other"]


@dataclass(frozen=True)
class Reader:
    """A reader of one file.

    Attributes:
        kind: of text that it expects.
        file: which is attacked, by its path in the folder.
        read: gets the folder.
        prepare: makes what else lies in the folder.
    """

    kind: Kind
    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], object] = lambda folder: None


def a_run(folder: Path) -> None:
    config = resolve_config("diffusion-dpo", {}).tree()
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "samples").mkdir()
    index = {"tile": 8, "columns": 1, "prompts": ["a"]}
    (folder / "samples" / "index.json").write_text(json.dumps(index), encoding="utf-8")
    Image.new("RGB", (8, 8)).save(folder / "samples" / "step-000001.png")


def an_evaluation(folder: Path) -> None:
    (folder / "evaluation.yaml").write_text("format: 1\n", encoding="utf-8")
    (folder / "prompts.jsonl").write_text('{"prompt_index": 0, "prompt": "a"}\n', encoding="utf-8")
    scores = {"target": ["a"], "step": [1], "prompt_index": [0], "image_index": [0], "r": [0.5]}
    pq.write_table(pa.table(scores), folder / "scores.parquet")


def a_pipeline(folder: Path) -> None:
    (folder / "unet").mkdir()
    (folder / "model_index.json").write_text('{"unet": 1}', encoding="utf-8")


def an_image(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "a.png")


READERS = {
    "recipe": Reader("yaml", "r.yaml", lambda folder: resolve_config(str(folder / "r.yaml"), {})),
    "sweep": Reader("yaml", "s.yaml", lambda folder: expand(read_sweep(str(folder / "s.yaml")))),
    "run": Reader("yaml", "config.yaml", lambda folder: RunFolder.open(folder).read_config(RunConfig)),
    "report of a run": Reader("yaml", "config.yaml", lambda folder: read_contents([folder])),
    "study": Reader("yaml", "study.yaml", lambda folder: read_settings(folder / "study.yaml")),
    "evaluation": Reader("yaml", "evaluation.yaml", lambda folder: EvaluationFolder(folder)._before()),
    "prompts in YAML": Reader("yaml", "p.yaml", lambda folder: read_prompts(folder / "p.yaml")),
    "prompts in JSON": Reader("json", "p.json", lambda folder: read_prompts(folder / "p.json")),
    "pairs": Reader("json", "p.jsonl", lambda folder: read_pairs(folder / "p.jsonl")),
    "pairs in parquet": Reader("other", "p.parquet", lambda folder: read_pairs(folder / "p.parquet")),
    "pairs in tar": Reader("other", "p.tar", lambda folder: read_pairs(folder / "p.tar")),
    "scores of D3PO": Reader("json", "s.json", lambda folder: d3po_lines([folder / "s.json"])),
    "end of a run": Reader("json", "finished.json", lambda folder: RunFolder(folder).finished_step()),
    "checkpoint": Reader("json", "checkpoint.json", read_manifest),
    "metrics": Reader("json", "metrics.jsonl", lambda folder: read_metrics(folder / "metrics.jsonl")),
    "report, metrics": Reader("json", "metrics.jsonl", lambda folder: read_contents([folder]), a_run),
    "report, alarms": Reader("json", "alarms.jsonl", lambda folder: read_contents([folder]), a_run),
    "report, samples": Reader("json", "samples/index.json", lambda folder: read_contents([folder]), a_run),
    "report, end": Reader("json", "finished.json", lambda folder: read_contents([folder]), a_run),
    "report, prompts": Reader("json", "prompts.jsonl", read_evaluation, an_evaluation),
    "report, summary": Reader("json", "summary.json", read_evaluation, an_evaluation),
    "report, scores": Reader("other", "scores.parquet", read_evaluation, an_evaluation),
    "values by prompt": Reader("json", "v.json", lambda folder: values_by_prompt(folder / "v.json")),
    "versions": Reader("json", "environment.json", lambda folder: _versions(RunFolder(folder))),
    "error of a process": Reader("json", "rank-0.json", lambda folder: launch._read_error(folder, 0)),
    "pipeline": Reader("json", "model_index.json", lambda folder: pipeline_class_name(folder / "model_index.json")),
    "network": Reader("json", "unet/config.json", lambda folder: own_resolution(str(folder)), a_pipeline),
    "images of a study": Reader("json", "index.json", read_images),
    "prompt of an image": Reader("json", "a.txt", read_images, an_image),
    "images to score": Reader("json", "index.json", lambda folder: find_images([str(folder)])),
    "groups": Reader("json", "groups.jsonl", lambda folder: read_groups(folder / "groups.jsonl")),
    "image": Reader("other", "a.png", lambda folder: pixels_of(folder / "a.png")),
    "image for a study": Reader("other", "a.png", lambda folder: encode(folder / "a.png")),
}

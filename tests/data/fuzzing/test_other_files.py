"""Files that runs, studies, evaluations and models are made of, as others may have left them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

from seedpo.evaluation.folder import EvaluationFolder
from seedpo.evaluation.gains import read_scores, scores_file
from seedpo.evaluation.settings import EvaluationConfig
from seedpo.evaluation.tables import read_table
from seedpo.models.lora_file import read_description, read_lora
from seedpo.recipes.reading import read_recipe
from seedpo.reports.runs import read_run
from seedpo.run_folders import MANIFEST, RunFolder, read_manifest, read_metrics
from seedpo.settings import build_config, parse_override
from seedpo.study.folder import read_groups
from seedpo.study.settings import read_settings
from seedpo.training.settings import RunConfig
from seedpo.training.signs import values_by_prompt
from tests.data.fuzzing.mutations import damaged
from tests.data.fuzzing.outcomes import a_folder, fuzzed, harmless, outcome
from tests.data.fuzzing.values import DEEP, VALUES, WORDS, encoded_text, expanded

KEYS = st.sampled_from(
    [
        "step",
        "kind",
        "loss",
        "manifest",
        "sha256",
        "files",
        "prompts",
        "tile",
        "columns",
        "best",
        "data",
        "pairs",
        "rewards",
        "beta",
        "id",
        "questions",
        "candidates",
        "settings",
        "targets",
        "format",
        "a",
    ]
)
TREES = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=2), max_size=4)
YAMLS = st.sampled_from(
    [
        "a: 2020-13-45",
        "a: !!int ''",
        "a: !!bool x",
        "a: &a [*a]",
        "a: &a {b: *a}",
        "? [a]\n: b",
        "1: 2",
        "null: 1",
        "a: !!set {b}",
        "a: .inf",
        "a: 0o9",
        "<<: 3",
        "a: !!binary x",
        "- a",
        "a: 1\na: 2",
        "a: 1:2:3.5",
        "\t",
    ]
)
CONTENTS = st.one_of(
    TREES.map(lambda tree: encoded_text(json.dumps(tree), "utf-8")),
    TREES.map(
        lambda tree: encoded_text(json.dumps(tree) + "\n" + json.dumps({"step": 1, "kind": "train"}) + "\n", "utf-8")
    ),
    VALUES.map(lambda value: encoded_text(json.dumps(value), "utf-8")),
    TREES.filter(lambda tree: all(map(_is_plain, tree.values()))).map(lambda tree: yaml.safe_dump(tree).encode()),
    YAMLS.map(str.encode),
    WORDS.map(lambda text: encoded_text(text, "utf-8")),
    st.sampled_from(
        [
            DEEP,
            b'{"step": ' + DEEP + b"}",
            b"",
            b"\xff\xfe",
            b"{}",
            b"[]",
            b"null",
            b"1e999",
            b'{"step": 1e999, "kind": "train"}',
        ]
    ),
)


def _is_plain(value: Any) -> bool:
    try:
        return len(yaml.safe_dump(value).encode()) > 0
    except Exception:
        return False


SOUND = {
    "metrics.jsonl": b'{"step": 1, "kind": "train", "loss": 0.5}\n{"step": 2, "kind": "evaluation", "loss": 0.25}\n',
    "config.yaml": b"method: diffusion-dpo\nbeta: 5000\ngamma: 0\ndata: scenes-pairs\nevaluation:\n  seed: 1\n",
    "finished.json": b'{"step": 2, "best": {"step": 1, "figure": "loss", "value": 0.5}}',
    MANIFEST: b'{"manifest": {"step": 1, "files": {}}, "sha256": "0"}',
    "study.yaml": b"id: a\ntitle: b\n",
    "groups.jsonl": b'{"id": "a", "prompt": "b", "candidates": [{"source": "c", "images": ["d"]}]}\n',
    "samples/index.json": b'{"prompts": ["a"], "columns": 1, "tile": 8}',
    "samples/step-000001.json": b'{"a": [[1, 2]]}',
    "environment.json": b'{"packages": {"torch": "2"}}',
    "alarms.jsonl": b'{"name": "a", "step": 1, "message": "b"}\n',
    "evaluation.yaml": b"format: 1\nsettings: {a: 1}\ntargets: {}\n",
}


def readers(folder: Path) -> dict[str, list[Callable[[], Any]]]:
    """What reads each of the files of :data:`SOUND` in a folder."""
    run = RunFolder(folder)
    return {
        "metrics.jsonl": [lambda: read_metrics(folder / "metrics.jsonl"), lambda: read_run(folder)],
        "config.yaml": [
            lambda: run.read_config(RunConfig),
            lambda: run.settings(EvaluationConfig, "evaluation"),
            lambda: build_config(RunConfig, read_recipe(str(folder / "config.yaml"))),
            lambda: read_run(folder),
        ],
        "finished.json": [run.finished_step, run.best_of_finished, lambda: read_run(folder)],
        MANIFEST: [lambda: read_manifest(folder)],
        "study.yaml": [lambda: read_settings(folder / "study.yaml")],
        "groups.jsonl": [lambda: read_groups(folder / "groups.jsonl")],
        "samples/index.json": [lambda: read_run(folder)],
        "samples/step-000001.json": [
            lambda: values_by_prompt(folder / "samples/step-000001.json"),
            lambda: read_scores(folder / "samples", 1),
        ],
        "environment.json": [lambda: read_run(folder)],
        "alarms.jsonl": [lambda: read_run(folder)],
        "evaluation.yaml": [lambda: EvaluationFolder(folder)._before()],
    }


def read(name: str, content: bytes) -> None:
    with a_folder() as folder, harmless():
        (folder / "samples").mkdir()
        for other, sound in SOUND.items():
            (folder / other).write_bytes(sound)
        scores_file(folder / "samples", 1).write_bytes(SOUND["samples/step-000001.json"])
        (folder / name).write_bytes(expanded(content))
        for reader in readers(folder)[name]:
            _, message = outcome(reader)
            assert message is None or str(folder) in message or name == "config.yaml"


@fuzzed(80, name=st.sampled_from(sorted(SOUND)), content=CONTENTS)
def test_any_content_is_read_or_named(name, content):
    read(name, content)


@fuzzed(
    80, file=st.sampled_from(sorted(SOUND.items())).flatmap(lambda file: st.tuples(st.just(file[0]), damaged(file[1])))
)
def test_damaged_files_are_read_or_named(file):
    read(*file)


@fuzzed(60, key=WORDS | KEYS, value=WORDS | YAMLS | VALUES.map(json.dumps))
def test_any_change_of_a_key_is_read_or_named(key, value):
    with harmless():
        change, _ = outcome(lambda: parse_override(f"{key}={value}"))
        if change is not None and "." not in change[0]:
            outcome(lambda: build_config(RunConfig, {change[0]: change[1]}))


@fuzzed(40, content=st.deferred(lambda: damaged(_table())))
def test_damaged_tables_of_scores_are_read_or_named(content):
    with a_folder() as folder, harmless():
        (folder / "scores.parquet").write_bytes(content)
        outcome(lambda: read_table(folder / "scores.parquet", ["a", "b"], images=1))


def _table() -> bytes:
    sink = pa.BufferOutputStream()
    columns = {"target": ["a", "a"], "step": [1, 1], "prompt_index": [0, 1], "image_index": [0, 0], "clip": [0.5, None]}
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


@fuzzed(60, content=st.deferred(lambda: damaged(_weights())))
def test_damaged_weights_are_read_or_named(content):
    with a_folder() as folder, harmless():
        (folder / "w.safetensors").write_bytes(content)
        outcome(lambda: read_lora(folder / "w.safetensors"))
        outcome(lambda: read_description(folder / "w.safetensors", "unet"))


def _weights() -> bytes:
    import numpy as np
    from safetensors.numpy import save

    from seedpo.models.lora_file import METADATA_KEY

    return save({"unet.a": np.zeros((2, 2), np.float32)}, {METADATA_KEY: '{"unet.r": 4}'})

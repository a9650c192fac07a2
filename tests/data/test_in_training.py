"""Runs on the embedded model whose data are not all sound, or come from a stream."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from seedpo.cli.cache_builds import build_cache
from seedpo.errors import DataError, RunFolderError
from seedpo.models.policy import build_policy
from seedpo.settings import build_config
from seedpo.training.run import build_source, train
from seedpo.training.settings import RunConfig
from tests.data.pictures import encoded
from tests.small_runs import few_pairs, metrics, small
from tests.training.toys import cpu_accelerator


def run(path: Path, *, resume: Any = None, **changes: Any) -> list[dict[str, Any]]:
    """The training metrics of a run."""
    config = build_config(RunConfig, small(path.parent), {"method": "diffusion-dpo", "evaluate_every": 0}, changes)
    train(config, path, resume=resume, accelerator=cpu_accelerator(config), progress=False)
    return [line for line in metrics(path) if line["kind"] == "train"]


def with_a_broken_row(folder: Path) -> tuple[str, int]:
    """The small set with one image cut off, and the row that it is in."""
    rows = pq.read_table(few_pairs(folder))
    row = next(row for row, label in enumerate(rows["label_0"].to_pylist()) if label != 0.5)
    files = rows["jpg_1"].to_pylist()
    files[row] = files[row][:40]
    pq.write_table(
        rows.set_column(rows.column_names.index("jpg_1"), "jpg_1", pa.array(files)), folder / "broken.parquet"
    )
    return str(folder / "broken.parquet"), row


def test_a_corrupt_row_is_skipped_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, row = with_a_broken_row(tmp_path)
    with caplog.at_level(logging.WARNING, logger="seedpo"):
        lines = run(tmp_path / "run", data=data, max_steps=5, pairs={"bad_rows_limit": 0.2})
    named = [text for text in caplog.messages if "left out" in text]
    assert len(named) == 1
    assert f"{data} row {row}: jpg_1 is not an image that can be read" in named[0]
    assert lines[-1]["source/unreadable"] == 1.0
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]


def test_a_run_with_readers_gives_the_numbers_of_one_without_and_resumes_it(tmp_path: Path) -> None:
    """A row that cannot be read is among the pairs, and latents are in memory from the second epoch on."""
    data, _ = with_a_broken_row(tmp_path)
    settings = {"data": data, "pairs": {"bad_rows_limit": 0.2, "flip": True}, "checkpoint_every": 1}
    whole = run(tmp_path / "whole", max_steps=6, **settings)
    run(tmp_path / "halved", max_steps=2, **settings)
    settings["pairs"] = {**settings["pairs"], "readers": 2}  # type: ignore[dict-item]
    assert run(tmp_path / "halved", max_steps=6, resume="latest", **settings) == whole


def test_over_the_limit_a_run_stops_in_one_line(tmp_path: Path) -> None:
    data, row = with_a_broken_row(tmp_path)
    with pytest.raises(DataError, match=rf"bad_rows_limit = 0 .*broken\.parquet row {row}: jpg"):
        run(tmp_path / "run", data=data, max_steps=5, pairs={"bad_rows_limit": 0})


@pytest.mark.slow  # three runs; test_streams and test_skipping show the positions alone
def test_a_resumed_stream_goes_on_at_its_position(tmp_path: Path) -> None:
    """Over the end of a pass, shuffled, with a row that cannot be read: the numbers of the run that never stopped."""
    pytest.importorskip("datasets")
    rows = pq.read_table(few_pairs(tmp_path)).to_pylist()
    folder = tmp_path / "set"
    folder.mkdir()
    lines = []
    for number, values in enumerate(rows[:7]):
        for side in ("jpg_0", "jpg_1"):
            (folder / f"{number}-{side}.png").write_bytes(values[side])
            values[side] = f"{number}-{side}.png"
        lines.append(json.dumps({name: values[name] for name in ("caption", "jpg_0", "jpg_1", "label_0", "label_1")}))
    (folder / "2-jpg_0.png").write_bytes(b"broken")
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    settings = {
        "data": f"hub:{folder}",
        "checkpoint_every": 1,
        "pairs": {"resolution": 32, "ties": "half", "shuffle_buffer": 4},
    }
    whole = run(tmp_path / "whole", max_steps=4, **settings)
    run(tmp_path / "halved", max_steps=2, **settings)
    assert run(tmp_path / "halved", max_steps=4, resume="latest", **settings) == whole
    assert whole[-1]["source/unreadable"] > 0


def test_a_run_is_not_resumed_on_other_pairs(tmp_path: Path) -> None:
    settings = small(tmp_path)
    rows = pq.read_table(settings["data"])
    place = tmp_path / "own.parquet"

    def continued(table: pa.Table, **changes: Any) -> list[dict[str, Any]]:
        pq.write_table(table, place)
        return run(tmp_path / "run", data=str(place), resume="latest", checkpoint_every=1, max_steps=3, **changes)

    pq.write_table(rows, place)
    run(tmp_path / "run", data=str(place), checkpoint_every=1, max_steps=2)
    with pytest.raises(RunFolderError, match=r"other data than data = .*own\.parquet .*\(rows \d+ -> \d+"):
        continued(rows.slice(0, 5))
    flipped = {"label_0": "label_1", "label_1": "label_0"}
    swapped = rows.rename_columns([flipped.get(name, name) for name in rows.column_names])
    with pytest.raises(RunFolderError, match=r"other data than data = .*labels"):
        continued(swapped)
    # A copy elsewhere is the same data.
    pq.write_table(rows, tmp_path / "copy.parquet")
    lines = run(tmp_path / "run", data=str(tmp_path / "copy.parquet"), resume="latest", checkpoint_every=1, max_steps=3)
    assert [line["step"] for line in lines] == [1, 2, 3]


def test_an_online_run_is_not_resumed_on_other_prompts(tmp_path: Path) -> None:
    config = build_config(RunConfig, small(tmp_path), {"method": "spo", "max_steps": 1})
    train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    place = Path(config.prompts)
    place.write_text(place.read_text().replace("small red", "large red"))
    longer = config.model_copy(update={"max_steps": 2})
    with pytest.raises(RunFolderError, match=r"other prompts than prompts = .*prompts\.txt .*\(prompts\)"):
        train(longer, tmp_path / "run", resume="latest", accelerator=cpu_accelerator(config), progress=False)


def test_a_run_is_not_resumed_on_other_evaluation_prompts(tmp_path: Path) -> None:
    place = tmp_path / "held-out.txt"
    place.write_text("a small red circle\n")
    evaluation = {"prompts": str(place), "num_prompts": 1, "images_per_prompt": 1, "metrics": []}
    run(tmp_path / "run", evaluation=evaluation, checkpoint_every=1, max_steps=1)
    place.write_text("a large red circle\n")
    with pytest.raises(RunFolderError, match=r"other evaluation\.prompts than evaluation\.prompts = .*held-out\.txt"):
        run(tmp_path / "run", evaluation=evaluation, resume="latest", checkpoint_every=1, max_steps=2)


def test_a_run_on_several_sets(tmp_path: Path) -> None:
    rows = pq.read_table(few_pairs(tmp_path))
    names = []
    for number, part in enumerate((rows.slice(0, 4), rows.slice(4))):
        names.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(part, names[-1])
    data = [names[0], {"name": names[1], "weight": 2}]
    whole = run(tmp_path / "whole", data=data, max_steps=4)
    run(tmp_path / "halved", data=data, max_steps=2, checkpoint_every=1)
    assert run(tmp_path / "halved", data=data, max_steps=4, resume="latest", checkpoint_every=1) == whole
    changed = [names[0], {"name": names[1], "weight": 3}]
    with pytest.raises(RunFolderError, match=r"weights \[1, 2\] -> \[1, 3\]"):
        run(tmp_path / "halved", data=changed, max_steps=6, resume="latest", checkpoint_every=1)


def shaped(folder: Path) -> str:
    """The small set with its images stretched to three shapes."""
    rows = pq.read_table(few_pairs(folder)).to_pylist()
    for number, row in enumerate(rows):
        for side in ("jpg_0", "jpg_1"):
            image = Image.open(io.BytesIO(row[side])).convert("RGB")
            row[side] = encoded(image.resize([(64, 64), (90, 45), (40, 80)][number % 3]))
    pq.write_table(pa.Table.from_pylist(rows), folder / "shaped.parquet")
    return str(folder / "shaped.parquet")


@pytest.mark.slow  # four runs and a build at 192 px; the parts are tested alone
def test_a_run_in_buckets_resumes_and_reads_its_cache(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "data": shaped(tmp_path),
        "pairs": {"resolution": 192, "buckets": True, "ties": "half", "empty_prompts": 0.3, "validation": 0.3},
        "checkpoint_every": 2,
    }
    whole = run(tmp_path / "whole", max_steps=4, **settings)
    run(tmp_path / "halved", max_steps=2, **settings)
    assert run(tmp_path / "halved", max_steps=4, resume="latest", **settings) == whole
    cache = {"folder": str(tmp_path / "cache")}
    config = build_config(RunConfig, small(tmp_path), {"method": "diffusion-dpo", "cache": cache}, settings)
    build_cache(config, progress=False)
    assert run(tmp_path / "cached", max_steps=4, cache=cache, **settings) == whole


def test_a_source_in_buckets_gives_batches_of_one_shape(tmp_path: Path) -> None:
    config = build_config(
        RunConfig,
        small(tmp_path),
        {"data": shaped(tmp_path), "pairs": {"resolution": 192, "buckets": True, "ties": "half"}},
    )
    policy = build_policy(config)
    source = build_source(config, policy)
    shapes = {tuple(source.next_batch().chosen_latents.shape[2:]) for _ in range(8)}
    factor = 192 // policy.encode_images(torch.zeros(1, 3, 192, 192)).shape[-1]
    sizes = [(192, 192), (128, 256), (256, 128)]
    assert shapes == {(height // factor, width // factor) for height, width in sizes}

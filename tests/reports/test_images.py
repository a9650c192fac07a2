from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seedpo.reports.families import group
from seedpo.reports.images import Grid, build_grid, pack, plan_grid, rows_that_fit
from seedpo.reports.runs import read_runs
from seedpo.reports.viewer import grid_viewer
from tests.reports.synthetic import PROMPTS, Fate, write_run


def unpacked(uri: str) -> np.ndarray[Any, Any]:
    head, data = uri.split(",", 1)
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image.convert("RGB"))


def grid_of(*folders: Path, most_rows: int = 100) -> tuple[Grid, tuple[str, ...]]:
    (family,) = group(read_runs(folders))
    grid, notes = build_grid(plan_grid(family), most_rows=most_rows, prefix="s0")
    assert grid is not None
    return grid, notes


def test_small_images_are_packed_pixel_for_pixel(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=(0, 10), tile=16)
    grid, notes = grid_of(folder, most_rows=4)
    with Image.open(folder / "samples" / "step-000010.png") as sheet:
        original = np.asarray(sheet)
    assert np.array_equal(unpacked(grid.strips[0].sheets[10].uri), original[: 4 * 16])
    assert grid.prompts == PROMPTS[:4]
    assert grid.all_prompts == len(PROMPTS)
    assert notes == ()


def test_large_images_are_shrunk(tmp_path: Path) -> None:
    grid, _ = grid_of(write_run(tmp_path / "run", evaluations=(0,), tile=256, prompts=PROMPTS[:2], columns=2))
    assert unpacked(grid.strips[0].sheets[0].uri).shape == (2 * 128, 2 * 128, 3)
    assert grid.tile == 256


def test_a_sheet_of_the_wrong_size_or_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=(0, 10, 20), tile=8)
    Image.new("RGB", (8, 8)).save(folder / "samples" / "step-000010.png")
    (folder / "samples" / "step-000020.png").write_bytes(b"no image")
    grid, notes = grid_of(folder)
    assert grid.steps == (0,)
    assert notes[0] == "run: step-000010.png is left out (it is 8 x 8 px, index.json says 32 x 48)."
    assert notes[1].startswith("run: step-000020.png is left out")


def test_the_grid_starts_where_the_truth_of_the_base_has_fallen_most(tmp_path: Path) -> None:
    fates = {"base": (0.0, Fate(hack=0.9)), "see": (1.0, Fate(hack=0.0))}
    folders = [
        write_run(tmp_path / name, gamma=gamma, fate=fate, evaluations=(0, 50, 100), tile=8)
        for name, (gamma, fate) in fates.items()
    ]
    lines = (folders[0] / "metrics.jsonl").read_text().splitlines()
    (folders[0] / "metrics.jsonl").write_text("\n".join(line.replace('"step": 100', '"step": 75') for line in lines))
    for name in ("base", "see"):
        samples = tmp_path / name / "samples"
        (samples / "step-000075.png").write_bytes((samples / "step-000100.png").read_bytes())
    grid, _ = grid_of(*folders)
    assert grid.steps == (0, 50, 75, 100)
    assert grid.steps[grid.start] == 75
    assert [strip.setting.role for strip in grid.strips] == ["base", "see"]


def test_a_step_that_one_run_lacks_is_kept_for_the_others(tmp_path: Path) -> None:
    grid, _ = grid_of(
        write_run(tmp_path / "a", evaluations=(0, 10), tile=8),
        write_run(tmp_path / "b", gamma=1.0, evaluations=(0,), tile=8, finished=False),
    )
    assert grid.steps == (0, 10)
    assert list(grid.strips[1].sheets) == [0]


@pytest.mark.parametrize("change", [{"prompts": PROMPTS[:3]}, {"columns": 2}, {"tile": 16}])
def test_other_prompts_or_latents_share_no_grid(tmp_path: Path, change: dict[str, Any]) -> None:
    first = write_run(tmp_path / "a", evaluations=(0,), tile=8)
    second = write_run(tmp_path / "b", gamma=1.0, evaluations=(0,), **({"tile": 8} | change))
    grid, notes = grid_of(first, second)
    assert len(grid.strips) == 1
    (note,) = notes
    assert note.startswith("SEE γ = 1 is not in the grid")


def test_fewer_prompts_are_shown_when_the_page_would_grow_too_large(tmp_path: Path) -> None:
    (family,) = group(read_runs([write_run(tmp_path / "run", evaluations=(0, 10), tile=32)]))
    one = plan_grid(family)
    assert rows_that_fit([one]) > len(PROMPTS)
    assert rows_that_fit([one, one], budget=43_000) == 2
    assert rows_that_fit([one], budget=1) == 1
    assert rows_that_fit([]) == 1


def test_many_evaluations_are_thinned_but_keep_first_last_and_worst(tmp_path: Path) -> None:
    (family,) = group(
        read_runs([write_run(tmp_path / "run", evaluations=range(0, 101, 2), tile=8, prompts=PROMPTS[:1])])
    )
    steps = plan_grid(family).steps
    assert len(steps) <= 25
    assert {0, 100} <= set(steps)


def test_pack_refuses_what_the_index_does_not_describe(tmp_path: Path) -> None:
    (run,) = read_runs([write_run(tmp_path / "run", evaluations=(0,), tile=8)])
    assert run.samples is not None
    Image.new("RGB", (9, 9)).save(tmp_path / "odd.png")
    with pytest.raises(ValueError, match="it is 9 x 9 px"):
        pack(tmp_path / "odd.png", run.samples, 1)


def test_of_one_run_the_steps_stand_side_by_side(tmp_path: Path) -> None:
    (family,) = group(read_runs([write_run(tmp_path / "run", evaluations=(0, 50, 100), tile=8)]))
    grid, _ = build_grid(plan_grid(family), most_rows=6, prefix="s0")
    assert grid is not None
    view = grid_viewer(grid, "title")
    assert view.of_steps
    assert [side.classes for side in view.sides] == [("s0-0-0",), ("s0-0-50",), ("s0-0-100",)]
    assert view.sides[view.second].name == "step 100"

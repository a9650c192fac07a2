from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedpo.errors import RunFolderError, SeedpoError
from seedpo.reports.curves import read_curves
from seedpo.reports.runs import read_run, read_runs
from tests.reports.synthetic import PROMPTS, write_run


def test_a_whole_run_is_read(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", seed=5, evaluations=(0, 10), tile=8))
    assert (run.name, run.seed, run.last_step, run.notes) == ("a", 5, 10, ())
    assert [record["step"] for record in run.evaluations] == [0, 10]
    assert len(run.train) == 10
    assert run.samples is not None
    assert (run.samples.tile, run.samples.columns, run.samples.prompts) == (8, 4, PROMPTS)
    assert list(run.samples.sheets) == [0, 10]
    assert run.finished == {"step": 10, "seconds": 754.2}


def test_a_folder_that_is_not_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(RunFolderError, match=name):
            read_run(tmp_path / name)
    write_run(tmp_path / "runs" / "see", samples=False)
    with pytest.raises(RunFolderError, match=r"runs/see"):
        read_run(tmp_path / "runs")


def test_a_damaged_config_is_named_in_one_line(tmp_path: Path) -> None:
    causes = {
        "method: [": r"config\.yaml",
        "method: d3po\nbeta: 1": "'gamma'",
        "- 1": "'method'",
        "{method: d3po, beta: much, gamma: 0, seed: 0}": "beta = 'much'",
        "{method: d3po, beta: 1, gamma: -2, seed: 0}": r"gamma = -2",
    }
    for config, message in causes.items():
        (tmp_path / "config.yaml").write_text(config)
        with pytest.raises(SeedpoError, match=message) as error:
            read_run(tmp_path)
        assert "\n" not in str(error.value)


def test_a_folder_named_twice_is_read_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        write_run(tmp_path / parent / "run", samples=False)
    runs = read_runs([tmp_path / "x" / "run", tmp_path / "x" / ".." / "x" / "run", tmp_path / "y" / "run"])
    assert [run.name.split("/", 1)[1] for run in runs] == ["x/run", "y/run"]


def test_values_that_are_not_finite_and_broken_lines_are_left_out_and_noted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", samples=False, evaluations=())
    lines = [
        '{"step": 1, "kind": "train", "loss": 0.7, "grad_norm": NaN}',
        '{"step": 2, "kind": "train", "loss": Infinity}',
        '{"step": 3, "kind": "train", "loss": null, "ok": true}',
        '{"step": 4, "kind": "something"}',
        "[]",
        "",
        '{"step": 5, "kind": "tra',
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    run = read_run(folder)
    assert run.train == ({"step": 1, "loss": 0.7}, {"step": 2}, {"step": 3})
    assert run.notes[:2] == (
        "3 lines of metrics.jsonl cannot be read (first: line 4).",
        "2 lines of metrics.jsonl hold values that are not finite (first: step 1); these values are left out.",
    )


def test_steps_that_a_resumed_run_logged_again_count_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", samples=False, evaluations=())
    lines = [{"step": step, "kind": "train", "loss": loss} for step, loss in ((1, 0.7), (2, 0.6), (2, 0.5), (1, 0.4))]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [record["loss"] for record in read_run(folder).train] == [0.4, 0.5]


def test_a_run_that_has_just_begun_is_noted_not_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", samples=False, finished=False)
    (folder / "metrics.jsonl").unlink()
    run = read_run(folder)
    assert run.notes == (
        "It is not finished: its last line is of step 0 of 100.",
        "It holds no evaluation.",
        "It holds no sample images.",
    )


def test_a_damaged_index_leaves_the_images_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=(0,), tile=8)
    (folder / "samples" / "index.json").write_text('{"tile": 8}')
    assert read_run(folder).samples is None
    (folder / "samples" / "index.json").write_text("{")
    run = read_run(folder)
    assert run.samples is None
    assert run.notes == ("index.json cannot be read as a JSON object.",)


def test_alarms_are_read_and_damaged_lines_are_skipped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert read_run(folder).alarms == ()
    alarm = '{"step": 30, "name": "hacking", "message": "truth fell: stop here", "value": null}'
    (folder / "alarms.jsonl").write_text(f"{alarm}\nnonsense\n[1]\n{alarm[:20]}")
    assert read_run(folder).alarms == ("alarm hacking at step 30: truth fell: stop here.",)


def test_figures_of_every_prompt_are_read_where_they_fit(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", evaluations=(0, 10, 20, 30), tile=8)
    run = read_run(folder)
    truth = {int(record["step"]): record["truth"] for record in run.evaluations}
    good = [truth[10] + shift for shift in (-3, -2, -1, 1, 2, 3)]
    for step, row in ((0, good[:2]), (10, good), (20, good)):
        (folder / "samples" / f"step-{step:06d}.json").write_text(json.dumps({"truth": row, "free_spread": [None] * 6}))
    (folder / "samples" / "step-000030.json").write_text("{")
    run = read_run(folder)
    points = read_curves(run.evaluations, run.per_prompt)["truth"]
    found = points[10].per_prompt
    assert found is not None
    assert (found.prompts, list(found.values)) == (PROMPTS, good)
    assert points[0].per_prompt is None, "another number of prompts"
    assert points[20].per_prompt is None, "their mean is not what was logged"
    assert points[30].per_prompt is None, "damaged"
    assert read_curves(run.evaluations, run.per_prompt)["free_spread"][10].per_prompt is None

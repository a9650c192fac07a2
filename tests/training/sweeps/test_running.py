from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.cli import main
from seedpo.errors import RunFolderError
from seedpo.training.sweeps import running
from seedpo.training.sweeps.definition import Cell, Sweep
from seedpo.training.sweeps.running import run_sweep
from tests.small_runs import metrics, small
from tests.training.sweeps.trainer import StandIn
from tests.training.test_crashes import child_environment


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


def sweep(*gammas: float, **base: Any) -> Sweep:
    return Sweep(base={"method": "spo", **base}, grid={"gamma": list(gammas)})


def states(record: Path) -> dict[str, str]:
    return {cell["name"]: cell["state"] for cell in json.loads(record.read_text())["cells"]}


def test_every_cell_is_a_run_folder_and_finished_ones_are_kept(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = run_sweep(sweep(0, 1), out)
    assert sorted(stand_in.started()) == ["gamma=0", "gamma=1"]
    assert outcome.folders == (out / "gamma=0", out / "gamma=1")
    assert states(outcome.record) == {"gamma=0": "finished", "gamma=1": "finished"}
    assert run_sweep(sweep(0, 1, 2), out).folders[-1] == out / "gamma=2"
    assert stand_in.started() == ["gamma=2"]
    run_sweep(sweep(0, 1), out, fresh=True)
    assert sorted(stand_in.started()) == ["gamma=0", "gamma=1"]


def test_a_failed_cell_is_recorded_and_tried_again(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stand_in.fail("gamma=0")
    outcome = run_sweep(sweep(0, 1, -5), out, processes=1)
    assert outcome.folders == (out / "gamma=1",)
    assert {one.name: (one.message, one.log) for one in outcome.failures if one.name == "gamma=0"} == {
        "gamma=0": ("step 2: the loss is not finite", out / "gamma=0.log")
    }
    cells = {cell["name"]: cell for cell in json.loads(outcome.record.read_text())["cells"]}
    assert {name: cell["state"] for name, cell in cells.items()} == {
        "gamma=0": "failed",
        "gamma=1": "finished",
        "gamma=-5": "failed",
    }
    assert "raise gamma above -1" in cells["gamma=-5"]["error"]
    assert cells["gamma=0"]["log"] == "gamma=0.log"
    stand_in.started()
    stand_in.fail()
    assert not run_sweep(sweep(0, 1), out).failures
    assert stand_in.started() == ["gamma=0"]


def test_the_command_names_the_failures_last(
    stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    stand_in.fail("gamma=1")
    with pytest.raises(SystemExit) as end:
        main(["sweep", "spo", "--vary", "gamma=0,1,-3", "--out", str(out)])
    assert end.value.code == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith("finished: 1 run in")
    assert {line.split(": ")[1] for line in lines[1:]} == {"gamma=1", "gamma=-3"}
    assert any(str(out / "gamma=1.log") in line for line in lines)
    assert "2 runs failed" in printed.err.splitlines()[-1]


def test_shards_share_a_folder(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_sweep(sweep(0, 1, 2), out, shard="1/2")
    assert sorted(stand_in.started()) == ["gamma=0", "gamma=2"]
    second = run_sweep(sweep(0, 1, 2), out, shard="2/2")
    assert stand_in.started() == ["gamma=1"]
    assert (first.record.name, second.record.name) == ("sweep-1-of-2.json", "sweep-2-of-2.json")
    assert states(second.record) == {"gamma=1": "finished"}
    assert len(run_sweep(sweep(0, 1, 2), out).folders) == 3
    assert stand_in.started() == []


def test_interrupted_cells_go_on_and_broken_ones_start_anew(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(sweep(0, 1), out)
    stand_in.started()
    for name in ("gamma=0", "gamma=1"):
        (out / name / "finished.json").unlink()
    (out / "gamma=0" / "checkpoints" / "checkpoint-000001").mkdir(parents=True)
    run_sweep(sweep(0, 1), out)
    assert sorted(stand_in.started()) == ["gamma=0 again", "gamma=1"]


def test_results_of_other_settings_are_refused_not_overwritten(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(sweep(0, 1, cache={"folder": "a"}), out)
    stand_in.started()
    with pytest.raises(RunFolderError) as refusal:
        run_sweep(sweep(0, 1, beta=7.0, steps={"candidates": 3}), out)
    assert "gamma=0 was trained with other settings" in str(refusal.value)
    assert "beta = 10.0 there, 7.0 now; steps.candidates = 4 there, 3 now" in str(refusal.value)
    assert "(and 1 more)" in str(refusal.value)
    assert "--fresh" in str(refusal.value)
    assert stand_in.started() == []
    run_sweep(sweep(0, 1, cache={"folder": "b"}, log_every=3), out)  # which change no number
    assert stand_in.started() == []
    run_sweep(sweep(0, 1, beta=7.0), out, fresh=True)
    assert len(stand_in.started()) == 2


def test_a_cell_that_left_nothing_may_change(stand_in: StandIn, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stand_in.fail("gamma=1")
    run_sweep(sweep(1), out)
    stand_in.fail()
    assert not run_sweep(sweep(1, beta=7.0), out).failures
    assert len(stand_in.started()) == 2


class AtOnce:
    """A process that has ended well."""

    returncode = 0

    def poll(self) -> int:
        return 0


def test_gpus_are_dealt_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[str | None] = []

    def start(out: Path, cell: Cell, device: str | None) -> AtOnce:
        placed.append(device)
        return AtOnce()

    monkeypatch.setattr(running, "start", start)
    cells = [Cell(name=str(index), keys={}) for index in range(5)]
    for devices, expected in {"3, 7": ["3", "7"] * 2 + ["3"], "4": [None] * 5, "": [None] * 5}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        running.run_cells(tmp_path, cells, label="test", on_end=lambda cell, failure: None)
        assert placed == expected
        placed.clear()
    assert running.least_used(["0", "1"], ["0", "1", "0"]) == "1"


@pytest.mark.slow
def test_a_real_sweep_with_a_cell_that_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of one cell become infinite; the other one is trained as ever."""
    for name, value in child_environment().items():
        monkeypatch.setenv(name, value)
    base = small(tmp_path, method="diffusion-dpo", max_steps=1)
    grid = {"learning_rate": [1e-3, 1e30]}
    outcome = run_sweep(Sweep(base=base, grid=grid), tmp_path / "out", processes=2)
    (failure,) = outcome.failures
    assert failure.name == "learning_rate=1e+30"
    assert "finite" in failure.message
    (folder,) = outcome.folders
    assert [(line["kind"], line["step"]) for line in metrics(folder)] == [
        ("evaluation", 0),
        ("train", 1),
        ("evaluation", 1),
    ]
    with pytest.raises(SystemExit):
        main(["sweep", "spo", "--out", str(tmp_path / "other")])
    assert "nothing is varied" in capsys.readouterr().err


def test_reading_a_file_from_the_command_line(stand_in: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("base: spo\ngrid: {gamma: [0, 1]}\n")
    with pytest.raises(SystemExit) as end:
        main(["sweep", str(path), "--set", "beta=5", "--controls", "--out", str(tmp_path / "out")])
    assert not end.value.code
    assert sorted(stand_in.started()) == ["gamma=0", "gamma=0_beta=10", "gamma=1"]
    recipe = {"method": "spo", "beta": 10.0, "gamma": 0.0}
    assert yaml.safe_load(stand_in.recipes["gamma=0_beta=10"]) == recipe

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedpo.errors import RunFolderError
from seedpo.reports.contents import find_places
from tests.reports.evaluated import write_evaluation
from tests.reports.preference_run import write_preference_run
from tests.reports.synthetic import write_run


def test_folders_and_folders_of_them_are_sorted_by_what_they_hold(tmp_path: Path) -> None:
    write_run(tmp_path / "sweep" / "b", samples=False, evaluations=())
    write_run(tmp_path / "sweep" / "a", samples=False, evaluations=())
    write_evaluation(tmp_path / "sweep" / "judged", tile=2)
    write_preference_run(tmp_path / "scorer")
    places, failed = find_places([tmp_path / "sweep", tmp_path / "scorer", tmp_path / "sweep" / ".." / "sweep" / "a"])
    assert [folder.name for folder in places["run"]] == ["a", "b"], "named twice, read once"
    assert [folder.name for folder in places["evaluation"]] == ["judged"]
    assert [folder.name for folder in places["preference"]] == ["scorer"]
    assert failed == ()


def test_failed_cells_are_told_unless_they_finished_since(tmp_path: Path) -> None:
    write_run(tmp_path / "mended", samples=False, evaluations=())
    cells = [
        {"name": "mended", "state": "failed", "error": "x", "log": "mended.log"},
        {"name": "broken", "state": "failed", "error": "the loss is not finite", "log": "broken.log"},
        {"name": "fine", "state": "finished"},
        "nonsense",
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"cells": cells}))
    shard = {"cells": [{"name": "odd", "state": "failed", "error": "beta = -1", "log": None}]}
    (tmp_path / "sweep-2-of-3.json").write_text(json.dumps(shard))
    (tmp_path / "sweep-3-of-3.json").write_text("{")
    found = [(cell.name, cell.reason) for cell in find_places([tmp_path])[1]]
    assert sorted(found) == [
        ("broken", "the loss is not finite (its log is broken.log)"),
        ("odd", "beta = -1 (it was never started)"),
    ]


def test_a_folder_that_is_nothing_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for folder in (tmp_path / "nothing", tmp_path / "nothing" / "missing"):
        with pytest.raises(RunFolderError, match=r"nothing.*--out"):
            find_places([folder])


def test_a_damaged_config_in_a_folder_of_runs_counts_as_a_run_so_that_its_error_is_told(tmp_path: Path) -> None:
    (tmp_path / "cell").mkdir()
    (tmp_path / "cell" / "config.yaml").write_text("method: [")
    assert find_places([tmp_path])[0]["run"] == [tmp_path / "cell"]

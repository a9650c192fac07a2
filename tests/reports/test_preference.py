from __future__ import annotations

from pathlib import Path

import pytest

from seedpo.errors import RunFolderError
from seedpo.reports.preference import read_preference_model
from seedpo.reports.runs import read_run
from tests.reports.preference_run import write_preference_run


def test_accuracy_by_time_step_over_the_steps(tmp_path: Path) -> None:
    found = read_preference_model(write_preference_run(tmp_path / "scorer"))
    assert found.panel is not None
    assert [line.label for line in found.panel.lines] == ["t=0", "t=951"]
    assert list(found.panel.lines[0].x) == [0, 300, 900]
    assert found.table is not None
    row = [cell.words for cell in found.table.rows[0]]
    assert row == ["0", "0.600 [0.570, 0.630], step 0", "0.750 [0.720, 0.780], step 900"]
    assert found.notes == ("Measured on 924 held-out pairs.", "Trained in 12 min 28 s.")
    assert ("start", "scenes-clip") in found.settings


def test_one_that_has_just_begun(tmp_path: Path) -> None:
    found = read_preference_model(write_preference_run(tmp_path / "scorer", steps=(), finished=False))
    assert (found.panel, found.table, found.legend) == (None, None, [])
    assert found.notes == ("It is not finished: max_steps = 900.", "It holds no evaluation.")


def test_it_is_no_run_of_a_diffusion_model_and_the_error_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"is the run of a preference model \(`seedpo reward train`\)"):
        read_run(write_preference_run(tmp_path / "scorer"))

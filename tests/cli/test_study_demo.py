from __future__ import annotations

import json
from pathlib import Path

import pytest

from seedpo.cli import study_demo
from seedpo.study.folder import open_study
from seedpo.study.store import Store


@pytest.mark.slow
def test_simulated_raters_vote_on_what_the_model_draws_and_the_votes_are_analysed(tmp_path: Path) -> None:
    said: list[str] = []
    study_demo.run_study_demo(tmp_path, raters=4, port=None, show=False, seed=0, say=said.append)
    page = tmp_path / "analysis" / "analysis.html"
    assert any(str(page) in line for line in said)
    study = open_study(tmp_path / "study")
    store = Store.open(study)
    try:
        judgements = store.judgements()
    finally:
        store.close()
    assert len({judgement.show.rater for judgement in judgements}) == 4
    assert {candidate.source for group in study.groups for candidate in group.candidates} >= {
        "guidance-1",
        "guidance-3",
    }
    figures = json.loads((tmp_path / "analysis" / "analysis.json").read_text(encoding="utf-8"))
    assert figures
    assert "guidance-3" in page.read_text(encoding="utf-8")

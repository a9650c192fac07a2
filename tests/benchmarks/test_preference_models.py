from __future__ import annotations

import pytest

from benchmarks import preference_models
from benchmarks.preference_models import main, small_clip


def test_the_table_has_a_row_for_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = {"plain CLIP": lambda: small_clip(vision_layers=2, text_layers=1, width=16)}
    monkeypatch.setattr(preference_models, "MODELS", tiny)
    assert main(["--repetitions", "1"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("plain CLIP")
    assert float(row.split()[-2]) < 1

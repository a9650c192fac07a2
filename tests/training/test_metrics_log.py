from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from seedpo.errors import RunFolderError
from seedpo.run_folders import read_metrics
from seedpo.training.metrics_log import MetricsLog, ProgressBar, truncate_metrics


def write(path: Path, *steps: int) -> None:
    log = MetricsLog(path)
    for step in steps:
        log.write(step, "train", {"loss": 0.1 * step})
    log.close()


def test_lines_are_json_objects_with_step_and_kind_first(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.write(0, "evaluation", {"truth": -1.5})
    log.write(1, "train", {"loss": 0.5, "pairs_seen": 4, "worst": math.nan, "best": math.inf})
    # Before the file is closed or flushed by hand: a reader sees whole lines while the run goes on.
    assert path.read_text() == (
        '{"step": 0, "kind": "evaluation", "truth": -1.5}\n'
        '{"step": 1, "kind": "train", "loss": 0.5, "pairs_seen": 4, "worst": null, "best": null}\n'
    )
    log.close()


def test_the_log_knows_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    log = MetricsLog(path)
    assert log.last("train") == {"step": 2, "kind": "train", "loss": 0.2}
    assert log.last("evaluation") is None
    log.write(3, "evaluation", {})
    assert log.has(3, "evaluation")
    assert not log.has(3, "train")
    log.close()
    assert len(read_metrics(path)) == 3


def test_truncation_keeps_lines_up_to_the_step_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3, 4)
    lines = path.read_text().splitlines(keepends=True)
    with path.open("a") as file:
        file.write('{"step": 5, "kin')
    truncate_metrics(path, step=2)
    assert path.read_text() == "".join(lines[:2])
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_half_written_last_line_is_skipped_even_if_it_is_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "kind": "train"}\n{"step": 2, "kind": "train"}')
    assert [line["step"] for line in read_metrics(path)] == [1]


@pytest.mark.parametrize("bad", ["nonsense", "[1]", '{"kind": "train"}', ""])
def test_any_other_unreadable_line_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "kind": "train"}}\n{bad}\n{{"step": 2, "kind": "train"}}\n')
    with pytest.raises(RunFolderError, match=r"line 2 of .*metrics\.jsonl is not a metrics line; remove it"):
        read_metrics(path)


def test_a_missing_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_the_bar_shows_what_matters_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(done=2, total=4, shown=True)
    bar.advance({"loss": 0.6931, "rewards/margins": 1.5, "margin/mean": 2.5, "offset/mean": 7.0, "grad_norm": 3.0})
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "3/4" in shown.err
    for text in ("loss=0.693", "rewards/margins=1.5", "margin/mean=2.5"):
        assert text in shown.err
    assert "offset" not in shown.err
    assert "grad_norm" not in shown.err


def test_a_hidden_bar_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(done=0, total=1, shown=False)
    bar.advance({"loss": 1.0})
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_values_keep_every_digit(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write(1, "train", {"loss": 0.1 + 0.2})
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.1 + 0.2

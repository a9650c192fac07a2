"""A run that stopped and went on is the run that never stopped: weights, state and metrics, bit for bit."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from seedpo.errors import RunFolderError
from seedpo.protocols import EarlierProcesses
from seedpo.training.interrupt import TrainingInterrupted
from tests.training.toys import ToyEvaluator, ToyPolicy, ToySource, metrics_lines, toy_config, toy_trainer, trace


class Crash(Exception):
    pass


def crash_at_batch(number: int, config: Any) -> ToySource:
    def before_batch(drawn: int) -> None:
        if drawn == number:
            raise Crash

    return ToySource(config.batch_size, before_batch=before_batch)


def run(path: Path, config: Any, *, resume: bool = False, **parts: Any) -> dict[str, Any]:
    parts.setdefault("evaluator", ToyEvaluator())
    return toy_trainer(path, config, **parts).train(resume="latest" if resume else None)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_accumulation_steps": 3, "log_every": 4},
        {"mixed_precision": "bf16", "optimizer": {"warmup_steps": 5}},
        {"ema_decay": 0.9},
    ],
    ids=["plain", "accumulated", "bf16", "average"],
)
def test_crashed_twice_and_resumed(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = toy_config(max_steps=8, **changes)
    batches = config.gradient_accumulation_steps
    last = run(tmp_path / "whole", config)

    path = tmp_path / "crashed"
    for number, resume in ((3 * batches, False), (6 * batches, True)):
        with pytest.raises(Crash):
            run(path, config, resume=resume, source=crash_at_batch(number, config))
    assert len(metrics_lines(path)) < len(metrics_lines(tmp_path / "whole"))
    resumed = run(path, config, resume=True)
    assert trace(path) == trace(tmp_path / "whole")
    timed = {"seconds": 0, "pairs_per_second": 0}
    assert resumed | timed == last | timed


def test_a_checkpoint_without_random_state_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys draw from every generator: leaving one out of the checkpoint breaks the equality above."""
    config = toy_config(max_steps=4)
    run(tmp_path / "whole", config)
    with pytest.raises(Crash):
        run(tmp_path / "crashed", config, source=crash_at_batch(3, config))
    monkeypatch.setattr("seedpo.training.state.restore_random_state", lambda state, device: None)
    run(tmp_path / "crashed", config, resume=True)
    assert trace(tmp_path / "crashed") != trace(tmp_path / "whole")


def test_a_damaged_checkpoint_costs_only_its_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = toy_config(max_steps=8)
    run(tmp_path / "whole", config)
    path = tmp_path / "damaged"
    with pytest.raises(Crash):
        run(path, config, source=crash_at_batch(5, config))
    state = path / "checkpoints" / "checkpoint-000004" / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:-3] + b"abc")
    with caplog.at_level(logging.WARNING):
        run(path, config, resume=True)
    assert f"{state} is damaged" in caplog.text
    found, expected = trace(path), trace(tmp_path / "whole")
    assert {name: value for name, value in found.items() if "damaged-checkpoint-000004" not in name} == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_keeps_everything(tmp_path: Path, number: signal.Signals) -> None:
    config = toy_config(max_steps=6, checkpoint_every=0)
    run(tmp_path / "whole", config)

    def before_batch(drawn: int) -> None:
        if drawn == 2:
            os.kill(os.getpid(), number)

    path = tmp_path / "stopped"
    message = r"^stopped after step 3 of 6; the last checkpoint is .*checkpoint-000003; continue with --resume latest$"
    with pytest.raises(TrainingInterrupted, match=message):
        run(path, config, source=ToySource(4, before_batch=before_batch))
    assert metrics_lines(path)[-1]["step"] == 3
    assert not (path / "finished.json").exists()
    run(path, config, resume=True)
    found, expected = trace(path), trace(tmp_path / "whole")
    assert {name: value for name, value in found.items() if "checkpoint-000003" not in name} == expected


def test_a_signal_in_the_last_step_finishes_the_run(tmp_path: Path) -> None:
    def before_batch(drawn: int) -> None:
        if drawn == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    assert run(tmp_path, toy_config(max_steps=6), source=ToySource(4, before_batch=before_batch))["step"] == 6


def test_a_finished_run_says_so_and_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = toy_config()
    last = run(tmp_path, config)
    before = trace(tmp_path)
    source = crash_at_batch(0, config)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, config, resume=True, source=source) == last
    assert f"{tmp_path} is finished at step 6" in caplog.text
    assert trace(tmp_path) == before


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    run(tmp_path / "whole", toy_config(max_steps=9))
    run(tmp_path / "longer", toy_config(max_steps=6))
    run(tmp_path / "longer", toy_config(max_steps=9), resume=True)
    assert trace(tmp_path / "longer") == trace(tmp_path / "whole")


def test_the_last_checkpoint_ends_a_run_that_died_right_after_it(tmp_path: Path) -> None:
    class DyingPolicy(ToyPolicy):
        def save(self, folder: Path) -> None:
            if "checkpoints" not in str(folder):
                raise Crash
            super().save(folder)

    run(tmp_path / "whole", toy_config())
    with pytest.raises(Crash):
        run(tmp_path / "dead", toy_config(), policy=DyingPolicy())
    evaluator = ToyEvaluator()
    run(tmp_path / "dead", toy_config(), resume=True, evaluator=evaluator)
    assert evaluator.calls == []
    assert trace(tmp_path / "dead") == trace(tmp_path / "whole")


def test_time_adds_up(tmp_path: Path) -> None:
    config = toy_config(max_steps=4)
    with pytest.raises(Crash):
        run(tmp_path, config, source=crash_at_batch(3, config))
    path = tmp_path / "checkpoints" / "checkpoint-000002" / "checkpoint.json"
    first = json.loads(path.read_text())["manifest"]["seconds"]
    run(tmp_path, config, resume=True)
    assert json.loads((tmp_path / "finished.json").read_text())["seconds"] > first > 0


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path, toy_config())
    before = trace(tmp_path)
    changed = toy_config(gamma=2.0, sampling={"eta": 0.5}, max_steps=20)
    with pytest.raises(RunFolderError, match=r"gamma \(0\.0 -> 2\.0\), sampling\.eta \(None -> 0\.5\)"):
        run(tmp_path, changed, resume=True)
    assert trace(tmp_path) == before


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "a", toy_config(seed=1))
    run(tmp_path / "b", toy_config(seed=2))
    (tmp_path / "b" / "checkpoints").rename(tmp_path / "b" / "old")
    (tmp_path / "a" / "checkpoints").rename(tmp_path / "b" / "checkpoints")
    with pytest.raises(RunFolderError, match=r"checkpoint-000006 was made with other settings: seed \(1 -> 2\)"):
        run(tmp_path / "b", toy_config(seed=2, max_steps=9), resume=True)


def test_fewer_steps_than_taken_are_refused(tmp_path: Path) -> None:
    run(tmp_path, toy_config())
    with pytest.raises(RunFolderError, match=r"is beyond max_steps = 5; set max_steps to 6 or more"):
        run(tmp_path, toy_config(max_steps=5), resume=True)


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    config = toy_config(checkpoint_every=0)
    with pytest.raises(Crash):
        run(tmp_path, config, source=crash_at_batch(3, config))
    with pytest.raises(RunFolderError, match=r"holds no checkpoint to resume .*start without --resume"):
        run(tmp_path, config, resume=True)


def test_a_started_run_is_not_started_again(tmp_path: Path) -> None:
    config = toy_config()
    with pytest.raises(Crash):
        run(tmp_path, config, source=crash_at_batch(3, config))
    with pytest.raises(RunFolderError, match="holds a run that was started before; continue with --resume latest"):
        run(tmp_path, config)


class TestOtherProcesses:
    """What is said and checked where the number of processes has changed; ``test_other_processes.py`` changes it."""

    def resumed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, source: Any = None, round_open: Any = None, **changes: Any
    ) -> None:
        """A run of one process, and its beginning on two, up to where the second one would be needed."""
        run(path, toy_config())
        config = toy_config(max_steps=9, **changes)
        trainer = toy_trainer(path, config, source=source or DealtSource(config.batch_size), round_open=round_open)
        monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
        monkeypatch.setattr("seedpo.training.trainer.on_every_process", Mock(side_effect=Crash))
        trainer.train(resume="latest")

    def test_a_source_of_ones_own_may_be_unable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        message = "by 1 processes, not 2, and its source of pairs cannot be dealt out anew; resume with --processes 1"
        with pytest.raises(RunFolderError, match=message):
            self.resumed(tmp_path, monkeypatch, source=ToySource(4))
        assert len(metrics_lines(tmp_path)) == 9
        assert (tmp_path / "finished.json").exists(), "nothing is changed where nothing is resumed"

    def test_people_may_be_judging(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def is_open(earlier: EarlierProcesses) -> bool:
            asked.append(earlier)
            return True

        with pytest.raises(
            RunFolderError, match=r"asks people about images.* would be lost; resume with --processes 1$"
        ):
            self.resumed(tmp_path, monkeypatch, round_open=is_open)
        (earlier,) = asked
        assert (earlier.batch_size, earlier.batches) == (4, 1)
        assert [state["drawn"] for state in earlier.states] == [6]

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            ({"batch_size": 2}, "stays 4 (4 x 1 x 1 -> 2 x 1 x 2)"),
            ({}, "changes from 4 (4 x 1 x 1) to 8 (4 x 1 x 2): choose batch_size and gradient_accumulation_steps to"),
            ({"batch_size": 1}, "to 2 (1 x 1 x 2): --set gradient_accumulation_steps=2 keeps it"),
        ],
    )
    def test_the_global_batch_is_said(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        changes: dict[str, Any],
        line: str,
    ) -> None:
        with caplog.at_level(logging.INFO), pytest.raises(Crash):
            self.resumed(tmp_path, monkeypatch, **changes)
        (record,) = (record for record in caplog.records if "instead of" in record.message)
        assert "goes on on 2 instead of 1 processes, with new random draws; the global batch" in record.message
        assert line in record.message
        assert (record.levelno == logging.INFO) == ("stays" in line)

    def test_other_settings_stay_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(RunFolderError, match=r"made with other settings: learning_rate \(0\.05 -> 0\.1\);"):
            self.resumed(tmp_path, monkeypatch, batch_size=2, learning_rate=0.1)

    def test_batches_stay_where_the_number_stays(self, tmp_path: Path) -> None:
        run(tmp_path, toy_config())
        with pytest.raises(RunFolderError, match=r"made with other settings: batch_size \(4 -> 2\);"):
            run(tmp_path, toy_config(max_steps=9, batch_size=2), resume=True)


class DealtSource(ToySource):
    def take_over(self, earlier: EarlierProcesses, *, seed: int) -> None:
        raise NotImplementedError


def test_a_policy_that_loads_into_other_tensors_is_found_out(tmp_path: Path) -> None:
    class SecondAdapterPolicy(ToyPolicy):
        def load(self, folder: Path) -> None:
            self._trained = dict(ToyPolicy()._trained)

    run(tmp_path, toy_config())
    with pytest.raises(RuntimeError, match="it must fill them in place"):
        run(tmp_path, toy_config(max_steps=9), resume=True, policy=SecondAdapterPolicy())

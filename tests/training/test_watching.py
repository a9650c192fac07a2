"""Alarms in a run: logged and written once, followed by their action, and the same after a kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from seedpo.core.verdicts import Reading, fall_interval
from seedpo.errors import ConfigError, StoppedByAlarm
from seedpo.training.watching import BEST_FILE
from tests.training.toys import WEIGHTS, ToyPolicy, ToySource, toy_config, toy_trainer, trace

EVERY_STEP = {
    "max_steps": 6,
    "checkpoint_every": 2,
    "evaluate_every": 1,
    "evaluation": {"rewards": ["scenes-scorer"], "metrics": ["truth"]},
}
INERT = {"threshold": 0.9, "patience": 3}
"""The toys have no margins to speak of, so that this is raised at the third line."""

TRUTH = (1.0, 2.0, 3.0, 1.0, 0.5, 0.4, 0.3)
READING = Reading(value=0.0, half=0.5)


class Crash(Exception):
    pass


@dataclass
class HackedEvaluator:
    """The truth peaks at step 2 while the proxy rises; notes the weights that it judged."""

    weights: dict[int, Any]

    def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> Mapping[str, float]:
        self.weights[step] = policy.weights()
        truth = TRUTH[step]
        return {"truth": truth, "truth/low": truth - 0.5, "truth/high": truth + 0.5, "reward/scenes-scorer": step}


def config(**alarms: Any) -> Any:
    return toy_config(**EVERY_STEP, alarms=alarms)


def train(path: Path, settings: Any, *, resume: bool = False, **parts: Any) -> dict[int, Any]:
    weights: dict[int, Any] = {}
    toy_trainer(path, settings, evaluator=HackedEvaluator(weights), **parts).train(resume="latest" if resume else None)
    return weights


def alarms(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "alarms.jsonl").read_text().splitlines()]


def source_that_fails_at(batch: int, settings: Any) -> ToySource:
    def before_batch(drawn: int) -> None:
        if drawn == batch:
            raise Crash

    return ToySource(settings.batch_size, before_batch=before_batch)


def test_an_alarm_is_logged_and_written_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "run", config())
    (line,) = alarms(tmp_path / "run")
    assert (line["step"], line["name"], line["action"]) == (3, "hacking", "warn")
    assert line["key"] == "alarms.hacking.threshold"
    assert line["value"] == pytest.approx(2.0 / fall_interval(READING, READING, candidates=3))
    said = [record.getMessage() for record in caplog.records if "alarm" in record.getMessage()]
    assert said == [f"alarm hacking at step 3: {line['message']}"]
    assert not (tmp_path / "run" / "best").exists()


def test_a_quiet_run_leaves_no_file_and_the_same_metrics(tmp_path: Path) -> None:
    quiet = config(hacking={"threshold": None})
    train(tmp_path / "quiet", quiet)
    assert not (tmp_path / "quiet" / "alarms.jsonl").exists()
    train(tmp_path / "warned", config())
    left, right = trace(tmp_path / "quiet"), trace(tmp_path / "warned")
    for same in ("metrics", "adapter/pytorch_lora_weights.safetensors"):
        assert left[same] == right[same]


@pytest.mark.parametrize("action", ["warn", "keep_best"])
def test_killed_and_resumed_is_uninterrupted(tmp_path: Path, action: str) -> None:
    """The kills lose a raised alarm (step 3), its line and the best weights after the last checkpoint."""
    settings = config(hacking={"action": action}, spike={"threshold": 0.1}, window=2)
    train(tmp_path / "whole", settings)
    assert {line["name"] for line in alarms(tmp_path / "whole")} >= {"hacking"}
    path = tmp_path / "killed"
    for batch, resume in ((3, False), (5, True)):
        with pytest.raises(Crash):
            train(path, settings, resume=resume, source=source_that_fails_at(batch, settings))
    train(path, settings, resume=True)
    assert trace(path) == trace(tmp_path / "whole")


def test_lines_that_a_killed_process_lost_are_written_again(tmp_path: Path) -> None:
    settings = config()
    with pytest.raises(Crash):
        train(tmp_path / "run", settings, source=source_that_fails_at(5, settings))
    (tmp_path / "run" / "alarms.jsonl").write_text('{"step": 3, "na')
    train(tmp_path / "run", settings, resume=True)
    assert [line["step"] for line in alarms(tmp_path / "run")] == [3]


def test_stop_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    settings = config(hacking={"action": "stop"})
    with pytest.raises(StoppedByAlarm) as caught:
        train(tmp_path / "run", settings)
    message = str(caught.value)
    assert message.startswith("stopped after step 3 of 6 by alarm hacking: truth fell from 3 (step 2) to 1")
    assert "checkpoint-000003" in message
    assert caught.value.exit_status == 3
    assert not (tmp_path / "run" / "finished.json").exists()
    # Resuming is the user's decision: the same episode does not stop the run again.
    train(tmp_path / "run", settings, resume=True)
    assert (tmp_path / "run" / "finished.json").exists()
    assert [line["step"] for line in alarms(tmp_path / "run")] == [3]


def test_an_alarm_of_training_lines_stops_too(tmp_path: Path) -> None:
    settings = config(inert=INERT | {"action": "stop"})
    with pytest.raises(StoppedByAlarm, match="stopped after step 3 of 6 by alarm inert"):
        toy_trainer(tmp_path / "run", settings, method=SmallMargins()).train()


class SmallMargins:
    """A method whose margins are far below 1 throughout."""

    def loss(self, policy: Any, batch: Any, *, generator: Any) -> Any:
        from seedpo.core.types import LossOutput
        from tests.training.toys import ToyMethod

        output = ToyMethod().loss(policy, batch, generator=generator)
        return LossOutput(losses=output.losses, metrics={"margin_abs": 0 * output.losses.detach() + 0.01})


def test_the_best_weights_are_those_of_the_best_evaluation(tmp_path: Path) -> None:
    weights = train(tmp_path / "run", config(hacking={"action": "keep_best"}))
    best = tmp_path / "run" / "best"
    assert json.loads((best / BEST_FILE).read_text()) == {"step": 2, "figure": "truth", "value": 3.0}
    kept = load_file(best / WEIGHTS)
    policy = ToyPolicy()
    policy.load(best)
    assert set(kept) == set(policy.trainable_parameters())
    assert policy.weights().equal(weights[2])
    assert not policy.weights().equal(weights[6])


def test_a_crash_while_the_best_weights_are_written_keeps_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(hacking={"action": "keep_best"})
    saved, save = [], ToyPolicy.save

    def save_then_crash(policy: ToyPolicy, folder: Path) -> None:
        save(policy, folder)
        saved.append(folder)
        if len([one for one in saved if one.name.startswith("best")]) == 3:
            raise Crash

    monkeypatch.setattr(ToyPolicy, "save", save_then_crash)
    with pytest.raises(Crash):
        train(tmp_path / "run", settings)
    best = tmp_path / "run" / "best"
    assert json.loads((best / BEST_FILE).read_text())["step"] == 1
    monkeypatch.undo()
    policy = ToyPolicy()
    policy.load(best)


def test_alarms_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    settings = config()
    with pytest.raises(Crash):
        train(tmp_path / "run", settings, source=source_that_fails_at(5, settings))
    train(tmp_path / "run", config(hacking={"threshold": 2.5}), resume=True)
    assert [line["step"] for line in alarms(tmp_path / "run")] == [4]


def test_values_by_prompt_decide_where_they_are_stored(tmp_path: Path) -> None:
    """Every prompt falls by 0.3: less than the intervals of the two means, but far beyond chance."""

    @dataclass
    class ByPrompt(HackedEvaluator):
        def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> Mapping[str, float]:
            truth = (0.0, 1.0, 0.7)[min(step, 2)]
            values = {"truth": [truth + shift for shift in (-3, -1.5, 0.01 * step, 1.5, 3 - 0.01 * step)]}
            (folder / f"step-{step:06d}.json").write_text(json.dumps(values))
            return {"truth": truth, "truth/low": truth - 2, "truth/high": truth + 2, "reward/scenes-scorer": step}

    settings = toy_config(**EVERY_STEP | {"max_steps": 2})
    toy_trainer(tmp_path / "run", settings, evaluator=ByPrompt({})).train()
    assert [(line["step"], line["name"]) for line in alarms(tmp_path / "run")] == [(2, "hacking")]


def test_settings_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names nothing-of-this-name, which no evaluation measures"):
        toy_trainer(tmp_path / "run", config(held_out_rewards=["nothing-of-this-name"]))

"""Trackers mirror the lines of metrics: tensorboard for real, the others through a stand-in with their interface."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from seedpo.errors import ConfigError
from seedpo.training import trackers
from seedpo.training.trackers import Trackers, require_trackers
from tests.training.toys import ToyEvaluator, metrics_lines, toy_config, toy_trainer


class StandIn(GeneralTracker):
    """Has accelerate's interface, and remembers what it was told."""

    name = "wandb"
    requires_logging_directory = False
    made: list[StandIn] = []  # noqa: RUF012
    fails_at: int | None = None

    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        self.project, self.options = run_name, options
        self.lines: list[tuple[int | None, dict[str, Any]]] = []
        self.state = "new"
        StandIn.made.append(self)

    def start(self) -> None:
        self.state = "started"

    @property
    def tracker(self) -> Any:
        return self

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if step == self.fails_at:
            raise ConnectionError("no route to host")
        self.lines.append((step, values))

    def finish(self) -> None:
        self.state = "finished"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    monkeypatch.setattr(StandIn, "made", [])
    monkeypatch.setattr(StandIn, "fails_at", None)
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, name, StandIn)
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    return StandIn


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"trackers: {name} is not installed; run `pip install {name}`"):
        require_trackers([name])


def test_unknown_trackers_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"trackers\.0 = 'mlflow'"):
        toy_config(trackers=["mlflow"])


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_what_a_tracker_is_told(tmp_path: Path, stand_in: type[StandIn], name: str) -> None:
    config = toy_config(trackers=[name], tracker_project="cats", max_steps=3, evaluate_every=0)
    toy_trainer(tmp_path / "run", config, evaluator=ToyEvaluator()).train()
    (told,) = stand_in.made
    assert told.project == "cats"
    assert told.options["name"].startswith("run")
    assert told.options["resume"] == "allow"
    assert told.state == "finished"
    assert told.settings["optimizer.weight_decay"] == 1e-4
    assert told.settings["clip_range"] == "None"
    assert all(isinstance(value, bool | int | float | str) for value in told.settings.values())
    lines = metrics_lines(tmp_path / "run")
    assert [step for step, _ in told.lines] == [line["step"] for line in lines] == [0, 1, 2, 3, 3]
    for (_, values), line in zip(told.lines, lines, strict=True):
        kind = line.pop("kind")
        assert {f"{kind}/{key}": value for key, value in line.items() if key != "step"}.items() <= values.items()


def test_a_resumed_run_goes_on_under_its_id(tmp_path: Path, stand_in: type[StandIn]) -> None:
    for folder in ("one", "one", "two"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Trackers.open(["wandb"], project="p", folder=tmp_path / folder, config=toy_config())
    first, again, other = (tracker.options["id"] for tracker in stand_in.made)
    assert first == again
    assert first != other


def test_a_tracker_that_fails_is_given_up_and_the_run_goes_on(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stand_in, "fails_at", 2)
    with caplog.at_level(logging.WARNING):
        toy_trainer(tmp_path / "run", toy_config(trackers=["wandb"], max_steps=4)).train()
    assert [step for step, _ in stand_in.made[0].lines] == [1]
    assert caplog.text.count("wandb failed (ConnectionError('no route to host')) and is dropped") == 1
    assert [line["step"] for line in metrics_lines(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_tracker_that_does_not_start_is_an_error(
    tmp_path: Path, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(tracker: StandIn) -> None:
        raise PermissionError("no API key")

    monkeypatch.setattr(stand_in, "start", start)
    with pytest.raises(ConfigError, match=r"trackers: wandb does not start \(PermissionError\('no API key'\)\)"):
        toy_trainer(tmp_path / "run", toy_config(trackers=["wandb"])).train()


def test_trackers_may_change_when_a_run_is_resumed(tmp_path: Path, stand_in: type[StandIn]) -> None:
    toy_trainer(tmp_path / "run", toy_config(max_steps=2)).train()
    toy_trainer(tmp_path / "run", toy_config(max_steps=4, trackers=["wandb"])).train(resume="latest")
    assert [step for step, _ in stand_in.made[0].lines] == [3, 4]


IN_TENSORBOARD = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps([[event.step, event.value] for event in events.Scalars("train/loss")]))
print(json.dumps([event.step for event in events.Scalars("evaluation/score")]))
"""


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    config = toy_config(trackers=["tensorboard"], max_steps=3, evaluate_every=0)
    toy_trainer(tmp_path / "run", config, evaluator=ToyEvaluator()).train()
    logs = tmp_path / "run" / "tensorboard"
    # In a process of its own, since its reader warns at import.
    read = subprocess.run(
        [sys.executable, "-c", IN_TENSORBOARD, str(logs)], capture_output=True, text=True, check=True, timeout=120
    )
    losses, scores = map(json.loads, read.stdout.splitlines())
    lines = metrics_lines(tmp_path / "run")
    assert losses == [[line["step"], pytest.approx(line["loss"])] for line in lines if line["kind"] == "train"]
    assert scores == [0, 3]

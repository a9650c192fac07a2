"""Keeping the best evaluation's weights and stopping early: the rules on lines, and whole runs of the toys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from seedpo.errors import ConfigError
from seedpo.run_folders import BestStep, RunFolder
from seedpo.training.best_steps import best_line, check_best_steps, figure_key, has_stopped_improving
from seedpo.training.watching import BEST_FILE
from tests.small_runs import metrics
from tests.training.toys import WEIGHTS, ToyPolicy, ToySource, toy_config, toy_trainer

TRUTH = (1.0, 2.0, 3.0, 1.0, 2.5, 2.9, 0.3)
"""Highest at step 2."""

STOPPING = {"metric": "truth", "patience": 2}


class Crash(Exception):
    pass


@dataclass
class PeakedEvaluator:
    weights: dict[int, torch.Tensor] = field(default_factory=dict)

    def __call__(self, policy: ToyPolicy, *, step: int, folder: Path) -> Mapping[str, float]:
        self.weights[step] = policy.weights()
        return {"truth": TRUTH[step], "reward/scenes-scorer": float(step)}


def config(**changes: Any) -> Any:
    evaluation = {"rewards": ["scenes-scorer"], "metrics": ["truth"]}
    return toy_config(
        **{"max_steps": 6, "checkpoint_every": 2, "evaluate_every": 1, "evaluation": evaluation, **changes}
    )


def train(path: Path, settings: Any, *, resume: bool = False, **parts: Any) -> dict[int, torch.Tensor]:
    evaluator = PeakedEvaluator()
    toy_trainer(path, settings, evaluator=evaluator, **parts).train(resume="latest" if resume else None)
    return evaluator.weights


def saved(folder: Path) -> torch.Tensor:
    state = load_file(folder / WEIGHTS)
    return torch.cat([state[name].flatten() for name in ToyPolicy().trainable_parameters()])


def lines(values: Sequence[float | None], key: str = "truth") -> list[dict[str, Any]]:
    return [{"step": step, "kind": "evaluation", key: value} for step, value in enumerate(values)]


class TestRules:
    @pytest.mark.parametrize(
        ("values", "patience", "least", "ended"),
        [
            ([1, 2, 3], 1, 0.0, False),
            ([1, 2, 2], 1, 0.0, True),
            ([1, 2, 1, 1], 3, 0.0, False),
            ([1, 2, 1, 1, 1], 3, 0.0, True),
            ([1, 2, 1, 3, 1, 1], 3, 0.0, False),
            ([1.0, 1.05, 1.1], 2, 0.1, True),
            ([1.0, 1.2, 1.1], 2, 0.1, False),
            ([None, None], 2, 0.0, True),
            ([1.0] * 9, None, 0.0, False),
        ],
    )
    def test_patience(self, values: list[float | None], patience: int | None, least: float, ended: bool) -> None:
        settings = config(early_stopping={"metric": "truth", "patience": patience, "min_change": least})
        assert has_stopped_improving(lines(values), settings) is ended

    def test_less_loss_is_better_and_the_earliest_of_equals_is_best(self) -> None:
        best = best_line(lines([3.0, 1.0, None, 1.0], "validation/loss"), "validation/loss")
        assert best is not None
        assert best["step"] == 1
        assert best_line(lines([None]), "truth") is None

    @pytest.mark.parametrize(
        ("name", "key"), [("scenes-scorer", "reward/scenes-scorer"), ("truth", "truth"), ("validation/loss",) * 2]
    )
    def test_names(self, name: str, key: str) -> None:
        assert figure_key(name, "keep_best", config(pairs={"validation": 0.1})) == key

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"keep_best": "pickscore"}, "keep_best = pickscore"),
            ({"keep_best": "validation/accuracy"}, "pairs.validation"),
            ({"early_stopping": {"patience": 2}}, "early_stopping.metric = validation/accuracy"),
            ({"early_stopping": STOPPING, "evaluate_every": 0}, "evaluate_every"),
        ],
    )
    def test_refusals(self, changes: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigError, match=named):
            check_best_steps(config(**changes))


class TestKeepingTheBest:
    def test_the_result_is_the_best_evaluation_and_says_so(self, tmp_path: Path) -> None:
        settings = config(keep_best="truth")
        weights = train(tmp_path / "run", settings)
        folder = RunFolder.open(tmp_path / "run")
        result = folder.path / settings.weights_folder
        assert torch.equal(saved(result), weights[2])
        assert torch.equal(saved(folder.checkpoint(6) / "policy"), weights[6])
        assert folder.best_of_finished() == BestStep(step=2, figure="truth", value=3.0)
        assert json.loads((result / BEST_FILE).read_text())["step"] == 2
        evaluations = [line for line in metrics(folder.path) if line["kind"] == "evaluation"]
        assert [line["best_step"] for line in evaluations] == [0, 1, 2, 2, 2, 2, 2]

    def test_without_it_the_last_weights_are_the_result(self, tmp_path: Path) -> None:
        settings = config()
        weights = train(tmp_path / "run", settings)
        assert torch.equal(saved(tmp_path / "run" / settings.weights_folder), weights[6])
        assert RunFolder.open(tmp_path / "run").best_of_finished() is None
        assert not any("best_step" in line for line in metrics(tmp_path / "run"))


class TestStoppingEarly:
    def test_it_ends_the_run_as_finished(self, tmp_path: Path) -> None:
        settings = config(early_stopping=STOPPING, keep_best="truth")
        weights = train(tmp_path / "run", settings)
        folder = RunFolder.open(tmp_path / "run")
        assert max(weights) == 4, "two evaluations after the best one"
        assert folder.finished_step() == 4
        assert torch.equal(saved(folder.path / settings.weights_folder), weights[2])
        assert folder.checkpoint_steps()[-1] == 4
        before = metrics(folder.path)
        assert train(tmp_path / "run", settings, resume=True) == {}, "nothing is left to do"
        assert metrics(folder.path) == before

    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_killed_run_ends_as_one_that_never_stopped(self, tmp_path: Path, batch: int) -> None:
        settings = config(early_stopping=STOPPING, keep_best="truth", checkpoint_every=1)
        train(tmp_path / "whole", settings)

        def before_batch(drawn: int) -> None:
            if drawn == batch:
                raise Crash

        with pytest.raises(Crash):
            train(tmp_path / "killed", settings, source=ToySource(settings.batch_size, before_batch=before_batch))
        train(tmp_path / "killed", settings, resume=True)
        assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
        results = [saved(tmp_path / name / settings.weights_folder) for name in ("killed", "whole")]
        assert torch.equal(*results)

    def test_a_run_killed_before_it_could_finish_does_not_go_on(self, tmp_path: Path) -> None:
        settings = config(early_stopping=STOPPING)
        train(tmp_path / "run", settings)
        (tmp_path / "run" / "finished.json").unlink()
        assert train(tmp_path / "run", settings, resume=True) == {}
        assert RunFolder.open(tmp_path / "run").finished_step() == 4

    def test_more_patience_continues_it(self, tmp_path: Path) -> None:
        train(tmp_path / "run", config(early_stopping=STOPPING))
        weights = train(tmp_path / "run", config(early_stopping=STOPPING | {"patience": 9}), resume=True)
        assert sorted(weights) == [5, 6]
        assert RunFolder.open(tmp_path / "run").finished_step() == 6

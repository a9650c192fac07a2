"""The moving average of the weights, against diffusers' and against the weights of every step of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file
from torch import Tensor, nn

from seedpo.errors import ConfigError
from seedpo.run_folders import RunFolder
from seedpo.training.weight_average import WeightAverage, decay_at
from tests.training.toys import WEIGHTS, ToyEvaluator, ToyPolicy, metrics_lines, toy_config, toy_trainer

DECAY = 0.6


def test_is_diffusers_average() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(5, generator=generator, dtype=torch.float64))
    theirs = EMAModel([weight], decay=DECAY)
    ours = WeightAverage({"weight": weight}, decay=DECAY)
    for step in range(1, 31):
        with torch.no_grad():
            weight += torch.randn(5, generator=generator, dtype=torch.float64)
        theirs.step([weight])
        ours.update(step)
        assert decay_at(step, decay=DECAY) == theirs.cur_decay_value
        torch.testing.assert_close(ours.values["weight"], theirs.shadow_params[0], rtol=1e-12, atol=0)


def test_exchange_is_bit_for_bit_and_ends_after_an_error() -> None:
    weight = nn.Parameter(torch.randn(7))
    before, tensor = weight.detach().clone(), weight.data_ptr()
    average = WeightAverage({"weight": weight}, decay=DECAY)
    with torch.no_grad():
        weight.mul_(3.0)
    inside = []

    def fail() -> None:
        with average.in_place():
            inside.append(torch.equal(weight, before))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert inside == [True]
    assert torch.equal(weight, before * 3.0)
    assert torch.equal(average.values["weight"], before)
    assert weight.data_ptr() == tensor, "graphs, wrappers and optimisers keep the tensor"


def run(path: Path, **changes: Any) -> ToyPolicy:
    policy = ToyPolicy()
    config = toy_config(checkpoint_every=1, checkpoints_limit=9, **changes)
    toy_trainer(path, config, policy=policy, evaluator=ToyEvaluator()).train()
    return policy


def folder_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / WEIGHTS)


def test_a_run_saves_and_evaluates_the_average(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain")
    policy = run(tmp_path / "averaged", ema_decay=DECAY)
    steps = [tmp_path / "averaged" / "checkpoints" / f"checkpoint-{step:06d}" for step in range(1, 7)]
    assert torch.equal(policy.weights(), plain.weights()), "the policy itself trains as ever"

    # The closed form: weights of all steps, each with the product of the later decays.
    decays = [0.0 if step == 1 else min(DECAY, step / (step + 9)) for step in range(1, 7)]
    expected = {
        name: torch.zeros_like(value, dtype=torch.float64)
        for name, value in folder_weights(steps[0] / "policy").items()
    }
    for number, step in enumerate(steps):
        share = 1.0 - decays[number]
        for later in decays[number + 1 :]:
            share *= later
        for name, value in folder_weights(step / "policy").items():
            expected[name] += share * value.double()
    saved = folder_weights(tmp_path / "averaged" / "adapter")
    for name, value in expected.items():
        torch.testing.assert_close(saved[name].double(), value, rtol=1e-5, atol=1e-6)
        assert torch.equal(saved[name], folder_weights(steps[-1] / "average")[name])
        assert not torch.equal(saved[name], folder_weights(steps[-1] / "policy")[name])

    lines = [metrics_lines(tmp_path / name) for name in ("plain", "averaged")]
    for left, right in zip(*lines, strict=True):
        same = left == right
        assert same == (left["kind"] == "train" or left["step"] == 0), "evaluations alone see the average"
    network = ToyPolicy()
    network.load(tmp_path / "averaged" / "adapter")
    assert lines[1][-1]["score"] == float(network.module.eval()(torch.ones(1, 4)).detach())


def test_the_folder_says_which_weights_it_holds(tmp_path: Path) -> None:
    for name, changes in (("last", {}), ("average", {"ema_decay": DECAY})):
        run(tmp_path / name, **changes)
        assert json.loads((tmp_path / name / "finished.json").read_text())["weights"] == name
        checkpoint = RunFolder(tmp_path / name).trained_weights("adapter", step=4)
        assert checkpoint.name == {"last": "policy", "average": "average"}[name]


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_decays_outside_are_refused(decay: float) -> None:
    with pytest.raises(ConfigError, match="ema_decay"):
        toy_config(ema_decay=decay)

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import Tensor, nn

from seedpo.core.types import LossOutput
from seedpo.errors import ConfigError, RunFolderError, TrainingDiverged
from seedpo.run_folders import RunFolder
from seedpo.training.run_folder import locked
from seedpo.training.trainer import Trainer
from tests.training.toys import (
    WEIGHTS,
    ToyEvaluator,
    ToyMethod,
    ToyPolicy,
    ToySource,
    cpu_accelerator,
    metrics_lines,
    toy_config,
    toy_trainer,
    trace,
)


def train_lines(path: Path) -> list[dict[str, Any]]:
    return [line for line in metrics_lines(path) if line["kind"] == "train"]


def test_a_run_writes_everything_and_learns(tmp_path: Path) -> None:
    config = toy_config(max_steps=30, checkpoint_every=0, evaluate_every=0)
    evaluator = ToyEvaluator()
    trainer = toy_trainer(tmp_path / "run", config, evaluator=evaluator)
    last = trainer.train()
    folder = trainer.folder
    assert sorted(path.name for path in folder.path.iterdir() if path.name != ".lock") == [
        "adapter", "checkpoints", "config.yaml", "environment.json", "finished.json", "metrics.jsonl", "samples",
    ]  # fmt: skip
    assert [path.name for path in folder.checkpoints.iterdir()] == ["checkpoint-000030"]
    finished = json.loads(folder.finished.read_text())
    assert finished["step"] == 30
    assert finished["seconds"] > 0
    assert evaluator.calls == [0, 30]
    lines = train_lines(folder.path)
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert last["step"] == 30
    saved = load_file(folder.path / config.weights_folder / WEIGHTS)
    assert torch.equal(
        torch.cat([value.flatten() for value in saved.values()]).sort()[0], trainer.policy.weights().sort()[0]
    )


def test_full_training_writes_its_weights_elsewhere(tmp_path: Path) -> None:
    toy_trainer(tmp_path, toy_config(adapter="full", max_steps=1)).train()
    assert (tmp_path / "network" / WEIGHTS).is_file()
    assert not (tmp_path / "adapter").exists()


def test_a_line_of_metrics_has_these_figures(tmp_path: Path) -> None:
    config = toy_config(max_steps=2, gradient_accumulation_steps=3, optimizer={"warmup_steps": 4})
    last = toy_trainer(tmp_path, config, evaluator=ToyEvaluator()).train()
    assert list(last) == [
        "step", "kind", "loss", "margin", "offset/mean", "offset/std", "grad_norm", "learning_rate", "pairs_seen",
        "source/rows_mean", "seconds", "pairs_per_second",
    ]  # fmt: skip
    assert last["pairs_seen"] == 24
    assert last["learning_rate"] == 0.05 * 2 / 4
    assert last["pairs_per_second"] == pytest.approx(12 / last["seconds"])
    source = ToySource(4)
    rows = torch.cat([source.next_batch() for _ in range(6)])[12:, 0].double()
    assert last["offset/mean"] == pytest.approx(float(rows.mean()), abs=1e-6)
    assert last["offset/std"] == pytest.approx(float(rows.std(correction=0)), abs=1e-6)
    assert set(metrics_lines(tmp_path)[0]) == {"step", "kind", "score"}


def test_evaluations_and_lines_come_when_they_are_due(tmp_path: Path) -> None:
    evaluator = ToyEvaluator()
    toy_trainer(tmp_path, toy_config(max_steps=7, evaluate_every=3, log_every=2), evaluator=evaluator).train()
    lines = [(line["step"], line["kind"]) for line in metrics_lines(tmp_path)]
    assert evaluator.calls == [0, 3, 6, 7]
    train, evaluation = "train", "evaluation"
    assert lines == [
        (0, evaluation), (2, train), (3, evaluation), (4, train),
        (6, train), (6, evaluation), (7, train), (7, evaluation),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "samples").iterdir())[-1] == "step-000007.txt"


def test_evaluations_do_not_change_the_training(tmp_path: Path) -> None:
    toy_trainer(tmp_path / "with", toy_config(evaluate_every=1), evaluator=ToyEvaluator()).train()
    toy_trainer(tmp_path / "without", toy_config(evaluate_every=1)).train()
    assert train_lines(tmp_path / "with") == train_lines(tmp_path / "without")


def test_the_same_seed_repeats_a_run_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        toy_trainer(tmp_path / name, toy_config(seed=seed)).train()
    assert trace(tmp_path / "a")["metrics"] == trace(tmp_path / "b")["metrics"]
    assert trace(tmp_path / "a")["metrics"] != trace(tmp_path / "c")["metrics"]


def run_with(path: Path, batch_size: int, accumulation: int, **parts: Any) -> tuple[list[dict[str, Any]], Tensor]:
    config = toy_config(batch_size=batch_size, gradient_accumulation_steps=accumulation, max_steps=5)
    policy = ToyPolicy(dropout=0.0)
    given = {"policy": policy, "method": ToyMethod(noise=0.0), "source": ToySource(batch_size)} | parts
    toy_trainer(path, config, **given).train()
    lines = [
        {key: value for key, value in line.items() if key not in ("kind", "source/rows_mean")}
        for line in train_lines(path)
    ]
    return lines, policy.weights()


def assert_same_run(left: tuple[list[dict[str, Any]], Tensor], right: tuple[list[dict[str, Any]], Tensor]) -> None:
    for one, other in zip(left[0], right[0], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(left[1], right[1], rtol=1e-5, atol=1e-6)


def test_batch_8_is_8_times_accumulated_1(tmp_path: Path) -> None:
    # The rows of a source come in one stream, however it is cut.
    whole = run_with(tmp_path / "whole", 8, 1)
    assert_same_run(run_with(tmp_path / "ones", 1, 8), whole)
    assert_same_run(run_with(tmp_path / "twos", 2, 4), whole)


class UnevenSource(ToySource):
    """Cuts the stream of rows into batches of 5 and 3."""

    def next_batch(self) -> Tensor:
        self.batch_size = 5 if self.drawn % 2 == 0 else 3
        return super().next_batch()


def test_every_pair_weighs_the_same_in_uneven_batches(tmp_path: Path) -> None:
    whole = run_with(tmp_path / "whole", 8, 1)
    assert_same_run(run_with(tmp_path / "uneven", 4, 2, source=UnevenSource(4)), whole)
    assert_same_run(run_with(tmp_path / "short", 64, 1, source=ToySource(8)), whole)


def test_accelerates_own_count_of_micro_batches_changes_nothing(tmp_path: Path) -> None:
    accelerator = cpu_accelerator(toy_config())
    accelerator.gradient_accumulation_steps = 7
    given = run_with(tmp_path / "given", 4, 2, accelerator=accelerator)
    accelerator.gradient_accumulation_steps = 1
    assert_same_run(given, run_with(tmp_path / "plain", 4, 2))


class SquarePolicy(ToyPolicy):
    """One weight vector, so that its gradient is known."""

    def __init__(self) -> None:
        self.module = nn.Linear(4, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self._trained = dict(self.module.named_parameters())


@dataclasses.dataclass(frozen=True)
class LinearMethod:
    """loss = scale * w . x, whose gradient is the scaled mean row."""

    scale: float

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        return LossOutput(losses=self.scale * policy.module(batch)[:, 0], metrics={})


@pytest.mark.parametrize("scale", [1e-2, 1e4])
def test_gradients_reach_the_optimiser_clipped(tmp_path: Path, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> None:
        seen.extend(parameter.grad.clone() for parameter in self.param_groups[0]["params"])
        step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    config = toy_config(max_steps=1, optimizer={"max_grad_norm": 0.3})
    last = toy_trainer(tmp_path, config, policy=SquarePolicy(), method=LinearMethod(scale)).train()
    gradient = scale * ToySource(4).next_batch().mean(0)
    norm = float(gradient.norm())
    assert last["grad_norm"] == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(seen[0][0], gradient * min(1.0, 0.3 / norm), rtol=1e-4, atol=1e-6)


class PoisonedMethod(ToyMethod):
    """Makes the loss of marked rows infinite, with a finite gradient."""

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        output = super().loss(policy, batch, generator=generator)
        poison = (batch > 90).any(1)
        return LossOutput(losses=output.losses + torch.where(poison, math.inf, 0.0), metrics=output.metrics)


class PoisonedSource(ToySource):
    """Marks rows 1 and 3 of the tenth batch: micro-batch 1 of step 5 with two per step."""

    def next_batch(self) -> Tensor:
        rows = super().next_batch()
        if self.drawn == 10:
            rows[[1, 3]] = 99.0
        return rows


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_its_files(tmp_path: Path) -> None:
    before: dict[str, bytes] = {}

    def remember(number: int) -> None:
        if number == 8:
            before.update(content(tmp_path))

    source = PoisonedSource(4, before_batch=remember)
    policy = ToyPolicy()
    config = toy_config(gradient_accumulation_steps=2)
    trainer = toy_trainer(tmp_path, config, source=source, method=PoisonedMethod(), policy=policy)
    message = (
        r"^step 5: the loss is not finite for process 0, micro-batch 1, rows \[1, 3\] \(gradient norm [\d.]+\); "
        r"the update was not made; lower learning_rate, beta or gamma; the last checkpoint is .*checkpoint-000004$"
    )
    with pytest.raises(TrainingDiverged, match=message):
        trainer.train()
    assert content(tmp_path) == before
    assert [line["step"] for line in train_lines(tmp_path)] == [1, 2, 3, 4]
    saved = load_file(tmp_path / "checkpoints" / "checkpoint-000004" / "policy" / WEIGHTS)
    assert all(torch.equal(saved[name], value) for name, value in policy.trainable_parameters().items())


def test_before_the_first_checkpoint_that_is_said(tmp_path: Path) -> None:
    config = toy_config(checkpoint_every=0, gradient_accumulation_steps=2)
    trainer = toy_trainer(tmp_path, config, source=PoisonedSource(4), method=PoisonedMethod())
    with pytest.raises(TrainingDiverged, match="no checkpoint was written yet"):
        trainer.train()


class SteepMethod(ToyMethod):
    """A finite loss with an infinite gradient."""

    def loss(self, policy: ToyPolicy, batch: Tensor, *, generator: torch.Generator) -> LossOutput:
        score = policy.module(batch)[:, 0]
        return LossOutput(losses=(score - score.detach()).abs().sqrt() + 1.0, metrics={})


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    policy = ToyPolicy()
    weights = policy.weights().clone()
    with pytest.raises(TrainingDiverged, match=r"^step 1: the gradient is not finite \(gradient norm nan\)"):
        toy_trainer(tmp_path, toy_config(), policy=policy, method=SteepMethod()).train()
    assert torch.equal(policy.weights(), weights)
    assert all(parameter.grad is None for parameter in policy.trainable_parameters().values())


def scaled_trainer(path: Path, scale: float, *, method: Any = None, max_steps: int = 3) -> Trainer[Tensor]:
    """As fp16 trains on a GPU: with a loss scale that halves when the gradient overflows."""
    config = toy_config(max_steps=max_steps, checkpoint_every=1)
    accelerator = cpu_accelerator(config)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
    return toy_trainer(path, config, accelerator=accelerator, method=method or ToyMethod())


def test_a_loss_scale_changes_nothing_but_rounding(tmp_path: Path) -> None:
    scaled_trainer(tmp_path / "scaled", 2.0**10).train()
    toy_trainer(tmp_path / "plain", toy_config(max_steps=3)).train()
    scaled, plain = (metrics_lines(tmp_path / name, "kind") for name in ("scaled", "plain"))
    for one, other in zip(scaled, plain, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_an_overflow_under_a_loss_scale_skips_the_update(tmp_path: Path) -> None:
    # Float32 ends at 2^128: the gradient times the first scales overflows, until they are halved often enough.
    trainer = scaled_trainer(tmp_path, 2.0**127, method=ToyMethod(scale=100.0), max_steps=12)
    trainer.accelerator.scaler.set_growth_interval(100)
    initial = trainer.policy.weights().clone()
    weights: list[Tensor] = []
    trainer.source.before_batch = lambda drawn: weights.append(trainer.policy.weights().clone())
    trainer.train()
    overflowed = [line["grad_norm"] is None for line in train_lines(tmp_path)]
    skipped = overflowed.index(False)
    assert skipped > 1
    assert not all(overflowed[skipped:])
    assert trainer.accelerator.scaler.get_scale() == 2.0 ** (127 - sum(overflowed))
    assert all(torch.equal(before, initial) for before in weights[: skipped + 1])
    assert not torch.equal(weights[skipped + 1], initial)


def test_an_overflow_at_the_lowest_scale_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="the gradient is not finite"):
        scaled_trainer(tmp_path, 1.0, method=SteepMethod()).train()


def test_the_loss_scale_is_resumed(tmp_path: Path) -> None:
    scaled_trainer(tmp_path, 2.0**10).train()
    trainer = scaled_trainer(tmp_path, 2.0**4, max_steps=4)
    trainer.train(resume="latest")
    # One growth after steps 1 and 2, another after steps 3 and 4.
    assert trainer.accelerator.scaler.get_scale() == 2.0**12


def test_bfloat16_is_used_in_the_forward_pass_and_weights_stay_float32(tmp_path: Path) -> None:
    kinds: set[torch.dtype] = set()
    policy = ToyPolicy()
    network = policy.module
    network[3].register_forward_pre_hook(lambda layer, inputs: kinds.add((inputs[0] @ layer.weight.T).dtype))
    forward = network.forward
    last = toy_trainer(tmp_path, toy_config(mixed_precision="bf16", max_steps=2), policy=policy).train()
    assert kinds == {torch.bfloat16}
    assert {value.dtype for value in policy.trainable_parameters().values()} == {torch.float32}
    assert math.isfinite(last["loss"])
    # Afterwards the network is itself again.
    assert policy.module is network
    assert network.forward == forward
    assert network(torch.ones(1, 4)).dtype == torch.float32
    assert kinds == {torch.bfloat16, torch.float32}


def test_the_network_is_itself_again_after_an_error(tmp_path: Path) -> None:
    policy = ToyPolicy()
    network = policy.module
    with pytest.raises(TrainingDiverged):
        toy_trainer(tmp_path, toy_config(), policy=policy, method=SteepMethod()).train()
    assert policy.module is network


def test_an_accelerator_of_another_precision_is_refused(tmp_path: Path) -> None:
    accelerator = cpu_accelerator(toy_config())
    with pytest.raises(ConfigError, match="mixed_precision is bf16, but the accelerator was built with no"):
        toy_trainer(tmp_path, toy_config(mixed_precision="bf16"), accelerator=accelerator)


def test_sharding_is_refused(tmp_path: Path) -> None:
    accelerator = cpu_accelerator(toy_config())
    accelerator.state.distributed_type = DistributedType.FSDP
    try:
        with pytest.raises(ConfigError, match="FSDP of accelerate shards the model, which is not supported"):
            toy_trainer(tmp_path, toy_config(), accelerator=accelerator)
    finally:
        accelerator.state.distributed_type = DistributedType.NO


def test_a_wrong_word_for_resume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="write 'latest'"):
        toy_trainer(tmp_path, toy_config()).train(resume="last")  # type: ignore[arg-type]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, toy_config())
    with locked(RunFolder(tmp_path)), pytest.raises(RunFolderError, match="another process is training into"):
        trainer.train()


def test_a_full_disk_stops_the_run_with_its_checkpoints(tmp_path: Path) -> None:
    class FullDiskPolicy(ToyPolicy):
        def save(self, folder: Path) -> None:
            if "000004" in str(folder):
                raise OSError(28, "No space left on device")
            super().save(folder)

    with pytest.raises(RunFolderError, match=r"no space left in .* for the checkpoint of step 4"):
        toy_trainer(tmp_path, toy_config(), policy=FullDiskPolicy()).train()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-000002"]
    toy_trainer(tmp_path, toy_config()).train(resume="latest")
    toy_trainer(tmp_path / "whole", toy_config()).train()
    assert metrics_lines(tmp_path) == metrics_lines(tmp_path / "whole")


def test_silent_without_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_trainer(tmp_path, toy_config(), evaluator=ToyEvaluator()).train()
    assert capsys.readouterr() == ("", "")


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    toy_trainer(tmp_path, toy_config(checkpoint_every=1, checkpoints_limit=3)).train()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["checkpoint-000004", "checkpoint-000005", "checkpoint-000006"]


def test_what_the_source_tells_is_logged_and_may_be_nothing(tmp_path: Path) -> None:
    class QuietSource(ToySource):
        def metrics(self) -> Mapping[str, float]:
            return {}

    last = toy_trainer(tmp_path, toy_config(), source=QuietSource(4)).train()
    assert not any(name.startswith("source/") for name in last)

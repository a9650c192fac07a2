"""Two processes give the numbers of one, stop together and fail together; whole or in shards: ``real_processes.py``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.real_processes import (
    ANCHORED,
    GROUPS,
    IMAGES,
    ONLINE,
    OWN,
    REFERENCES,
    TEXT,
    Evaluation,
    factored,
    forms,
    in_turn,
    one_by_one,
    train,
)
from tests.training.test_crashes import launched
from tests.training.toys import (
    WEIGHTS,
    ToyMethod,
    ToyPolicy,
    ToySource,
    cpu_accelerator,
    metrics_lines,
    toy_config,
    toy_trainer,
    trace,
)
from tests.training.two_toys import numbered

LAST = Path("checkpoints") / "checkpoint-000003"


def run_two(layout: str, folder: Path) -> Path:
    """The folder in which two processes have done their work."""
    launched("tests.training.real_processes", layout, str(folder))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "toys").mkdir()
    for name, dropout in (("quiet", 0.0), ("noisy", 0.25)):
        numbered(cpu_accelerator(toy_config()), folder / "toys" / f"{name}-up", steps=2, dropout=dropout)
    return run_two("whole", folder)


@pytest.fixture(scope="module")
def sharded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two("shards", tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def adapters_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two("adapters", tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def references_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two("references", tmp_path_factory.mktemp("references"))


@pytest.fixture(scope="module", params=["lora", "full"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def one(adapter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with the same pairs."""
    path = tmp_path_factory.mktemp("one") / adapter
    train(cpu_accelerator(toy_config()), path, adapter=adapter, evaluator=Evaluation())
    return path


def lines(path: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [line for line in metrics_lines(path) if line.pop("kind") == kind]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Those of the last step, their average, and those of the reference if it moves."""
    parts = [part for part in ("policy", "average", "reference") if (path / LAST / part).exists()]
    files = [file for part in parts for file in (path / LAST / part).glob("*.safetensors")]
    assert len(files) == len(parts) >= 2
    return {f"{file.parent.name}/{name}": value for file in files for name, value in load_file(file).items()}


def assert_same_run(path: Path, expected: Path, *, rounding: float = 1e-4) -> None:
    found = lines(path)
    assert len(found) == 3
    for left, right in zip(found, lines(expected), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-6)
    ours, theirs = weights(path), weights(expected)
    assert ours.keys() == theirs.keys()
    for name in ours:
        # Not one by one: AdamW takes a full step even where a gradient is mere rounding.
        assert float((ours[name] - theirs[name]).norm()) <= 0.01 * float(theirs[name].norm()), name
    states = [load_file(run / LAST / "optimizer.safetensors") for run in (path, expected)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        # Nor here: where the gradients of a batch cancel, what is left is the rounding of the large ones.
        error = float((value - states[1][name]).norm())
        assert error <= (1e-3 + rounding) * float(states[1][name].norm()) + 1e-12, name


def test_two_processes_give_gradients_losses_and_weights_of_one(root: Path, one: Path, adapter: str) -> None:
    """Moments are sums over gradients: where they agree, all gradients did."""
    assert lines(one)[-1]["loss"] != pytest.approx(lines(one)[0]["loss"], rel=1e-3), "something is learned"
    for path in root.glob(f"{adapter}-*"):
        assert_same_run(path, one)
    assert (root / "lora-uneven").exists()


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that trains on steps of trajectories, sampled from the policy."""
    path = tmp_path_factory.mktemp("one") / "online"
    train(cpu_accelerator(toy_config()), path, **ONLINE)
    return path


def test_two_processes_give_those_of_one_with_sampled_transitions(root: Path, online: Path) -> None:
    assert lines(online)[-1]["grad_norm"] > 0
    # Here rounding in one step's weights reaches the pairs that the next one samples.
    assert_same_run(root / "online-uneven", online, rounding=1e-3)


def test_two_processes_give_those_of_one_with_steps_of_groups(root: Path, tmp_path: Path) -> None:
    train(cpu_accelerator(toy_config()), tmp_path / "groups", **GROUPS)
    assert lines(tmp_path / "groups")[-1]["kl"] > 0
    assert_same_run(root / "groups-uneven", tmp_path / "groups", rounding=1e-3)


def test_two_processes_give_those_of_one_with_sampled_images(root: Path, tmp_path: Path) -> None:
    train(cpu_accelerator(toy_config()), tmp_path / "images", **IMAGES)
    assert lines(tmp_path / "images")[-1]["grad_norm"] > 0
    assert_same_run(root / "images-uneven", tmp_path / "images", rounding=1e-3)


@pytest.mark.parametrize("name", OWN)
def test_two_processes_give_those_of_one_with_other_objectives(root: Path, tmp_path: Path, name: str) -> None:
    accumulated: dict[str, Any] = {"batch_size": 2, "gradient_accumulation_steps": 2}
    train(cpu_accelerator(toy_config()), tmp_path / name, **OWN[name], **accumulated, rows=in_turn)
    assert lines(tmp_path / name)[-1]["grad_norm"] > 0
    assert_same_run(root / f"{name}-own", tmp_path / name)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that trains the text encoders as well."""
    path = tmp_path_factory.mktemp("one") / "text"
    train(cpu_accelerator(toy_config()), path, **TEXT)
    return path


def test_two_processes_give_those_of_one_with_text_encoders(root: Path, text: Path) -> None:
    assert any(name.startswith("policy/text_encoder.") for name in weights(text))
    assert_same_run(root / "text-even", text)
    assert_same_images(root / "text-even", text)


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with all anchors."""
    path = tmp_path_factory.mktemp("one") / "anchored"
    train(cpu_accelerator(toy_config()), path, **ANCHORED)
    return path


def test_two_processes_give_those_of_one_with_anchors(root: Path, anchored: Path) -> None:
    assert all(lines(anchored)[-1][f"anchor/{name}"] > 1e-6 for name in ("kl", "winner", "data"))
    assert_same_run(root / "anchored-uneven", anchored)


def test_two_processes_give_those_of_one_with_a_beta_that_follows_the_margins(root: Path, tmp_path: Path) -> None:
    train(cpu_accelerator(toy_config()), tmp_path / "factored", **factored())
    betas = [line["beta"] for line in lines(tmp_path / "factored")]
    assert betas[0] == 20.0
    assert 0 < betas[-1] < 20.0
    assert_same_run(root / "factored-uneven", tmp_path / "factored")
    states = [json.loads((root / "factored-uneven" / LAST / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert states[0]["beta"] == states[1]["beta"]


def assert_same_images(path: Path, one: Path) -> None:
    sheets = [(run / "samples" / "step-000000.png").read_bytes() for run in (path, one)]
    assert sheets[0] == sheets[1]
    found, expected = lines(path, "evaluation"), lines(one, "evaluation")
    assert found[0] == expected[0]
    assert found[1] == pytest.approx(expected[1], rel=1e-4)
    assert not list(path.glob("*.tmp"))


def test_images_are_drawn_together_and_the_same(root: Path, one: Path, adapter: str) -> None:
    assert_same_images(root / f"{adapter}-even", one)


def test_what_fails_on_one_process_is_raised_on_both(root: Path) -> None:
    first, second = (json.loads((root / f"results-{rank}.json").read_text()) for rank in (0, 1))
    for results in (first, second):
        assert results["user"] == "SeedpoError: the second process has no reward"
        assert results["draw"] == "SeedpoError: the second process cannot draw"
    assert first["fault"].startswith("RuntimeError: process 1 failed: ZeroDivisionError")
    assert second["fault"] == "ZeroDivisionError: by zero"


@pytest.fixture
def results(root: Path) -> list[dict[str, Any]]:
    """What the toy runs gave on each process."""
    return [json.loads((root / f"results-{rank}.json").read_text())["toys"] for rank in (0, 1)]


def test_toys_give_the_losses_and_weights_of_one(root: Path, results: list[dict[str, Any]], tmp_path: Path) -> None:
    config = toy_config(max_steps=5, batch_size=8, gradient_accumulation_steps=2)
    policy = ToyPolicy(dropout=0.0)
    toy_trainer(tmp_path, config, policy=policy, method=ToyMethod(noise=0.0), source=ToySource(8)).train()
    one = metrics_lines(tmp_path, "kind")
    two = [line for line in metrics_lines(root / "toys" / "plain") if line.pop("kind") == "train"]
    assert len(one) == len(two) == 5
    for left, right in zip(one, two, strict=True):
        assert left == pytest.approx(right, rel=1e-5, abs=1e-6)
    assert two[-1]["pairs_seen"] == 5 * 2 * 2 * 4
    for result in results:
        torch.testing.assert_close(torch.tensor(result["plain"]["weights"]), policy.weights(), rtol=1e-5, atol=1e-6)
    assert results[0]["plain"] == results[1]["plain"]


def test_each_process_draws_its_own_numbers_and_resumes_them(root: Path, results: list[dict[str, Any]]) -> None:
    states = [(root / "toys/whole/checkpoints/checkpoint-000005" / f"rank-{rank}.json").read_text() for rank in (0, 1)]
    assert json.loads(states[0])["random"]["python"] != json.loads(states[1])["random"]["python"]
    assert results[0]["whole"]["weights"] == results[1]["whole"]["weights"] == results[0]["stopped"]["weights"]
    found, expected = trace(root / "toys" / "stopped"), trace(root / "toys" / "whole")
    assert found["metrics"] == expected["metrics"]
    last = {name: value for name, value in expected.items() if "checkpoint-000005" in name}
    assert len(last) == 8
    assert {name: found[name] for name in last} == last


class TestOtherProcesses:
    """Toys that go from one process to two, and from two to one; ``test_other_processes.py`` has whole runs."""

    def test_give_the_numbers_of_a_run_that_never_stopped(
        self, root: Path, results: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        toys, accelerator = root / "toys", cpu_accelerator(toy_config())
        expected = numbered(accelerator, tmp_path / "whole", steps=4)
        down = numbered(accelerator, toys / "quiet-down", steps=4, resume=True)
        for found in (down, *(torch.tensor(result["quiet-up"]) for result in results)):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for name in ("down", "up"):
            found = lines(toys / f"quiet-{name}")
            assert len(found) == 4
            for left, right in zip(found, lines(tmp_path / "whole"), strict=True):
                assert left == pytest.approx(right, rel=1e-5, abs=1e-6)
            averages = [
                folder / "checkpoints/checkpoint-000004/average" / WEIGHTS
                for folder in (toys / f"quiet-{name}", tmp_path / "whole")
            ]
            torch.testing.assert_close(*map(load_file, averages), rtol=1e-5, atol=1e-6)

    def test_draw_anew_and_twice_the_same(self, root: Path, results: list[dict[str, Any]], tmp_path: Path) -> None:
        toys, accelerator = root / "toys", cpu_accelerator(toy_config())
        assert results[0]["noisy-up"] == results[1]["noisy-up"]
        states = [
            json.loads((toys / "noisy-up/checkpoints/checkpoint-000004" / f"rank-{rank}.json").read_text())
            for rank in (0, 1)
        ]
        assert states[0]["random"]["python"] != states[1]["random"]["python"]
        shutil.copytree(toys / "noisy-down", tmp_path / "again")
        first = numbered(accelerator, tmp_path / "again", steps=4, resume=True, dropout=0.25)
        torch.rand(5)
        second = numbered(accelerator, toys / "noisy-down", steps=4, resume=True, dropout=0.25)
        assert torch.equal(first, second)
        assert trace(tmp_path / "again") == trace(toys / "noisy-down")


def test_a_signal_to_one_process_stops_both(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["stop"].startswith("TrainingInterrupted: stopped after step 3 of 5; the last checkpoint is ")


def test_both_stop_early_and_the_best_weights_are_the_result(root: Path, results: list[dict[str, Any]]) -> None:
    folder = root / "toys" / "early"
    assert [result["early"]["last"] for result in results] == [3, 3]
    finished = json.loads((folder / "finished.json").read_text())
    assert (finished["step"], finished["best"]["step"], finished["stopped_early"]) == (3, 1, True)
    state = load_file(folder / toy_config().weights_folder / WEIGHTS)
    result = torch.cat([state[name].flatten() for name in ToyPolicy().trainable_parameters()])
    assert result.tolist() != results[0]["early"]["weights"]
    assert results[0]["early"]["weights"] == results[1]["early"]["weights"]


def test_errors_of_one_process_reach_both(results: list[dict[str, Any]], root: Path) -> None:
    for result in results:
        assert result["diverged"].startswith(
            "TrainingDiverged: step 1: the loss is not finite for process 1, micro-batch 0, rows [2]; "
            "process 1, micro-batch 1, rows [2] (gradient norm "
        )
        assert result["evaluator"] == "SeedpoError: the evaluator has no prompts"
        assert result["second"] == "SeedpoError: the second process has no disk"
        assert result["shared"] == "no error"
        assert result["unshared"].startswith(f"RunFolderError: --out {root / 'toys' / 'disk-1' / 'run'} is not")
    assert not [name for name in ("new", "disk-0", "disk-1") if (root / "toys" / name).exists()]
    assert results[0]["fault"] == "ZeroDivisionError: division by zero"
    assert results[1]["fault"].startswith("RuntimeError: the first process failed: ZeroDivisionError")


@pytest.mark.slow
class TestAdapters:
    """Alpha, DoRA, dropout, a continued LoRA, and a base in 8 or 4 bits."""

    @pytest.mark.parametrize("name", ["dora", "continued", "nf4", "text"])
    def test_give_the_same(self, adapters_root: Path, name: str, tmp_path: Path) -> None:
        build = forms(adapters_root / "theirs")[name]
        train(cpu_accelerator(toy_config()), tmp_path / "one", build=build)
        assert_same_run(adapters_root / f"{name}-whole", tmp_path / "one")

    def test_give_nearly_the_same_on_a_base_in_8_bits(self, adapters_root: Path, tmp_path: Path) -> None:
        """The inputs of its layers are rounded to 8 bits, so that the last digit of a weight may move one by 1/127."""
        train(cpu_accelerator(toy_config()), tmp_path / "one", build=forms(adapters_root / "theirs")["int8"])
        found, expected = lines(adapters_root / "int8-whole"), lines(tmp_path / "one")
        assert found[0] == pytest.approx(expected[0], rel=1e-4, abs=1e-6)
        assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=0.01)

    @pytest.mark.parametrize("name", ["dora", "dropout", "continued", "int8", "nf4", "text"])
    def test_go_on_bit_for_bit(self, adapters_root: Path, name: str) -> None:
        stopped, whole = (adapters_root / f"{name}-{kind}" for kind in ("stopped", "whole"))
        assert lines(stopped) == lines(whole)
        assert (stopped / LAST / "optimizer.safetensors").read_bytes() == (
            whole / LAST / "optimizer.safetensors"
        ).read_bytes()
        assert all(torch.equal(value, weights(whole)[key]) for key, value in weights(stopped).items())


@pytest.mark.slow
class TestReferences:
    """A reference moves on both processes at the same update, whichever of them asks for it."""

    @pytest.mark.parametrize("name", REFERENCES)
    def test_give_the_same(self, references_root: Path, name: str, tmp_path: Path) -> None:
        train(cpu_accelerator(toy_config()), tmp_path / "one", **REFERENCES[name])
        assert any(key.startswith("reference/") for key in weights(tmp_path / "one"))
        assert max(line["distance"] for line in lines(tmp_path / "one")) > 1e-8
        assert_same_run(references_root / f"{name}-whole", tmp_path / "one")

    @pytest.mark.parametrize("name", REFERENCES)
    def test_go_on_bit_for_bit(self, references_root: Path, name: str) -> None:
        stopped, whole = (references_root / f"{name}-{kind}" for kind in ("stopped", "whole"))
        assert lines(stopped) == lines(whole)
        for file in ("optimizer.safetensors", "rank-0.json", "rank-1.json"):
            assert (stopped / LAST / file).read_bytes() == (whole / LAST / file).read_bytes(), file
        assert all(torch.equal(value, weights(whole)[key]) for key, value in weights(stopped).items())


@pytest.mark.slow
class TestShards:
    @pytest.mark.parametrize("kind", ["even", "uneven", "mixed"])
    def test_give_the_same(self, sharded_root: Path, one: Path, adapter: str, kind: str) -> None:
        assert_same_run(sharded_root / f"{adapter}-{kind}", one)

    def test_give_the_same_with_sampled_transitions(self, sharded_root: Path, online: Path) -> None:
        assert_same_run(sharded_root / "online-even", online, rounding=1e-3)

    def test_give_the_same_with_anchors(self, sharded_root: Path, anchored: Path) -> None:
        assert_same_run(sharded_root / "anchored-even", anchored)

    def test_give_the_same_with_text_encoders(self, sharded_root: Path, text: Path) -> None:
        assert_same_run(sharded_root / "text-even", text)
        assert weights(sharded_root / "text-stopped").keys() == weights(sharded_root / "text-even").keys()
        for name, value in weights(sharded_root / "text-stopped").items():
            assert torch.equal(value, weights(sharded_root / "text-even")[name])

    def test_accumulate(self, sharded_root: Path, tmp_path: Path) -> None:
        changes = {"gradient_accumulation_steps": 2, "batch_size": 2}
        train(cpu_accelerator(toy_config()), tmp_path / "one", adapter="full", rows=one_by_one, **changes)
        assert_same_run(sharded_root / "full-accumulated", tmp_path / "one")

    def test_draw_together(self, sharded_root: Path, one: Path, adapter: str) -> None:
        assert_same_images(sharded_root / f"{adapter}-even", one)

    def test_go_on_bit_for_bit(self, sharded_root: Path, adapter: str) -> None:
        stopped, whole = (sharded_root / f"{adapter}-{kind}" for kind in ("stopped", "even"))
        assert lines(stopped) == lines(whole)
        for name in ("optimizer.safetensors", "optimizer.json", "rank-0.json", "rank-1.json"):
            assert (stopped / LAST / name).read_bytes() == (whole / LAST / name).read_bytes(), name
        assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(stopped).items())

    def test_fail_together(self, sharded_root: Path) -> None:
        for rank in (0, 1):
            results = json.loads((sharded_root / f"results-{rank}.json").read_text())
            assert results["user"] == "SeedpoError: the second process has no reward"
            assert results["calls"].startswith("SeedpoError: the method calls the network [1, 3] times")
            assert results["optimizer"].startswith("ConfigError: optimizer.name = adafactor cannot work on shards")

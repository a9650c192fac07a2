"""`evaluate` and `sample` under sampling controls: loaded runs and LoRAs, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from seedpo.cli.main import main
from seedpo.errors import ConfigError, RunFolderError
from seedpo.evaluation.controls import PLAIN, SamplingControl, one_at_a_time
from seedpo.evaluation.drawing import controlled, draw_samples
from seedpo.evaluation.evaluate import Measures, evaluate
from seedpo.evaluation.sample import SampleRequest, sample_grid, sample_images
from seedpo.evaluation.score import Scoring
from seedpo.evaluation.targets import ModelOptions, Target, load_target, parse_target, parse_targets, with_controls
from seedpo.metrics.records import Samples
from seedpo.models.denoiser import PipelineDenoiser
from seedpo.models.loading import lora_file
from seedpo.models.policy import PipelinePolicy, build_policy
from seedpo.protocols import Denoiser
from seedpo.training.configuration import resolve_config
from seedpo.training.run_folder import create_run_folder
from tests.evaluation.small_evaluations import REWARDS, drawing, images, rows, summary
from tests.models.tiny import PROMPTS, move
from tests.small_runs import few_prompts

HALF, MIXED = SamplingControl(strength=0.5), SamplingControl(mixing=1.0)
BOTH = SamplingControl(strength=0.5, mixing=1.0)


def moved_run(path: Path, *, adapter: str = "lora", **keys: Any) -> tuple[Path, PipelinePolicy]:
    """A finished run whose weights have moved, and its policy in memory."""
    config = resolve_config("diffusion-dpo", {"adapter": adapter, "checkpoint_every": 1, **keys})
    folder, policy = create_run_folder(path, config), build_policy(config)
    if config.initial_lora is not None:
        policy.save(folder.initial_lora)
    move(policy, scale=0.2 if adapter == "lora" else 0.02)
    policy.save(folder.path / config.weights_folder)
    return path, policy


def drawn(denoiser: Denoiser) -> Tensor:
    samples: Samples = draw_samples(denoiser, PROMPTS[:2], drawing())
    return samples.images


def same_images(policy: PipelinePolicy, target: Target) -> PipelineDenoiser:
    """Checks that a loaded model draws under each control as the policy in memory; returns it."""
    plain, loaded = drawn(policy), load_target(target)
    for control in (HALF, MIXED, BOTH):
        with controlled(policy, control) as wanted, controlled(loaded, control) as found:
            expected = drawn(wanted)
            torch.testing.assert_close(drawn(found), expected, rtol=0, atol=1e-5)
        assert (expected - plain).abs().max() > 0.01
    assert torch.equal(drawn(policy), plain)
    return loaded


class TestLoaded:
    @pytest.mark.parametrize("model", ["scenes", "scenes-flow"])
    @pytest.mark.parametrize("adapter", ["lora", "full"])
    def test_runs(self, tmp_path: Path, adapter: str, model: str) -> None:
        run, policy = moved_run(tmp_path / "run", adapter=adapter, model=model)
        same_images(policy, parse_target(str(run), ModelOptions()).under(MIXED))

    def test_loras(self, tmp_path: Path) -> None:
        run, policy = moved_run(tmp_path / "run")
        same_images(policy, parse_target(str(run / "adapter"), ModelOptions(model="scenes")).under(MIXED))

    def test_runs_that_continue_a_lora(self, tmp_path: Path) -> None:
        first, _ = moved_run(tmp_path / "first")
        run, policy = moved_run(tmp_path / "run", initial_lora=str(lora_file(str(first / "adapter"))))
        loaded = same_images(policy, parse_target(str(run), ModelOptions()).under(MIXED))
        before_training = load_target(parse_target(f"{run}@base", ModelOptions()))
        with controlled(loaded, SamplingControl(strength=0.0)) as found:
            torch.testing.assert_close(drawn(found), drawn(before_training), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moved_run(tmp_path_factory.mktemp("moved") / "spo")[0]


def evaluation(run: Path, out: Path, controls: list[SamplingControl], **options: Any) -> None:
    rewards = options.pop("rewards", REWARDS)
    evaluate(
        [f"base={run}@base", str(run)],
        out,
        prompts=str(few_prompts(out.parent)),
        drawing=drawing(),
        measures=Measures(rewards=rewards, scoring=Scoring(progress=False)),
        controls=controls,
        **options,
    )


@pytest.fixture(scope="module")
def out(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a run and its base, under four controls."""
    out = tmp_path_factory.mktemp("controls") / "out"
    evaluation(run, out, one_at_a_time(strengths=(0.5, 1.0), mixings=(2.0,), best_of=(3,)))
    return out


class TestEvaluate:
    def test_each_value_is_a_target(self, out: Path) -> None:
        labels = {figure["target"] for figure in summary(out)["figures"]}
        assert labels == {"base", "base-best-of-3", "spo", "spo-strength-0.5", "spo-mixing-2", "spo-best-of-3"}
        shown = [images(out, label) for label in sorted(labels)]
        assert all(one != other for row, one in enumerate(shown) for other in shown[:row])

    def test_the_best_scores_highest(self, out: Path) -> None:
        scores = {
            (row["target"], row["prompt_index"], row["image_index"]): row["scenes-scorer"]
            for row in rows(out / "scores.parquet")
        }
        for (label, *key), score in scores.items():
            if label in ("base", "spo"):
                assert scores[f"{label}-best-of-3", *key] >= score - 0.05  # 8 bits

    def test_what_images_depend_on_is_recorded(self, out: Path) -> None:
        targets = yaml.safe_load((out / "evaluation.yaml").read_text(encoding="utf-8"))["targets"]
        assert targets["spo-strength-0.5"]["strength"] == 0.5
        assert targets["spo-mixing-2"]["mixing"] == 2.0
        assert (targets["base-best-of-3"]["best_of"], targets["base-best-of-3"]["best_by"]) == (3, "scenes-scorer")
        assert {"strength", "mixing", "best_of", "best_by"}.isdisjoint(targets["spo"])

    def test_another_reward_cannot_pick_in_the_same_folder(self, run: Path, out: Path) -> None:
        with pytest.raises(RunFolderError, match="best_by"):
            evaluation(run, out, one_at_a_time(best_of=(3,)), best_by="jpeg-incompressibility")

    def test_what_is_missing_is_drawn_again_as_it_was(self, run: Path, out: Path) -> None:
        before = images(out, "spo-best-of-3"), images(out, "spo-mixing-2")
        for label in ("spo-best-of-3", "spo-mixing-2"):
            (out / "images" / label / "00001-00.png").unlink()
        evaluation(run, out, one_at_a_time(mixings=(2.0,), best_of=(3,)))
        assert (images(out, "spo-best-of-3"), images(out, "spo-mixing-2")) == before

    def test_a_reward_that_is_not_measured_picks(self, run: Path, tmp_path: Path) -> None:
        evaluation(run, tmp_path / "out", [SamplingControl(best_of=2)], rewards=(), best_by="scenes-scorer")
        content = yaml.safe_load((tmp_path / "out" / "evaluation.yaml").read_text(encoding="utf-8"))
        assert set(content["rewards"]) == {"scenes-scorer"}
        assert images(tmp_path / "out", "spo") != images(tmp_path / "out", "spo-best-of-2")

    @pytest.mark.parametrize(
        ("controls", "options", "said"),
        [
            ([SamplingControl(best_of=2)], {"rewards": ()}, "--best-by"),
            ([MIXED], {"best_by": "scenes-scorer"}, "--best-of"),
            ([SamplingControl(best_of=2)], {"best_by": "scenes-scroer"}, "scenes-scorer"),
            ([SamplingControl(best_of=501)], {}, "1000"),
        ],
    )
    def test_refused(
        self, run: Path, tmp_path: Path, controls: list[SamplingControl], options: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            evaluation(run, tmp_path / "out", controls, **options)

    def test_a_reward_that_cannot_read_the_images(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--best-by scenes-truth.*64"):
            evaluate(
                ["scenes"],
                tmp_path / "out",
                prompts=str(few_prompts(tmp_path)),
                drawing=drawing(),
                measures=Measures(scoring=Scoring(progress=False)),
                options=ModelOptions(resolution=64),
                controls=[SamplingControl(best_of=2)],
                best_by="scenes-truth",
            )


class TestTargets:
    def test_untrained_models_are_passed_over(self, run: Path) -> None:
        targets = parse_targets([f"{run}@base", str(run)], ModelOptions())
        found = with_controls(targets, [MIXED, PLAIN, HALF])
        assert [target.label for target in found] == ["spo-base", "spo", "spo-mixing-1", "spo-strength-0.5"]

    @pytest.mark.parametrize("control", [MIXED, HALF])
    def test_untrained_models_alone(self, run: Path, control: SamplingControl) -> None:
        targets = parse_targets(["scenes", f"{run}@base"], ModelOptions())
        with pytest.raises(ConfigError, match=control.name):
            with_controls(targets, [control])

    def test_labels_that_meet(self, run: Path) -> None:
        targets = parse_targets([str(run), f"spo-mixing-1={run}"], ModelOptions())
        with pytest.raises(ConfigError, match="spo-mixing-1"):
            with_controls(targets, [MIXED])


def request(run: Path | None, **changes: Any) -> SampleRequest:
    settings: dict[str, Any] = {"images": 1, "num_inference_steps": 2, "guidance_scale": 2.0, "seed": 3}
    return SampleRequest(prompt=(PROMPTS[0],), run=run, **(settings | changes))


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


class TestSample:
    def test_a_grid_has_a_row_for_each_control(self, run: Path, tmp_path: Path) -> None:
        controls = one_at_a_time(strengths=(0.5, 1.0), mixings=(2.0,), best_of=(3,))
        cells = sample_grid(request(run, best_by="scenes-scorer"), tmp_path, controls=controls)
        assert [cell.control for cell in cells] == controls
        with (tmp_path / "grid.csv").open(encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert [(row["strength"], row["mixing"], row["best_of"]) for row in table] == [
            ("0.5", "", "1"),
            ("1.0", "", "1"),
            ("1.0", "2.0", "1"),
            ("1.0", "", "3"),
        ]
        shown = [pixels(tmp_path / row["folder"] / "000-00.png") for row in table]
        assert all(abs(one - other).max() > 5 for row, one in enumerate(shown) for other in shown[:row])

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize("sampler", [None, "euler"])
    def test_mixing_goes_with_every_sampler(self, run: Path, tmp_path: Path, sampler: str | None) -> None:
        for name, control in (("plain", PLAIN), ("mixed", MIXED), ("nearly-base", SamplingControl(mixing=200.0))):
            sample_images(request(run, sampler=sampler, num_inference_steps=4), tmp_path / name, control=control)
        sample_images(request(None, sampler=sampler, num_inference_steps=4), tmp_path / "base")
        plain, mixed, nearly, base = (
            pixels(tmp_path / name / "000-00.png") for name in ("plain", "mixed", "nearly-base", "base")
        )
        assert abs(mixed - plain).max() > 5
        assert abs(mixed - base).max() > 5
        assert abs(nearly - base).mean() < abs(mixed - base).mean()

    @pytest.mark.parametrize(
        ("trained", "control", "changes", "said"),
        [
            (False, MIXED, {}, "--run or --lora"),
            (False, HALF, {}, "--run or --lora"),
            (True, SamplingControl(best_of=2), {}, "--best-by"),
            (True, MIXED, {"best_by": "scenes-scorer"}, "--best-of"),
            (True, SamplingControl(best_of=2), {"best_by": "scenes-scroer"}, "scenes-scorer"),
            (True, SamplingControl(best_of=2), {"best_by": "scenes-truth", "size": (48, 32)}, "48 x 32"),
        ],
    )
    def test_refused(
        self, run: Path, tmp_path: Path, trained: bool, control: SamplingControl, changes: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said):
            sample_images(request(run if trained else None, **changes), tmp_path / "out", control=control)
        assert not (tmp_path / "out").exists()


class TestCommands:
    def call(self, *arguments: Any) -> int:
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    def test_evaluate(self, run: Path, tmp_path: Path) -> None:
        options = ["--images", 1, "--steps", 1, "--guidance", 1, "--prompts", few_prompts(tmp_path), "--quiet"]
        controls = ["--strength", "0.5,1", "--mixing", "2", "--best-of", "2", "--rewards", "scenes-scorer"]
        assert self.call("evaluate", run, *options, *controls, "--out", tmp_path / "out") == 0
        labels = {path.name for path in (tmp_path / "out" / "images").iterdir()}
        assert labels == {"spo", "spo-strength-0.5", "spo-mixing-2", "spo-best-of-2"}

    def test_sample(self, run: Path, tmp_path: Path) -> None:
        options = ["--prompt", PROMPTS[0], "--images", 1, "--steps", 1, "--guidance", 1, "--run", run]
        controls = ["--strength", "0.5", "--mixing", "2", "--best-of", "2", "--best-by", "scenes-scorer"]
        assert self.call("sample", *options, *controls, "--out", tmp_path / "one") == 0
        assert self.call("sample", *options, *controls, "--grid", "--out", tmp_path / "grid") == 0
        assert len([path for path in (tmp_path / "grid").iterdir() if path.is_dir()]) == 3

    @pytest.mark.parametrize(
        "options",
        [
            ["--mixing", "0"],
            ["--mixing", "-1"],
            ["--mixing", "x"],
            ["--mixing", "nan"],
            ["--best-of", "0"],
            ["--best-of", "1.5"],
            ["--best-of", "2"],
            ["--strength", "inf"],
        ],
    )
    def test_refused(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
        for command in (["sample", "--prompt", PROMPTS[0], "--run", run], ["evaluate", run]):
            assert self.call(*command, *options, "--out", tmp_path / "out") == 1
            (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert options[0].strip("-").replace("-", "") in line.replace("-", "").replace("_", "")

    def test_several_values_make_a_grid(self, run: Path, tmp_path: Path) -> None:
        assert self.call("sample", "--prompt", "a", "--run", run, "--mixing", "1,2", "--out", tmp_path / "out") == 1

    @pytest.mark.parametrize("option", ["--strength", "--mixing", "--best-of", "--best-by"])
    def test_stored_images_are_drawn_already(self, run: Path, tmp_path: Path, option: str) -> None:
        arguments = [run, "--over-training", option, "2", "--rewards", "scenes-scorer", "--out", tmp_path / "out"]
        assert self.call("evaluate", *arguments) == 1

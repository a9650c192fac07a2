from __future__ import annotations

import errno
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from seedpo.cli import main
from seedpo.core.stats.bootstrap import paired_difference, win_rate
from seedpo.errors import ConfigError, DataError, RunFolderError
from seedpo.evaluation import evaluate as evaluate_module
from seedpo.evaluation.drawing import draw_samples
from seedpo.evaluation.evaluate import tie_widths
from seedpo.evaluation.settings import Drawing, Key
from seedpo.evaluation.targets import ModelOptions
from seedpo.rewards.named import build_reward
from seedpo.rewards.settings import RewardDefinition
from tests.evaluation.small_evaluations import drawing, images, rows, small_evaluation, summary
from tests.small_runs import few_prompts


@pytest.fixture(scope="module")
def compared(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base and trained model, with a reward and metrics."""
    out = tmp_path_factory.mktemp("compared") / "out"
    small_evaluation([f"base={run}@base", str(run)], out, metrics=("truth", "free_spread"))
    return out


class TestImages:
    def test_are_those_that_an_evaluation_of_a_run_draws(self, compared: Path) -> None:
        from seedpo.models.denoiser import load_denoiser
        from seedpo.models.settings import ModelSettings
        from seedpo.scenes.assets import PIPELINE

        texts = [row["prompt"] for row in rows(compared / "scores.parquet")][:6:2]
        wanted = draw_samples(load_denoiser(ModelSettings(model=str(PIPELINE))), texts, drawing())
        for prompt in range(3):
            for image in range(2):
                with Image.open(compared / "images" / "base" / f"{prompt:05d}-{image:02d}.png") as file:
                    found = np.asarray(file)
                pixels = (wanted.images[prompt, image].permute(1, 2, 0) * 255).round().byte().numpy()
                assert np.array_equal(found, pixels)

    def test_targets_share_latents(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[list[Key], Drawing]] = []
        draw = evaluate_module.draw_best

        def spy(policy: Any, prompts: Any, batch: list[Key], drawing: Drawing, choice: None) -> torch.Tensor:
            seen.append((batch, drawing))
            return draw(policy, prompts, batch, drawing, choice)

        monkeypatch.setattr(evaluate_module, "draw_best", spy)
        small_evaluation(["scenes", str(run)], tmp_path / "out", rewards=())
        assert seen[:2] == seen[2:]
        assert [key for batch, _ in seen[:2] for key in batch] == list(itertools.product(range(3), range(2)))

    def test_training_shows(self, compared: Path) -> None:
        assert images(compared, "base") != images(compared, "run")

    def test_the_base_of_a_run_is_its_model(self, compared: Path, tmp_path: Path) -> None:
        small_evaluation(["scenes"], tmp_path / "out", rewards=())
        assert images(tmp_path / "out", "scenes") == images(compared, "base")

    def test_the_lora_of_a_run_is_the_run(self, compared: Path, run: Path, tmp_path: Path) -> None:
        targets = [f"lora={run / 'adapter'}", f"step={run}@2", f"first={run}@1"]
        small_evaluation(targets, tmp_path / "out", rewards=(), options=ModelOptions(model="scenes"))
        wanted = images(compared, "run")
        assert images(tmp_path / "out", "step") == wanted
        assert images(tmp_path / "out", "first") != wanted
        for name in wanted:
            one, other = (
                np.asarray(Image.open(folder / name), dtype=float)
                for folder in (compared / "images" / "run", tmp_path / "out" / "images" / "lora")
            )
            assert np.abs(one - other).max() <= 1

    def test_a_pipeline_folder_and_a_single_lora_file(self, compared: Path, run: Path, tmp_path: Path) -> None:
        from seedpo.scenes.assets import PIPELINE

        file = tmp_path / "mine.safetensors"
        shutil.copy(next((run / "adapter").glob("*.safetensors")), file)
        small_evaluation(
            [f"folder={PIPELINE}", str(file)], tmp_path / "out", rewards=(), options=ModelOptions(model=str(PIPELINE))
        )
        assert images(tmp_path / "out", "folder") == images(compared, "base")
        assert images(tmp_path / "out", "mine") != images(compared, "base")


class TestGoingOn:
    def test_only_what_is_missing_is_drawn(
        self, compared: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        before, tables = images(out, "run"), [(out / name).read_bytes() for name in ("summary.json", "scores.parquet")]
        gone = out / "images" / "run" / "00001-00.png"
        gone.unlink()
        kept = {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
        drawn: list[list[Key]] = []
        draw = evaluate_module.draw_best

        def spy(policy: Any, prompts: Any, batch: list[Key], drawing: Drawing, choice: None) -> torch.Tensor:
            drawn.append(batch)
            return draw(policy, prompts, batch, drawing, choice)

        def nothing_to_score(*_: Any, **__: Any) -> None:
            raise AssertionError("all scores are known")

        monkeypatch.setattr(evaluate_module, "draw_best", spy)
        monkeypatch.setattr("seedpo.evaluation.measuring.score_images", nothing_to_score)
        prompts = str(compared.parent / "prompts.txt")
        small_evaluation([f"base={run}@base", str(run)], out, metrics=("truth", "free_spread"), prompts=prompts)
        assert drawn == [[(0, 0), (0, 1), (1, 0), (1, 1)]]  # the batch of the image that was missing
        assert images(out, "run") == before
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert [(out / name).read_bytes() for name in ("summary.json", "scores.parquet")] == tables

    def test_a_reward_added_later_scores_what_is_missing(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        small_evaluation([str(run)], out, rewards=("scenes-scorer", "scenes-truth"))
        found = rows(out / "scores.parquet")
        assert len(found) == 12
        assert all((row["scenes-truth"] is None) == (row["target"] == "base") for row in found)
        for row in found:
            if row["target"] == "run":
                with Image.open(out / row["file"]) as image:
                    score = build_reward("scenes-truth")([image.convert("RGB")], [row["prompt"]])
                assert row["scenes-truth"] == pytest.approx(float(score), abs=1e-6)
        assert {figure["target"] for figure in summary(out)["figures"] if figure["figure"] == "scenes-truth"} == {"run"}

    def test_a_target_added_later(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        small_evaluation([f"again={run}"], out)
        assert summary(out)["targets"] == ["base", "run", "again"]
        assert images(out, "again") == images(out, "run")
        pair = next(row for row in summary(out)["pairs"] if (row["target"], row["other"]) == ("again", "run"))
        assert (pair["tie"], pair["rate"], pair["difference"]) == (1.0, 0.5, 0.0)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"seed": 4}, r"seed \(3 -> 4\)"),
            ({"num_inference_steps": 3}, r"num_inference_steps \(2 -> 3\)"),
            ({"scoring": {"precision": "bf16"}}, r"rewards\.scenes-scorer\.precision \('no' -> 'bf16'\)"),
        ],
    )
    def test_other_settings_are_refused(self, compared: Path, run: Path, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(RunFolderError, match=said):
            small_evaluation([f"base={run}@base"], compared, prompts=str(few_prompts(compared.parent)), **changes)

    def test_another_model_under_the_same_name_is_refused(self, compared: Path, run: Path) -> None:
        with pytest.raises(RunFolderError, match=r"targets\.run\.weights"):
            small_evaluation([f"run={run}@1"], compared)

    def test_other_prompts_are_refused(self, compared: Path, run: Path) -> None:
        path = compared.parent / "prompts.txt"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("red", "blue"), encoding="utf-8")
        try:
            with pytest.raises(RunFolderError, match="prompts_sha256"):
                small_evaluation([str(run)], compared, prompts=str(path))
        finally:
            path.write_text(text, encoding="utf-8")


class TestSummary:
    def test_numbers(self, compared: Path) -> None:
        """Against the statistics of the table, computed apart."""
        found = {label: np.zeros((3, 2)) for label in ("base", "run")}
        for row in rows(compared / "scores.parquet"):
            found[row["target"]][row["prompt_index"], row["image_index"]] = row["scenes-scorer"]
        figures = [row for row in summary(compared)["figures"] if row["figure"] == "scenes-scorer"]
        assert [row["mean"] for row in figures] == pytest.approx([found["base"].mean(), found["run"].mean()])
        assert all(row["low"] <= row["mean"] <= row["high"] and row["count"] == 3 for row in figures)
        (pair,) = [row for row in summary(compared)["pairs"] if row["kind"] == "reward"]
        assert (pair["target"], pair["other"]) == ("run", "base")
        difference = paired_difference(found["run"].mean(1), found["base"].mean(1), seed=3)
        assert pair["difference"] == pytest.approx(difference.mean)
        assert pair["difference_low"] == pytest.approx(difference.low)
        width = 0.1 * float(np.sqrt(found["base"].var(axis=1, ddof=1).mean()))
        assert pair["tie_width"] == pytest.approx(width)
        rate = win_rate(found["run"], found["base"], tie_width=width, seed=3)
        assert (pair["win"], pair["tie"], pair["loss"]) == (rate.win, rate.tie, rate.loss)
        assert (pair["rate"], pair["low"], pair["high"]) == (rate.rate, rate.low, rate.high)

    def test_metrics_carry_unit_and_direction(self, compared: Path) -> None:
        spread = next(row for row in summary(compared)["figures"] if row["figure"] == "free_spread")
        assert (spread["kind"], spread["direction"]) == ("metric", "higher")
        assert spread["unit"] == "standard deviation relative to the data"
        values = [row["free_spread"] for row in rows(compared / "metrics.parquet") if row["target"] == "base"]
        assert spread["mean"] == pytest.approx(math.sqrt(np.mean(values)))

    def test_ties_of_a_width(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        found = small_evaluation([str(run)], out, measures={"tie_widths": tie_widths("scenes-scorer=1000")})
        (pair,) = [row for row in found.pairs if row.kind == "reward"]
        assert (pair.tie, pair.tie_width) == (1.0, 1000.0)

    def test_files(self, compared: Path) -> None:
        assert {path.name for path in compared.iterdir()} == {
            *("evaluation.yaml", "images", "metrics.parquet", "prompts.jsonl", "scores.parquet"),
            *("summary.csv", "summary.json", "summary.md"),
        }
        lines = (compared / "summary.csv").read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("target,step,other,other_step,figure,kind,mean,low,high")
        assert len(lines) == 1 + 6 + 3
        assert "| run | base | scenes-scorer |" in (compared / "summary.md").read_text(encoding="utf-8")
        settings = yaml.safe_load((compared / "evaluation.yaml").read_text(encoding="utf-8"))
        assert len(settings["targets"]["run"]["weights"]) == 64
        assert settings["settings"]["num_prompts"] == 3

    def test_weighted_sums_use_scores_that_are_known(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        mix = RewardDefinition.model_validate({"terms": {"scenes-scorer": {"weight": 2.0}}})
        small_evaluation([str(run)], out, rewards=("mix", "scenes-scorer"), scoring={"definitions": {"mix": mix}})
        for row in rows(out / "scores.parquet"):
            if row["target"] == "run":
                assert row["mix"] == pytest.approx(2 * row["scenes-scorer"], rel=1e-6)


class TestBadInput:
    def refused(self, error: type[Exception], said: str, targets: list[str], out: Path, **changes: Any) -> None:
        with pytest.raises(error, match=said) as caught:
            small_evaluation(targets, out, **changes)
        assert "\n" not in str(caught.value)
        assert not out.exists()

    def test_targets(self, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.refused(ConfigError, "'scenes'", ["scened"], out)
        self.refused(ConfigError, "label scenes", ["scenes", "scenes"], out)
        self.refused(ConfigError, "run@half", [f"{run}@half"], out)
        self.refused(RunFolderError, "step 7.*1, 2", [f"{run}@7"], out)
        self.refused(ConfigError, "--model", [str(run / "adapter")], out)
        self.refused(ConfigError, "run folder", [], out)

    def test_a_run_without_weights(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run, tmp_path / "half")
        shutil.rmtree(tmp_path / "half" / "adapter")
        said = r"holds no trained weights.*checkpoints of: 1, 2"
        self.refused(RunFolderError, said, [str(tmp_path / "half")], tmp_path / "out")

    def test_measures(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.refused(ConfigError, "free_spread.* 2 ", ["scenes"], out, metrics=("free_spread",), images=1)
        self.refused(ConfigError, "truthy", ["scenes"], out, metrics=("truthy",))
        self.refused(ConfigError, "scenes-score", ["scenes"], out, rewards=("scenes-score",))
        step = {"step": RewardDefinition.model_validate({"terms": {"scenes-scorer": {"weight": 2.0}}})}
        said = "^step "
        self.refused(ConfigError, said, ["scenes"], out, rewards=("step",), scoring={"definitions": step})
        self.refused(ConfigError, "--tie-width names b", ["scenes"], out, measures={"tie_widths": {"b": 1.0}})

    def test_prompts(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        self.refused(DataError, "none.txt", ["scenes"], out, prompts=str(tmp_path / "none.txt"))
        self.refused(ConfigError, "'part'", ["scenes"], out, prompts="part")

    def test_out_that_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("mine")
        with pytest.raises(ConfigError, match="--out"):
            small_evaluation(["scenes"], tmp_path / "notes")

    def test_images_that_are_not_finite(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        draw = evaluate_module.draw_best

        def broken(*arguments: Any, **settings: Any) -> torch.Tensor:
            images = draw(*arguments, **settings)
            images[1] = math.nan
            return images

        monkeypatch.setattr(evaluate_module, "draw_best", broken)
        with pytest.raises(DataError, match=r"image 1 of prompt 0"):
            small_evaluation(["scenes"], tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*.png"))

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: Any, **settings: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(RunFolderError, match="out"):
            small_evaluation(["scenes"], tmp_path / "out")

    def test_tie_widths(self) -> None:
        for text in ("-1", "a=", "a=b", "nan"):
            with pytest.raises(ConfigError, match="--tie-width"):
                tie_widths(text)
        assert tie_widths(None) == {}
        assert tie_widths("0.5") == {"": 0.5}
        assert tie_widths("a=1, b=2") == {"a": 1.0, "b": 2.0}


class TestCommand:
    def test_prints_both_tables(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["evaluate", "a=scenes", "b=scenes", "--prompts", str(few_prompts(tmp_path)), "--num-prompts", "2"]
        arguments += ["--images", "1", "--steps", "2", "--rewards", "jpeg-compressibility", "--quiet"]
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--out", str(tmp_path / "out")])
        assert not stop.value.code
        printed = capsys.readouterr().out
        assert "jpeg-compressibility" in printed
        assert "100.0%" in printed

    def test_too_many_prompts(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["evaluate", "scenes", "--prompts", str(few_prompts(tmp_path)), "--num-prompts", "9"]
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--out", str(tmp_path / "out")])
        assert stop.value.code == 1
        assert "--num-prompts" in capsys.readouterr().err


class TestSetMetrics:
    def test_against_another_target(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        names = ("precision_scenes_clip", "fd_scenes_clip")
        targets = [f"base={run}@base", str(run)]
        small_evaluation(targets, out, metrics=names, measures={"reference": "base"})
        found = {row["figure"]: row for row in summary(out)["figures"] if row["kind"] == "set metric"}
        assert set(found) == set(names)
        assert {row["target"] for row in found.values()} == {"run"}
        assert found["fd_scenes_clip"]["mean"] > 0
        assert (found["fd_scenes_clip"]["low"], found["fd_scenes_clip"]["direction"]) == (None, "lower")
        assert found["precision_scenes_clip"]["low"] <= found["precision_scenes_clip"]["mean"]
        small_evaluation(targets, out)  # without them: they are kept
        again = {row["figure"]: row for row in summary(out)["figures"] if row["kind"] == "set metric"}
        assert again == found

    def test_against_a_folder(self, compared: Path, run: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        shutil.copytree(compared, out)
        folder = str(compared / "images" / "run")
        found = small_evaluation([str(run)], out, metrics=("fd_scenes_clip",), measures={"reference": folder})
        (figure,) = [row for row in found.figures if row.kind == "set metric"]
        assert figure.mean == pytest.approx(0.0, abs=1e-4)

    def test_without_a_reference_set(self, tmp_path: Path) -> None:
        """Refused before anything is drawn."""
        with pytest.raises(ConfigError, match=r"fd_scenes_clip.*--reference"):
            small_evaluation(["scenes"], tmp_path / "out", metrics=("fd_scenes_clip",))
        with pytest.raises(ConfigError, match=r"--reference nowhere.*\(scenes\)"):
            small_evaluation(
                ["scenes"], tmp_path / "out", metrics=("fd_scenes_clip",), measures={"reference": "nowhere"}
            )
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_draw_the_images_of_one(compared: Path, run: Path, tmp_path: Path) -> None:
    """Also where a part is there already, and what they did not draw is not touched."""
    import os
    import subprocess
    import sys

    out = tmp_path / "out"
    command = [sys.executable, "-m", "seedpo", "evaluate", f"base={run}@base", str(run), "--out", str(out)]
    command += ["--prompts", str(few_prompts(tmp_path)), "--images", "2", "--steps", "2", "--guidance", "2"]
    command += ["--seed", "3", "--batch-size", "4", "--rewards", "scenes-scorer", "--quiet", "--processes", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert {name: images(out, name) for name in ("base", "run")} == {
            name: images(compared, name) for name in ("base", "run")
        }
        assert "scenes-scorer" in done.stdout
        (out / "images" / "run" / "00002-01.png").unlink()
    failed = subprocess.run(
        [*command, "--metrics", "none"], env=environment, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.strip().splitlines()[-1].startswith("error: unknown metric 'none'")

"""The command line, mostly within this process; what only a process of its own can show, in two of those."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from seedpo.cli import main
from seedpo.registry import registries
from tests.small_runs import as_options, few_prompts, files_of, metrics, small

ROOT = Path(__file__).parents[2]
PROMPT = "a small red circle on a white background"
COMMANDS = (
    ["train"],
    ["sample"],
    ["report"],
    ["demo"],
    ["list"],
    ["scenes", "pairs"],
)


@pytest.fixture(autouse=True)
def _fresh_accelerator() -> None:
    """Accelerate keeps the first precision of a process; every test starts afresh."""
    AcceleratorState._reset_state(reset_partial_state=False)


def call(*arguments: Any) -> int:
    """Exit status of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def train(out: Path, method: str, *options: str, **changes: Any) -> int:
    tree = small(out.parent, **changes)
    return call("train", method, "--out", out, "--quiet", *as_options(tree), *options)


def refusal(capsys: pytest.CaptureFixture[str], status: int) -> str:
    """The one line that a refused command prints."""
    assert status == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


def in_process(*arguments: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "seedpo", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


class TestHelp:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_every_command_explains_itself(self, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
        assert call(*command, "--help") == 0
        shown = capsys.readouterr().out
        assert f" {' '.join(command)} [OPTIONS]" in shown
        assert "--help" in shown

    def test_all_commands_are_listed(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("--help") == 0
        shown = capsys.readouterr().out
        assert all(command[0] in shown for command in COMMANDS)

    def test_every_option_is_explained(self) -> None:
        import typer

        from seedpo.cli import app

        def unexplained(command: Any, path: str) -> list[str]:
            found = [f"{path} {p.name}" for p in command.params if not getattr(p, "help", None)]
            for name, child in getattr(command, "commands", {}).items():
                found += unexplained(child, f"{path} {name}")
            return [] if command is None else found

        assert unexplained(typer.main.get_command(app), "seedpo") == []


class TestList:
    @pytest.mark.parametrize("kind", [kind for kind in registries() if kind != "rewards"])
    def test_one_kind(self, capsys: pytest.CaptureFixture[str], kind: str) -> None:
        assert call("list", kind) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{kind}:"
        assert [line.split()[0] for line in lines[1:]] == registries()[kind].names()
        assert all(entry.summary in line for entry, line in zip(registries()[kind].entries, lines[1:], strict=True))

    def test_all_kinds(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("list") == 0
        shown = capsys.readouterr().out
        assert all(f"{kind}:" in shown for kind in registries())
        assert all(f"  {name} " in shown for kind in registries() for name in registries()[kind].names())

    def test_an_unknown_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "unknown kind 'colours'; there are: methods, models" in refusal(capsys, call("list", "colours"))


class TestRefusals:
    """What a user can mend is one line, with status 1 and no traceback."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["--set", "gama=1"], "unknown key 'gama'; did you mean 'gamma'?"),
            (["--set", "sampling.ets=1"], "unknown key 'sampling.ets'; did you mean 'eta'?"),
            (["--set", "gamma"], "--set 'gamma' is not of the form key=value; write for example --set gamma=1"),
            (["--set", "gamma=[1"], "--set gamma: the value '[1' is not YAML"),
            (["--set", "max_steps=soon"], "max_steps = 'soon': "),
            (["--set", "beta=-1"], "beta = -1.0 must be a finite number above 0"),
            (["--set", "beta=0"], "beta = 0.0 must be a finite number above 0"),
            (["--set", "beta=.nan"], "beta = nan: "),
            (["--set", "gamma=-1"], "gamma = -1.0 gives the policy weight"),
            (["--set", "gamma=-2"], "raise gamma above -1"),
            (["--set", "gamma=-50", "--set", "entropy_convention=absolute"], "raise gamma above -10"),
            (["--set", "method=ppo"], "unknown method 'ppo'; did you mean 'spo'? there are: diffusion-dpo, d3po, spo"),
            (["--set", "prompts=absent.txt"], "prompt file absent.txt does not exist in "),
            (["--set", "evaluation.prompts=absent.txt"], "prompt file absent.txt does not exist"),
            (["--set", "reward=scorer"], "unknown reward 'scorer'"),
            (["--set", "model=absent/folder"], "absent/folder"),
            (["--resume", "last"], "--resume last is unknown; write --resume latest"),
            (["--resume", "latest"], "config.yaml"),
        ],
        ids=lambda value: value if isinstance(value, str) else " ".join(value),
    )
    def test_of_a_run(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: list[str], message: str
    ) -> None:
        out = tmp_path / "run"
        assert message in refusal(capsys, call("train", "spo", "--out", out, *changes))
        assert not out.exists()

    def test_an_unknown_method(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        message = refusal(capsys, call("train", "sop", "--out", tmp_path / "run"))
        assert message == "unknown method 'sop'; did you mean 'spo'? there are: diffusion-dpo, d3po, spo"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("method: [spo\n", "cannot be read as YAML"),
            ("- spo\n", "must hold keys and values"),
            ("method: spo\ngama: 1\n", "unknown key 'gama'; did you mean 'gamma'?"),
            ("gamma: -2\n", "raise gamma above -1"),
        ],
    )
    def test_of_a_recipe(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(content)
        assert message in refusal(capsys, call("train", recipe, "--out", tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    def test_a_recipe_that_is_not_there(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        message = refusal(capsys, call("train", tmp_path / "absent.yaml", "--out", tmp_path / "run"))
        assert "absent.yaml does not exist" in message

    @pytest.mark.parametrize(
        ("content", "message"), [(b"\n \n", "holds no prompt"), (b"\xff\xfe\xfa", "cannot be read as UTF-8 text")]
    )
    def test_of_a_prompt_file(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, message: str
    ) -> None:
        (tmp_path / "p.txt").write_bytes(content)
        status = call("train", "spo", "--out", tmp_path / "run", "--set", f"prompts={tmp_path / 'p.txt'}")
        assert message in refusal(capsys, status)

    def test_of_a_pair_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "p.parquet").write_text("no parquet")
        status = call("train", "diffusion-dpo", "--out", tmp_path / "run", "--set", f"data={tmp_path / 'p.parquet'}")
        assert "cannot be read as parquet" in refusal(capsys, status)

    def test_an_existing_run_folder(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert train(tmp_path / "run", "diffusion-dpo", max_steps=1) == 0
        capsys.readouterr()
        before = files_of(tmp_path / "run")
        message = refusal(capsys, train(tmp_path / "run", "diffusion-dpo", max_steps=1))
        assert "is not empty; continue with --resume latest, or choose another --out to start anew" in message
        assert files_of(tmp_path / "run") == before

    def test_a_loss_that_is_not_a_number(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        out = tmp_path / "run"
        message = refusal(capsys, train(out, "diffusion-dpo", max_steps=3, checkpoint_every=1, learning_rate=1e30))
        assert message.startswith("step 2: the loss is not finite")
        assert "lower learning_rate, beta or gamma" in message
        assert "checkpoint-000001" in message
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-000001"]
        assert not (out / "adapter").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "there is nothing to draw; give --prompt"),
            (["--prompt", PROMPT, "--run", "absent"], "absent is not a run folder"),
            (["--prompt", PROMPT, "--model", "scones"], "unknown model 'scones'; did you mean 'scenes'?"),
            (["--prompts", "absent.txt"], "prompt file absent.txt does not exist"),
            (["--prompts", "scenes-evalation"], "unknown prompt set 'scenes-evalation'; did you mean"),
        ],
    )
    def test_of_drawing(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
    ) -> None:
        assert message in refusal(capsys, call("sample", "--out", tmp_path / "images", *arguments))
        assert not (tmp_path / "images").exists()

    def test_of_a_report(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        message = refusal(capsys, call("report", tmp_path / "absent", "--out", tmp_path / "r.html"))
        assert "absent" in message

    def test_options_that_are_no_options(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The command line's own mistakes keep typer's status and wording."""
        assert call("train", "spo") == 2
        assert "--out" in capsys.readouterr().err


class TestRuns:
    def test_trains_samples_and_reports(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        run, images, page = tmp_path / "run", tmp_path / "images", tmp_path / "page.html"
        assert train(run, "diffusion-dpo", gamma=0.001, learning_rate=0.05) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("finished: step 2, loss ")
        assert f"run folder: {run}" in shown
        assert metrics(run)[-1]["step"] == 2

        options = ["--images", 2, "--steps", 2, "--seed", 7, "--out"]
        assert (
            call("sample", "--prompt", PROMPT, "--prompts", few_prompts(tmp_path), "--run", run, *options, images) == 0
        )
        assert "8 images in" in capsys.readouterr().out
        index = json.loads((images / "index.json").read_text())
        assert [entry["prompt"] for entry in index[:4]] == [PROMPT] * 4, "the first line of the file is the same prompt"
        assert len(index) == 8
        for entry in index:
            with Image.open(images / entry["file"]) as image:
                assert image.size == (32, 32)
        with Image.open(images / "sheet.png") as sheet:
            assert sheet.size == (2 * 256, 4 * 256), "small images are enlarged to be looked at"

        assert call("sample", "--prompt", PROMPT, *options, tmp_path / "base") == 0
        assert call("sample", "--prompt", PROMPT, "--run", run, *options, tmp_path / "again") == 0
        file = "000-00.png"
        assert (tmp_path / "again" / file).read_bytes() == (images / file).read_bytes()
        assert (tmp_path / "again" / file).read_bytes() != (tmp_path / "base" / file).read_bytes()

        assert call("report", run, "--out", page, "--title", "A title") == 0
        assert "A title" in page.read_text(encoding="utf-8")

    def test_a_recipe_with_changes_is_resumed(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("method: diffusion-dpo\ngamma: 0.001\n")
        run = tmp_path / "run"
        assert train(run, str(recipe), max_steps=1) == 0
        assert train(run, str(recipe), "--resume", "latest", max_steps=2) == 0
        assert [line["step"] for line in metrics(run) if line["kind"] == "train"] == [1, 2]
        assert "gamma: 0.001" in (run / "config.yaml").read_text()

    def test_pairs_are_written_as_parquet(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        out = tmp_path / "new" / "pairs.parquet"
        assert call("scenes", "pairs", "--out", out, "--count", 3, "--seed", 5) == 0
        assert pq.read_table(out).num_rows == 3
        assert "3 pairs" in capsys.readouterr().out


class TestProcess:
    def test_an_error_is_one_line_and_nothing_else(self, tmp_path: Path) -> None:
        done = in_process("train", "spo", "--out", tmp_path / "run", "--set", "gama=1")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == "error: unknown key 'gama'; did you mean 'gamma'?\n"

    def test_unknown_words_are_named_and_the_run_goes_on(self, tmp_path: Path) -> None:
        prompts = few_prompts(tmp_path, "a small mauve zebra on a white background")
        tree = small(tmp_path, prompts=str(prompts), max_steps=1, evaluation={"num_prompts": 1, "metrics": []})
        few_prompts(tmp_path, "a small mauve zebra on a white background")
        done = in_process("train", "spo", "--out", tmp_path / "run", "--quiet", *as_options(tree))
        assert done.returncode == 0, done.stderr
        warning = (
            "prompt 'a small mauve zebra on a white background': the embedded model has never seen 'mauve', 'zebra'"
        )
        assert done.stderr.splitlines().count(warning) == 1
        assert done.stdout.startswith("finished: step 1, ")

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
import typer
from accelerate.state import AcceleratorState
from PIL import Image

from seedpo.cli import app, main
from seedpo.registry import registries
from tests.small_runs import as_options, few_prompts, metrics, small

ROOT = Path(__file__).parents[2]
PROMPT = "a small red circle on a white background"


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


SLOW_BAR = """
import time
from seedpo.cli import main
try:
    main(["--version"])
except SystemExit:
    pass
from tqdm import tqdm
for _ in tqdm(range(8)):
    time.sleep(0.12)
"""


def test_a_log_file_gets_few_states_of_a_progress_bar() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TQDM_MININTERVAL"}
    ended = subprocess.run(
        [sys.executable, "-c", SLOW_BAR],
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        check=True,
    )
    assert ended.stderr.count(b"\r") <= 3  # tqdm alone writes one for each of the eight


def test_every_command_and_option_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    def check(command: Any, path: list[str]) -> None:
        assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []
        assert call(*path, "--help") == 0
        shown = capsys.readouterr().out
        assert " ".join([*path, "[OPTIONS]"]) in " ".join(shown.split())
        children = getattr(command, "commands", {})
        assert command.help
        for name, child in children.items():
            assert name in shown
            check(child, [*path, name])

    check(typer.main.get_command(app), [])


class TestList:
    def test_one_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        for kind, registry in registries().items():
            if kind in ("rewards", "models"):  # tables that fit the terminal
                continue
            assert call("list", kind) == 0
            first, *rows = capsys.readouterr().out.splitlines()
            assert first == f"{kind}:"
            assert [row.split()[0] for row in rows] == registry.names()
            assert all(entry.summary in row for entry, row in zip(registry.entries, rows, strict=True))

    def test_all_kinds(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("list") == 0
        shown = capsys.readouterr().out
        assert all(f"{kind}:" in shown for kind in registries())
        assert all(f"  {name} " in shown for kind in registries() for name in registries()[kind].names())

    def test_an_unknown_kind(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "unknown kind 'colours'; there are: recipes, methods" in refusal(capsys, call("list", "colours"))


class TestRefusals:
    """What a user can mend is one line, with status 1 and no traceback."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (["--set", "sampling.ets=1"], "'sampling.ets'"),
            (["--set", "gamma"], "--set 'gamma'"),
            (["--set", "gamma=[1"], "--set gamma"),
            (["--set", "gamma=-50", "--set", "entropy_convention=absolute"], "-10"),
            (["--set", "method=ppo"], "'ppo'"),
            (["--set", "prompts=absent.txt"], "absent.txt"),
            (["--set", "model=absent/folder"], "absent/folder"),
            (["--resume", "last"], "--resume latest"),
        ],
        ids=lambda value: value if isinstance(value, str) else " ".join(value),
    )
    def test_of_a_run(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: list[str], message: str
    ) -> None:
        out = tmp_path / "run"
        assert message in refusal(capsys, call("train", "spo", "--out", out, *changes))
        assert not out.exists()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("method: [spo\n", "YAML"),
            ("method: spo\ngama: 1\n", "'gama'"),
        ],
    )
    def test_of_a_recipe(self, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, message: str) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(content)
        assert message in refusal(capsys, call("train", recipe, "--out", tmp_path / "run"))
        assert not (tmp_path / "run").exists()

    def test_of_a_pair_file(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "p.parquet").write_text("no parquet")
        keys = ["--set", "model=scenes", "--set", f"data={tmp_path / 'p.parquet'}"]
        status = call("train", "diffusion-dpo", "--out", tmp_path / "run", *keys)
        assert "cannot be read as parquet" in refusal(capsys, status)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "--prompt"),
            (["--prompt", PROMPT, "--run", "absent"], "absent"),
            (["--prompt", PROMPT, "--model", "scones"], "unknown model 'scones'; did you mean 'scenes'?"),
            (["--prompts", "absent.txt"], "prompt file absent.txt does not exist"),
            (["--prompts", "scenes-evalation"], "unknown prompt set 'scenes-evalation'; did you mean"),
            (["--prompt", PROMPT, "--size", "512x"], "--size 512x: write a side"),
            (["--prompt", PROMPT, "--size", "33"], "size 33x33"),
            (["--prompt", PROMPT, "--sampler", "eulr"], "did you mean 'euler'"),
            (["--prompt", PROMPT, "--strength", "0.5"], "give --run"),
            (["--prompt", PROMPT, "--strength", "much"], "--strength much"),
            (["--prompt", PROMPT, "--step", "1,2"], "add --grid"),
            (["--prompt", PROMPT, "--grid"], "give --run"),
            (["--prompt", PROMPT, "--steps", "3000"], "3000 denoising steps"),
            (["--prompt", PROMPT, "--guidance", "1", "--negative-prompt", "blurry"], "negative prompt"),
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

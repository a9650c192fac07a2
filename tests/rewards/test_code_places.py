"""Code that files name is not run from the current folder, unless the command line asks for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from seedpo.cli import main
from seedpo.rewards.code_places import code_folder, follow
from seedpo.rewards.user_code import user_reward

NAME = "code_that_came_along"
CODE = "from pathlib import Path\nPath('run').touch()\ndef f(images, prompts):\n    return images.mean((1, 2, 3))\n"
RECIPE = f"rewards: {{mix: {{terms: {{'{NAME}:f': 1.0}}}}}}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{NAME}.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    yield tmp_path
    user_reward.cache_clear()
    sys.modules.pop(NAME, None)


def score(*arguments: str, first: tuple[str, ...] = ()) -> int:
    try:
        main([*first, "score", "a.png", *arguments, "--prompt", "a fox", "--out", "scores.csv"])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_recipe_runs_no_code_that_came_with_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score("--config", "recipe.yaml", "--reward", "mix") == 1
    assert "--code ." in capsys.readouterr().err
    assert not (place / "run").exists()


@pytest.mark.parametrize("first", [("--code", "."), ("--code", "elsewhere")])
def test_the_command_line_asks_for_a_folder(place: Path, first: tuple[str, ...]) -> None:
    (place / "elsewhere").mkdir()
    assert score("--config", "recipe.yaml", "--reward", "mix", first=first) == (0 if first[1] == "." else 1)
    assert (place / "run").exists() == (first[1] == ".")


def test_a_reward_on_the_command_line_is_asked_for(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert score("--reward", f"{NAME}:f") == 0
    assert (place / "run").exists()
    assert any(f"{NAME}.py" in record.getMessage() for record in caplog.records)


def test_the_line_comes_before_the_code(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    (place / f"{NAME}.py").write_text("1 / 0\n", encoding="utf-8")
    with caplog.at_level("INFO"):
        assert score("--reward", f"{NAME}:f") == 1
    assert any(f"{NAME}.py" in record.getMessage() for record in caplog.records)


def test_processes_follow_the_command_that_started_them(place: Path) -> None:
    with follow(["sweep", "spo", "--vary", "reward=a.b:c,pickscore"]), follow(["train", "cell.yaml"]):
        assert code_folder("a.b:c") == place
        assert code_folder("b:c") is None
        assert code_folder("a.b:cd") is None
    assert code_folder("x:y") == place

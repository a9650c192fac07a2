from __future__ import annotations

import json
import subprocess
from pathlib import Path

import torch

from seedpo.training.environment import changed_packages, describe_environment, git_state


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_versions_and_machine_are_json() -> None:
    environment = json.loads(json.dumps(describe_environment()))
    assert environment["packages"]["torch"] == torch.__version__
    names = {"seedpo", "torch", "diffusers", "transformers", "accelerate", "peft"}
    assert names <= set(environment["packages"])
    assert environment["python"].startswith("3.")
    assert environment["platform"]


def test_commit_of_the_checkout_that_tracks_the_file(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    source = tmp_path / "module.py"
    source.write_text("a = 1\n")
    assert git_state(source) is None
    git(tmp_path, "add", "module.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(source) == {"commit": commit, "changed": False}
    source.write_text("a = 2\n")
    assert git_state(source) == {"commit": commit, "changed": True}
    # A package installed below somebody's checkout is not theirs.
    installed = tmp_path / "site-packages" / "module.py"
    installed.parent.mkdir()
    installed.write_text("b = 1\n")
    assert git_state(installed) is None


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("")
    assert git_state(tmp_path / "module.py") is None


def test_changed_versions_are_listed() -> None:
    now = describe_environment()
    assert changed_packages(now, now) == []
    before = {"packages": now["packages"] | {"torch": "1.0"}}
    assert changed_packages(before, now) == [f"torch 1.0 -> {torch.__version__}"]

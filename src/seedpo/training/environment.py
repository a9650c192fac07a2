"""What a run ran on: versions, commit and machine, so that it can be repeated."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("seedpo", "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy")
"""Distributions whose versions can change the numbers of a run."""


def describe_environment() -> dict[str, Any]:
    """Versions, git commit, platform and accelerator, as JSON values; ``None`` where unknown or absent."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_state(Path(__file__).resolve()),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def git_state(file: Path) -> dict[str, Any] | None:
    """Commit of the checkout that tracks ``file``, and whether tracked files were changed since.

    ``None`` outside a checkout; a package installed below somebody else's checkout is not tracked by it.
    """
    if _git(file, "ls-files", "--error-unmatch", file.name) is None:
        return None
    commit = _git(file, "rev-parse", "HEAD")
    changes = _git(file, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "changed": bool(changes)}


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=file.parent, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def changed_packages(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Packages whose version is another than it was, as ``name old -> new``."""
    old, new = before.get("packages", {}), now["packages"]
    return [f"{name} {old.get(name)} -> {new[name]}" for name in PACKAGES if old.get(name) != new[name]]

"""Whatever somebody puts into a file, its reader gives it or refuses it in one line, soon and in little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.attacks import REFUSED_IMAGES, TAKEN_IMAGES

ROOT = Path(__file__).parents[2]

BOMBS = ("aliases", "merge keys", "recursive", "brackets", "mappings", "block of lists", "object of Python", "tag")
"""Beginnings of attacks in YAML that none may take."""


def outcomes(group: str) -> dict[str, str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.hostile.runner", group]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are those of Linux")
@pytest.mark.parametrize("group", ["yaml", "json", "files", "images"])
def test_every_attack_is_taken_or_refused_in_one_line(group: str) -> None:
    results = outcomes(group)
    assert len(results) > 50
    assert {name: result for name, result in results.items() if result not in ("taken", "refused")} == {}
    if group == "yaml":
        taken = {name for name, result in results.items() if result == "taken"}
        assert not {name for name in taken if name.partition(": ")[2].startswith(BOMBS)}
    if group == "images":
        assert {name for name in REFUSED_IMAGES if results[f"decoded: {name}"] != "refused"} == set()
        assert {name for name in TAKEN_IMAGES if results[f"decoded: {name}"] != "taken"} == set()

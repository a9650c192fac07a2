"""Stands in for the trainer, so that a sweep takes no time: an empty run folder, or a failure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from seedpo.errors import ConfigError
from seedpo.training.configuration import resolve_config
from seedpo.training.sweeps import running
from seedpo.training.sweeps.definition import Cell
from seedpo.training.sweeps.running import recipe_text

SCRIPT = """#!{python}
# Notes how it was called, writes what a run would, and finishes, or fails as a run does.
import json, pathlib, shutil, sys
recipe, out = pathlib.Path(sys.argv[sys.argv.index("train") + 1]), pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
with open("{calls}", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
out.mkdir(parents=True, exist_ok=True)
shutil.copy(recipe, out / "config.yaml")
if out.name in json.loads(pathlib.Path("{failing}").read_text()):
    print("loading")
    print("error: step 2: the loss is not finite")
    sys.exit(1)
(out / "finished.json").write_text("{{}}")
"""


class StandIn:
    """Replaces the interpreter that a sweep starts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.failing, script = folder / "calls.jsonl", folder / "failing.json", folder / "trainer"
        self.recipes: dict[str, str] = {}
        self.fail()
        script.write_text(SCRIPT.format(python=sys.executable, calls=self.calls, failing=self.failing))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        monkeypatch.setattr(running, "recipe_text", self._resolved)

    def _resolved(self, cell: Cell) -> str:
        """The whole configuration as the recipe, since the script cannot resolve it."""
        self.recipes[cell.name] = recipe_text(cell)
        try:
            config = resolve_config(str(cell.keys["method"]), cell.keys)
        except ConfigError:  # of a cell that is never started
            return self.recipes[cell.name]
        return yaml.safe_dump(config.tree(), sort_keys=False)

    def fail(self, *names: str) -> None:
        """From now on these cells fail, and no others."""
        self.failing.write_text(json.dumps(names))

    def started(self) -> list[str]:
        """The cells that were started since this was asked last."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        calls: list[list[Any]] = [json.loads(line) for line in lines]
        return [Path(call[call.index("--out") + 1]).name + (" again" if "--resume" in call else "") for call in calls]

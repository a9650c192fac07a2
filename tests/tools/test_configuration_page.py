"""The page of all keys is what the settings say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seedpo.keys import all_keys
from seedpo.settings import Section
from seedpo.training.settings import RewardRunConfig, RunConfig
from tools.configuration_page import PAGE, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m tools.configuration_page"


@pytest.mark.parametrize("kind", [RunConfig, RewardRunConfig])
def test_every_key_is_on_the_page(kind: type[Section]) -> None:
    text = page()
    assert [name for name in all_keys(kind) if f"`{name}`" not in text] == []


def test_the_page_needs_no_torch() -> None:
    code = "import sys; from tools.configuration_page import page; page(); sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)

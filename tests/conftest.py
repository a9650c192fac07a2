"""Settings of every test: one thread per process, no network, the same examples each time."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Before the first import of torch or huggingface_hub, which read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

settings.register_profile("seedpo", derandomize=True, deadline=None, database=None)
settings.load_profile("seedpo")


ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No test writes a file beside the code; what commands write belongs into `tmp_path`."""
    before = _files()
    yield
    assert not (left := _files() - before), f"written into {ROOT}: {', '.join(sorted(left))}"


def _files() -> set[str]:
    return {entry.name for entry in os.scandir(ROOT) if entry.is_file() and not entry.name.startswith(".")}


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Commands set the level of the package's log for their process; here the next test shares it."""
    yield
    logging.getLogger("seedpo").setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _usual_precision() -> Iterator[None]:
    """Accelerate keeps the first precision of a process; a test in another one leaves it to no other test."""
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None and state.AcceleratorState._shared_state.get("_mixed_precision", "no") != "no":
        state.AcceleratorState._reset_state(reset_partial_state=False)

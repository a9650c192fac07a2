"""Settings of every test: one thread per process, no network, the same examples each time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

# Before the first import of torch or huggingface_hub, which read these once.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

settings.register_profile("seedpo", derandomize=True, deadline=None, database=None)
settings.load_profile("seedpo")


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    """Commands set the level of the package's log for their process; here the next test shares it."""
    yield
    logging.getLogger("seedpo").setLevel(logging.NOTSET)

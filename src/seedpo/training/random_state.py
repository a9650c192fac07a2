"""Random numbers of a run: how each process is seeded, and how its state is kept.

Process ``rank`` of a run with ``seed`` draws from generators seeded with
``numpy.random.SeedSequence([seed, rank])``, so that no two processes, and no two runs, share a stream. A run that goes
on on another number of processes draws from ``SeedSequence([seed, rank, step, number])`` from then on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from seedpo.protocols import State


def process_seed(seed: int, rank: int, *since: int) -> int:
    """A seed of 32 bits for one process of a run; PyTorch's CPU generator uses no more.

    Args:
        seed: of the run.
        rank: of the process.
        since: step and number of processes since which it draws from this stream; nothing: from the start.
    """
    return int(np.random.SeedSequence([seed, rank, *since]).generate_state(1, np.uint32)[0])


def seed_process(seed: int, rank: int, *since: int) -> torch.Generator:
    """Seeds the global generators (dropout draws from them) and returns the trainer's own, on the CPU."""
    value = process_seed(seed, rank, *since)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 (libraries draw from it)
    torch.manual_seed(value)
    return torch.Generator().manual_seed(value)


def capture_random_state(device: torch.device) -> State:
    """State of the global generators of Python, numpy and PyTorch (CPU, and ``device`` if it is a CUDA device)."""
    version, words, next_gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    state: State = {
        "python": {"version": version, "words": list(words), "next_gauss": next_gauss},
        "numpy": {
            "key": [int(word) for word in numpy_state["state"]["key"]],
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: State, device: torch.device) -> None:
    """Takes back what :func:`capture_random_state` gave; a CUDA state is used on a CUDA device only."""
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"]), python["next_gauss"]))
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": "MT19937",
            "state": {"key": np.array(numpy_state["key"], dtype=np.uint32), "pos": numpy_state["pos"]},
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        }
    )
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Whatever is drawn inside from the global generators does not change what is drawn afterwards."""
    state = capture_random_state(device)
    try:
        yield
    finally:
        restore_random_state(state, device)

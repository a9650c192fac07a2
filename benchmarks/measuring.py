"""Measures one case, in this process or in one of its own."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.agreement import group_agreement
from benchmarks.cases import AGREEMENT, CASES
from benchmarks.networks import SMALL, TINY
from benchmarks.timing import compare
from seedpo.cli.shared import quieten_libraries


def measured_apart(name: str, *, tiny: bool, repetitions: int) -> dict[str, Any]:
    """In a process of its own, since what the allocator has kept from one case changes the times of the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, name, tiny=tiny, repetitions=repetitions).result()


def measure(name: str, *, tiny: bool, repetitions: int) -> dict[str, Any]:
    """Both sides of one case."""
    quieten_libraries()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tqdm(desc=name, unit=" turns", leave=False, disable=None) as bar:
        if name == AGREEMENT:
            size: dict[str, int] = {"images": 3, "prompts": 1, "steps_per_pair": 1} if tiny else {}
            return group_agreement(**size, on_update=bar.update)
        bar.total = repetitions + 3
        return compare(CASES[name](TINY if tiny else SMALL), repetitions=repetitions, on_round=bar.update)

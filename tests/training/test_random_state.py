from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from seedpo.training.codec import load_tree, save_tree
from seedpo.training.random_state import (
    capture_random_state,
    preserved_random_state,
    process_seed,
    restore_random_state,
    seed_process,
)

CPU = torch.device("cpu")


def draw() -> list[float]:
    """From every global generator, an odd number of normals so that a spare one is kept."""
    normal = np.random.normal()  # noqa: NPY002
    return [random.random(), random.gauss(0, 1), float(normal), *torch.randn(3).tolist()]


def test_state_comes_back_through_files(tmp_path: Path) -> None:
    seed_process(1, 0)
    draw()
    save_tree(capture_random_state(CPU), tmp_path / "random")
    expected = [draw() for _ in range(3)]
    seed_process(2, 0)
    restore_random_state(load_tree(tmp_path / "random"), CPU)
    assert [draw() for _ in range(3)] == expected


def test_draws_inside_change_nothing_outside() -> None:
    seed_process(1, 0)
    expected = draw()
    seed_process(1, 0)
    with preserved_random_state(CPU):
        draw()
    assert draw() == expected


def test_every_seed_and_rank_has_its_own_stream() -> None:
    seeds = {process_seed(seed, rank) for seed in range(40) for rank in range(8)}
    assert len(seeds) == 320
    later = {process_seed(0, rank, step, number) for rank in range(4) for step in range(5) for number in range(1, 6)}
    assert len(later) == 100
    assert not later & seeds
    assert process_seed(0, 0) == int(np.random.SeedSequence([0, 0]).generate_state(1)[0])


def test_the_trainers_generator_follows_seed_and_rank() -> None:
    first = torch.rand(4, generator=seed_process(7, 0))
    assert torch.equal(torch.rand(4, generator=seed_process(7, 0)), first)
    assert not torch.equal(torch.rand(4, generator=seed_process(7, 1)), first)
    assert not torch.equal(torch.rand(4, generator=seed_process(8, 0)), first)

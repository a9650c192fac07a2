from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seedpo.core.draws import KeyedDraws, StratifiedDraws
from seedpo.core.processes import DiffusionProcess, Process
from tests.core.flow_data import flow_process

SHAPE = (4, 8, 8)

PROCESS = DiffusionProcess(alphas_cumprod=torch.linspace(0.99, 0.01, 1000))


def drawn(draws: KeyedDraws, pair: list[int], visit: list[int]) -> tuple[Tensor, Tensor]:
    return draws.timestep_and_noise(torch.tensor(pair), torch.tensor(visit), process=PROCESS, shape=SHAPE)


def test_a_pair_s_draw_does_not_depend_on_the_batch() -> None:
    draws = KeyedDraws(seed=3)
    timestep, noise = drawn(draws, [5, 9, 2], [0, 1, 4])
    assert timestep.dtype == torch.int64
    assert noise.shape == (3, *SHAPE)
    assert noise.dtype == torch.float32
    for row, (pair, visit) in enumerate(((5, 0), (9, 1), (2, 4))):
        alone = drawn(KeyedDraws(seed=3), [pair], [visit])
        assert torch.equal(alone[0], timestep[row : row + 1])
        assert torch.equal(alone[1], noise[row : row + 1])


def test_seed_pair_and_visit_each_change_it() -> None:
    noises = [
        drawn(KeyedDraws(seed=seed), [pair], [visit])[1]
        for seed, pair, visit in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 10, 0), (0, 1, 10), (0, 11, 0))
    ]
    assert len({tuple(noise.flatten().tolist()) for noise in noises}) == len(noises)


def test_draws_are_uniform_and_standard_normal() -> None:
    timestep, noise = drawn(KeyedDraws(seed=0), list(range(4000)), [0] * 4000)
    counts = torch.bincount(timestep, minlength=1000)
    assert len(counts) == 1000
    # 400 in each tenth, give or take five standard deviations (19).
    assert (counts.view(10, 100).sum(1) - 400).abs().max() < 95
    # One million numbers: the standard errors are 0.001 and 0.0007.
    assert abs(float(noise.mean())) < 0.005
    assert abs(float(noise.std()) - 1) < 0.004
    assert abs(float(noise[1:].mul(noise[:-1]).mean())) < 0.005, "pairs are independent"


def test_draws_repeat_after_the_visits() -> None:
    draws = KeyedDraws(seed=0, visits=2)
    timestep, noise = drawn(draws, [7] * 5, [0, 1, 2, 3, 4])
    assert torch.equal(noise[[0, 1, 0, 1, 0]], noise)
    assert torch.equal(timestep[[0, 1, 0, 1, 0]], timestep)
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[:2], drawn(KeyedDraws(seed=0), [7, 7], [0, 1])[1])
    assert [draws.coin(pair, 3) for pair in range(20)] == [draws.coin(pair, 1) for pair in range(20)]


def test_coins_are_fair_and_independent() -> None:
    draws = KeyedDraws(seed=1)
    coins = torch.tensor([[draws.coin(pair, visit) for visit in range(2)] for pair in range(4000)]).double()
    # Standard error 0.008.
    assert (coins.mean(0) - 0.5).abs().max() < 0.04
    assert abs(float((coins[:, 0] == coins[:, 1]).double().mean()) - 0.5) < 0.04
    assert [draws.coin(pair, 0) for pair in range(50)] == [KeyedDraws(seed=1).coin(pair, 0) for pair in range(50)]
    assert [draws.coin(pair, 0) for pair in range(50)] != [KeyedDraws(seed=2).coin(pair, 0) for pair in range(50)]


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    drawn(KeyedDraws(seed=0), [1, 2], [0, 0])
    assert torch.equal(torch.get_rng_state(), state)


def test_uniform_numbers_are_uniform_and_apart_from_the_coin() -> None:
    draws = KeyedDraws(seed=1)
    numbers = torch.tensor([draws.uniform(pair, 0) for pair in range(4000)], dtype=torch.float64)
    assert 0 <= float(numbers.min()) <= float(numbers.max()) < 1
    # 400 in each tenth, give or take five standard deviations (19).
    assert (torch.histc(numbers, bins=10, min=0, max=1) - 400).abs().max() < 95
    coins = torch.tensor([draws.coin(pair, 0) for pair in range(4000)], dtype=torch.float64)
    assert abs(float(torch.corrcoef(torch.stack([numbers, coins]))[0, 1])) < 0.08


@pytest.mark.parametrize("process", [PROCESS, flow_process()])
def test_strata_spread_the_time_steps_of_a_pair_and_keep_their_distribution(process: Process) -> None:
    draws, pairs, strata = StratifiedDraws(seed=3, strata=4), 500, 4
    visits = torch.arange(strata).repeat(pairs)
    numbers = torch.arange(pairs).repeat_interleave(strata)
    timesteps, noise = draws.timestep_and_noise(numbers, visits, process=process, shape=(2,))
    rows = timesteps.view(pairs, strata).double()
    assert (rows.diff(dim=1) >= 0).all(), "visit by visit later parts of the schedule"
    plain = process.draw_timesteps(20_000, generator=torch.Generator().manual_seed(1)).double()
    shares = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    spread = float(plain.std())
    assert (rows.flatten().quantile(shares) - plain.quantile(shares)).abs().max() < 0.1 * spread
    # The mean of four spread draws varies far less than that of four plain ones, whose deviation is spread / 2.
    assert float(rows.mean(1).std()) < 0.25 * spread
    assert noise.unique().numel() == noise.numel()
    alone, _ = draws.timestep_and_noise(numbers[7:8], visits[7:8], process=process, shape=(2,))
    assert torch.equal(alone, timesteps[7:8])

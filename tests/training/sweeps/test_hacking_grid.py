from __future__ import annotations

from collections import Counter

import pytest

from seedpo.core.entropy import entropy_weights
from seedpo.errors import ConfigError
from seedpo.settings import dotted
from seedpo.training.sweeps.expansion import expand
from seedpo.training.sweeps.hacking_grid import GRIDS, Grid, grids, settings_of, sweep_of


@pytest.mark.parametrize("method", GRIDS)
class TestGrids:
    def test_every_temperature_has_its_control_and_no_run_is_trained_twice(self, method: str) -> None:
        settings = settings_of(GRIDS[method].untried)
        plain = {one.beta: one for one in settings if one.role == "base"}
        see = [one for one in settings if one.role == "see"]
        assert len({(one.beta, one.weight) for one in settings}) == len(settings)
        assert len({one.label for one in settings}) == len(settings)
        assert all(plain[one.weight].controls and one.beta in plain for one in see)
        assert set(plain) == {one.weight for one in see} | set(GRIDS[method].betas)
        for one in see:
            for convention, gamma in one.gammas.items():
                assert entropy_weights(one.beta, gamma, convention=convention) == pytest.approx((one.weight, one.beta))

    def test_both_pools_have_the_same_size_and_both_conventions_are_tried(self, method: str) -> None:
        settings = settings_of(GRIDS[method].untried)
        assert len(set(Counter(one.role for one in settings).values())) == 1
        tried = {convention for one in settings for convention in one.gammas}
        assert tried == {"relative", "absolute"}

    def test_runs_are_valid_and_have_enough_evaluations_for_a_frontier(self, method: str) -> None:
        cells = expand(sweep_of(method, GRIDS[method], seeds=2, changes={"lora_rank": 2}))
        assert len(cells) == 2 * len(settings_of(GRIDS[method]))
        for cell in cells:
            assert cell.config is not None
            assert cell.config.max_steps % cell.config.evaluate_every == 0
            assert cell.config.max_steps / cell.config.evaluate_every >= 4
            assert cell.config.lora_rank == 2
            metrics = {"truth", "free_spread", "pairwise_diversity"}
            assert metrics <= set(cell.config.evaluation.metrics)


@pytest.mark.parametrize("method", [method for method, grid in GRIDS.items() if grid.trials])
def test_trials_differ_from_a_published_setting_in_their_option_alone(method: str) -> None:
    grid = GRIDS[method]
    cells = {one.name: one.config for one in expand(sweep_of(method, grid, seeds=1, changes={}))}
    settings = settings_of(grid)
    published = {(one.role, one.beta, one.weight): one for one in settings if not one.option}
    tried = [one for one in settings if one.option]
    assert {one.option for one in tried} == set(grid.trials)
    assert len(tried) == 2 * len(grid.trials)
    for one in tried:
        twin = published[one.role, one.beta, one.weight]
        left, right = (dotted(cells[f"{each.label}_seed=0"].model_dump()) for each in (one, twin))
        assert {key for key in left if left[key] != right[key]} <= set(grid.trials[one.option])
        assert left != right


def test_two_gammas_that_are_one_loss() -> None:
    settings = settings_of(Grid(betas=(10.0,), relative=(1.0,), absolute=(10.0,)))
    assert [(one.role, one.beta, one.weight) for one in settings] == [
        ("base", 10, 10),
        ("base", 20, 20),
        ("see", 10, 20),
    ]
    assert settings[2].gammas == {"relative": 1.0, "absolute": 10.0}
    assert settings[2].label == "see-beta=10-relative=1"
    assert [one.controls for one in settings[:2]] == [False, True]


def test_inexact_temperatures_meet() -> None:
    """0.1 (1 + 2) is not 0.3 in binary, but it is the same temperature."""
    settings = settings_of(Grid(betas=(0.1, 0.3), relative=(2.0,)))
    assert [one.beta for one in settings if one.role == "base"] == [0.1, 0.3, 0.9]


def test_the_methods_asked_for() -> None:
    assert list(grids([], quick=False)) == list(GRIDS)
    assert list(grids(["d3po"], quick=True)) == ["d3po"]
    assert len(settings_of(grids(["d3po"], quick=True)["d3po"])) == 3
    with pytest.raises(ConfigError, match="did you mean 'spo'"):
        grids(["sp"], quick=False)

from __future__ import annotations

import math

import pytest

from seedpo.training.configuration import resolve_config
from seedpo.training.sweeps.paper import GAMMA, GAMMAS, LONG, paper_runs
from seedpo.training.sweeps.running import recipe_text


@pytest.mark.parametrize("long", [False, True])
def test_every_setting_of_the_figures_has_base_and_control(long: bool) -> None:
    parts = paper_runs(seeds=2, long=long)
    cells = [cell for part in parts.values() for cell in part]
    assert len({cell.name for cell in cells}) == len(cells)
    texts = [recipe_text(cell) for cell in cells]
    assert len(set(texts)) == len(texts), "no run is trained twice"
    ablation = [(cell.keys["beta"], cell.keys["gamma"]) for cell in (*parts["trio"], *parts["ablation"])]
    for beta, gamma in ablation:
        if gamma:
            assert any(own == beta * (1 + gamma) and not other for own, other in ablation), (beta, gamma)
    beta = parts["trio"][0].keys["beta"]
    assert {gamma for own, gamma in ablation if math.isclose(own, beta)} == set(GAMMAS)
    assert len({own for own, gamma in ablation if gamma == GAMMA}) == 3
    by_reward: dict[str, set[float]] = {}
    for cell in (*parts["trio"], *parts["rewards"]):
        assert cell.keys["evaluation"]["rewards"][0] == cell.keys["reward"], "the trained reward is the proxy"
        by_reward.setdefault(cell.keys["reward"], set()).add(cell.keys["gamma"])
    assert len(by_reward) >= 2
    assert all(gammas == {0.0, GAMMA} for gammas in by_reward.values())


def test_the_long_form_changes_every_run_alike_and_keeps_what_sets_it_apart() -> None:
    forms = [[cell for part in paper_runs(long=long).values() for cell in part] for long in (False, True)]
    for short, long in zip(*forms, strict=True):
        assert long.steps == LONG["max_steps"] > 4 * short.steps
        assert (long.name, long.keys["beta"], long.keys["gamma"]) == (
            short.name,
            short.keys["beta"],
            short.keys["gamma"],
        )
        assert long.keys["steps"]["min_gap"] == short.keys["steps"]["min_gap"]
        assert long.keys["evaluation"]["rewards"] == short.keys["evaluation"]["rewards"]
        resolve_config("spo", long.keys)

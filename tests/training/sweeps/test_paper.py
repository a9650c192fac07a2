from __future__ import annotations

import math

from seedpo.training.sweeps.paper import GAMMA, GAMMAS, paper_runs
from seedpo.training.sweeps.running import recipe_text


def test_every_setting_of_the_figures_has_base_and_control() -> None:
    parts = paper_runs(seeds=2)
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

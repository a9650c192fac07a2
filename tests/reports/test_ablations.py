from __future__ import annotations

import pytest

from seedpo.reports.ablations import ablations, value_of
from seedpo.reports.curves import Curves
from seedpo.reports.families import Setting
from tests.reports.handmade import PROXY, curve, curves, family, setting


def at(end: float, peak: float | None = None) -> Curves:
    return curves([0.0, peak if peak is not None else end, end], [0.0, end, -end])


def plain(beta: float, *by_seed: Curves) -> Setting:
    return setting("base", *by_seed, beta=beta, name=f"plain {beta:g}")


def see(beta: float, gamma: float, *by_seed: Curves) -> Setting:
    return setting("see", *by_seed, beta=beta, gamma=gamma, name=f"SEE {beta:g} {gamma:g}")


def test_gamma_varies_at_fixed_beta_beside_the_control_at_each_temperature() -> None:
    (found,) = ablations(family(plain(1, at(1)), see(1, 1, at(2)), see(1, 3, at(4)), plain(2, at(5)), plain(4, at(6))))[
        :1
    ]
    assert found.title == "γ varied at fixed β"
    panel = next(
        panel for panel in found.panels if panel.title == "Proxy (scorer), last evaluation".replace(" (scorer)", "")
    )
    assert panel.x_ticks == ((0.0, "0"), (1.0, "1"), (2.0, "3"))
    line, control = panel.lines
    assert (line.label, list(line.y)) == ("β = 1", [1, 2, 4])
    assert (control.label, list(control.y)) == ("control β′ = a, β = 1", [5, 6])
    assert [round(x) for x in control.x] == [1, 2], "where the settings stand whose temperature it has"
    assert line.x[1] != control.x[0], "bars at one value stand beside each other"
    assert control.points == ["plain 2", "plain 4"]


def test_beta_varies_at_fixed_gamma() -> None:
    found = ablations(family(*(see(beta, 3, at(beta)) for beta in (0.1, 1, 10)), plain(1, at(0))))
    assert [one.title for one in found] == ["β varied at fixed γ"]
    assert [label for label, _, _ in found[0].legend] == ["γ = 3"], "one value at gamma 0 is no line"


@pytest.mark.parametrize("settings", [(), (plain(1, at(1)), see(1, 3, at(2)), plain(4, at(3)))])
def test_fewer_than_three_values_are_no_ablation(settings: tuple[Setting, ...]) -> None:
    assert ablations(family(*settings)) == ()


def test_the_best_is_that_of_every_seed_and_the_last_that_of_the_mean() -> None:
    one = plain(1, at(1.0, peak=3.0), at(2.0, peak=2.5))
    best, last = value_of(one, PROXY, best=True), value_of(one, PROXY, best=False)
    assert best is not None
    assert last is not None
    assert (best.value, best.low, best.high) == (2.75, 2.5, 3.0)
    assert (last.value, last.low, last.high) == (1.5, 1.0, 2.0)
    assert value_of(one, "nothing", best=True) is None
    single = value_of(plain(1, {PROXY: curve([0.0, 1.0], half=0.25)}), PROXY, best=True)
    assert single is not None
    assert (single.low, single.high) == (0.75, 1.25), "a single seed keeps its interval over prompts"

from __future__ import annotations

from collections.abc import Sequence

import pytest

from seedpo.core.verdicts import Difference, Outcome
from seedpo.reports.curves import Curves
from seedpo.reports.families import Setting
from seedpo.reports.findings import Effect, Findings, TradeOff, findings, trade_off
from tests.reports.handmade import PROXY, base, control, curve, curves, family, see, setting

HACKING = curves([0.0, 0.5, 1.0], [0.0, 0.5, -1.0], pairwise_diversity=[0.5, 0.3, 0.1])
SAME_PROXY_BETTER_TRUTH = curves([0.0, 0.5, 1.0], [0.0, 0.5, 0.6], pairwise_diversity=[0.5, 0.45, 0.4])
SLOWER_ONLY = curves([0.0, 0.25, 0.5], [0.0, 0.25, 0.5], pairwise_diversity=[0.5, 0.4, 0.3])
BARE = curves([0.0, 0.5, 1.0], [0.0, 0.5, -1.0], half=None)
HIGHER, LOWER, NOT_SHOWN, UNKNOWN = Difference


def shown(*settings: Setting) -> Findings:
    return findings(family(*settings))


def trade_offs(found: Findings, key: str = "truth") -> dict[tuple[str, str], TradeOff]:
    return {(one.left.role, one.right.role): one.trade_off for one in found.effects if one.key == key}


def effect(found: Findings, key: str = "truth") -> Effect:
    return next(one for one in found.effects if (one.left.role, one.right.role, one.key) == ("see", "base", key))


TRADE_OFFS = {
    (HIGHER, HIGHER): TradeOff.BETTER,
    (NOT_SHOWN, HIGHER): TradeOff.BETTER,
    (LOWER, HIGHER): TradeOff.BETTER,
    (HIGHER, NOT_SHOWN): TradeOff.SLOWER,
    (HIGHER, LOWER): TradeOff.SLOWER,
    (HIGHER, UNKNOWN): TradeOff.SLOWER,
    (LOWER, LOWER): TradeOff.WORSE,
    (LOWER, NOT_SHOWN): TradeOff.WORSE,
    (LOWER, UNKNOWN): TradeOff.WORSE,
    (NOT_SHOWN, LOWER): TradeOff.WORSE,
    (NOT_SHOWN, NOT_SHOWN): TradeOff.NOT_SHOWN,
    (NOT_SHOWN, UNKNOWN): TradeOff.NOT_SHOWN,
    (UNKNOWN, UNKNOWN): TradeOff.NOT_COMPARABLE,
}


def test_equal_proxy_decides_about_the_trade_off() -> None:
    assert {pair: trade_off(*pair) for pair in TRADE_OFFS} == TRADE_OFFS


AGAINST: tuple[tuple[Curves, Curves, Curves, TradeOff, TradeOff], ...] = (
    (HACKING, SAME_PROXY_BETTER_TRUTH, HACKING, TradeOff.BETTER, TradeOff.BETTER),
    (HACKING, SAME_PROXY_BETTER_TRUTH, SAME_PROXY_BETTER_TRUTH, TradeOff.BETTER, TradeOff.NOT_SHOWN),
    (HACKING, SLOWER_ONLY, HACKING, TradeOff.SLOWER, TradeOff.SLOWER),
    (SAME_PROXY_BETTER_TRUTH, HACKING, HACKING, TradeOff.WORSE, TradeOff.NOT_SHOWN),
    (SAME_PROXY_BETTER_TRUTH, SAME_PROXY_BETTER_TRUTH, HACKING, TradeOff.NOT_SHOWN, TradeOff.BETTER),
)
"""Curves of base, SEE and control, and the trade-offs of SEE against the other two."""


def test_see_against_base_and_control() -> None:
    for row, (plain, entropy, temperature, *expected) in enumerate(AGAINST):
        found = trade_offs(shown(base(plain), see(entropy), control(temperature)))
        assert [found["see", "base"], found["see", "control"]] == expected, row


def test_all_pairs_are_compared_in_judge_and_diversity() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(HACKING))
    pairs = [("see", "base"), ("see", "control"), ("control", "base")]
    assert [(one.left.role, one.right.role, one.key) for one in found.effects] == [
        (*pair, key) for pair in pairs for key in ("truth", "pairwise_diversity")
    ]
    one = effect(found)
    assert one.steps is not None
    assert one.proxy is not None
    assert (one.steps[0], one.proxy[0].proxy) == (20, 1.0)
    assert one.steps[1].difference == pytest.approx(1.6)
    assert trade_offs(found, "pairwise_diversity")["see", "base"] is TradeOff.BETTER


def test_the_headline_names_each_verdict() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(HACKING))
    assert [(name, badge.text, badge.tone) for name, badge in found.badges] == [
        ("base", "reward hacking after step 10", "bad"),
        ("SEE 3 against base", "better trade-off", "good"),
        ("SEE 3 against control", "better trade-off", "good"),
    ]


def test_many_settings_are_counted_in_the_headline() -> None:
    several = [setting("see", SAME_PROXY_BETTER_TRUTH, gamma=gamma, name=f"SEE {gamma:g}") for gamma in (1.0, 2.0, 3.0)]
    worse = setting("see", curves([0.0, 0.5, 1.0], [0.0, 0.0, -3.0]), gamma=9.0, name="SEE 9")
    found = shown(base(HACKING), *several, worse, control(HACKING))
    assert [(name, badge.text) for name, badge in found.badges[1:]] == [
        ("SEE against the same β", "3 better trade-off, 1 worse trade-off"),
        ("SEE against the control", "1 better trade-off"),
    ]


def test_seeds_are_judged_one_by_one() -> None:
    found = shown(base(HACKING, HACKING, SAME_PROXY_BETTER_TRUTH), see(*[SAME_PROXY_BETTER_TRUTH] * 3))
    first = found.settings[0]
    assert [verdict.outcome for verdict in first.verdicts] == [Outcome.HACKING, Outcome.HACKING, Outcome.LEARNING]
    assert first.outcome is Outcome.HACKING
    assert found.badges[0][1].text == "reward hacking after step 10 (2 of 3 seeds)"
    assert effect(found).steps[1].wins == (2, 3)  # type: ignore[index]


def words(rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[cell.words for cell in row] for row in rows]  # type: ignore[attr-defined]


def test_the_tables_hold_the_numbers() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH))
    assert words(found.hacking_table.rows) == [
        [
            "base",
            "reward hacking after step 10",
            "truth",
            "0.500, step 10",
            "−1.00, step 20",
            "1.50, ± 0.081",
            "−1.00, ± 0.071",
            "0.500 to 1.00",
        ],
        ["SEE 3", "learning", "truth", "0.600, step 20", "0.600, step 20", "0", "+0.600, ± 0.071", "1.00 to 1.00"],
    ]
    assert words(found.effects_table.rows)[0] == [
        "SEE 3, against base",
        "truth",
        "+1.60 higher, 0.600 against −1.00, step 20",
        "+1.60 higher, 0.600 against −1.00, proxy 1.00 (steps 20, 20)",
        "better trade-off",
    ]


def test_what_limits_the_evidence_is_noted() -> None:
    assert len(shown(base(HACKING)).notes) == 1
    (seeds,) = shown(base(HACKING, HACKING, HACKING), control(*[HACKING] * 3)).notes
    assert "3 seeds" in seeds
    assert "one of 10 comparisons" in seeds
    assert "no intervals" in shown(base(BARE)).notes[0]
    assert "SEE 3" in shown(base(HACKING), see(HACKING)).notes[1], "its control is missing"
    assert "no evaluation" in shown(base({}), see({})).notes[0]


def test_what_cannot_be_compared() -> None:
    found = shown(see(HACKING))
    assert found.effects == ()
    assert found.badges == []
    empty = shown(base({}), see({}))
    assert (empty.settings, empty.effects) == ((), ())
    flat = {PROXY: curve([0.5, 0.5, 0.5]), "truth": curve([0.0, 0.0, 0.0])}
    better = {PROXY: curve([0.5, 0.5, 0.5]), "truth": curve([0.0, 0.5, 1.0])}
    assert effect(shown(base(flat), see(better))).trade_off is TradeOff.SLOWER, "no proxy above the start"


def test_what_was_not_measured_is_judged_so() -> None:
    one = base({PROXY: curve([0.1, 0.2, 0.3])})
    found = shown(one)
    assert found.settings[0].outcome is Outcome.NOT_MEASURED
    assert words(found.hacking_table.rows)[0][:2] == ["base", "not measured"]

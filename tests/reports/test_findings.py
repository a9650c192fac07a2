from __future__ import annotations

from seedpo.reports.findings import AGAINST_BASE, HARMS, HELPS, LOOKS_BETTER, Findings, Statement, findings
from seedpo.reports.settings import Setting
from tests.reports.handmade import PROXY, base, control, curve, curves, family, see, setting

HACKING = curves([0.0, 0.5, 1.0], [0.0, 0.5, -1.0], pairwise_diversity=[0.5, 0.3, 0.1])
SAME_PROXY_BETTER_TRUTH = curves([0.0, 0.5, 1.0], [0.0, 0.5, 0.6], pairwise_diversity=[0.5, 0.45, 0.4])
SLOWER = curves([0.0, 0.25, 0.5], [0.0, 0.25, 0.5], pairwise_diversity=[0.5, 0.4, 0.3])


def shown(*settings: Setting) -> Findings:
    return findings(family(*settings))


def statement(found: Findings, topic: str) -> Statement:
    return next(one for one in found.statements if one.topic.startswith(topic))


def text(found: Findings, topic: str) -> str:
    return " ".join(statement(found, topic).lines)


def test_gamma_that_helps_more_than_the_temperature_is_said_to() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(HACKING))
    assert found.headline == (
        "The base method hacks its reward from step 10 on. SEE 3 keeps truth higher, and higher than the temperature "
        "control does."
    )
    assert text(found, "Entropy term") == (
        "The entropy term helps: truth is higher at equal steps and at equal proxy. "
        "Truth at step 20: 0.600, base −1.00 (+1.60, intervals apart); proxy 1.00 and 1.00. "
        "At equal proxy 1.00, the highest that both reach (step 20 and 20): 0.600, base −1.00 (+1.60, intervals apart)."
    )
    assert text(found, "Is it the temperature").startswith(
        "No: truth is higher than the control's at equal steps and at equal proxy."
    )
    assert text(found, "Is it the temperature").endswith(
        "The control alone gives 0% of the gain over the base method at step 20."
    )
    assert statement(found, "Entropy term").tone == "good"
    assert statement(found, "Reward hacking").tone == "bad"


def test_a_control_that_does_as_well_takes_the_gain() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(SAME_PROXY_BETTER_TRUTH))
    assert "so does the temperature control: the gain may be the temperature's alone" in found.headline
    temperature = statement(found, "Is it the temperature")
    assert temperature.lines[0].startswith("It may be: the control does as well within the uncertainty")
    assert "The control alone gives 100% of the gain" in temperature.lines[0]
    assert temperature.tone == "bad"


def test_a_control_that_does_better_is_said_to() -> None:
    better = curves([0.0, 0.5, 1.0], [0.0, 0.5, 2.0])
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(better))
    assert "but the temperature control does better still" in found.headline
    assert text(found, "Is it the temperature").startswith("The temperature alone does better")


def test_a_run_that_is_only_slower_is_not_said_to_help() -> None:
    found = shown(base(HACKING), see(SLOWER))
    assert "SEE 3 has higher truth at equal steps, but not at equal proxy" in found.headline
    entropy = statement(found, "Entropy term")
    assert entropy.lines[0].startswith("Higher truth at equal steps, but at equal proxy no difference is shown")
    assert (
        "At equal proxy 0.500, the highest that both reach (step 20 and 10): 0.500, base 0.500 (0" in entropy.lines[0]
    )
    assert entropy.tone == "open"


def test_gamma_that_does_not_help_is_said_not_to() -> None:
    found = shown(base(SAME_PROXY_BETTER_TRUTH), see(HACKING), control(HACKING))
    assert found.headline == "No reward hacking is seen in the base method. SEE 3 does not help truth."
    assert text(found, "Entropy term").startswith(
        "The entropy term does not help: truth is lower at equal steps and at"
    )
    assert statement(found, "Entropy term").tone == "bad"
    assert text(found, "Is it the temperature").startswith(
        "The entropy term and the temperature alone cannot be told apart."
    )
    assert text(found, "Diversity, SEE 3").startswith(
        "Diversity starts at 0.500 and ends at 0.400 (base), 0.100 (SEE 3) and 0.100 (control). The entropy term does "
        "not help: diversity is lower at equal steps and at equal proxy. Against the control it is not clearly"
    )


def test_higher_than_the_control_but_not_than_the_base_is_no_gain() -> None:
    found = shown(base(SAME_PROXY_BETTER_TRUTH), see(SAME_PROXY_BETTER_TRUTH), control(HACKING))
    assert text(found, "Is it the temperature").startswith("There is no gain over the base to explain; truth is higher")
    assert "lies within the uncertainty" in found.headline


def test_differences_within_the_intervals_are_no_effect() -> None:
    near = curves([0.0, 0.5, 1.0], [0.0, 0.5, -0.95])
    found = shown(base(HACKING), see(near))
    assert "what SEE 3 changes in truth lies within the uncertainty".lower() in found.headline.lower()
    assert text(found, "Entropy term").startswith("No effect on truth is shown")
    assert "(+0.050, intervals overlap)" in text(found, "Entropy term")


def test_missing_base_and_control_are_named_with_their_beta() -> None:
    found = shown(see(HACKING))
    assert "There is no run of the base method to compare with." in found.headline
    assert "base method at beta = 1 " in text(found, "Entropy term")
    assert "a = 4)" in text(found, "Is it the temperature")
    assert found.comparisons == ()


def test_one_seed_is_admitted() -> None:
    assert text(shown(base(HACKING)), "How sure").startswith("One seed per setting. The intervals cover")
    bare = curves([0.0, 0.5, 1.0], [0.0, 0.5, -1.0], half=None)
    found = shown(base(bare), see(bare))
    assert "no intervals were logged: chance cannot be told from effect" in text(found, "How sure")
    assert "no intervals" in text(found, "Entropy term")


def test_seeds_are_counted_and_the_odds_of_chance_are_told() -> None:
    found = shown(base(HACKING, HACKING, HACKING), see(*[SAME_PROXY_BETTER_TRUTH] * 3))
    sure = statement(found, "How sure")
    assert sure.lines[0].startswith("There are 3 seeds of base and 3 seeds of SEE 3.")
    assert sure.lines[0].endswith("would still lie apart in one of 10 comparisons.")
    assert sure.tone == "plain"
    assert "ranges over seeds apart, higher with 3 of 3 shared seeds" in text(found, "Entropy term")
    assert "one of 3 comparisons" in text(shown(base(HACKING, HACKING)), "How sure")


def test_the_table_compares_all_pairs_under_both_conditions() -> None:
    found = shown(base(HACKING), see(SAME_PROXY_BETTER_TRUTH), control(HACKING))
    rows = [(row.left.name, row.right.name, row.condition) for row in found.comparisons]
    pairs = [("SEE 3", "base"), ("SEE 3", "control"), ("control", "base")]
    assert rows == [(*pair, condition) for pair in pairs for condition in ("step 20", "proxy 1.00")]
    cells = dict(found.comparisons[0].cells)
    assert list(cells) == ["truth", "pairwise_diversity"]
    contrast = cells["pairwise_diversity"]
    assert contrast is not None
    assert contrast.verdict == "higher"


def test_runs_without_evaluation_leave_nothing_to_say() -> None:
    found = shown(base({}), see({}))
    assert found.headline == "These runs hold no evaluation, so nothing can be said about them yet."
    assert found.statements == ()


def test_a_proxy_that_nobody_raises_leaves_the_trade_off_open() -> None:
    flat = {PROXY: curve([0.5, 0.5, 0.5]), "truth": curve([0.0, 0.0, 0.0])}
    better = {PROXY: curve([0.5, 0.5, 0.5]), "truth": curve([0.0, 0.5, 1.0])}
    found = shown(base(flat), see(better))
    assert "at equal proxy they cannot be compared" in found.headline
    assert "the trade-off stays open" in text(found, "Entropy term")


def test_every_outcome_has_one_conclusion() -> None:
    verdicts = ("higher", "unclear", "lower")
    assert set(AGAINST_BASE) == {(steps, proxy) for steps in verdicts for proxy in (*verdicts, None)}
    neutral = {("unclear", "unclear"), ("unclear", None)}
    assert sorted([*HELPS, *LOOKS_BETTER, *HARMS, *neutral], key=str) == sorted(AGAINST_BASE, key=str)
    for outcome, conclusion in AGAINST_BASE.items():
        assert ("does not help" in conclusion) == (outcome in HARMS)


def test_many_settings_are_counted_in_the_headline() -> None:
    several = [setting("see", SAME_PROXY_BETTER_TRUTH, gamma=gamma, name=f"SEE {gamma:g}") for gamma in (1.0, 2.0, 3.0)]
    worse = setting("see", curves([0.0, 0.5, 1.0], [0.0, 0.0, -3.0]), gamma=9.0, name="SEE 9")
    found = shown(base(HACKING), *several, worse, control(HACKING))
    assert found.headline.endswith(
        "Of 4 settings with the entropy term that can be compared with the base method at the same beta, "
        "3 have a better trade-off in truth, 1 a worse one, and 0 cannot be told apart or gain at equal steps only. "
        "Of 1 setting with the entropy term that can be compared with the temperature control, "
        "1 has a better trade-off in truth, 0 a worse one, and 0 cannot be told apart or gain at equal steps only."
    )
    assert "SEE 9" not in found.headline

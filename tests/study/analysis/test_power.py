"""Plans of studies: components of votes, power, and the fewest prompts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from benchmarks.study_calibration import measure
from benchmarks.study_scenarios import Scenario
from seedpo.cli import app
from seedpo.errors import ConfigError, DataError
from seedpo.study.analysis.plans import assumptions_of, plan_lines
from seedpo.study.analysis.power import Components, Goal, components_of, effect_of, plan, power_of
from seedpo.study.votes.store import Store
from tests.study.made_votes import judgement
from tests.study.small_study import pairs_of, small_study

GOAL = Goal(rate=0.65)
VARIANCES = Components(raters=0.01, prompts=0.02, rest=0.2)


@pytest.mark.parametrize(("rate", "ties", "rater_sd", "prompt_sd"), [(0.6, 0.0, 0.5, 0.7), (0.7, 0.3, 1.0, 0.2)])
def test_an_effect_has_the_rate_the_ties_and_the_variances(
    rate: float, ties: float, rater_sd: float, prompt_sd: float
) -> None:
    """Against votes of 2000 raters on 1000 prompts, by means over rows and columns of their probabilities."""
    effect = effect_of(rate, ties=ties, rater_sd=rater_sd, prompt_sd=prompt_sd)
    by_rater, by_prompt = (
        stats.norm.ppf((np.arange(n) + 0.5) / n, scale=sd) for n, sd in ((2000, rater_sd), (1000, prompt_sd))
    )
    half = (effect.worth + by_rater[:, None] + by_prompt) / 2
    win, loss = np.exp(half), np.exp(-half)
    whole = win + loss + effect.ties
    points = (win + effect.ties / 2) / whole
    assert points.mean() == pytest.approx(rate, abs=1e-4)
    assert (effect.ties / whole).mean() == pytest.approx(ties, abs=1e-4)
    found = effect.components
    assert found.raters == pytest.approx(points.mean(1).var(), rel=0.01)
    assert found.prompts == pytest.approx(points.mean(0).var(), rel=0.01)
    second = (win + effect.ties / 4) / whole
    assert sum(vars(found).values()) == pytest.approx(second.mean() - points.mean() ** 2, rel=1e-3)


def test_power_is_that_of_a_noncentral_t() -> None:
    for raters, prompts in ((6, 40), (12, 30), (30, 100)):
        votes, total = 3 * prompts, sum(vars(VARIANCES).values())
        variance = 0.01 / raters + 0.02 / prompts + 0.2 / votes
        sides = (
            (0.01 / raters + (total - 0.01) / votes, raters - 1),
            (0.02 / prompts + (total - 0.02) / votes, prompts - 1),
            (total / votes, votes - 1),
        )
        df = variance**2 / sum(part**2 / freedom for part, freedom in sides)
        away = 0.15 * np.sqrt(4 * 0.65 * 0.35 / variance)
        expected = stats.nct.sf(stats.t.ppf(0.975, df), df, away)
        assert power_of(GOAL, VARIANCES, raters=raters, prompts=prompts, per_pair=3) == pytest.approx(
            expected, abs=0.02
        )


def test_a_plan_has_the_fewest_prompts() -> None:
    found = plan(GOAL, VARIANCES, raters=12, per_pair=3, models=3)
    assert found.prompts is not None
    assert found.votes_per_rater == pytest.approx(3 * 3 * found.prompts / 12)
    powers = [power_of(GOAL, VARIANCES, raters=12, prompts=found.prompts - less, per_pair=3) for less in (0, 1)]
    assert powers[0] >= 0.8 > powers[1]
    stricter = plan(Goal(rate=0.65, contrasts=3), VARIANCES, raters=12, per_pair=3)
    assert stricter.prompts > found.prompts
    more = plan(GOAL, VARIANCES, raters=24, per_pair=3)
    assert more.prompts < found.prompts


def test_no_number_of_prompts_makes_up_for_too_few_raters() -> None:
    assert plan(GOAL, VARIANCES, raters=4, per_pair=3).prompts is None
    assert plan(Goal(rate=0.55), Components(raters=0.02, prompts=0.01, rest=0.2), raters=8, per_pair=8).prompts is None


@pytest.mark.parametrize(("rate", "ties", "raters"), [(0.65, 0.0, 12), (0.62, 0.25, 20), (0.75, 0.1, 6)])
def test_simulated_studies_of_a_plan_have_its_power(rate: float, ties: float, raters: int) -> None:
    """80 % within three standard errors of 200 studies."""
    effect = effect_of(rate, ties=ties, rater_sd=0.5, prompt_sd=0.7)
    found = plan(Goal(rate=rate), effect.components, raters=raters, per_pair=3)
    scenario = Scenario(
        name="plan",
        raters=raters,
        prompts=found.prompts or 0,
        worths=(effect.worth, 0.0),
        ties=effect.ties,
    )
    assert 0.71 <= (measure(scenario, "now", studies=200).shown or 0.0) <= 0.89


def test_components_of_votes_are_without_bias() -> None:
    """Means over studies of votes whose components are known, in an incomplete design."""
    generator, found = np.random.default_rng(0), []
    for _ in range(150):
        by_rater, by_prompt = generator.choice([-0.15, 0.15], 8), generator.choice([-0.2, 0.2], 10)
        votes = [
            judgement(
                "first" if generator.random() < 0.5 + by_rater[rater] + by_prompt[prompt] else "second",
                rater=f"r{rater}",
                prompt=f"p{prompt}",
                number=prompt,
            )
            for prompt in range(10)
            for rater in generator.permutation(8)[:4]
        ]
        found.append(components_of(votes))
    # The mean is estimated from the same votes, which takes some of both, and nothing is below 0.
    assert np.mean([row.raters for row in found]) == pytest.approx(0.0225, abs=0.006)
    assert np.mean([row.prompts for row in found]) == pytest.approx(0.04, abs=0.008)
    assert np.mean([sum(vars(row).values()) for row in found]) == pytest.approx(0.25, abs=0.01)


def test_a_pilot_of_one_rater_shows_no_components() -> None:
    with pytest.raises(DataError, match="several raters"):
        components_of([judgement("first", prompt=f"p{at}", number=at) for at in range(9)])


def test_contradictions_are_named() -> None:
    for options, match in (
        ({"question": "preference"}, "--question.*--pilot"),
        ({"pilot": Path("nowhere"), "ties": 0.2}, "--ties and --pilot"),
    ):
        with pytest.raises(ConfigError, match=match):
            assumptions_of(GOAL, **options)
    with pytest.raises(ConfigError, match="impossible"):
        effect_of(0.9, ties=0.4, rater_sd=0.0, prompt_sd=0.0)


def test_the_command_prints_a_row_for_each_number_of_raters() -> None:
    result = CliRunner().invoke(app, ["study", "plan", "--points", "15", "--raters", "4", "--raters", "16"])
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()[2:4]]
    assert [row[0] for row in rows] == ["4", "16"]
    assert rows[0][1:] == ["-"] * 4
    goal = Goal(rate=0.65)
    expected = plan(goal, assumptions_of(goal).components, raters=16, per_pair=3)
    assert int(rows[1][1]) == expected.prompts
    assert CliRunner().invoke(app, ["study", "plan", "--points", "15", "--rate", "0.6"]).exit_code == 1


def test_a_plan_from_a_pilot(tmp_path: Path) -> None:
    study = small_study(tmp_path / "pilot", pairs_of(6), kind="study", raters_per_pair=4)
    store, generator = Store.open(study), np.random.default_rng(0)
    for _ in range(4):
        name, _ = store.add_rater()
        store.consent(name)
        while (show := store.turn(name).show) is not None:
            side = "left" if generator.random() < 0.6 else "right"
            store.vote(name, show.token, side, key=f"{show.token}-key", seconds=3.0)
    votes = store.judgements()
    store.close()
    given = assumptions_of(GOAL, pilot=tmp_path / "pilot")
    assert given.components == components_of(votes)
    assert given.seconds == 3.0
    assert len(plan_lines(GOAL, given, raters=(12,), per_pair=3, models=2)) >= 4
    with pytest.raises(ConfigError, match="--question nothing"):
        assumptions_of(GOAL, pilot=tmp_path / "pilot", question="nothing")

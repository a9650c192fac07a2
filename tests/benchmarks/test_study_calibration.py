"""The simulated studies are what their scenario says, and the rules hold on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.study_calibration import SCENARIOS, main, measure, now, sign_test
from benchmarks.study_scenarios import Scenario, rate, study, truth
from seedpo.study.analysis.analyze import analyze
from seedpo.study.records import Answer
from tests.study.made_votes import QUESTIONS, check, judgement, made_study, repetition


def test_a_study_has_the_raters_prompts_and_votes_of_its_scenario() -> None:
    votes = study(Scenario(name="", prompts=20, per_pair=3, worths=(0.0, 0.0, 0.0), ties=1.0), np.random.default_rng(0))
    assert len(votes.points) == 20 * 3 * 3
    assert set(votes.points.tolist()) == {0.0, 0.5, 1.0}
    views = np.stack([votes.raters, votes.prompts, votes.first, votes.second])
    assert np.unique(views, axis=1).shape == views.shape
    loads = np.bincount(votes.raters)
    assert len(loads) == 12
    assert loads.min() >= loads.max() - 2


def test_best_and_worst_of_four_are_five_votes_of_one_view() -> None:
    votes = study(
        Scenario(name="", worths=(3.0, 0.0, 0.0, -3.0), form="best-worst", prompts=50), np.random.default_rng(0)
    )
    assert len(votes.points) == 50 * 3 * 5
    assert votes.of(0, 0, 3).points.mean() > 0.95


def test_likes_are_compared_by_half_the_difference_of_their_shares() -> None:
    scenario = Scenario(name="", worths=(1.5, 0.0), rater_sd=0.0, prompt_sd=0.0, form="single", prompts=200)
    votes = study(scenario, np.random.default_rng(0)).of(0, 0, 1)
    assert len(votes.points) == 200 * 3 * 2
    found, influences = rate(votes)
    shares = [votes.points[votes.first == model].mean() for model in (0, 1)]
    assert found == pytest.approx(0.5 + (shares[0] - shares[1]) / 2)
    assert truth(scenario, votes=200_000).rates[0, 1] == pytest.approx(found, abs=0.03)
    assert influences.sum() == pytest.approx(0.0, abs=1e-12)


def test_skips_careless_raters_and_checks_leave_fewer_votes() -> None:
    usual = Scenario(name="", raters=40, prompts=40, worths=(2.0, 0.0), rater_sd=0.0)
    rates, amounts = [], []
    for changes in ({}, {"careless": 0.5}, {"careless": 0.5, "checked": True}, {"skips": 0.5}):
        votes = study(Scenario(**{**vars(usual), **changes}), np.random.default_rng(3))
        rates.append(votes.points.mean())
        amounts.append(len(votes.points))
    assert rates[1] < rates[0] - 0.1
    assert rates[2] > rates[1] + 0.05
    assert amounts[1] == amounts[0] > max(amounts[2:])


def test_truth_is_the_mean_over_many_raters_and_prompts() -> None:
    """Without effects it is the logistic function; effects pull it towards 1/2."""
    exact = truth(Scenario(name="", worths=(1.0, 0.0), rater_sd=0.0, prompt_sd=0.0), votes=200_000)
    assert exact.rates[0, 1] == pytest.approx(1 / (1 + np.exp(-1)), abs=0.005)
    assert exact.strengths[0] - exact.strengths[1] == pytest.approx(1.0, abs=0.03)
    pulled = truth(Scenario(name="", worths=(1.0, 0.0), rater_sd=1.0, prompt_sd=1.0), votes=200_000)
    assert 0.6 < pulled.rates[0, 1] < exact.rates[0, 1] - 0.03
    assert truth(Scenario(name="", worths=(1.0, 0.0, 0.0))).rates[1, 2] == 0.5


def test_the_rule_has_a_better_width_than_the_one_before() -> None:
    scenario = next(row for row in SCENARIOS if row.name == "true .65")
    earlier, later = (measure(scenario, rule, studies=100) for rule in ("before", "now"))
    assert later.coverage >= 0.88
    assert later.width < 0.8 * earlier.width
    assert later.shown > earlier.shown + 0.1


def test_no_verdict_with_two_raters_now() -> None:
    scenario = next(row for row in SCENARIOS if row.name == "2 raters, sd 1")
    earlier, later = (measure(scenario, rule, studies=100) for rule in ("before", "now"))
    assert (earlier.wrong > 0.08, later.wrong) == (True, 0.0)


def test_three_equal_models_on_four_questions_are_seldom_told_apart() -> None:
    scenario = next(row for row in SCENARIOS if row.name == "3 models, equal, 4 questions")
    assert measure(scenario, "now", studies=60).wrong <= 0.1


def test_the_sign_test_before_is_scipys() -> None:
    assert sign_test(3, 11) == pytest.approx(stats.binomtest(3, 14).pvalue, rel=1e-12)


def test_the_command_writes_a_table_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    assert main(["uneven", "best and worst of 4, equal", "--studies", "5", "--out", str(out)]) == 0
    assert "uneven work" in capsys.readouterr().out
    figures = json.loads(out.read_text("utf-8"))["figures"]
    assert [row["rule"] for row in figures] == ["before", "now"] * 2
    with pytest.raises(SystemExit):
        main(["no such scenario"])


def test_an_analysis_says_what_the_columns_say() -> None:
    """As judgements, with skips, repetitions, checks and a rater who fails them, the numbers are the same."""
    scenario = Scenario(name="", worths=(0.8, 0.0, 0.3), ties=0.5, prompts=12)
    votes, models = study(scenario, np.random.default_rng(5)), ("a", "b", "c")
    words: dict[float, Answer] = {1.0: "first", 0.5: "tie", 0.0: "second"}
    given = [
        judgement(
            words[points], rater=f"r{rater:02d}", prompt=f"p{prompt:02d}", sources=(models[i], models[j]), number=number
        )
        for number, (points, rater, prompt, i, j) in enumerate(
            zip(votes.points, votes.raters, votes.prompts, votes.first, votes.second, strict=True)
        )
    ]
    others = [repetition(row, "second", number=5000 + at) for at, row in enumerate(given[::7])]
    others += [check(True, rater=f"r{rater:02d}", number=6000) for rater in range(12)]
    others += [judgement("skip", rater="r03", prompt="p99", number=7000)]
    poor = [judgement("second", rater="poor", prompt=f"p{at:02d}", sources=("a", "b"), number=at) for at in range(12)]
    poor += [check(False, rater="poor", number=8000 + at) for at in range(3)]
    analysis = analyze(made_study(questions=QUESTIONS[:1]), [*given, *others, *poor], least_checks=0.75)
    for row in analysis.comparisons:
        expected = now(votes.of(0, models.index(row.left), models.index(row.right)), 0)
        assert (*row.interval, row.p) == pytest.approx((expected.low, expected.high, expected.p), rel=1e-9)
        assert row.votes == 36

"""Analyses of votes whose outcome is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from seedpo.core.stats.classical import holm, wilson_interval
from seedpo.core.stats.two_way import LEAST_PROMPTS, LEAST_RATERS, two_way_rate
from seedpo.errors import DataError
from seedpo.study.analysis.analyze import analyze
from seedpo.study.analysis.comparisons import Comparison, compare, corrected
from seedpo.study.analysis.vote_statistics import Resampling, by_sources, sort_answers
from seedpo.study.settings import Question
from seedpo.study.votes.registration import Aim, Registration
from tests.study.made_votes import QUESTIONS, check, judgement, made_study, repetition, simulated

FEW = {"resampling": Resampling(resamples=60)}
ONE = made_study(questions=QUESTIONS[:1])


def votes(answers: str, **changes: object) -> list:
    """One rater's votes on one prompt each: f(irst), s(econd), t(ie), b(ad), k: skip."""
    words = {"f": "first", "s": "second", "t": "tie", "b": "bad", "k": "skip"}
    return [judgement(words[letter], number=at, prompt=f"prompt {at}", **changes) for at, letter in enumerate(answers)]


def test_counts_rates_and_intervals_of_one_comparison() -> None:
    analysis = analyze(ONE, votes("ffffffsstbkk"), **FEW)
    (row,) = analysis.questions[0].comparisons
    assert (row.left, row.right) == ("base", "see")
    assert (row.wins, row.ties, row.bad, row.losses, row.votes) == (6, 1, 1, 2, 10)
    assert row.rate == pytest.approx(0.7)
    assert row.wilson == pytest.approx(wilson_interval(7, 10))
    rate = two_way_rate([1.0] * 6 + [0.0] * 2 + [0.5] * 2, [0] * 10, range(10))
    assert row.interval == pytest.approx((rate.low, rate.high))
    assert (row.error, row.df) == pytest.approx((rate.error, rate.df))
    assert (row.prompts_left, row.prompts_right) == (6, 2)
    assert (analysis.counts.answers, analysis.counts.votes, analysis.counts.skipped) == (12, 10, 2)


def of_raters(raters: int, prompts: int, answer: str = "f", start: int = 0) -> list:
    """The same answer of every rater to every prompt."""
    return [row for rater in range(start, start + raters) for row in votes(answer * prompts, rater=f"r{rater:02d}")]


@pytest.mark.parametrize(
    ("raters", "prompts", "tested"),
    [
        (LEAST_RATERS, LEAST_PROMPTS, True),
        (LEAST_RATERS - 1, 30, False),
        (1, 30, False),
        (30, LEAST_PROMPTS - 1, False),
    ],
)
def test_no_verdict_below_a_number_of_raters_or_prompts(raters: int, prompts: int, tested: bool) -> None:
    (row,) = analyze(ONE, of_raters(raters, prompts), **FEW).comparisons
    assert (row.verdict, row.p is None, row.adjusted is None) == ("left" if tested else "open", not tested, not tested)
    assert bool(row.untested) is not tested
    assert row.interval[0] < 1.0


def test_p_values_and_intervals_agree() -> None:
    for seed in range(10):
        given = simulated({"a": seed / 10, "b": 0.0, "c": 0.3}, seed=seed, questions=["preference"])
        for row in compare(given, Resampling(), question="preference"):
            assert (row.p < 0.05) is not (row.interval[0] <= 0.5 <= row.interval[1])


def test_the_order_of_candidates_and_of_votes_changes_nothing() -> None:
    given = simulated({"a": 0.4, "b": 0.0}, prompts=12)
    turned = []
    for row in given:
        other = {"first": "second", "second": "first"}.get(row.answer, row.answer)
        turned.append(
            judgement(
                other,
                sources=(row.second.source, row.first.source),
                rater=row.show.rater,
                prompt=row.prompt,
                question=row.question,
                number=row.show.number,
                category=row.category,
                seconds=row.seconds,
                flipped=not row.show.flipped,
                group=row.show.group,
            )
        )
    expected, found = analyze(made_study(), given, **FEW), analyze(made_study(), turned[::-1], **FEW)
    assert found == expected


def test_two_models_have_the_log_odds_as_strengths() -> None:
    (result,) = analyze(ONE, votes("ffffffsst"), **FEW).questions
    top, low = result.strengths.models
    assert (top.model, low.model) == ("base", "see")
    assert top.value - low.value == pytest.approx(math.log(3))
    assert not result.strengths.penalised


def test_votes_on_few_prompts_prove_little() -> None:
    """300 votes by 50 raters, but six prompts: five lean to one model, and one to the other."""
    given = [row for rater in range(50) for row in votes("fffffs", rater=f"r{rater:02d}")]
    (row,) = analyze(ONE, given, **FEW).comparisons
    assert row.wilson[0] > 0.75
    assert row.interval[0] < 0.5
    assert row.verdict == "open"


def test_one_raters_taste_is_no_preference_of_people() -> None:
    """One of seven raters gives most votes, all for one model."""
    given = votes("f" * 60, rater="keen")
    for at in range(6):
        given += votes("ss", rater=f"r{at}")
    (row,) = analyze(ONE, given, **FEW).comparisons
    assert row.wilson[0] > 0.7
    assert row.interval[0] < 0.5 < row.interval[1]
    assert row.verdict == "open"


def adjusted(rows: Iterable[Comparison], family: str) -> tuple[list[float], list[float]]:
    """Corrected p-values of a family as they are, and as Holm's procedure gives them."""
    chosen = [row for row in rows if row.family == family]
    return [row.adjusted for row in chosen], holm([row.p for row in chosen]).tolist()


def test_without_a_primary_question_all_questions_are_one_family() -> None:
    analysis = analyze(made_study(), simulated({"a": 1.5, "b": 0.0, "c": 0.0}), **FEW)
    assert (analysis.tested, analysis.explored) == (6, 0)
    assert [result.key for result in analysis.questions] == ["preference", "alignment", ""]
    mine, holms = adjusted(analysis.comparisons, "primary")
    assert mine == pytest.approx(holms)
    shown = [row for row in analysis.comparisons if row.verdict != "open"]
    assert {(row.left, row.right) for row in shown} == {("a", "b"), ("a", "c")}
    assert all(row.verdict == "left" for row in shown)


def test_all_questions_together_are_described_and_not_tested() -> None:
    together = analyze(made_study(), simulated({"a": 3.0, "b": 0.0}), **FEW).questions[-1]
    assert together.key == ""
    assert {(row.p, row.adjusted, row.family, row.verdict) for row in together.comparisons} == {
        (None, None, "", "open")
    }


def test_only_what_the_study_was_made_for_counts_in_its_correction() -> None:
    """More questions and more models leave the corrected p-values of the primary family as they are."""
    strengths = {"a": 0.6, "b": 0.0, "c": 0.1}
    given = simulated(strengths, questions=["preference"])
    settings = {"primary": "preference", "contrasts": (("b", "a"),)}
    alone = analyze(made_study(questions=QUESTIONS[:1], **settings), given, **FEW)
    more = simulated(strengths, seed=7, questions=["alignment"])
    both = analyze(made_study(**settings), [*given, *more], **FEW)
    for analysis, explored in ((alone, 2), (both, 5)):
        assert (analysis.tested, analysis.explored) == (1, explored)
        (row,) = [row for row in analysis.comparisons if row.family == "primary"]
        assert (row.question, row.left, row.right) == ("preference", "a", "b")
        assert row.adjusted == row.p
        mine, holms = adjusted(analysis.comparisons, "explored")
        assert mine == pytest.approx(holms)


def test_questions_that_repeat_each_other_cost_no_power() -> None:
    """Fifteen questions get the same answers; the verdict on the primary one is that of a study of it alone."""
    keys = ["preference", *(f"copy-{number}" for number in range(14))]
    questions = [Question(key=key, text="Which?") for key in keys]
    given = simulated({"a": 0.6, "b": 0.0}, seed=3, prompts=30, questions=["preference"])
    copies = [
        replace(vote, question=key, show=replace(vote.show, group=f"{key} {vote.show.group}"))
        for key in keys
        for vote in given
    ]
    with_primary = analyze(made_study(questions=questions, primary="preference"), copies, **FEW).comparisons[0]
    without = analyze(made_study(questions=questions), copies, **FEW).comparisons[0]
    assert with_primary.verdict == "left"
    assert without.verdict == "open"
    assert without.adjusted == pytest.approx(min(1.0, 15 * with_primary.adjusted))


def test_verdicts_follow_what_was_registered_before_the_first_vote() -> None:
    first, later = Aim(primary="preference"), Aim(primary="alignment", contrasts=(("a", "b"),))
    history = [Registration(aim=later, votes=0, at="1"), Registration(aim=first, votes=0, at="2")]
    study = made_study(primary="alignment", contrasts=(("b", "a"),))
    given = simulated({"a": 1.0, "b": 0.0, "c": 0.0})
    analysis = analyze(study, given, history=history, **FEW)
    assert analysis.aim == first
    assert [(change.aim, change.votes) for change in analysis.changes] == [(later, len(given))]
    assert {row.question for row in analysis.comparisons if row.family == "primary"} == {"preference"}
    back = [*history, Registration(aim=later, votes=9, at="3"), Registration(aim=first, votes=12, at="4")]
    analysis = analyze(made_study(primary="preference"), given, history=back, **FEW)
    assert [change.votes for change in analysis.changes] == [9, 12]
    assert analysis.aim == first
    assert analyze(study, given, **FEW).aim == later


def test_a_preference_for_the_second_model_is_on_the_right() -> None:
    (row,) = analyze(ONE, simulated({"a": 0.0, "b": 2.0}, questions=["preference"]), **FEW).questions[0].comparisons
    assert (row.verdict, row.rate < 0.5, row.prompts_left < row.prompts_right) == ("right", True, True)


def test_equal_models_are_seldom_told_apart() -> None:
    """Three comparisons in each of 60 studies of equal models with prompts that lean: at most 5 % of studies err."""
    how = Resampling(resamples=100)
    wrong = 0
    for seed in range(60):
        given = simulated({"a": 0, "b": 0, "c": 0}, seed=seed, prompts=20, lean=1.5, questions=["preference"])
        found = corrected(compare(given, how, question="preference"), how)
        assert len(found) == 3
        wrong += any(row.verdict != "open" for row in found)
    assert wrong <= 3


def test_a_model_that_wins_all_is_said_to_have_no_bound() -> None:
    analysis = analyze(ONE, votes("f" * 12), **FEW)
    (result,) = analysis.questions
    assert result.strengths.penalised
    assert all(np.isfinite(row.value) for row in result.strengths.models)
    (row,) = result.comparisons
    assert 0.5 < row.interval[0] < wilson_interval(12, 12)[0]


def test_models_that_were_never_compared_have_no_strengths() -> None:
    given = votes("fs", sources=("a", "b")) + votes("sf", sources=("c", "d"), rater="r2")
    analysis = analyze(ONE, given, **FEW)
    assert analysis.questions[0].strengths.models == ()


def test_raters_who_fail_checks_are_left_out_and_named() -> None:
    given = votes("f" * 8, rater="good") + votes("s" * 8, rater="poor")
    given += [check(True, rater="good", number=50), check(True, rater="poor", number=50)]
    given += [check(False, rater="poor", number=51), check(True, rater="good", number=51)]
    strict, lax = analyze(ONE, given, least_checks=0.6, **FEW), analyze(ONE, given, least_checks=0.5, **FEW)
    assert (strict.inattentive, lax.inattentive) == (("poor",), ())
    assert strict.questions[0].comparisons[0].rate == 1.0
    assert [row.rate for row in strict.everybody] == [0.5]
    assert lax.everybody == ()
    assert (strict.counts.inattentive, strict.counts.checks, strict.counts.votes) == (10, 2, 8)
    assert [row.kept for row in strict.raters] == [True, False]


def test_both_bad_and_skip_are_no_answer_to_a_check_but_one_must_be_answered() -> None:
    given = [vote for rater in ("good", "poor", "mute") for vote in votes("f" * 8, rater=rater)]
    right, wrong = check(True, rater="good", number=50), check(False, rater="poor", number=50)
    undecided = [check(True, rater=rater, number=51) for rater in ("good", "poor", "mute") for _ in range(2)]
    given += [right, wrong, *(replace(row, answer=("bad", "skip")[at % 2]) for at, row in enumerate(undecided))]
    analysis = analyze(ONE, given, least_checks=0.75, raters=["poor", "good", "silent"], **FEW)
    assert [(row.rater, row.checks, row.checks_passed) for row in analysis.raters] == [
        ("poor", 1, 0),
        ("good", 1, 1),
        ("mute", 0, 0),
    ]
    assert analysis.inattentive == ("poor", "mute")
    assert (analysis.checks.cases, analysis.checks.share, analysis.counts.checks) == (1, 1.0, 3)
    # One check, whose answers are left, right and tie.
    assert (analysis.usual_checks, analysis.careless) == (1, pytest.approx(1 / 3))


def test_excluded_raters_are_counted_apart() -> None:
    given = votes("fffs", rater="r1") + votes("ss", rater="r2")
    analysis = analyze(ONE, given, excluded={"r2", "unheard"}, **FEW)
    assert (analysis.excluded, analysis.counts.excluded) == (("r2",), 2)
    assert analysis.questions[0].votes == 4


def test_every_answer_is_in_one_count() -> None:
    given = simulated({"a": 0.0, "b": 0.5}, prompts=8)
    given += [check(at > 0, rater="r01", number=900 + at) for at in range(4)]
    given += [repetition(given[0], "tie", number=950), judgement("skip", rater="r02", number=960)]
    given += votes("fk", rater="gone")
    counts = analyze(made_study(), given, least_checks=0.9, excluded={"gone"}, **FEW).counts
    parts = (counts.votes, counts.checks, counts.repeats, counts.skipped, counts.excluded, counts.inattentive)
    assert sum(parts) == counts.answers == len(given)


def test_repetitions_sides_and_times() -> None:
    given = votes("fsft", seconds=2.0)
    given += [
        repetition(row, answer, number=20 + at)
        for at, (row, answer) in enumerate(zip(given, ("first", "first", "first", "bad"), strict=True))
    ]
    analysis = analyze(ONE, given, fast_seconds=3.5, **FEW)
    assert (analysis.consistency.share, analysis.consistency.cases) == (0.75, 4)
    assert (analysis.side.share, analysis.side.cases) == (pytest.approx(2 / 3), 3)
    assert analysis.questions[0].votes == 4
    (rater,) = analysis.raters
    assert (rater.repeats, rater.repeats_same, rater.fast) == (4, 3, True)


def test_sides_and_answers_are_inverse() -> None:
    answers = ("first", "second", "tie")
    shows = [judgement("first", flipped=flipped).show for flipped in (False, True)]
    assert [show.side(answer) for show in shows for answer in answers] == [
        "left",
        "right",
        "tie",
        "right",
        "left",
        "tie",
    ]
    assert all(show.answer(show.side(answer)) == answer for show in shows for answer in (*answers, "bad", "skip"))


def test_agreement_counts_both_orders() -> None:
    """Two raters, two pairs, agreement on one: each value has half of the votes when both orders count."""
    given = votes("ff", rater="r1") + votes("fs", rater="r2")
    found = analyze(ONE, given, **FEW).questions[0].agreement
    assert (found.pairs, found.same) == (2, 0.5)
    assert found.nominal == pytest.approx(1 - 3 * 2 / (2 * 2 * 2))
    summaries = analyze(ONE, given, **FEW).raters
    assert [row.agreement for row in summaries] == [0.5, 0.5]


def test_agreement_rises_with_agreement() -> None:
    alphas = [
        analyze(ONE, simulated({"a": 0, "b": 0}, lean=lean, questions=["preference"]), **FEW).questions[0].agreement
        for lean in (0.0, 6.0)
    ]
    assert abs(alphas[0].nominal) < 0.15
    assert alphas[1].nominal > 0.4
    assert all(row.nominal_interval[0] <= row.nominal <= row.nominal_interval[1] for row in alphas)


def test_categories_are_described_and_not_tested() -> None:
    (result,) = analyze(ONE, simulated({"a": 0, "b": 1}, questions=["preference"]), **FEW).questions
    assert [row.category for row in result.categories] == ["animals", "people", "places"]
    assert sum(row.votes for row in result.categories) == result.comparisons[0].votes
    assert {row.p for row in result.categories} == {None}


def test_a_collection_ranks_the_images_of_each_prompt() -> None:
    study = made_study("collect", QUESTIONS[:1])
    pairs = {(0, 1): "first", (0, 2): "first", (1, 2): "second"}
    given = [
        judgement(answer, group="g1", first_index=a, second_index=b, sources=(f"{a}.png", f"{b}.png"), number=at)
        for at, ((a, b), answer) in enumerate(pairs.items())
    ]
    lone = [(0, 1), (2, 3)]
    given += [
        judgement("tie", group="g2", first_index=a, second_index=b, sources=(f"{a}.png", f"{b}.png"), number=9 + at)
        for at, (a, b) in enumerate(lone)
    ]
    analysis = analyze(study, given, **FEW)
    whole, apart = analysis.questions[0].rankings
    assert [(row.source, row.rank) for row in whole.candidates] == [("0.png", 1), ("2.png", 2), ("1.png", 3)]
    assert [row.share for row in whole.candidates] == [1.0, 0.5, 0.0]
    assert (whole.connected, whole.penalised, whole.decided) == (True, True, True)
    assert (apart.connected, apart.decided) == (False, False)
    assert {row.strength for row in apart.candidates} == {None}
    assert analysis.questions[0].comparisons == ()


def test_no_vote_is_an_error_of_one_line() -> None:
    with pytest.raises(DataError, match=r"no vote to analyse yet$"):
        analyze(ONE, [], **FEW)
    with pytest.raises(DataError, match=r"no vote to analyse yet.*2 answers"):
        analyze(ONE, [check(True, rater="r", number=1), judgement("skip", number=2)], **FEW)


def test_sorting_by_sources_leaves_out_pairs_of_one_source() -> None:
    given = [judgement("first", sources=("b", "a")), judgement("first", sources=("a", "a"), number=1)]
    ((pair, own),) = by_sources(sort_answers(given).votes).items()
    assert (pair, own[0].answer) == (("a", "b"), "second")

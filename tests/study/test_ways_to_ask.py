"""Analyses of likes of single images, and of the best and the worst of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from seedpo.core.stats.two_way import two_way_rate
from seedpo.study.analysis.analyze import analyze
from seedpo.study.analysis.comparisons import compare, rankings, strengths
from seedpo.study.analysis.likes import contrasts, liked
from seedpo.study.analysis.page import render
from seedpo.study.analysis.vote_statistics import Resampling, agreement
from seedpo.study.records import Answer, Candidate, Judgement, Show, parts_of
from seedpo.study.settings import Question
from tests.study.made_votes import made_study

HOW = Resampling(resamples=50)
MODELS = ("a", "b", "c", "d")


def view(
    answer: Answer,
    members: Sequence[int],
    *,
    rater: int = 0,
    prompt: int = 0,
    question: str = "preference",
    repeat_of: str | None = None,
    **changes: int,
) -> Judgement:
    token = f"{question}-{rater}-{prompt}-{members}-{repeat_of}"
    return Judgement(
        show=Show(
            token=token, rater=f"r{rater}", group=f"g{prompt}", order=tuple(members), number=prompt, repeat_of=repeat_of
        ),
        question=question,
        prompt=f"prompt {prompt}",
        category="",
        candidates=tuple(Candidate(source=MODELS[index], images=(f"{index}-{prompt}",)) for index in sorted(members)),
        answer=answer,
        **changes,
    )


def ranked(seed: int, worths: Sequence[float], *, raters: int = 8, prompts: int = 15) -> list[Judgement]:
    generator = np.random.default_rng(seed)
    given = []
    for rater in range(raters):
        for prompt in range(prompts):
            utilities = np.asarray(worths) + generator.gumbel(size=len(worths))
            best, worst = int(utilities.argmax()), int(utilities.argmin())
            given.append(view("ranked", range(len(worths)), rater=rater, prompt=prompt, best=best, worst=worst))
    return given


def likes(seed: int, chances: Sequence[float], *, raters: int = 8, prompts: int = 15) -> list[Judgement]:
    generator = np.random.default_rng(seed)
    return [
        view("like" if generator.random() < chance else "dislike", [index], rater=rater, prompt=prompt)
        for rater in range(raters)
        for prompt in range(prompts)
        for index, chance in enumerate(chances)
    ]


def test_best_and_worst_are_compared_as_the_pairs_that_follow() -> None:
    given = ranked(0, [1.0, 0.0, 0.0, -1.0])
    rows = {(row.left, row.right): row for row in compare(given, HOW, question="preference")}
    assert sorted(rows) == list(combinations(MODELS, 2))
    assert sum(row.votes for row in rows.values()) == 5 * len(given)
    row = rows["a", "d"]
    said = [(vote.best == 0 or vote.worst == 3, vote.show) for vote in given if {0, 3} & {vote.best, vote.worst}]
    expected = two_way_rate(*zip(*((won, int(show.rater[1:]), show.number) for won, show in said), strict=True))
    assert (row.rate, row.interval) == (pytest.approx(expected.mean), pytest.approx((expected.low, expected.high)))
    assert [strength.model for strength in strengths(given, HOW).models][::3] == ["a", "d"]


def test_more_pairs_of_one_view_do_not_make_the_interval_narrower() -> None:
    """Each pair of models gets one answer of a view at most; the strengths get five, which depend on each other."""
    given = ranked(1, [0.0] * 4)
    (row, *_) = compare(given, HOW, question="preference")
    widths = [model.interval[1] - model.interval[0] for model in strengths(given, HOW).models]
    assert row.votes <= len(given)
    assert min(widths) > 0.2


def test_likes_are_shares_with_intervals_and_contrasts_of_them() -> None:
    given = likes(0, [0.8, 0.4])
    first, second = liked(given, HOW)
    assert (first.model, first.votes) == ("a", 120)
    assert first.share == pytest.approx(first.likes / 120)
    expected = two_way_rate(
        *zip(*((vote.answer == "like", int(vote.show.rater[1:]), vote.show.number) for vote in given[::2]), strict=True)
    )
    assert first.interval == pytest.approx((expected.low, expected.high))
    (row,) = compare(given, HOW, question="preference")
    assert row.liked
    assert row.rate == pytest.approx(0.5 + (first.share - second.share) / 2)
    assert (row.wins, row.losses, row.bad) == (first.likes, second.likes, 240 - first.likes - second.likes)
    assert (row.p < 0.05, row.interval[0] > 0.5) == (True, True)
    assert row.prompts_left > row.prompts_right


def test_the_contrast_of_likes_has_the_variance_of_a_difference() -> None:
    """With one vote on each model by each rater on each prompt, it is that of the mean of the differences."""
    given = likes(3, [0.6, 0.5])
    (contrast,) = contrasts(given).values()
    sums = np.zeros((8, 15))
    np.add.at(sums, (contrast.votes.raters, contrast.votes.prompts), contrast.influences)
    differences = contrast.votes.points[contrast.of_left] - contrast.votes.points[~contrast.of_left]
    assert contrast.rate == pytest.approx(0.5 + differences.mean() / 2)
    points = (1.0 + differences) / 2.0
    codes = contrast.votes.raters[contrast.of_left], contrast.votes.prompts[contrast.of_left]
    rate = two_way_rate(points, *codes)
    (row,) = compare(given, HOW, question="preference")
    assert (row.error, row.df, row.p) == pytest.approx((rate.error, rate.df, rate.p))
    assert row.interval == pytest.approx((rate.low, rate.high))


def test_equal_models_are_seldom_liked_apart() -> None:
    shown = [compare(likes(seed, [0.5, 0.5]), HOW, question="x")[0].p <= 0.05 for seed in range(60)]
    assert np.mean(shown) <= 0.1


def test_agreement_is_about_pairs_and_single_images() -> None:
    same = [view("ranked", range(4), rater=rater, best=0, worst=3) for rater in (1, 2)]
    found = agreement(same, HOW)
    assert (found.pairs, found.same) == (5, 1.0)
    other = [same[0], view("ranked", range(4), rater=2, best=3, worst=0)]
    assert agreement(other, HOW).same == 0.0
    singles = [view("like", [0], rater=1), view("like", [0], rater=2), view("dislike", [1], rater=1)]
    found = agreement([*singles, view("dislike", [1], rater=2), view("dislike", [2], rater=2)], HOW)
    assert (found.pairs, found.same, found.nominal) == (2, 1.0, 1.0)


def test_a_rater_who_sees_a_pair_in_two_views_counts_once() -> None:
    views = [view("ranked", (0, 1, 2), best=0, worst=2), view("ranked", (0, 1, 3), best=1, worst=0)]
    assert sorted(part.show.members for part in parts_of(views)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3)]


def test_a_page_shows_both_ways_to_ask() -> None:
    questions = [
        Question(key="preference", text="Best and worst?", form="best-worst"),
        Question(key="appeal", text="Do you like it?", form="single"),
    ]
    given = ranked(0, [1.0, 0.0, 0.0, -1.0])
    given += [
        replace(vote, question="appeal", show=replace(vote.show, token=f"like {at}"))
        for at, vote in enumerate(likes(0, [0.9, 0.5, 0.5, 0.2]))
    ]
    repeated = view("ranked", range(4), best=0, worst=3, repeat_of=given[0].show.token)
    given += [replace(repeated, best=best, show=replace(repeated.show, token=f"again {best}")) for best in (0, 1)]
    analysis = analyze(made_study(questions=questions), given, resampling=HOW)
    first, second = analysis.questions
    assert [len(result.comparisons) for result in analysis.questions] == [6, 6]
    assert (first.liked, [row.model for row in second.liked][::3]) == ((), ["a", "d"])
    assert analysis.consistency.cases == 2
    assert all(rater.agreement is not None for rater in analysis.raters)
    page = render(analysis)
    assert "share of likes" in page
    assert "no strengths" not in page


def test_a_careless_rater_passes_a_check_of_a_view_by_naming_one_of_its_images() -> None:
    question = Question(key="preference", text="Best and worst?", form="best-worst")
    given = ranked(0, [1.0, 0.0, 0.0, -1.0], raters=2, prompts=2)
    checks = [
        view("ranked", range(4), question="preference", prompt=9 + at, best=0, worst=3 if at else 1) for at in range(4)
    ]
    given += [replace(check, expected="ranked", expected_worst=3) for check in checks]
    analysis = analyze(made_study(questions=[question]), given, resampling=HOW, least_checks=0.5)
    (careful, *_) = analysis.raters
    assert (careful.checks, careful.checks_passed) == (4, 3)
    # At least 2 of 4 by chance, each with probability 1/4.
    assert analysis.careless == pytest.approx(1 - 0.75**4 - 0.75**3)


def test_a_collection_orders_images_by_likes_and_by_best_and_worst() -> None:
    (by_likes,) = rankings([view("like", [1]), view("dislike", [0]), view("like", [2]), view("dislike", [2], rater=1)])
    assert [(row.source, row.rank) for row in by_likes.candidates] == [("b", 1), ("c", 2), ("a", 3)]
    (by_choice,) = rankings([view("ranked", range(4), best=2, worst=1)])
    assert [row.source for row in by_choice.candidates][::3] == ["c", "b"]

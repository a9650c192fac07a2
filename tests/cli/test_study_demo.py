"""The demonstration of studies finds the difference that is there, and the rater who does not look."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from scipy import stats

from seedpo.cli import study_demo
from seedpo.cli.study_demo import CHECKS, LEAST_CHECKS, TASKS
from seedpo.study.analysis.analyze import analyze, passing_chance
from seedpo.study.analysis.vote_statistics import Resampling
from seedpo.study.assignment import next_show
from seedpo.study.folder import Study, open_study
from seedpo.study.records import Judgement, Show, judge
from seedpo.study.simulated import Task
from seedpo.study.votes.store import Store

HONEST = 0.95
"""Chance at least with which an honest simulated rater passes a check; a test below measures it."""

SEEDS, RATERS = 20, 12


def test_checks_tell_honest_raters_from_careless_ones() -> None:
    """From the binomial distribution. Careless raters leave two of five checks undecided, and pass one of three."""
    numbers = range(1, CHECKS + 1)
    chances = [passing_chance(number, LEAST_CHECKS, 1 / 3) for number in numbers]
    assert stats.binom.pmf(numbers, CHECKS, 3 / 5) @ chances < 0.012
    assert 1.0 - passing_chance(CHECKS, LEAST_CHECKS, HONEST) < 0.02


@pytest.mark.parametrize(
    ("checks", "least", "needed"), [(12, 0.6, 8), (5, 0.6, 3), (10, 0.7, 7), (3, 1.0, 3), (4, 0.0, 0)]
)
def test_the_chance_of_passing_is_binomial(checks: int, least: float, needed: int) -> None:
    assert passing_chance(checks, least, 0.3) == pytest.approx(stats.binom.sf(needed - 1, checks, 0.3))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    study_demo.make_study(folder / "study", study_demo.draw_images(folder / "images"), raters=RATERS)
    return folder


def answers(study: Study, seed: int) -> Iterator[Judgement]:
    """Simulated raters in turn, without a server; the last one is careless."""
    study = replace(study, settings=study.settings.model_copy(update={"seed": seed}))
    decide = study_demo.scenes_judge(
        {item.text: item.key for item in study.settings.questions}, raters=RATERS, seed=seed
    )
    counts: Counter[object] = Counter()
    own: dict[int, list[Judgement]] = {rater: [] for rater in range(RATERS)}
    for number in range(TASKS):
        for rater in own:
            token, name = f"{seed}-{number}-{rater}", f"r{rater:02d}"
            proposal = next_show(study, own[rater], counts, Counter(), rater=name, token=token, turn=rater)
            assert proposal is not None, "there are enough pairs for every rater"
            show, group = Show(token=token, rater=name, number=number, **vars(proposal)), study.by_id[proposal.group]
            question = study.question(group.question)
            task = Task(
                rater=rater,
                show=token,
                question=question.text,
                prompt=group.prompt,
                layout=question.shows,
                form=question.form,
                items=(),
                choices=question.choices,
            )
            items = [[picture(study.image(image)) for image in group.candidates[at].images] for at in show.order]
            answer = judge(show, group, show.answer(decide(task, items)))
            own[rater].append(answer)
            counts[show.unit] += answer.regular and answer.answer != "skip"
            yield answer


@cache
def picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.slow
def test_over_seeds_the_difference_is_shown_and_only_the_careless_rater_is_left_out(drawn: Path) -> None:
    study, shown = open_study(drawn / "study"), 0
    honest: Counter[bool] = Counter()
    for seed in range(SEEDS):
        given = list(answers(study, seed))
        analysis = analyze(study, given, least_checks=LEAST_CHECKS, resampling=Resampling(resamples=100))
        assert analysis.inattentive == (f"r{RATERS - 1:02d}",)
        assert {rater.checks for rater in analysis.raters if rater.kept} == {CHECKS}
        (row,) = [row for row in analysis.comparisons if row.family == "primary"]
        assert (row.left, row.right) == ("guidance-1", "guidance-3")
        shown += row.verdict == "right"
        honest.update(vote.passed for vote in given if vote.expected and vote.show.rater not in analysis.inattentive)
    assert shown >= 0.8 * SEEDS
    assert honest[True] >= HONEST * honest.total()


@pytest.mark.slow
def test_simulated_raters_vote_on_what_the_model_draws_and_the_votes_are_analysed(drawn: Path) -> None:
    said: list[str] = []
    study_demo.run_study_demo(drawn, raters=6, port=None, show=False, seed=0, say=said.append)
    page = drawn / "analysis" / "analysis.html"
    assert any(str(page) in line for line in said)
    with Store.open(open_study(drawn / "study"), write=False) as store:
        answered = Counter(judgement.show.rater for judgement in store.judgements())
        (careless,) = [rater.id for rater in store.raters() if rater.label == "simulated 5"]
    assert set(answered.values()) == {TASKS}
    figures = json.loads((drawn / "analysis" / "analysis.json").read_text(encoding="utf-8"))
    assert figures["inattentive"] == [careless]
    assert (figures["tested"], figures["explored"]) == (1, 8)
    (row,) = [row for row in figures["questions"][0]["comparisons"] if row["family"] == "primary"]
    assert (row["raters"], row["right"]) == (5, "guidance-3")
    assert row["rate"] < 0.5
    assert "guidance-3" in page.read_text(encoding="utf-8")

"""How many questions people are asked, from the study that is there or the one that would be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seedpo.errors import ConfigError
from seedpo.planning.gpus import find_gpu
from seedpo.planning.people import People, Questions, questions_to_people
from seedpo.planning.plan import plan_run
from seedpo.planning.table import questions
from seedpo.study.folder import create_study
from seedpo.study.settings import StudySettings
from seedpo.training.configuration import resolve_config
from seedpo.training.feedback.wiring import QUESTION, study_settings


def asked(folder: Path, *, gpus: int = 1, **trajectories: Any) -> People:
    changes = {"feedback": {"study": str(folder)}, "trajectories": {"prompts_per_rollout": 8} | trajectories}
    config = resolve_config("d3po", changes, bfloat16=False)
    people = questions_to_people(config, study_settings(config), rounds=25, gpus=gpus)
    assert people is not None
    return people


@pytest.mark.parametrize(
    ("images", "tournament", "pairs"), [(2, "every pair", 8), (4, "every pair", 48), (7, "a knockout", 48)]
)
def test_a_study_that_would_be_made(tmp_path: Path, images: int, tournament: str, pairs: int) -> None:
    people = asked(tmp_path / "study", images_per_prompt=images)
    assert people.tournament == tournament
    assert people.per_round == Questions(groups=8, pairs=pairs, votes=pairs)
    assert people.in_all == Questions(groups=200, pairs=25 * pairs, votes=25 * pairs)
    assert asked(tmp_path / "study", images_per_prompt=images, gpus=3).in_all == people.in_all.times(3)
    assert not (tmp_path / "study").exists()


def test_a_study_that_is_there_says_how_many_raters_and_in_which_tournament(tmp_path: Path) -> None:
    study = tmp_path / "study"
    settings = {"raters_per_pair": 3, "tournament": "knockout", "checks": 0.1, "repeats": 0.05}
    create_study(study, StudySettings(id="one", questions=(QUESTION,), **settings), [], {})
    people = asked(study, images_per_prompt=4)
    assert questions(people) == [
        "people judge per round: 8 groups, 24 pairs, 72 votes",
        "people judge in all: 200 groups, 600 pairs, 1,800 votes",
        "attention checks and repetitions come on top: 15% of what a rater is shown",
    ]
    two = asked(study, images_per_prompt=2)
    assert (two.tournament, two.per_round.votes) == ("every pair", 24), "of two images there is but one pair"


def test_best_and_worst_are_counted_in_views(tmp_path: Path) -> None:
    for images, views in ((4, 1), (6, 1), (7, 7)):
        config = resolve_config(
            "d3po",
            {
                "feedback": {"study": str(tmp_path / "study"), "form": "best-worst"},
                "trajectories": {"prompts_per_rollout": 8, "images_per_prompt": images},
            },
            bfloat16=False,
        )
        people = questions_to_people(config, study_settings(config), rounds=2, gpus=1)
        assert people is not None
        assert people.per_round == Questions(groups=8, pairs=8 * views, votes=8 * views)
        assert f"{8 * views} views" in questions(people)[0]


def test_a_study_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("id: one\nraters_per_pair: many\n")
    parts: list[str] = []
    config = resolve_config("d3po", {"feedback": {"study": str(tmp_path)}}, bfloat16=False)
    with pytest.raises(ConfigError, match=r"study\.yaml"):
        plan_run(config, gpu=find_gpu("T4"), progress=parts.append)
    assert parts == [], "before anything is counted"


def test_without_a_study_nobody_is_asked() -> None:
    config = resolve_config("d3po", {}, bfloat16=False)
    assert questions_to_people(config, study_settings(config), rounds=25, gpus=1) is None

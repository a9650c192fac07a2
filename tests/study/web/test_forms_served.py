"""Single images and views of several, as a rater's browser meets them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from seedpo.study.folder import create_study, open_study
from seedpo.study.records import Candidate, Group, Judgement
from seedpo.study.settings import Question, StudySettings
from seedpo.study.status import status_lines
from seedpo.study.votes.store import Store
from tests.study.web_studies import browsing, make_app, new_link, png, vote

MODELS = ("geheim-a", "geheim-b", "geheim-c", "geheim-d")
LIKE = Question(key="frage-like", text="Do you like it?", form="single")
BEST = Question(key="frage-best", text="Best and worst?", form="best-worst")


@pytest.fixture(params=[LIKE, BEST], ids=["single", "best-worst"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Question, TestClient, str, Path]]:
    question: Question = request.param
    images = {f"{model}-{prompt}": png(40 * at + 7 * prompt) for at, model in enumerate(MODELS) for prompt in range(2)}
    groups = [
        Group(
            id=f"gruppe-{prompt}",
            question=question.key,
            prompt=f"a fox {prompt}",
            candidates=tuple(Candidate(source=model, images=(f"{model}-{prompt}",)) for model in MODELS),
        )
        for prompt in range(2)
    ]
    create_study(tmp_path / "s", StudySettings(id="forms", questions=(question,)), groups, images)
    app = make_app(tmp_path / "s")
    with browsing(app) as client:
        yield question, client, new_link(app), tmp_path / "s"


def judgements(folder: Path) -> list[Judgement]:
    with Store.open(open_study(folder)) as store:
        return store.judgements()


def test_a_task_is_what_the_page_needs_and_names_nothing(asked: tuple[Question, TestClient, str, Path]) -> None:
    question, client, link, folder = asked
    response = client.get(f"{link}/task")
    task = response.json()["task"]
    assert (task["form"], task["layout"], task["choices"]) == (question.form, "image", list(question.choices))
    assert [len(item) for item in task["items"]] == [1] * (1 if question.form == "single" else 4)
    assert all(client.get(address).status_code == 200 for address in chain(*task["items"]))
    secrets = ["geheim", "gruppe", "frage", *open_study(folder).images, "expected", "members", "order", "unit"]
    assert not [secret for secret in secrets if secret in response.text]


WRONG: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "single": [
        ("ranked", {"best": 0, "worst": 0}),
        ("left", {}),
        ("like", {"best": 0, "worst": 1}),
        ("like", {"best": 0}),
        ("tie", {}),
    ],
    "best-worst": [
        ("ranked", {}),
        ("ranked", {"best": 1}),
        ("ranked", {"best": 2, "worst": 2}),
        ("ranked", {"best": 0, "worst": 4}),
        ("ranked", {"best": -1, "worst": 1}),
        ("ranked", {"best": "0", "worst": "best"}),
        ("skip", {"best": 0, "worst": 1}),
        ("like", {}),
    ],
}


def test_answers_that_do_not_fit_are_refused_and_nothing_is_stored(
    asked: tuple[Question, TestClient, str, Path],
) -> None:
    question, client, link, folder = asked
    state = client.get(f"{link}/task").json()
    for at, (side, places) in enumerate(WRONG[question.form]):
        answer = vote(client, link, state, side, key=f"wrong-key-{at}", **places)
        assert 400 <= answer.status_code < 500, (side, places)
        assert set(answer.json()) >= {"error"}
    assert judgements(folder) == []
    assert client.get(f"{link}/task").json()["task"] == state["task"], "the same show is still open"


def test_what_is_answered_is_what_was_at_that_place(asked: tuple[Question, TestClient, str, Path]) -> None:
    question, client, link, folder = asked
    state = client.get(f"{link}/task").json()
    study, seen = open_study(folder), {}
    while state["task"] is not None:
        task = state["task"]
        contents = [client.get(item[0]).content for item in task["items"]]
        side, places = ("like", {}) if question.form == "single" else ("ranked", {"best": 2, "worst": 0})
        seen[task["show"]] = contents
        state = vote(client, link, state, side, key=f"right-key-{len(seen)}", **places).json()
    stored = judgements(folder)
    assert len(stored) == (8 if question.form == "single" else 2)
    for judgement in stored:
        group = study.group(judgement.show.group)
        files = {index: study.image(group.candidates[index].images[0]).read_bytes() for index in range(4)}
        contents = seen[judgement.show.token]
        assert [files[index] for index in judgement.show.order] == contents
        if question.form == "best-worst":
            assert (files[judgement.best], files[judgement.worst]) == (contents[2], contents[0])  # type: ignore[index]
        else:
            assert (judgement.answer, judgement.best) == ("like", None)


def test_the_status_counts_what_is_judged_at_a_time(asked: tuple[Question, TestClient, str, Path]) -> None:
    question, client, link, folder = asked
    state = client.get(f"{link}/task").json()
    side, places = ("like", {}) if question.form == "single" else ("ranked", {"best": 1, "worst": 3})
    assert vote(client, link, state, side, key="only-key", **places).status_code == 200
    line = status_lines(folder)[1]
    assert f"1 answers; 1 of 1 begun {'images' if question.form == 'single' else 'views'}" in line

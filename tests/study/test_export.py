"""Votes written for training are read back by the package's own readers: labels, ties, prompts and pixels."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from seedpo.cli.study import study_app
from seedpo.data.pairs.sets import PairSet
from seedpo.data.reading import read_pairs
from seedpo.data.settings import PairsConfig
from seedpo.errors import ConfigError, DataError
from seedpo.study.export import export_votes, votes_csv
from seedpo.study.folder import Study
from seedpo.study.records import Answer, Candidate, Group, Judgement, Show, judge
from seedpo.study.settings import Question
from seedpo.study.votes.store import Store
from tests.study.small_study import pairs_of, picture, small_study

ANSWERS: tuple[Answer, ...] = ("first", "second", "tie", "bad", "skip")


def judgement(study: Study, index: int, answer: Answer, **changes: Any) -> Judgement:
    group = study.groups[index]
    show = Show(token=f"t{index}", rater="r", group=group.id, order=(1, 0) if index % 2 else (0, 1), number=index)
    judged = Judgement(
        show=replace(show, **{name: changes.pop(name) for name in ("repeat_of",) if name in changes}),
        question=group.question,
        prompt=group.prompt,
        category="c",
        candidates=group.candidates[:2],
        answer=answer,
        seconds=1.5,
        at="2026-03-01T12:00:00.000000+00:00",
    )
    return replace(judged, **changes)


def judged_study(folder: Path) -> tuple[Study, list[Judgement]]:
    """Five pairs, one of each answer, then a check, a repetition, and an answer to another question."""
    sets = Group(
        id="d",
        question="diversity",
        prompt="p",
        candidates=tuple(Candidate(source=name, images=tuple(name)) for name in ("01", "23")),
    )
    study = small_study(folder, [*pairs_of(5), sets])
    judged = [judgement(study, index, answer) for index, answer in enumerate(ANSWERS)]
    judged.append(judgement(study, 0, "first", expected="first"))
    judged.append(judgement(study, 1, "first", repeat_of="t1"))
    judged.append(judgement(study, 5, "first"))
    return study, judged


LEFT_OUT = {'"bad"': 1, '"skip"': 1, "attention checks": 1, "repetitions": 1, "other questions": 1}


def pixels(image: Any) -> np.ndarray[Any, Any]:
    return np.asarray(image.permute(1, 2, 0).mul(255).round().byte())


@pytest.mark.parametrize(("format", "name"), [("parquet", "votes.parquet"), ("jsonl", "votes.jsonl")])
def test_what_is_exported_is_read_back(tmp_path: Path, format: str, name: str) -> None:
    study, judged = judged_study(tmp_path / "s")
    done = export_votes(study, judged, tmp_path / "new" / name, format=format)
    assert (done.rows, dict(done.left_out)) == (3, LEFT_OUT)
    pairs = read_pairs(done.path, PairsConfig(ties="half"))
    expected = [(0, 1, 1.0), (3, 2, 1.0), (4, 5, 0.5)]  # chosen, rejected and the probability, by picture
    assert len(pairs) == len(expected)  # type: ignore[arg-type]
    for index, (chosen, rejected, probability) in enumerate(expected):
        pair = pairs[index]  # type: ignore[index]
        assert pair.prompt == f"prompt {index}, “ünïcode”"
        assert pair.chosen_probability == probability
        assert np.array_equal(pixels(pair.chosen), np.asarray(picture(chosen)))
        assert np.array_equal(pixels(pair.rejected), np.asarray(picture(rejected)))
    assert len(read_pairs(done.path, PairsConfig(ties="drop"))) == 2  # type: ignore[arg-type]
    assert not list(done.path.parent.rglob("*.tmp"))


def test_parquet_has_pickapics_columns_and_labels(tmp_path: Path) -> None:
    study, judged = judged_study(tmp_path / "s")
    done = export_votes(study, judged, tmp_path / "v.parquet", format="parquet")
    table = pq.read_table(done.path)
    labels = [(row["label_0"], row["label_1"]) for row in table.to_pylist()]
    assert labels == [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)]
    assert table["model_0"].to_pylist() == ["a", "a", "a"]
    assert len(PairSet.of_table(table, origin="v", config=PairsConfig(ties="half"))) == 3


def test_more_pairs_than_are_kept_in_memory(tmp_path: Path) -> None:
    study, judged = judged_study(tmp_path / "s")
    many = [replace(judged[0], at=str(number)) for number in range(130)]
    done = export_votes(study, many, tmp_path / "v.parquet", format="parquet")
    assert pq.read_table(done.path)["created_at"].to_pylist() == [str(number) for number in range(130)]


def test_label_studio_tasks_gather_the_answers_of_a_pair(tmp_path: Path) -> None:
    study, judged = judged_study(tmp_path / "s")
    done = export_votes(study, [*judged, judgement(study, 0, "tie")], tmp_path / "v.json", format="label-studio")
    tasks = json.loads(done.path.read_text(encoding="utf-8"))
    said = [[annotation["result"][0]["value"]["choices"] for annotation in task["annotations"]] for task in tasks]
    assert said == [[["first"], ["tie"]], [["second"]], [["tie"]]]
    place = tasks[0]["data"]["first"].removeprefix("/data/local-files/?d=")
    with Image.open(tmp_path / place) as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture(0)))
    assert tasks[0]["annotations"][0]["lead_time"] == 1.5


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    study, judged = judged_study(tmp_path / "s")
    there = tmp_path / "there.parquet"
    there.write_text("mine")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "--format csv.*parquet", {"format": "csv"}),
        (ConfigError, "there.parquet exists", {"out": there}),
        (ConfigError, "groups.jsonl", {"out": tmp_path / "s" / "groups.jsonl", "overwrite": True}),
        (ConfigError, "question 'diversity'", {"question": "diversity"}),
        (DataError, "no question 'taste'", {"question": "taste"}),
        (DataError, "no answer to 'preference'.*1 attention checks", {"judgements": [judged[5]]}),
        (DataError, "none at all", {"judgements": []}),
        (DataError, "cannot be written", {"out": there / "below.parquet"}),
    ]
    for kind, message, changes in cases:
        arguments = {"judgements": judged, "out": tmp_path / "v.parquet", "format": "parquet"} | changes
        with pytest.raises(kind, match=message):
            export_votes(study, **arguments)
    assert there.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))
    assert export_votes(study, judged, there, format="parquet", overwrite=True).rows == 3


def test_an_image_that_is_gone_leaves_no_half_written_file(tmp_path: Path) -> None:
    study, judged = judged_study(tmp_path / "s")
    study.image(judged[2].first.images[0]).unlink()
    with pytest.raises(DataError, match="cannot be written"):
        export_votes(study, judged, tmp_path / "v.parquet", format="parquet")
    assert {path.name for path in tmp_path.iterdir()} == {"s"}


def test_the_command_exports_and_says_what_it_left_out(tmp_path: Path) -> None:
    study = small_study(tmp_path / "s", pairs_of(2), raters_per_pair=2)
    store = Store.open(study)
    for side in ("left", "skip"):
        rater, _ = store.add_rater()
        while (show := store.turn(rater).show) is not None:
            store.vote(rater, show.token, side, key="k")  # type: ignore[arg-type]
    excluded, _ = store.add_rater()
    show = store.turn(excluded).show
    assert show is not None
    store.vote(excluded, show.token, "left", key="k")
    store.exclude(excluded)
    store.close()
    result = CliRunner().invoke(study_app, ["export", str(study.folder), "--out", str(tmp_path / "v.parquet")])
    assert result.exit_code == 0, result.output
    assert "2 rows" in result.output
    assert 'left out: 2 "skip", 1 of excluded raters' in result.output
    assert len(read_pairs(tmp_path / "v.parquet")) == 2  # type: ignore[arg-type]


# Likes, and best and worst.

FORMS = (
    Question(key="like", text="Do you like it?", form="single"),
    Question(key="best", text="Best and worst?", form="best-worst"),
)


def study_of_forms(folder: Path) -> Study:
    """Two prompts with four images each, asked in both forms."""
    groups = [
        replace(group, id=f"{group.id}-{question.key}", question=question.key)
        for group in pairs_of(2, candidates=4)
        for question in FORMS
    ]
    return small_study(folder, groups, questions=FORMS)


def answered(study: Study, group: str, members: tuple[int, ...], answer: Answer, **values: Any) -> Judgement:
    rater = values.pop("rater", "r")
    show = Show(token=f"{group}{members}{rater}", rater=rater, group=group, order=members[::-1], number=0)
    return judge(show, study.group(group), answer, **values)


@pytest.mark.parametrize(("format", "name"), [("parquet", "likes.parquet"), ("jsonl", "likes.jsonl")])
def test_likes_become_rows_and_pairs_of_liked_and_disliked_images(tmp_path: Path, format: str, name: str) -> None:
    study = study_of_forms(tmp_path / "s")
    likes: list[tuple[int, str, Answer]] = [
        *((0, "r", "like"), (1, "r", "dislike"), (2, "r", "dislike"), (3, "r", "skip")),
        *((0, "q", "like"), (1, "q", "like"), (2, "q", "dislike")),
    ]
    judged = [answered(study, "p0-like", (index,), answer, rater=rater) for index, rater, answer in likes]
    judged.append(answered(study, "p1-like", (0,), "like"))
    judged.append(answered(study, "p0-best", (0, 1, 2, 3), "ranked", best=0, worst=1))
    done = export_votes(study, judged, tmp_path / name, format=format)
    assert (done.rows, dict(done.left_out)) == (7, {'"skip"': 1, "other questions": 1})
    pairs = read_pairs(done.path)
    chosen = [np.asarray(picture(number)) for number in (0, 1, 2)]
    read = [
        tuple(
            next(at for at, image in enumerate(chosen) if np.array_equal(pixels(side), image))
            for side in (pair.chosen, pair.rejected)
        )
        for pair in (pairs[index] for index in range(len(pairs)))  # type: ignore[index, arg-type]
    ]
    assert sorted(read) == [(0, 1), (0, 2), (1, 2)], "shares of likes are 1, 1/2 and 0"
    likes_alone = read_pairs(done.path, PairsConfig(from_scores="likes"))
    assert isinstance(likes_alone, PairSet)
    assert likes_alone.liked() == (4, 3), "each like by itself"
    if format == "jsonl":
        row = json.loads(done.path.read_text("utf-8").splitlines()[1])
        assert {key: row[key] for key in ("prompt", "liked", "model", "rater", "question")} == {
            "prompt": study.groups[0].prompt,
            "liked": False,
            "model": "b",
            "rater": "r",
            "question": "like",
        }


@pytest.mark.parametrize("format", ["parquet", "jsonl", "label-studio"])
def test_best_and_worst_become_the_pairs_that_follow(tmp_path: Path, format: str) -> None:
    study = study_of_forms(tmp_path / "s")
    judged = [
        answered(study, "p0-best", (0, 1, 2, 3), "ranked", best=2, worst=0),
        answered(study, "p1-best", (0, 1, 2, 3), "skip"),
    ]
    done = export_votes(study, judged, tmp_path / "votes.json", format=format, question="best")
    assert (done.rows, dict(done.left_out)) == (5, {'"skip"': 1})
    if format == "label-studio":
        tasks = json.loads(done.path.read_text("utf-8"))
        assert [len(task["annotations"]) for task in tasks] == [1] * 5
        return
    ending = {"parquet": ".parquet", "jsonl": ".jsonl"}[format]
    pairs = read_pairs(done.path.rename(done.path.with_suffix(ending)))
    read = {
        tuple(
            next(at for at in range(4) if np.array_equal(pixels(side), np.asarray(picture(at))))
            for side in (pair.chosen, pair.rejected)
        )
        for pair in (pairs[index] for index in range(5))  # type: ignore[index]
    }
    assert read == {(2, 0), (2, 1), (2, 3), (1, 0), (3, 0)}


def test_likes_are_no_pairs_for_label_studio(tmp_path: Path) -> None:
    study = study_of_forms(tmp_path / "s")
    like = answered(study, "p0-like", (0,), "like")
    with pytest.raises(ConfigError, match="asks for likes; choose parquet or jsonl") as caught:
        export_votes(study, [like], tmp_path / "v.json", format="label-studio", question="like")
    assert "\n" not in str(caught.value)


def test_the_table_of_votes_names_candidates_of_every_form(tmp_path: Path) -> None:
    study = study_of_forms(tmp_path / "s")
    judged = [
        answered(study, "p0-like", (3,), "like"),
        answered(study, "p0-best", (0, 1, 2, 3), "ranked", best=2, worst=0),
    ]
    like, ranked = csv.DictReader(io.StringIO(votes_csv(judged, widest=4)))
    assert (like["first"], like["second"], like["order"], like["answer"], like["best"]) == (
        "b",
        "",
        "first",
        "like",
        "",
    )
    assert ranked["order"] == "fourth third second first"
    assert (ranked["answer"], ranked["best"], ranked["worst"]) == ("ranked", "third", "first")
    assert [ranked[name] for name in ("first", "second", "third", "fourth")] == list("abab")

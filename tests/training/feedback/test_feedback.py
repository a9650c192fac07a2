from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seedpo.errors import ConfigError
from seedpo.study.folder import create_study, open_study
from seedpo.study.settings import Question, StudySettings
from seedpo.study.votes.store import Store
from seedpo.training.configuration import resolve_config
from seedpo.training.feedback.people import HumanFeedback
from seedpo.training.feedback.waiting import NoVotes, Wait
from seedpo.training.feedback.wiring import ensure_study
from seedpo.training.interrupt import StopRequest, TrainingInterrupted
from seedpo.training.run import train
from tests.small_runs import metrics, small
from tests.study.closed_loop import people
from tests.training.toys import cpu_accelerator

PATIENCE = 600.0 / 3600.0
"""Hours after which a test that nobody votes in fails."""


def config_of(folder: Path, **changes: Any) -> Any:
    asked = changes.pop("feedback", {})
    feedback = {"study": str(folder / "study"), "poll_seconds": 0.05, "timeout_hours": PATIENCE, **asked}
    return resolve_config("d3po", small(folder, feedback=feedback, **changes))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    ensure_study(config_of(tmp_path))
    return tmp_path / "study"


def asking(study: Path, **settings: Any) -> HumanFeedback:
    settings = {"images_per_prompt": 2, "poll_seconds": 0.02, "timeout_hours": PATIENCE, "progress": False} | settings
    return HumanFeedback(study, **settings)


def greys(*levels: float) -> Tensor:
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()


@contextmanager
def voter(study: Path, *, votes: int | None = None) -> Iterator[list[str]]:
    """A rater without a browser, who likes bright images, and calls what is nearly as bright a tie."""
    from PIL import Image

    store = Store.open(open_study(study))
    rater, _ = store.add_rater()
    shown: list[str] = []
    over = threading.Event()

    def vote() -> None:
        while not over.wait(0.01) and (votes is None or len(shown) < votes):
            show = store.turn(rater).show
            if show is None:
                continue
            group = store.study.group(show.group)
            level = [
                Image.open(store.study.image(group.candidates[one].images[0])).getpixel((0, 0))[0]  # type: ignore[index]
                for one in (show.members if store.study.question(group.question).form == "pair" else show.order)
            ]
            if store.study.question(group.question).form == "best-worst":
                best, worst = level.index(max(level)), level.index(min(level))
                store.vote(rater, show.token, "ranked", key=show.token, best=best, worst=worst)
                shown.append(show.token)
                continue
            answer = (
                "tie" if abs(level[0] - level[1]) < 10 else "left" if (level[0] > level[1]) != show.flipped else "right"
            )
            store.vote(rater, show.token, answer, key=show.token)
            shown.append(show.token)

    thread = threading.Thread(target=vote)
    thread.start()
    try:
        yield shown
    finally:
        over.set()
        thread.join()
        store.revoke(rater)  # who has left holds no place: an answer brings the next show at once
        store.close()


class TestAsking:
    def test_votes_become_preferences_and_scores(self, study: Path) -> None:
        images, prompts = greys(0.2, 0.8, 0.5, 0.5, 0.51, 0.1), ["a"] * 3 + ["b"] * 3
        with voter(study) as shown:
            feedback = asking(study, images_per_prompt=3)
            found = feedback.compare(images, prompts)
            scores = feedback(images, prompts)
        assert found.dtype == torch.float32
        assert found[0].tolist() == [[0, -1, -1], [1, 0, 1], [1, -1, 0]]
        assert found[1].tolist() == [[0, 0, 1], [0, 0, 1], [-1, -1, 0]], "nearly the same is a tie"
        assert scores.tolist() == [-1.0, 1.0, 0.0, 0.5, 0.5, -1.0]
        assert len(shown) == 6, "nobody is asked twice about the same images"
        assert len(open_study(study).groups) == 2

    def test_copies_of_an_image_are_not_compared(self, study: Path) -> None:
        with voter(study) as shown:
            found = asking(study, images_per_prompt=3).compare(greys(0.5, 0.5, 0.9), ["a"] * 3)
        assert found.tolist() == [[[0, 0, -1], [0, 0, -1], [1, 1, 0]]]
        assert len(shown) == 1
        assert not asking(study).compare(greys(0.5, 0.5), ["a"] * 2).any(), "nothing to ask, nothing to wait for"

    def test_best_and_worst_of_a_view_are_preferences_too(self, tmp_path: Path) -> None:
        config = config_of(tmp_path, trajectories={"images_per_prompt": 4}, feedback={"form": "best-worst"})
        ensure_study(config)
        with voter(tmp_path / "study") as shown:
            feedback = asking(tmp_path / "study", images_per_prompt=4, form="best-worst")
            found = feedback.compare(greys(0.2, 0.9, 0.5, 0.6, 0.4, 0.8, 0.8, 0.1), ["a"] * 4 + ["b"] * 4)
        assert found[0].tolist() == [[0, -1, -1, -1], [1, 0, 1, 1], [1, -1, 0, 0], [1, -1, 0, 0]]
        assert found[1].tolist() == [[0, -1, -1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [-1, -1, -1, 0]], "copies stay alike"
        assert len(shown) == 2, "one answer for each prompt"

    def test_more_images_than_fit_into_one_view_come_in_balanced_views(self, tmp_path: Path) -> None:
        ensure_study(config_of(tmp_path, trajectories={"images_per_prompt": 7}, feedback={"form": "best-worst"}))
        levels = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)
        with voter(tmp_path / "study") as shown:
            found = asking(tmp_path / "study", images_per_prompt=7).compare(greys(*levels), ["a"] * 7)
        assert len(shown) == 7
        assert (torch.triu(found[0], 1) <= 0).all()
        assert (found[0, 0, 1:] == -1).all()
        assert (found[0, -1, :-1] == 1).all()

    def test_another_prompt_or_image_is_asked_anew(self, study: Path) -> None:
        with voter(study) as shown:
            asking(study).compare(greys(0.1, 0.9), ["a"] * 2)
            asking(study).compare(greys(0.1, 0.9), ["b"] * 2)
            asking(study).compare(greys(0.1, 0.8), ["a"] * 2)
        assert len(shown) == 3

    def test_several_processes_may_ask_at_the_same_time(self, study: Path) -> None:
        found: dict[int, Tensor] = {}

        def ask(number: int) -> None:
            found[number] = asking(study).compare(greys(0.1, 0.9), [f"prompt {number}"] * 2)

        with voter(study):
            threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert all(found[number][0, 1, 0] == 1.0 for number in range(4))
        assert len(open_study(study).groups) == 4

    def test_gives_up_when_nobody_votes(self, study: Path) -> None:
        with pytest.raises(NoVotes, match=r"0 of 1 votes have arrived and stay; .*--resume latest"):
            asking(study, timeout_hours=0.3 / 3600).compare(greys(0.1, 0.9), ["a"] * 2)

    def test_a_signal_ends_the_wait_and_the_votes_stay(self, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nap = Wait.nap

        def interrupted(wait: Wait, stop: StopRequest) -> None:
            if wait.votes.done:
                os.kill(os.getpid(), signal.SIGINT)
            nap(wait, stop)

        images, prompts = greys(0.1, 0.9, 0.2, 0.7), ["a", "a", "b", "b"]
        with voter(study, votes=1) as shown:
            monkeypatch.setattr(Wait, "nap", interrupted)
            with pytest.raises(TrainingInterrupted, match="1 of 2 votes have arrived and stay"):
                asking(study).compare(images, prompts)
            monkeypatch.setattr(Wait, "nap", nap)
        assert len(shown) == 1
        with voter(study) as more:
            assert asking(study).compare(images, prompts)[:, 1, 0].tolist() == [1.0, 1.0]
        assert len(more) == 1, "the vote that was there counts"


class TestSettings:
    @pytest.mark.parametrize(
        ("method", "changes", "words"),
        [
            ("diffusion-dpo", {}, "draws no images.*seedpo study export"),
            ("spo", {}, "use method d3po"),
        ],
    )
    def test_what_people_cannot_judge_is_refused(self, method: str, changes: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            resolve_config(method, {"feedback": {"study": "s"}, **changes})

    def test_a_question_that_is_not_asked_is_named(self, study: Path) -> None:
        with pytest.raises(ConfigError, match=r"feedback\.question = colour: .* asks preference"):
            asking(study, question="colour")

    @pytest.mark.parametrize(
        ("form", "images", "message"),
        [
            ("best-worst", 2, "feedback.form = best-worst chooses among at least three"),
            ("single", 4, "feedback.form"),
            ("ranked", 4, "feedback.form"),
            (3, 4, "feedback.form"),
            ("", 4, "feedback.form"),
        ],
    )
    def test_a_form_that_cannot_be_asked(self, tmp_path: Path, form: object, images: int, message: str) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            ensure_study(config_of(tmp_path, trajectories={"images_per_prompt": images}, feedback={"form": form}))
        assert "\n" not in str(caught.value)

    def test_a_study_that_asks_otherwise_is_named(self, tmp_path: Path, study: Path) -> None:
        with pytest.raises(ConfigError, match=r"feedback\.form = best-worst: question preference .* has form pair"):
            asking(study, form="best-worst")
        likes = StudySettings(id="s", questions=(Question(key="like", text="?", form="single"),))
        create_study(tmp_path / "likes", likes, [], {})
        with pytest.raises(ConfigError, match="asks for likes; name one that compares"):
            asking(tmp_path / "likes")

    def test_a_folder_that_is_no_study_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "study").mkdir()
        (tmp_path / "study" / "mine.txt").write_text("mine")
        with pytest.raises(ConfigError, match="not empty"):
            ensure_study(config_of(tmp_path))
        assert (tmp_path / "study" / "mine.txt").read_text() == "mine"

    def test_a_study_is_made_once(self, study: Path, tmp_path: Path) -> None:
        before = (study / "study.yaml").read_bytes()
        ensure_study(config_of(tmp_path))
        assert (study / "study.yaml").read_bytes() == before

    def test_many_images_are_asked_about_in_a_knockout(self, tmp_path: Path) -> None:
        ensure_study(config_of(tmp_path, trajectories={"images_per_prompt": 7}))
        assert open_study(tmp_path / "study").settings.tournament == "knockout"


def trained(folder: Path, run: str, *, reference: str, **settings: Any) -> Path:
    trajectories = {"images_per_prompt": 3, "prompts_per_rollout": 1}
    # Of a round's nine pairs of steps one is left for the next, with the reference of its own round.
    size = {"max_steps": 5, "batch_size": 4} if reference == "rollout" else {"max_steps": 3, "batch_size": 9}
    config = config_of(folder, trajectories=trajectories, reference={"kind": reference}, **size)
    train(config, folder / run, accelerator=cpu_accelerator(config), progress=False, **settings)
    return folder / run


class TestRuns:
    @pytest.mark.parametrize("reference", ["frozen", pytest.param("rollout", marks=pytest.mark.slow)])
    def test_people_over_http_train_a_model_and_a_run_that_stopped_goes_on_as_if_it_had_not(
        self, tmp_path: Path, reference: str
    ) -> None:
        """One round is answered, the run is stopped while it waits in the second, and resumed."""
        stopped, whole = tmp_path / "stopped", tmp_path / "whole"
        stopped.mkdir()
        study = stopped / "study"
        ensure_study(config_of(stopped))
        settings = study / "study.yaml"
        settings.write_text(settings.read_text().replace("tasks_per_rater: null", "tasks_per_rater: 3"))

        def stop_in_the_second_round() -> None:
            end = time.monotonic() + 600
            while len(open_study(study, verify=False).groups) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)

        stopper = threading.Thread(target=stop_in_the_second_round)
        with people(study, raters=1):  # whose three votes are those of the first round
            stopper.start()
            with pytest.raises(TrainingInterrupted, match="stopped while people vote; 0 of 3 votes"):
                trained(stopped, "run", reference=reference)
            stopper.join()
        groups = open_study(study).groups
        assert len(groups) == 2
        with people(study, raters=8):
            trained(stopped, "run", reference=reference, resume="latest")
        asked = open_study(study).groups
        assert asked[:2] == groups, "the same images, bit for bit"
        assert len(asked) > 2
        whole.mkdir()
        (whole / "study").symlink_to(study)
        trained(whole, "run", reference=reference)
        assert open_study(study).groups == asked, "a second run with the same images asks nobody"
        assert metrics(stopped / "run") == metrics(whole / "run")
        weights = [folder / "run" / "adapter" / "pytorch_lora_weights.safetensors" for folder in (stopped, whole)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_truth_rises_in_the_closed_loop(tmp_path: Path) -> None:
    """504 votes in seven rounds; docs/human-feedback.md has three seeds, the least of which gains 0.2."""
    config = config_of(
        tmp_path,
        lora_rank=8,
        clip_range=None,
        beta=10.0,
        learning_rate=3e-3,
        batch_size=16,
        max_steps=20,
        evaluate_every=10,
        prompts="scenes-training",
        sampling={"num_inference_steps": 10, "guidance_scale": 3.0},
        evaluation={"num_inference_steps": 10, "guidance_scale": 3.0, "num_prompts": 16, "images_per_prompt": 4},
        trajectories={"images_per_prompt": 4, "prompts_per_rollout": 12, "steps_per_pair": 1},
    )
    ensure_study(config)
    with people(tmp_path / "study"):
        train(config, tmp_path / "run", accelerator=cpu_accelerator(config), progress=False)
    truth = [line["truth"] for line in metrics(tmp_path / "run") if line["kind"] == "evaluation"]
    assert truth[-1] > truth[0] + 0.1

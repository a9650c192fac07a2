"""The reward over a real socket: honest judges, judges without an opinion, and answers that cannot be read."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from seedpo.errors import ConfigError, DataError, RewardServerError
from seedpo.rewards.named import build_reward
from seedpo.rewards.remote.vlm.templates import load_template
from seedpo.rewards.settings import RewardDefinition, VlmSettings
from tests.rewards.remote.stand_in import as_json
from tests.rewards.remote.vlm.judge import chat, judged_by, reward_of, shown


def grays(*values: int) -> Tensor:
    """Images of one gray value each, of 0 to 255: what the judges below see."""
    return (torch.tensor(values).view(-1, 1, 1, 1) / 255.0).expand(-1, 3, 8, 8)


def gray(image: Image.Image) -> int:
    return int(np.asarray(image)[0, 0, 0])


def rating(images: list[Image.Image], words: str) -> str:
    return f"Score: {gray(images[0]) / 10:g}"


def better(images: list[Image.Image], words: str) -> str:
    first, second = map(gray, images)
    return "Better: neither" if first == second else f"Better: Image {1 if first > second else 2}"


class TestPointScores:
    def test_every_image_with_its_prompt_in_order(self) -> None:
        def judge(images: list[Image.Image], words: str) -> str:
            caption = re.search(r'Caption of the image: "(\w+)"', words)
            assert caption is not None
            return f"Score: {gray(images[0]) / 10 + {'one': 0.0, 'two': 0.5}[caption[1]]:g}"

        with judged_by(judge) as server:
            reward = reward_of(server, "score-1-10", concurrency=3)
            scores = reward(grays(90, 30, 50, 70, 20), ["one", "two", "two", "one", "one"])
            assert scores.tolist() == [9.0, 3.5, 5.5, 7.0, 2.0]
            assert scores.dtype == torch.float32
            assert server.busiest <= 3
            assert {"model", "messages", "max_tokens", "temperature", "seed"} == set(server.posts()[0])

    def test_pil_images_of_different_sizes(self) -> None:
        images = [Image.new("RGB", (16, 8), (80,) * 3), Image.new("RGB", (9, 9), (30,) * 3)]
        with judged_by(rating) as server:
            assert reward_of(server, "score-1-10")(images, ["a", "b"]).tolist() == [8.0, 3.0]

    def test_large_images_are_made_smaller_in_their_proportions(self) -> None:
        seen = []

        def judge(images: list[Image.Image], words: str) -> str:
            seen.append(images[0].size)
            return "Score: 5"

        with judged_by(judge) as server:
            reward_of(server, "score-1-10", max_side=32)(
                [Image.new("RGB", (64, 16)), Image.new("RGB", (32, 20))], ["a", "b"]
            )
        assert sorted(seen) == [(32, 8), (32, 20)]

    def test_an_aspect(self) -> None:
        text = "Alignment Score (1-5): 4.5\nCoherence Score (1-5): 2.0\nStyle Score (1-5): 1.0"
        with judged_by(lambda images, words: text) as server:
            assert reward_of(server, "unified-reward-2")(grays(1), ["a"]).tolist() == [2.5]
            assert reward_of(server, "unified-reward-2", aspect="alignment")(grays(1), ["a"]).tolist() == [4.5]


class TestYesOrNo:
    def test_log_odds(self) -> None:
        def judge(images: list[Image.Image], words: str) -> Any:
            share = gray(images[0]) / 255
            return chat("Yes", {"Yes": 0.9 * share, " yes": 0.1 * share, "No": 1 - share})

        with judged_by(judge) as server:
            scores = reward_of(server, "yes-no")(grays(51, 204), ["a", "b"])
            assert scores.tolist() == pytest.approx([np.log(0.2 / 0.8), np.log(0.8 / 0.2)], rel=1e-6)
            body = server.posts()[0]
            assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)

    def test_a_server_without_logprobs(self) -> None:
        with judged_by(lambda images, words: "Yes") as server:
            with pytest.raises(RewardServerError, match="hold no logprobs, which the template yes-no needs; serve"):
                reward_of(server, "yes-no")(grays(1), ["a"])

    def test_neither_yes_nor_no(self) -> None:
        with judged_by(lambda images, words: chat("Maybe", {"Maybe": 0.9, "Perhaps": 0.1})) as server:
            reward = reward_of(server, "yes-no")
            with pytest.raises(
                RewardServerError, match=r"1 of 1 answers cannot be read \(1 x neither yes nor no among"
            ):
                reward(grays(1), ["a"])
            assert len(server.posts()) == 1  # the probabilities would be the same

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (chat("<think>", {"<think>": 0.98, "Yes": 0.002, "No": 0.001}), "empty"),
            (chat(" ", {" ": 0.98, "Yes": 0.01}), "empty"),
            (chat("The", {"The": 0.98, "Yes": 0.004, "No": 0.001}), "neither yes nor no among"),
            (chat("Yes", {"Yes": 0.9, "No": 0.1}, message={"refusal": "I must not"}), "refused"),
            (chat("Yes", {"Yes": 0.9, "No": 0.1}, finish_reason="content_filter"), "refused"),
        ],
    )
    def test_what_is_about_to_say_something_else_is_no_answer(self, answer: Any, reason: str) -> None:
        with judged_by(lambda images, words: answer) as server:
            with pytest.raises(RewardServerError, match=rf"1 of 1 answers cannot be read \(1 x {reason}"):
                reward_of(server, "yes-no")(grays(1), ["a"])

    def test_probabilities_of_more_than_one(self) -> None:
        with judged_by(lambda images, words: chat("Yes", {"Yes": 0.9, "No": 0.9})) as server:
            with pytest.raises(RewardServerError, match="the probabilities of its logprobs have a sum above 1"):
                reward_of(server, "yes-no")(grays(1), ["a"])

    @pytest.mark.parametrize("logprob", [0.5, float("nan"), "-1", None, True])
    def test_logprobs_that_are_none(self, logprob: Any) -> None:
        def judge(images: list[Image.Image], words: str) -> Any:
            answer = chat("Yes", {"Yes": 0.9})
            answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = logprob
            return answer

        with judged_by(judge) as server:
            with pytest.raises(RewardServerError, match=r"logprob|no JSON"):
                reward_of(server, "yes-no")(grays(1), ["a"])


class TestPairs:
    def test_shares_of_wins(self) -> None:
        prompts = ["a", "b", "a", "b", "a"]
        with judged_by(better) as server:
            scores = reward_of(server, "pair")(grays(10, 30, 20, 30, 15), prompts)
            assert scores.tolist() == [0.0, 0.5, 1.0, 0.5, 0.5]
            assert len(server.posts()) == 3 * 2 + 1  # equal images look the same in both orders
        assert load_template("pair").text.count("{image}") == 2

    @pytest.mark.parametrize("place", [1, 2])
    def test_a_judge_who_always_names_the_same_place(self, place: int) -> None:
        with judged_by(lambda images, words: f"Better: Image {place}") as server:
            assert reward_of(server, "pair")(grays(10, 20, 30), ["a"] * 3).tolist() == [0.5] * 3

    def test_an_image_alone(self) -> None:
        with judged_by(better) as server:
            with pytest.raises(
                DataError, match="reward judge: this template compares images of one prompt, and image 2"
            ):
                reward_of(server, "pair")(grays(1, 2, 3), ["a", "a", "b"])
            assert not server.posts()

    def test_a_pair_that_is_not_answered_is_left_out(self, caplog: pytest.LogCaptureFixture) -> None:
        def judge(images: list[Image.Image], words: str) -> str:
            return "I cannot say." if {gray(image) for image in images} == {10, 20} else better(images, words)

        with judged_by(judge) as server, caplog.at_level(logging.WARNING):
            scores = reward_of(server, "pair", unanswered="mean", most_unanswered=0.5)(grays(10, 20, 30), ["a"] * 3)
            assert scores.tolist() == [0.0, 0.0, 1.0]
        assert "2 of 6 answers cannot be read (2 x refused)" in caplog.text


class TestChecklists:
    def test_soft_tifa_with_questions_of_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "questions.jsonl"
        file.write_text(
            '{"prompt": "two cups", "vqa_list": [["How many cups?", "two"], ["Any cups?", "Yes"]]}\n', encoding="utf-8"
        )

        def judge(images: list[Image.Image], words: str) -> Any:
            right = {"How many cups? Answer in one word.": {"2": 0.3, "Two": 0.2, "many": 0.4}}
            return chat("x", right.get(words, {"Yes": 0.8, "No": 0.1}))

        with judged_by(judge) as server:
            reward = reward_of(server, "geneval2", questions=str(file))
            assert reward(grays(1), ["two cups"]).tolist() == pytest.approx([(0.5 * 0.8) ** 0.5])
            mean = reward_of(server, "geneval2", questions=str(file), aspect="mean")
            assert mean(grays(1), ["two cups"]).tolist() == pytest.approx([0.65])
            with pytest.raises(DataError, match="reward judge: there are no questions for the prompt 'a dog'"):
                reward(grays(1), ["a dog"])

    def test_keys_that_do_not_fit(self) -> None:
        with judged_by(rating) as server:
            for keys, message in [
                ({"template": "geneval2"}, "asks about each prompt; name their set or file with the key questions"),
                ({"template": "yes-no", "questions": "q.jsonl"}, "leave out the key questions"),
                ({"template": "yes-no", "aspect": "style"}, "the template has no aspects"),
                ({"template": "nope"}, "reward judge: unknown template 'nope'"),
            ]:
                with pytest.raises(ConfigError, match=message):
                    reward_of(server, **keys)


def sometimes(bad: Any, *, below: int) -> Any:
    """A judge who gives ``bad`` in place of a rating for images darker than a value."""
    return lambda images, words: bad if gray(images[0]) < below else rating(images, words)


class TestAnswersThatCannotBeRead:
    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            ("I'm sorry, I can't help with that.", "refused"),
            (chat(None, message={"refusal": "no"}), "refused"),
            (chat("Score: 9", finish_reason="content_filter"), "refused"),
            (chat(None), "empty"),
            (chat("Let me think", finish_reason="length"), "cut off"),
            (chat("<think>It looks like Score: 9 to me", finish_reason="length"), "cut off"),
            ("A fine image.", "no number"),
            ("Score: 3. No, Score: 4", "several numbers"),
            ("For the prompt 'a, score: 9', score: 9", "a number that the prompt states"),
            ("<thinking>Score: 9", "empty"),
            ("<think>a</think>So <THINK >Score: 9", "no number"),
            (chat("Score: 1", finish_reason="length"), "cut off"),
            (chat(None, message={"tool_calls": [{"function": {"name": "rate"}}]}, finish_reason="tool_calls"), "empty"),
            ("Score: 1000", "number out of range"),
            ("Score: \uff19", "no number"),
            ("x" * 200_000, "too long"),
        ],
    )
    def test_each_is_counted_by_its_reason_and_ends_the_run(self, answer: Any, reason: str) -> None:
        with judged_by(sometimes(answer, below=20)) as server:
            reward = reward_of(server, "score-1-10")
            with pytest.raises(
                RewardServerError, match=rf"1 of 2 answers cannot be read \(1 x {reason}\), 1 of 2 so far"
            ):
                reward(grays(10, 50), ["a, score: 9", "b"])
            assert reward.unanswered == {reason: 1}
            assert len(server.posts()) == 2 + 2  # asked again twice
            again = server.posts()[2:]
            assert [(body["seed"], body["temperature"]) for body in again] == [(1, 0.7), (2, 0.7)]

    def test_the_error_is_one_line_with_an_example(self) -> None:
        with judged_by(lambda images, words: "No \n number " * 50) as server:
            with pytest.raises(RewardServerError) as caught:
                reward_of(server, "score-1-10", ask_again=0)(grays(10), ["a"])
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"reward judge at {server.url}: 1 of 1 answers cannot be read (1 x no number)")
        (example,) = re.findall(r"for example '([^']*)'", message)
        assert len(example) == 80
        assert f"for example '{example}', image 0, prompt 'a'; check" in message

    def test_asking_again_can_help(self) -> None:
        answers = iter(["Hm.", "Hm.", "Score: 6"])
        with judged_by(lambda images, words: next(answers)) as server:
            reward = reward_of(server, "score-1-10")
            assert reward(grays(1), ["a"]).tolist() == [6.0]
            assert not reward.unanswered

    def test_the_lowest_and_the_mean_of_the_others(self, caplog: pytest.LogCaptureFixture) -> None:
        prompts = ["a", "a", "a", "b"]
        with judged_by(sometimes("I can't judge this.", below=20)) as server:
            for unanswered, filled in (("lowest", 3.0), ("mean", 6.0)):
                reward = reward_of(server, "score-1-10", unanswered=unanswered)
                with caplog.at_level(logging.WARNING):
                    assert reward(grays(10, 30, 90, 20), prompts).tolist() == [filled, 3.0, 9.0, 2.0]
                assert f"1 images take the {unanswered} of the others" in caplog.text
            alone = reward_of(server, "score-1-10", unanswered="mean")
            assert alone(grays(10, 30, 50), ["a", "b", "c"]).tolist() == [4.0, 3.0, 5.0]

    def test_two_images_of_which_one_is_not_judged_are_equal(self) -> None:
        with judged_by(sometimes("?", below=20)) as server:
            scores = reward_of(server, "score-1-10", unanswered="mean")(grays(10, 30), ["a", "a"])
            assert scores[0] == scores[1]

    def test_too_many_end_the_run_all_the_same(self) -> None:
        with judged_by(sometimes("?", below=20)) as server:
            reward = reward_of(server, "score-1-10", unanswered="lowest", ask_again=0)
            reward(grays(*[10] * 1, *range(30, 60)), ["a"] * 31)
            with pytest.raises(
                RewardServerError, match=r"6 of 7 answers .* 7 of 38 so far.*more than most_unanswered = 0.1"
            ):
                reward(grays(*range(10, 16), 50), ["a"] * 7)
            with pytest.raises(RewardServerError, match="so that no image has a score"):
                reward_of(server, "score-1-10", unanswered="lowest")(grays(1), ["a"])


class TestServersThatAreNoSuchServers:
    @pytest.mark.parametrize(
        "reply",
        [{}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 5}}]}, {"choices": {"a": 1}}],
    )
    def test_what_is_no_chat_completion(self, reply: Any) -> None:
        with judged_by(lambda images, words: reply) as server:
            with pytest.raises(RewardServerError, match=r"its answer cannot be used: .*check that it serves chats"):
                reward_of(server, "score-1-10")(grays(1), ["a"])

    def test_an_error_of_the_server(self) -> None:
        error = {"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}}
        with judged_by(lambda images, words: as_json(error, 404)) as server:
            with pytest.raises(RewardServerError, match="answered 404: The model `m` does not exist"):
                reward_of(server, "score-1-10")(grays(1), ["a"])

    def test_a_server_that_is_too_slow(self) -> None:
        def judge(images: list[Image.Image], words: str) -> str:
            time.sleep(2.0)
            return "Score: 5"

        with judged_by(judge) as server:
            with pytest.raises(RewardServerError, match=r"no whole answer within 0.2 s"):
                reward_of(server, "score-1-10", timeout=0.2, retries=0)(grays(1), ["a"])


class TestCache:
    def test_answers_are_kept_by_all_that_they_depend_on(self, tmp_path: Path) -> None:
        cache = str(tmp_path / "scores.sqlite")
        with judged_by(sometimes("?", below=20)) as server:
            for keys, asked in [
                ({}, 2),
                ({}, 0),
                ({"concurrency": 1}, 0),
                ({"seed": 1}, 2),
                ({"model": "n"}, 2),
                ({"template": "hpsv3-like"}, 2),
                ({"max_side": 64}, 2),
            ]:
                before = len(server.posts())
                reward = reward_of(server, **{"template": "score-1-10", "cache": cache, **keys})
                assert reward(grays(30, 70), ["a", "b"]).tolist() == [3.0, 7.0]
                assert len(server.posts()) - before == asked, keys
            reward_of(server, "score-1-10", cache=cache)(grays(30), ["another"])
            assert len(server.posts()) == 2 * 5 + 1

    def test_what_cannot_be_read_is_not_kept(self, tmp_path: Path) -> None:
        answers = iter(["?", "Score: 5"])
        with judged_by(lambda images, words: next(answers)) as server:
            reward = reward_of(server, "score-1-10", cache=str(tmp_path / "scores.sqlite"), ask_again=0)
            with pytest.raises(RewardServerError):
                reward(grays(1), ["a"])
            assert reward(grays(1), ["a"]).tolist() == [5.0]

    def test_equal_images_of_a_prompt_are_asked_about_once(self) -> None:
        with judged_by(rating) as server:
            assert reward_of(server, "score-1-10")(grays(30, 30, 40), ["a", "a", "a"]).tolist() == [3.0, 3.0, 4.0]
            assert len(server.posts()) == 2


class TestAsANamedReward:
    def test_by_its_definition_and_in_a_sum(self) -> None:
        with judged_by(rating) as server:
            definitions = {
                "judge": RewardDefinition(vlm=VlmSettings(url=server.url, model="m", template="score-1-10")),
                "mix": RewardDefinition.model_validate({"terms": {"judge": 2.0, "jpeg-compressibility": 0.0}}),
            }
            assert build_reward("judge", definitions=definitions)(grays(30), ["a"]).tolist() == [3.0]
            assert build_reward("mix", definitions=definitions)(grays(30), ["a"]).tolist() == [6.0]
            assert build_reward("judge", definitions=definitions).step_blind == ("judge",)
            assert (
                build_reward("judge", definitions=definitions).reward
                is build_reward("judge", definitions=definitions).reward
            )

    def test_a_key_is_sent_and_shown_nowhere(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("JUDGE_KEY", "secret-7")
        with judged_by(lambda images, words: "secret-7?") as server, caplog.at_level(logging.DEBUG):
            with pytest.raises(RewardServerError) as caught:
                reward_of(server, "score-1-10", key_env="JUDGE_KEY", ask_again=0)(grays(1), ["a"])
            keys = {"key_env": "JUDGE_KEY", "unanswered": "mean", "most_unanswered": 1.0, "ask_again": 0}
            server.answer = lambda method, path, body: as_json(
                chat(rating(shown(body), "") if gray(shown(body)[0]) else "secret-7?")
            )
            reward_of(server, "score-1-10", **keys)(grays(0, 50), ["a", "a"])
            assert server.asked[0][2].get("authorization") == "Bearer secret-7"
        assert "for example '***?'" in caplog.text
        assert "secret-7" not in str(caught.value) + caplog.text

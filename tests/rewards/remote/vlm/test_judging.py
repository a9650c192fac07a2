"""What is asked, and what scores follow: against plain numpy, and with judges that have no opinion."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import gmean

from seedpo.errors import ConfigError, DataError
from seedpo.rewards.remote.vlm.answers import NEITHER, Answer, Unanswered
from seedpo.rewards.remote.vlm.judging import asks_of, reader_of, scores_of, total_of, win_shares, words_of
from seedpo.rewards.remote.vlm.templates import ChecklistTemplate, Question, load_template

PAIR, YES_NO, VISION, GENEVAL = (load_template(name) for name in ("pair", "yes-no", "vision-reward", "geneval2"))


class TestPairs:
    def test_every_two_images_of_a_prompt_are_asked_about_in_both_orders(self) -> None:
        asks = asks_of(PAIR, ["a", "b", "a", "b", "a"])
        assert sorted(ask.rows for ask in asks) == [(0, 2), (0, 4), (1, 3), (2, 0), (2, 4), (3, 1), (4, 0), (4, 2)]
        assert all(ask.prompt == "ab"[ask.rows[0] % 2] for ask in asks)

    def test_an_image_alone_is_an_error(self) -> None:
        with pytest.raises(DataError, match="image 2 of the batch is the only one of 'b'; draw several per prompt"):
            asks_of(PAIR, ["a", "a", "b"])

    @pytest.mark.parametrize("verdict", [1.0, -1.0])
    def test_a_judge_who_always_names_the_same_place_gives_ties_alone(self, verdict: float) -> None:
        prompts = ["a"] * 4 + ["b"] * 3
        asks = asks_of(PAIR, prompts)
        assert scores_of(PAIR, prompts, asks, [verdict] * len(asks), aspect=None) == [0.5] * 7

    @pytest.mark.parametrize("seed", range(10))
    def test_a_judge_who_agrees_with_himself(self, seed: int) -> None:
        quality = np.random.default_rng(seed).integers(0, 4, size=6)
        verdicts = {(a, b): float(np.sign(quality[a] - quality[b])) for a in range(6) for b in range(6) if a != b}
        expected = [
            np.mean([(1 + np.sign(mine - other)) / 2 for place, other in enumerate(quality) if place != row])
            for row, mine in enumerate(quality)
        ]
        assert win_shares(6, verdicts) == pytest.approx(expected)

    @pytest.mark.parametrize("seed", range(10))
    def test_any_judge(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        options = [1.0, 0.0, -1.0, None]
        verdicts = {(a, b): options[random.integers(4)] for a in range(5) for b in range(5) if a != b}
        points: list[list[float]] = [[] for _ in range(5)]
        for a, b in combinations(range(5), 2):
            forth, back = verdicts[a, b], verdicts[b, a]
            if forth is None or back is None:
                continue
            if (forth, back) == (1.0, -1.0):
                points[a].append(1.0), points[b].append(0.0)
            elif (forth, back) == (-1.0, 1.0):
                points[a].append(0.0), points[b].append(1.0)
            else:
                points[a].append(0.5), points[b].append(0.5)
        expected = [np.mean(some) if some else None for some in points]
        assert win_shares(5, verdicts) == expected

    def test_an_image_none_of_whose_pairs_is_answered(self) -> None:
        verdicts = {(0, 1): 1.0, (1, 0): -1.0, (0, 2): None, (2, 0): 1.0, (1, 2): 0.0, (2, 1): None}
        assert win_shares(3, verdicts) == [1.0, 0.0, None]


class TestYesOrNo:
    def test_log_odds_and_probability(self) -> None:
        answer = Answer("Yes", tokens=[("Yes", np.log(0.6)), ("No", np.log(0.2)), (" yes", np.log(0.1))])
        (ask,) = asks_of(YES_NO, ["a"])
        assert reader_of(YES_NO, None)(answer, ask) == pytest.approx(np.log(3.5))
        probability = YES_NO.model_copy(update={"score": "probability"})
        assert reader_of(probability, None)(answer, ask) == pytest.approx(0.7 / 0.9)

    def test_neither_is_no_answer(self) -> None:
        (ask,) = asks_of(YES_NO, ["a"])
        value = reader_of(YES_NO, None)(Answer("Perhaps", tokens=[("Perhaps", -0.1)]), ask)
        assert value == Unanswered(NEITHER, "Perhaps")


def vision_reward(alignment: float, answers: np.ndarray) -> float:
    """As the authors' inference-image.py computes it: signs, masks, and a dot product with the 28 weights."""
    weights = [question.weight for question in VISION.questions if question.weight]  # type: ignore[union-attr]
    signs = np.where(answers, 1, -1)
    for mask, places in {0: [22, 23, 24, 28, 29], 1: [25, 26], 2: [27]}.items():
        signs[places] *= int(signs[mask] > 0)
    return float(np.dot([alignment, *signs[3:]], weights))


class TestChecklists:
    def test_vision_reward(self) -> None:
        asks = asks_of(VISION, ['a "red" cup'])
        assert len(asks) == 31
        assert asks[0].question == 'Does this figure show "a "red" cup"?'
        for seed in range(20):
            random = np.random.default_rng(seed)
            alignment, answers = random.uniform(), random.integers(0, 2, size=30).astype(bool)
            right = [alignment, *np.where(answers, random.uniform(0.51, 1, 30), random.uniform(0, 0.49, 30))]
            (score,) = scores_of(VISION, ["a"], asks_of(VISION, ["a"]), right, aspect=None)
            assert score == pytest.approx(vision_reward(alignment, answers), rel=1e-12)

    def test_soft_tifa(self) -> None:
        assert isinstance(GENEVAL, ChecklistTemplate)
        questions = {
            "three red cups": [Question(text="How many cups?", answer="three"), Question(text="Are they red?")],
            "a dog": [Question(text="Is there a dog?", answer="Yes")],
        }
        prompts = ["a dog", "three red cups"]
        asks = asks_of(GENEVAL, prompts, questions)
        assert [(ask.rows, ask.question) for ask in asks] == [
            ((0,), "Is there a dog?"),
            ((1,), "How many cups?"),
            ((1,), "Are they red?"),
        ]
        read = reader_of(GENEVAL, None)
        tokens = [("three", np.log(0.5)), ("3", np.log(0.2)), ("Three", np.log(0.1)), ("Yes", np.log(0.05))]
        values = [read(Answer("three", tokens=tokens), ask) for ask in asks]
        assert values == pytest.approx([0.05, 0.8, 0.05])  # of all tokens, not of yes and no
        given = [0.9, 0.3, 0.6]
        expected = [0.9, float(gmean([0.3, 0.6]))]
        assert scores_of(GENEVAL, prompts, asks, given, aspect=None, questions=questions) == pytest.approx(expected)
        mean = scores_of(GENEVAL, prompts, asks, given, aspect="mean", questions=questions)
        assert mean == pytest.approx([0.9, 0.45])
        with pytest.raises(DataError, match="there are no questions for the prompt 'a cat'"):
            asks_of(GENEVAL, ["a cat"], questions)
        with pytest.raises(ConfigError, match="name a set or file with those of your prompts as `questions`"):
            asks_of(GENEVAL, ["a cat"])

    def test_a_missing_answer_is_a_missing_score(self) -> None:
        asks = asks_of(VISION, ["a", "b"])
        values = [0.5] * 31 + [0.5] * 30 + [None]
        scores = scores_of(VISION, ["a", "b"], asks, values, aspect=None)
        assert scores[0] is not None
        assert scores[1] is None

    def test_weights(self) -> None:
        questions = [Question(text="a", weight=2.0), Question(text="b", weight=1.0), Question(text="c", answer="no")]
        assert total_of(questions, [0.5, 0.2, 0.3], "sum") == pytest.approx(1.5)
        assert total_of(questions, [0.5, 0.2, 0.3], "mean") == pytest.approx(1.5 / 4)
        assert total_of(questions, [0.5, 0.2, 0.3], "geometric-mean") == pytest.approx((0.25 * 0.2 * 0.3) ** 0.25)

    def test_a_question_whose_right_answer_is_no(self) -> None:
        template = load_template("vision-reward").model_copy(
            update={"questions": (Question(text="Is it blurred?", answer="no"),)}
        )
        (ask,) = asks_of(template, ["a"])
        tokens = [("No", np.log(0.75)), ("Yes", np.log(0.25))]
        assert reader_of(template, None)(Answer("No", tokens=tokens), ask) == pytest.approx(0.75)

    def test_numbers_in_words_and_digits(self) -> None:
        assert words_of("Three") == ("three", "3")
        assert words_of("Yes") == ("yes",)
        assert words_of("eleven") == ("eleven",)

    def test_questions_that_need_others(self) -> None:
        """A cat that is not there is not black, and what is not there does not sit on the black cat either."""
        questions = [Question(text="a cat?"), Question(text="black?", needs=(0,)), Question(text="on it?", needs=(1,))]
        for right, mean in [
            ((0.9, 0.8, 0.7), 0.8),
            ((0.9, 0.3, 0.7), 0.4),
            ((0.3, 0.8, 0.7), 0.1),
            ((0.5, 0.8, 0.7), 0.5 / 3),
        ]:
            assert total_of(questions, right, "mean") == pytest.approx(mean)

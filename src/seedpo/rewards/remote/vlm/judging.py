"""From images to what is asked about them, and from the answers to scores; nothing is sent here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

from seedpo.data.text import shown
from seedpo.errors import ConfigError, DataError
from seedpo.rewards.remote.vlm.answers import EMPTY, NEITHER, REFUSAL, Answer, Unanswered
from seedpo.rewards.remote.vlm.messages import filled, harmless
from seedpo.rewards.remote.vlm.probabilities import log_odds, probability
from seedpo.rewards.remote.vlm.reading import read_pair, read_point
from seedpo.rewards.remote.vlm.templates import (
    GEOMETRIC,
    SUM,
    ChecklistTemplate,
    PairTemplate,
    PointTemplate,
    Question,
    Template,
    Total,
    YesNoTemplate,
)

Questions = Mapping[str, Sequence[Question]]
"""The questions of each prompt."""

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Ask:
    """One question to the model.

    Attributes:
        rows: of the images that are shown, in their order.
        prompt: of the images.
        question: of a checklist, as it is asked.
        answer: of a checklist, the right answer.
    """

    rows: tuple[int, ...]
    prompt: str
    question: str = ""
    answer: str = ""

    def __str__(self) -> str:
        images = f"image{'s' if len(self.rows) > 1 else ''} {' and '.join(map(str, self.rows))}"
        question = f", question {shown(self.question)}" if self.question else ""
        return f"{images}, prompt {shown(self.prompt)}{question}"


def asks_of(template: Template, prompts: Sequence[str], questions: Questions | None = None) -> list[Ask]:
    """Everything that is asked about images with their prompts.

    Raises:
        ConfigError: if a checklist has no questions.
        DataError: if images are compared and a prompt has only one, or if there are no questions for a prompt.
    """
    if isinstance(template, PairTemplate):
        return [Ask((a, b), prompts[a]) for rows in groups_of(prompts) for a, b in permutations(rows, 2)]
    if not isinstance(template, ChecklistTemplate):
        return [Ask((row,), prompt) for row, prompt in enumerate(prompts)]
    return [
        Ask((row,), prompt, filled(question.text, prompt=harmless(prompt)), question.answer)
        for row, prompt in enumerate(prompts)
        for question in questions_for(template, prompt, questions)
    ]


def groups_of(prompts: Sequence[str]) -> list[list[int]]:
    """Rows of equal prompts.

    Raises:
        DataError: if one is alone.
    """
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    alone = [rows[0] for rows in groups.values() if len(rows) == 1]
    if alone:
        raise DataError(
            f"this template compares images of one prompt, and image {alone[0]} of the batch is the only one of "
            f"{prompts[alone[0]]!r}; draw several per prompt and score them together, or take another template"
        )
    return list(groups.values())


def questions_for(template: ChecklistTemplate, prompt: str, questions: Questions | None) -> Sequence[Question]:
    """The questions of a checklist for a prompt.

    Raises:
        ConfigError: if there are none at all.
        DataError: if there are none for this prompt.
    """
    if template.questions:
        return template.questions
    if questions is None:
        raise ConfigError(
            "this template has no questions of its own; name a set or file with those of your prompts as `questions`"
        )
    if prompt not in questions:
        raise DataError(
            f"there are no questions for the prompt {prompt!r}; add it to their file, or score other prompts"
        )
    return questions[prompt]


def reader_of(template: Template, aspect: str | None) -> Callable[[Answer, Ask], float | Unanswered]:
    """What reads the value of an answer: a score, a verdict (1, 0, -1), or a checklist's probability."""

    def of_tokens(answer: Answer, value: float | None) -> float | Unanswered:
        return Unanswered(NEITHER, answer.text) if value is None else value

    def read(answer: Answer, ask: Ask) -> float | Unanswered:
        if isinstance(template, PointTemplate):
            return read_point(answer, template, aspect=aspect, prompt=ask.prompt)
        if isinstance(template, PairTemplate):
            return read_pair(answer, template, aspect=aspect, prompt=ask.prompt)
        if answer.tokens is None or answer.refused or not answer.text:
            return Unanswered(REFUSAL if answer.refused else EMPTY, answer.text)
        tokens = answer.tokens
        if isinstance(template, YesNoTemplate):
            odds = log_odds(tokens, template.yes_words, template.no_words)
            return of_tokens(answer, _sigmoid(odds) if odds is not None and template.score == "probability" else odds)
        if template.among == "all":
            return probability(tokens, words_of(ask.answer))
        odds = log_odds(tokens, ("yes",), ("no",))
        wanted = odds if odds is None or ask.answer.casefold() == "yes" else -odds
        return of_tokens(answer, None if wanted is None else _sigmoid(wanted))

    return read


def reads_tokens(template: Template) -> bool:
    """Whether probabilities of the first token are needed, so that asking again changes nothing."""
    return isinstance(template, YesNoTemplate | ChecklistTemplate)


def words_of(answer: str) -> tuple[str, ...]:
    """What stands for an answer: the word, and of a number from zero to ten its digits, too."""
    word = answer.casefold()
    return (word, str(_WORDS.index(word))) if word in _WORDS else (word,)


def scores_of(
    template: Template,
    prompts: Sequence[str],
    asks: Sequence[Ask],
    values: Sequence[float | None],
    *,
    aspect: str | None,
    questions: Questions | None = None,
) -> list[float | None]:
    """A score for each image; ``None`` where an answer that it needs is missing.

    Args:
        template: what was asked.
        prompts: of the images.
        asks: of :func:`asks_of`.
        values: of the answers to them; ``None`` where there is none.
        aspect: of a checklist, what is made of the answers in place of the template's total.
        questions: of the prompts.
    """
    if isinstance(template, PairTemplate):
        verdicts = {(ask.rows[0], ask.rows[1]): value for ask, value in zip(asks, values, strict=True)}
        return win_shares(len(prompts), verdicts)
    by_row: dict[int, list[float | None]] = {row: [] for row in range(len(prompts))}
    for ask, value in zip(asks, values, strict=True):
        by_row[ask.rows[0]].append(value)
    scores: list[float | None] = []
    for row, prompt in enumerate(prompts):
        given = [value for value in by_row[row] if value is not None]
        if len(given) < len(by_row[row]):
            scores.append(None)
        elif isinstance(template, ChecklistTemplate):
            total: Total = template.total if aspect is None else aspect  # type: ignore[assignment]
            scores.append(total_of(questions_for(template, prompt, questions), given, total))
        else:
            scores.append(given[0])
    return scores


def win_shares(count: int, verdicts: Mapping[tuple[int, int], float | None]) -> list[float | None]:
    """Mean outcome of each image against the others of its prompt: 1 if it is better, 1/2 for a tie, 0 if it is worse.

    An image is better only if it is in both orders; where the orders disagree, neither is.

    Args:
        count: number of images.
        verdicts: of each ordered pair, shown first and second: 1 if the first is better, -1 if the second is, else 0;
            ``None`` if the answer is missing, which leaves out the pair.

    Returns:
        In [0, 1]; ``None`` for an image none of whose pairs is answered.
    """
    outcomes: list[list[float]] = [[] for _ in range(count)]
    for (first, second), verdict in verdicts.items():
        other = verdicts[second, first]
        if first < second and verdict is not None and other is not None:
            won = 0.5 if verdict != -other or verdict == 0.0 else (1.0 + verdict) / 2.0
            outcomes[first].append(won)
            outcomes[second].append(1.0 - won)
    return [math.fsum(won) / len(won) if won else None for won in outcomes]


def total_of(questions: Sequence[Question], probabilities: Sequence[float], total: Total) -> float:
    """What a checklist makes of the probabilities of the right answers.

    A question is worth 0 if one that it needs is answered wrongly, or is itself worth 0 for that reason. With values
    v_i and weights w_i: ``sum`` is sum_i w_i v_i, ``mean`` is that divided by sum_i w_i, and
    ``geometric-mean`` is the product of v_i^(w_i / sum_j w_j).
    """

    @cache
    def applies(place: int) -> bool:
        return all(probabilities[needed] > 0.5 and applies(needed) for needed in questions[place].needs)

    values = [
        _value(question, right) if applies(place) else 0.0
        for place, (question, right) in enumerate(zip(questions, probabilities, strict=True))
    ]
    weights = [question.weight for question in questions]
    if total == GEOMETRIC:
        if min(values) <= 0.0:
            return 0.0
        logs = [weight * math.log(value) for weight, value in zip(weights, values, strict=True)]
        return math.exp(math.fsum(logs) / math.fsum(weights))
    weighted = math.fsum(weight * value for weight, value in zip(weights, values, strict=True))
    return weighted if total == SUM else weighted / math.fsum(weights)


def _value(question: Question, right: float) -> float:
    return right if question.value == "probability" else 1.0 if right > 0.5 else -1.0


def _sigmoid(odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-odds)) if odds >= 0.0 else math.exp(odds) / (1.0 + math.exp(odds))
